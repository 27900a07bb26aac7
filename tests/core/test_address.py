"""Addresses: what people write, what it means, and what is refused with a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.errors import SettingsError
from cmapp.net.address import (
    ANY,
    CID_ANY,
    DEFAULT_PORT,
    Address,
    is_host_name,
    is_ip_address,
    parse_address,
    parse_guest,
    parse_listen_address,
)

if TYPE_CHECKING:
    from collections.abc import Callable

MEANINGS = {
    "vm1": Address("vm1", 5315),
    "vm1:17": Address("vm1", 17),
    "VM-1.example.org": Address("VM-1.example.org", 5315),
    "db_7.example.org:65535": Address("db_7.example.org", 65535),
    "192.0.2.7": Address("192.0.2.7", 5315),
    "192.0.2.7:5316": Address("192.0.2.7", 5316),
    "2001:db8::1": Address("2001:db8::1", 5315),
    "::1": Address("::1", 5315),
    "[2001:db8::1]": Address("2001:db8::1", 5315),
    "[2001:db8::1]:1": Address("2001:db8::1", 1),
    "[fe80::1%eth0]:5315": Address("fe80::1%eth0", 5315),
    "vsock:3:5316": Address("vsock:3", 5316),
    "vsock:3": Address("vsock:3", 5315),
    "vsock:4294967294:4294967294": Address("vsock:4294967294", 4294967294),
    "vsock:host:17": Address("vsock:2", 17),
    "vsock:local": Address("vsock:1", 5315),
}
LISTENING = {
    ":5315": Address(ANY, 5315),
    "*:5316": Address(ANY, 5316),
    "*": Address(ANY, 5315),
    "[::]:5315": Address("::", 5315),
    "0.0.0.0:0": Address("0.0.0.0", 0),  # noqa: S104 - what a user may ask for
    "localhost": Address("localhost", 5315),
    "vsock:*:5316": Address("vsock:*", 5316),
    "vsock:any": Address("vsock:*", 5315),
    "vsock:3:0": Address("vsock:3", 0),
}
# Neither to connect to nor to listen on.
WRONG = [
    "",
    ":",
    "vm1:",
    "vm1:x",
    "vm1:-1",
    "vm1:+5",
    "vm1:65536",
    "vm1:" + 5000 * "9",
    "vm1:٣",  # a digit that int() would take
    " vm1",
    "vm1 ",
    "vm1\n",
    "vm 1",
    "vm1/x",
    "-vm1",
    ".vm1",
    "vm1.",
    "vm1..example",
    "*.example.org",
    64 * "a",
    128 * "a.",
    "münchen",
    "5315",
    "1.2.3",
    "300.1.1.1",
    "192.0.2.7%eth0",
    "1:2:3",
    "[vm1]:5315",
    "[192.0.2.7]:5315",
    "[2001:db8::1",
    "[2001:db8::1]5315",
    "[2001:db8::1]:",
    "[]:5315",
    "2001:db8::1]",
    "fe80::1%",
    "fe80::1%eth0 x",
    "vsock",
    "vsock:",
    "vsock::5315",
    "vsock:x:5315",
    "vsock:-1:5315",
    "vsock:3:",
    "vsock:3:x",
    "vsock:3:4294967295",
    "vsock:3:5315:1",
    "vsock:٣:5315",
    "vsock:4294967295:5315",
    "vsock:4294967296:5315",
    "vsock:" + 5000 * "9",
    "vsock: 3:5315",
    "VSOCK:3:5315",
    "vm1\0",
    "\0::1",
]


@pytest.mark.parametrize("text", MEANINGS)
def test_an_address_means(text: str) -> None:
    """What a user may write is taken apart as meant."""
    assert parse_address(text) == MEANINGS[text]


@pytest.mark.parametrize("text", LISTENING)
def test_an_address_to_listen_on_means(text: str) -> None:
    """No host and an asterisk mean every interface, and port 0 any free port."""
    assert parse_listen_address(text) == LISTENING[text]


@pytest.mark.parametrize("parse", [parse_address, parse_listen_address])
@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_address_is_refused(text: str, parse: Callable[[str], Address]) -> None:
    """What means nothing is named, as it was given, in one line."""
    with pytest.raises(SettingsError) as refusal:
        parse(text)
    assert repr(text) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text", [":5315", "*:5315", "*", "vm1:0", "192.0.2.7:0", "vsock:any:5315", "vsock:*", "vsock:3:0"]
)
def test_what_can_only_be_listened_on_is_no_place_to_connect_to(text: str) -> None:
    """A manager needs one guest and a real port."""
    with pytest.raises(SettingsError):
        parse_address(text)


def test_the_default_port_is_the_one_that_was_asked_for() -> None:
    """A port in the text wins over the default."""
    assert parse_address("vm1").port == DEFAULT_PORT == 5315
    assert parse_address("vm1", default_port=7).port == 7
    assert parse_address("vm1:8", default_port=7).port == 8


@pytest.mark.parametrize("address", [*MEANINGS.values(), *LISTENING.values()], ids=str)
def test_an_address_is_written_as_it_is_read(address: Address) -> None:
    """What a log shows can be given back."""
    assert parse_listen_address(str(address), default_port=1) == address


def test_brackets_are_only_for_ipv6() -> None:
    """An address in a log looks like one in a configuration."""
    assert str(Address("2001:db8::1", 5315)) == "[2001:db8::1]:5315"
    assert str(Address("vm1", 5315)) == "vm1:5315"


def test_a_vsock_address_has_a_number() -> None:
    """Who connects or binds gets the CID, and TCP addresses have none, whatever their names look like."""
    assert parse_address("vsock:3").cid == 3
    assert parse_listen_address("vsock:any").cid == CID_ANY
    assert [parse_address(text).cid for text in ("vm1", "vsock1", "2001:db8::1", "192.0.2.7:5315")] == [None] * 4


def test_a_guest_is_named_by_its_certificate() -> None:
    """A CID names no guest: whoever gives one as GUEST is told where it belongs."""
    assert parse_guest("vm1:17") == Address("vm1", 17)
    with pytest.raises(SettingsError, match="--address vsock:3:5315"):
        parse_guest("vsock:3:5315")


@given(st.text() | st.text().map("vsock:{}".format))
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    """No text breaks the parser, and what it accepts can be looked up and sent in a handshake."""
    try:
        address = parse_address(text)
    except SettingsError:
        return
    host = address.host
    if address.cid is not None:
        assert 0 <= address.cid < CID_ANY
        assert 0 < address.port < CID_ANY
        return
    assert is_ip_address(host) or (is_host_name(host) and host.encode("idna").decode() == host)
