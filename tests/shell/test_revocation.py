"""Revocation lists: who is on one is refused, and what cannot be looked up is refused as well, in words."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

import pytest

from cmapp.errors import SettingsError, TrustError
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys
from cmapp.net.tls import client_context, peer_identity, server_context
from tests.shell.certificates import DAY, PEM, Made, new_authority, new_leaf, new_list, write_keys
from tests.shell.handshakes import meeting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class House(NamedTuple):
    """An authority, and whom it vouches for."""

    authority: Made
    host: Made
    guest: Made


@pytest.fixture(scope="module")
def house() -> House:
    """Return an authority with a host and a guest."""
    authority = new_authority("company")
    return House(authority, new_leaf(authority, "host", "n1"), new_leaf(authority, "guest", "vm1"))


def told(folder: Path, house: House, *, host: bytes = b"", guest: bytes = b"") -> tuple[str, str]:
    """Return what the guest and the host are told, with these lists in their folders: "" if they are content."""
    serving = write_keys(folder / "guest", house.guest, house.authority, lists=guest)
    calling = write_keys(folder / "host", house.host, house.authority, lists=host)
    with meeting(server_context(str(serving)), client_context(str(calling))) as met:
        return str(met.server_told or ""), str(met.client_told or "")


def test_who_is_on_no_list_is_welcome(house: House, tmp_path: Path) -> None:
    """A list of others keeps nobody away."""
    lists = new_list(house.authority, [new_leaf(house.authority, "host", "n2")])
    assert told(tmp_path, house, host=lists, guest=lists) == ("", "")


def test_a_revoked_host_is_refused(house: House, tmp_path: Path) -> None:
    """Both ends say why."""
    server, client = told(tmp_path, house, guest=new_list(house.authority, [house.host]))
    assert server == "the certificate of n1 has been revoked: issue a new one"
    assert client == "vm1 refused our certificate: it has been revoked; issue a new one"


def test_a_revoked_guest_is_refused(house: House, tmp_path: Path) -> None:
    """It works both ways."""
    server, client = told(tmp_path, house, host=new_list(house.authority, [house.guest]))
    assert client == "the certificate of vm1 has been revoked: issue a new one"
    assert server == "n1 refused our certificate: it has been revoked; issue a new one"


CANNOT = "the certificate of n1 cannot be checked: "
OF = "the revocation list of its authority "


def other_list(_: House) -> bytes:
    """Return the list of another authority."""
    return new_list(new_authority("other"))


def forged_list(_: House) -> bytes:
    """Return a list in the name of the authority that another has signed."""
    return new_list(new_authority("company"))


LISTS: dict[str, tuple[Callable[[House], bytes], str]] = {
    "expired": (
        lambda house: new_list(house.authority, since=-9 * DAY, until=-DAY),
        f"{OF}has expired, so copy a new crl.pem",
    ),
    "not yet valid": (
        lambda house: new_list(house.authority, since=DAY, until=9 * DAY),
        f"{OF}is not yet valid, so check the clock here",
    ),
    "missing": (other_list, "crl.pem here has no revocation list of its authority, so add that list"),
    "forged": (forged_list, f"{OF}is signed by another, so copy a new crl.pem"),
}


@pytest.mark.parametrize("kind", LISTS)
def test_a_list_that_says_nothing_lets_nobody_in(house: House, tmp_path: Path, kind: str) -> None:
    """Whether a certificate was revoked must be known, or it counts for nothing."""
    make, words = LISTS[kind]
    server, client = told(tmp_path, house, guest=make(house))
    assert server == CANNOT + words
    assert client.startswith("vm1 refused our certificate: ")


def test_each_authority_has_its_list(house: House, tmp_path: Path) -> None:
    """With several authorities each needs a list; one without lets in none of its own, and hinders no other."""
    other = new_authority("other")
    keys = tmp_path / "keys"
    hosts = {
        "n1": house.host,
        "n2": new_leaf(other, "host", "n2"),
        "n3": new_leaf(other, "host", "n3"),
    }
    for lists, welcome in (
        (new_list(house.authority), {"n1"}),
        (new_list(house.authority) + new_list(other, [hosts["n3"]]), {"n1", "n2"}),
    ):
        write_keys(keys, house.guest, house.authority, other, lists=lists)
        found = set()
        for name, host in hosts.items():
            calling = client_context(str(write_keys(tmp_path / name, host, house.authority)))
            with meeting(server_context(str(keys)), calling) as met:
                if met.server_told is None:
                    found.add(peer_identity(met.server).name)
                else:
                    assert isinstance(met.server_told, TrustError)
        assert found == welcome


def test_a_new_list_beside_the_old_one(house: House, tmp_path: Path) -> None:
    """The one that is valid counts, wherever it stands."""
    old = new_list(house.authority, since=-9 * DAY, until=-DAY)
    new = new_list(house.authority, [house.host], since=-timedelta(hours=1))
    for number, lists in enumerate((old + new, new + old)):
        assert "has been revoked" in told(tmp_path / str(number), house, guest=lists)[0]


@pytest.mark.parametrize("whole", [True, False])
def test_authorities_in_between_are_looked_up(house: House, tmp_path: Path, whole: bool) -> None:  # noqa: FBT001
    """Once the root has a list too, an authority between that is on it vouches for nobody any more."""
    between = new_authority("department", house.authority)
    host = new_leaf(between, "host", "n1")
    lists = new_list(between) + (new_list(house.authority, [between]) if whole else b"")
    server, _ = told(tmp_path, House(house.authority, host, house.guest), guest=lists)
    assert server == ("the certificate of n1 has been revoked: issue a new one" if whole else "")


UNFIT = {
    "empty": (b"", "crl.pem holds no revocation list in PEM format: copy it again"),
    "broken": (
        b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n",
        "crl.pem cannot be used: it holds a broken",
    ),
    "cut off": (b"-----BEGIN X509 CRL-----\nAAAA\n", "crl.pem cannot be used: it holds a broken revocation list"),
}


@pytest.mark.parametrize("what", UNFIT)
@pytest.mark.parametrize("role", list(Role))
def test_a_file_without_lists_is_named(house: House, tmp_path: Path, what: str, role: Role) -> None:
    """An empty file is no way to switch revocation off; remove it for that."""
    content, words = UNFIT[what]
    made = house.host if role is Role.HOST else house.guest
    keys = write_keys(tmp_path / "keys", made, house.authority)
    (keys / "crl.pem").write_bytes(content)
    with pytest.raises(SettingsError) as refusal:
        (client_context if role is Role.HOST else server_context)(str(keys))
    assert words in str(refusal.value)
    assert any(words in problem for problem in check_keys(str(keys), role))


def test_a_certificate_among_the_lists_is_not_trusted(house: House, tmp_path: Path) -> None:
    """OpenSSL would take an authority from there too."""
    smuggled = new_list(house.authority) + new_authority("intruder").certificate.public_bytes(PEM)
    keys = write_keys(tmp_path / "keys", house.guest, house.authority, lists=smuggled)
    with pytest.raises(SettingsError, match=r"crl\.pem holds a certificate too, which OpenSSL would trust"):
        server_context(str(keys))


def test_a_list_among_the_authorities_says_nothing(house: House, tmp_path: Path) -> None:
    """It is for crl.pem, where it is looked at."""
    keys = write_keys(tmp_path / "keys", house.guest, house.authority)
    with (keys / "ca.pem").open("ab") as file:
        file.write(new_list(house.authority, [house.host]))
    assert server_context(str(keys)).cert_store_stats()["crl"] == 0


def test_our_own_revocation_is_told(house: House, tmp_path: Path) -> None:
    """`--check` says that our certificate is on our own list, and that the list is too old."""
    keys = write_keys(tmp_path / "a", house.guest, house.authority, lists=new_list(house.authority, [house.guest]))
    assert check_keys(str(keys), Role.GUEST) == [
        f"{keys}/cert.pem has been revoked by {keys}/crl.pem: issue a new one",
    ]
    old = new_list(house.authority, since=-9 * DAY, until=-DAY)
    keys = write_keys(tmp_path / "b", house.guest, house.authority, lists=old)
    [problem] = check_keys(str(keys), Role.GUEST)
    assert problem.startswith(f"{keys}/crl.pem cannot be used: ")
    keys = write_keys(tmp_path / "c", house.guest, house.authority, lists=new_list(house.authority))
    assert check_keys(str(keys), Role.GUEST) == []
