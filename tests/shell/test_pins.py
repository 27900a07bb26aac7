"""Pinned certificates: peers that vouch for themselves are known by all of their certificate, and vouch for nobody."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import TrustError
from cmapp.net.identity import Identity, Role
from cmapp.net.keyfolder import check_keys
from cmapp.net.tls import client_context, peer_identity, server_context
from tests.shell.certificates import (
    DAY,
    Made,
    first_version,
    new_authority,
    new_leaf,
    new_list,
    pin,
    plain,
    write_keys,
)
from tests.shell.handshakes import Meeting, meeting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


HOST, GUEST = Identity(Role.HOST, "n1"), Identity(Role.GUEST, "vm1")


def paired(folder: Path, host: Made, guest: Made) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Let a host and a guest have pinned each other, and return the contexts of the guest and of the host."""
    keys = {name: write_keys(folder / name, made) for name, made in (("host", host), ("guest", guest))}
    pin(keys["host"], "guest", "vm1", guest)
    pin(keys["guest"], "host", "n1", host)
    return server_context(str(keys["guest"])), client_context(str(keys["host"]), peer="vm1")


def check_proven(met: Meeting) -> None:
    """See that both ends know each other."""
    assert (met.server_told, met.client_told) == (None, None)
    assert (peer_identity(met.server), peer_identity(met.client)) == (HOST, GUEST)


def why_not(met: Meeting) -> str:
    """Return why the server does not know the peer, in the handshake or after it."""
    if met.server_told is not None:
        return str(met.server_told)
    with pytest.raises(TrustError) as refusal:
        peer_identity(met.server)
    return str(refusal.value)


