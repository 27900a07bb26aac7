"""Addresses as people write them: `vm1`, `vm1:5315`, `192.0.2.7:5315`, `[2001:db8::1]:5315`, `vsock:3:5315`.

Responsible for the text only: nothing is looked up and nothing is opened here. A vsock address is a virtual
machine's number (its CID) and a port; it says where a guest is, never who: that is for its certificate. The
invariant: what is accepted is an IP address, a name that a resolver and a certificate can both hold, or a CID,
so nothing further down meets a host that it cannot encode.
"""

from __future__ import annotations

import re
from socket import AF_INET, AF_INET6, inet_pton

from cmapp.core.record import Record
from cmapp.errors import SettingsError

DEFAULT_PORT = 5315
ANY = "*"  # the host of an address to listen on that means every interface, IPv4 and IPv6

# The last label is no number, or a resolver would take `1.2.3` for an IPv4 address.
_LABEL = "[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?![0-9]+\Z){_LABEL}")
_HIGHEST_PORT = 65535
_EXAMPLES = "write vm1, vm1:5315, 192.0.2.7:5315, [2001:db8::1]:5315 or vsock:3:5315"

VSOCK = "vsock:"  # what the host of a vsock address begins with; its CID follows, or ANY
CID_ANY = 0xFFFFFFFF  # VMADDR_CID_ANY: no virtual machine, but all that reach us; also the one port that is none
_CIDS = {"any": ANY, "local": "1", "host": "2"}


class Address(Record):
    """Where to connect or to listen: a name, an IP address (IPv6 without brackets), ANY or `vsock:CID`, and a port."""

    host: str
    port: int

    @property
    def cid(self) -> int | None:
        """The number of the virtual machine, CID_ANY for all, None where this is no vsock address."""
        if not self.host.startswith(VSOCK):
            return None
        number = self.host.removeprefix(VSOCK)
        return CID_ANY if number == ANY else int(number)

    def __str__(self) -> str:
        """Write the address so that it can be parsed again."""
        plain = ":" not in self.host or self.host.startswith(VSOCK)
        return f"{self.host}:{self.port}" if plain else f"[{self.host}]:{self.port}"


def parse_guest(text: str) -> Address:
    """Return the guest that `text` names, and its port: what its certificate bears, so no vsock address."""
    if text.startswith(VSOCK):
        raise SettingsError(
            f"{text!r} is no name of a guest: name it as its certificate does, and give --address {text}"
        )
    return parse_address(text)


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address to connect to that `text` means; raises SettingsError for what is none."""
    if text.startswith(VSOCK):
        address = _vsock(text, default_port, lowest=1)
        if address.cid == CID_ANY:
            raise SettingsError(f"{text!r} is only to listen on: give the guest's CID, as in vsock:3:5315")
        return address
    host, port = _split(text)
    if not (is_ip_address(host) or is_host_name(host)):
        raise SettingsError(f"{text!r} is not an address: {_EXAMPLES}")
    return Address(host, _port(text, port, lowest=1) if port is not None else default_port)


def parse_listen_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Return the address to listen on that `text` means, where no host is ANY and port 0 is a free one."""
    if text.startswith(VSOCK):
        return _vsock(text, default_port, lowest=0)
    host, port = _split(text)
    if host == "" and port:
        host = ANY
    if not (host == ANY or is_ip_address(host) or is_host_name(host)):
        raise SettingsError(f"{text!r} is not an address to listen on: {_EXAMPLES}, or :5315 for all")
    return Address(host, _port(text, port, lowest=0) if port is not None else default_port)


def is_ip_address(text: str) -> bool:
    """Tell whether `text` is an IPv4 address, or an IPv6 address without brackets (a `%zone` may follow)."""
    address, percent, zone = text.partition("%")
    family = AF_INET6 if ":" in text else AF_INET
    try:
        inet_pton(family, address)
    except (OSError, ValueError):
        return False
    return not percent or (family == AF_INET6 and zone.isalnum())


def is_host_name(text: str) -> bool:
    """Tell whether `text` is a name that a resolver and a certificate can both hold, in ASCII."""
    return text != VSOCK.rstrip(":") and _NAME.fullmatch(text) is not None  # with its port, that would be a CID


def _split(text: str) -> tuple[str, str | None]:
    """Cut `text` into host and port: no port is None, and brackets that do not fit leave no host."""
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            return "", None
        return host, rest[1:] if rest else None
    if text.count(":") > 1:
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def _vsock(text: str, default_port: int, *, lowest: int) -> Address:
    """Return the address that `vsock:CID` or `vsock:CID:PORT` means."""
    word, colon, port = text.removeprefix(VSOCK).partition(":")
    cid = _CIDS.get(word, word)
    if cid != ANY:
        number = _number(cid, CID_ANY - 1)
        if number is None:
            raise SettingsError(
                f"{text!r} is not a vsock address: write vsock:CID:PORT; CID is a number, local or host"
            )
        cid = str(number)
    return Address(VSOCK + cid, _port(text, port, lowest=lowest, highest=CID_ANY - 1) if colon else default_port)


def _port(text: str, port: str, *, lowest: int, highest: int = _HIGHEST_PORT) -> int:
    number = _number(port, highest)
    if number is None or number < lowest:
        raise SettingsError(f"{text!r} has no usable port: give a number from {lowest} to {highest}")
    return number


def _number(digits: str, highest: int) -> int | None:
    # Python refuses to read a number of thousands of digits, so its length is looked at first.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= len(str(highest))):
        return None
    number = int(digits)
    return number if number <= highest else None