KINDS: dict[str, Callable[[], tuple[Made, Made]]] = {
    "keytool's default": lambda: (plain(), plain()),
    "RSA": lambda: (plain("h", "RSA 2048"), plain("g", "RSA 3072")),
    "Ed25519": lambda: (plain("h", "Ed25519"), plain("g", "Ed25519")),
    "version 1": lambda: (first_version("h"), first_version("g")),
    "with a purpose": lambda: (new_leaf(None, "host", "other"), new_leaf(None, "guest", "other")),
    "an authority": lambda: (new_authority("h"), new_authority("g")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_that_vouch_for_themselves_meet(tmp_path: Path, kind: str) -> None:
    """Each knows the other by the name of its file, without any authority, whatever the certificates say."""
    with meeting(*paired(tmp_path, *KINDS[kind]())) as met:
        check_proven(met)


def test_folders_of_such_pairs_are_in_order(tmp_path: Path) -> None:
    """`--check` finds nothing wrong with them."""
    paired(tmp_path, plain(), plain())
    for role in Role:
        assert check_keys(str(tmp_path / role.value), role) == []


@pytest.mark.parametrize("kind", ["P-256", "RSA 2048"])
def test_the_same_name_is_not_the_same_peer(tmp_path: Path, kind: str) -> None:
    """The subject is copied with ease: a certificate with it that is not pinned is nobody's."""
    host, guest = plain("Unknown", kind), plain("Unknown", kind)
    serving, _ = paired(tmp_path, host, guest)
    forged = write_keys(tmp_path / "forged", plain("Unknown", kind))
    pin(forged, "guest", "vm1", guest)
    with meeting(serving, client_context(str(forged), peer="vm1")) as met:
        assert "n1" in why_not(met)
        assert isinstance(met.server_told, TrustError)


def test_many_pins_of_one_subject(tmp_path: Path) -> None:
    """Whatever keytool's default name is, each of them is known as who it is."""
    guest, hosts = plain(), {f"n{number}": plain("Unknown") for number in range(5)}
    keys = write_keys(tmp_path / "guest", guest)
    for name, host in hosts.items():
        pin(keys, "host", name, host)
    serving = server_context(str(keys))
    for name, host in hosts.items():
        folder = write_keys(tmp_path / name, host)
        pin(folder, "guest", "vm1", guest)
        with meeting(serving, client_context(str(folder), peer="vm1")) as met:
            assert peer_identity(met.server) == Identity(Role.HOST, name)


def test_a_renewed_pin_beside_the_old_one(tmp_path: Path) -> None:
    """A file may hold the old and the new certificate, of one subject; both are that peer."""
    old, new, guest = plain("n1"), plain("n1"), plain("vm1")
    keys = write_keys(tmp_path / "guest", guest)
    pin(keys, "host", "n1", old, new)
    for number, host in enumerate((old, new)):
        folder = write_keys(tmp_path / f"host{number}", host)
        pin(folder, "guest", "vm1", plain("vm1"), guest)
        with meeting(server_context(str(keys)), client_context(str(folder), peer="vm1")) as met:
            check_proven(met)


def minted(by: Made, role: str, name: str) -> Made:
    """Return a certificate for another that a peer signed with its own key, and shows with its own certificate."""
    made = new_leaf(by, role, name)
    return Made(made.key, made.certificate, (by.certificate,))


MINTS: dict[str, Callable[[str], Made]] = {"version 1": first_version, "an authority": new_authority, "plain": plain}


@pytest.mark.parametrize("with_authority", [True, False])
@pytest.mark.parametrize("kind", MINTS)
def test_a_pinned_certificate_vouches_for_nobody(
    tmp_path: Path,
    kind: str,
    with_authority: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """Who is pinned as n1 cannot make itself into another host, be there an authority beside the pins or not."""
    authority, host, guest = new_authority("company"), MINTS[kind]("n1"), plain("vm1")
    keys = write_keys(tmp_path / "guest", guest, *([authority] if with_authority else []))
    pin(keys, "host", "n1", host)
    forged = write_keys(tmp_path / "forged", minted(host, "host", "boss"))
    pin(forged, "guest", "vm1", guest)
    with meeting(server_context(str(keys)), client_context(str(forged), peer="vm1")) as met:
        assert why_not(met)


@pytest.mark.parametrize("kind", MINTS)
def test_a_pinned_guest_vouches_for_no_other(tmp_path: Path, kind: str) -> None:
    """Who is pinned as vm1 cannot have another certificate serve in its place."""
    host, guest = plain("n1"), MINTS[kind]("vm1")
    _, calling = paired(tmp_path, host, guest)
    forged = write_keys(tmp_path / "forged", minted(guest, "guest", "vm1"))
    pin(forged, "host", "n1", host)
    with meeting(server_context(str(forged)), calling) as met:
        if met.client_told is None:
            with pytest.raises(TrustError, match="neither pinned here nor from our authority"):
                peer_identity(met.client)
        assert met.server_told is None or "refused our certificate" in str(met.server_told)


def test_a_pinned_guest_is_that_certificate_alone(tmp_path: Path) -> None:
    """An authority that the host trusts cannot issue another vm1 to take the place of the pinned one."""
    authority, guest = new_authority("company"), plain("vm1")
    keys = write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)
    pin(keys, "guest", "VM1", guest)
    other = write_keys(tmp_path / "other", new_leaf(authority, "guest", "vm1"), authority)
    with meeting(server_context(str(other)), client_context(str(keys), peer="vm1")) as met:
        assert isinstance(met.client_told, TrustError)
    with meeting(server_context(str(other)), client_context(str(keys), peer="vm2"), "vm1") as met:
        assert peer_identity(met.client) == GUEST


def test_a_pin_of_another_guest_does_not_count(tmp_path: Path) -> None:
    """Who is pinned as vm2 is not vm1, neither by the pin nor by what the certificate says."""
    authority, other = new_authority("company"), new_leaf(None, "guest", "vm1")
    keys = write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)
    pin(keys, "guest", "vm2", other)
    serving = write_keys(tmp_path / "guest", other, authority)
    with meeting(server_context(str(serving)), client_context(str(keys), peer="vm1")) as met:
        assert "is not from our authority" in str(met.client_told)


def test_pins_and_an_authority_side_by_side(tmp_path: Path) -> None:
    """One guest serves hosts of both kinds, each by its own name."""
    authority, guest = new_authority("company"), plain("vm1")
    keys = write_keys(tmp_path / "guest", guest, authority)
    hosts = {"n1": plain("n1"), "n2": new_leaf(authority, "host", "n2")}
    pin(keys, "host", "n1", hosts["n1"])
    serving = server_context(str(keys))
    for name, host in hosts.items():
        folder = write_keys(tmp_path / name, host)
        pin(folder, "guest", "vm1", guest)
        with meeting(serving, client_context(str(folder), peer="vm1")) as met:
            assert peer_identity(met.server) == Identity(Role.HOST, name)
            assert peer_identity(met.client) == GUEST


def test_a_pin_beside_revocation_lists(tmp_path: Path) -> None:
    """Nobody lists a pinned certificate as not revoked; those of the authority are looked up all the same."""
    authority, guest = new_authority("company"), plain("vm1")
    hosts = {"n1": plain("n1"), "n2": new_leaf(authority, "host", "n2"), "n3": new_leaf(authority, "host", "n3")}
    keys = write_keys(tmp_path / "guest", guest, authority, lists=new_list(authority, [hosts["n3"]]))
    pin(keys, "host", "n1", hosts["n1"])
    found = {}
    for name, host in hosts.items():
        folder = write_keys(tmp_path / name, host)
        pin(folder, "guest", "vm1", guest)
        with meeting(server_context(str(keys)), client_context(str(folder), peer="vm1")) as met:
            found[name] = why_not(met) if name == "n3" else str(peer_identity(met.server))
    assert found == {
        "n1": "host n1",
        "n2": "host n2",
        "n3": "the certificate of the peer has been revoked: issue a new one",
    }


@pytest.mark.parametrize(("since", "until", "word"), [(-9, -1, "has expired"), (1, 9, "is not yet valid")])
def test_the_dates_of_a_pinned_certificate_count(tmp_path: Path, since: int, until: int, word: str) -> None:
    """Pinning does not make a certificate last for ever."""
    with meeting(*paired(tmp_path, plain("n1", since=since * DAY, until=until * DAY), plain("vm1"))) as met:
        assert word in str(met.server_told)


def test_a_weak_key_is_not_trusted_for_being_pinned(tmp_path: Path) -> None:
    """RSA of 1024 bits is refused, whoever has it."""
    guest = plain("vm1")
    keys = write_keys(tmp_path / "guest", guest)
    pin(keys, "host", "n1", weak := plain("n1", "RSA 1024"))
    calling = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    calling.check_hostname, calling.verify_mode = False, ssl.CERT_NONE
    calling.set_ciphers("ALL:@SECLEVEL=0")
    folder = write_keys(tmp_path / "host", weak)
    calling.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with meeting(server_context(str(keys)), calling) as met:
        assert "holds a key that is too weak" in str(met.server_told)


def test_resumed_sessions_are_no_way_around(tmp_path: Path) -> None:
    """TLS 1.2 resumes without showing a chain: who was not let in is not let in by that either, and who was is."""
    authority, guest = new_authority("company"), plain("vm1")
    keys = write_keys(tmp_path / "guest", guest, authority)
    pin(keys, "host", "n1", pinned := new_authority("n1"))
    serving = server_context(str(keys), allow_tls12=True)
    serving.maximum_version = ssl.TLSVersion.TLSv1_2
    hosts = {"n1": pinned, "n2": new_leaf(authority, "host", "n2"), "boss": minted(pinned, "host", "boss")}
    for name, host in hosts.items():
        folder = write_keys(tmp_path / name, host)
        pin(folder, "guest", "vm1", guest)
        calling, session = client_context(str(folder), peer="vm1", allow_tls12=True), None
        with ExitStack() as both:  # a session is forgotten when its connection breaks
            for resumed in (False, True):
                met = both.enter_context(meeting(serving, calling, session=session))
                session = met.client.session
                assert met.server.session_reused is resumed
                if name == "boss":
                    with pytest.raises(TrustError, match="neither pinned here nor from our authority"):
                        peer_identity(met.server)
                else:
                    assert peer_identity(met.server) == Identity(Role.HOST, name)
