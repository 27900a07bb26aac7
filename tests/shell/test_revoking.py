"""Revocation: what is on the list is refused, by OpenSSL and by peers, and nothing on it is ever lost."""

from __future__ import annotations

import ssl
import subprocess
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cmapp.keys import pem
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.description import ends, list_begins, list_ends, list_number
from cmapp.keys.keystore import (
    read_authority,
    read_certificate,
    read_certificates,
    read_lists,
    write_authority,
    write_credential,
)
from cmapp.keys.revocation import make_list
from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import COMMAND, done, keys, meet, refused, verified

if TYPE_CHECKING:
    from pathlib import Path

DAY = timedelta(days=1)
VM1, N1, N2 = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1"), Identity(Role.HOST, "n2")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the folder of an authority that has issued keys for vm1, n1 and n2."""
    store = tmp_path / "ca"
    done("init", store)
    done("issue", store, "guest", "vm1")
    for name in ("n1", "n2"):
        done("issue", store, "host", name)
    return store


def serials(store: Path) -> set[int]:
    """Return the serial numbers on the authority's list."""
    return {entry.serial_number for each in read_lists(store / "crl.pem") for entry in each}


def test_a_revoked_certificate_is_refused(store: Path) -> None:
    """The guest that has the list refuses who is on it, and still takes who is not."""
    guest, revoked, other = store / "guest" / "vm1", store / "host" / "n1", store / "host" / "n2"
    assert meet(guest, revoked) == (VM1, N1)
    said = done("revoke", store, "host", "n1")
    serial = read_certificate(revoked).serial_number
    assert f"revoked host n1, serial number {serial:x}\n" in said
    assert f"{store}/crl.pem is valid until {ends(read_certificate(store)):%Y-%m-%d}, and revokes 1 in all\n" in said
    assert "copy it as crl.pem into the key folder of every guest and host" in said
    assert [verified(folder) for folder in (guest, revoked, other)] == [True, False, True]
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        meet(guest, revoked)
    assert meet(guest, other) == (VM1, N2)


def test_a_revoked_guest_is_refused(store: Path) -> None:
    """A host that has the list does not talk to a guest whose key was stolen."""
    done("revoke", store, "guest", "vm1")
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate revoked"):
        meet(store / "guest" / "vm1", store / "host" / "n1")


def test_a_list_grows(store: Path) -> None:
    """What was revoked stays revoked, and the number tells which list is the newer one."""
    numbers = []
    for arguments in (["host", "n1"], [], [store / "host" / "n2" / "cert.pem"]):
        done("revoke", store, *arguments)
        (only,) = read_lists(store / "crl.pem")
        numbers.append(list_number(only))
    assert numbers == [1, 2, 3]
    assert serials(store) == {read_certificate(store / "host" / name).serial_number for name in ("n1", "n2")}
    for folder in (store / "guest" / "vm1", store / "host" / "n1"):
        assert (folder / "crl.pem").read_bytes() == (store / "crl.pem").read_bytes()


def test_all_of_a_name_is_revoked(store: Path) -> None:
    """The certificate that was renewed still works for whoever has its key: it goes with the new one."""
    old = read_certificate(store / "host" / "n1")
    done("renew", store, "host", "n1")
    said = done("revoke", store, "host", "n1")
    assert said.count("revoked host n1, serial number ") == 2
    assert serials(store) == {old.serial_number, read_certificate(store / "host" / "n1").serial_number}


def test_what_has_expired_is_not_listed_by_name(store: Path) -> None:
    """A list does not grow by what is refused anyway; who names the file gets what is asked for."""
    at = datetime.now(UTC)
    done("revoke", store)
    old = issue(read_authority(store), N1, days=1, now=at - 9 * DAY)
    write_credential(store / "host" / "n1", old, read_authority(store), force=True)
    assert "has expired" in done("revoke", store, "host", "n1")
    assert serials(store) == set()
    done("revoke", store, store / "host" / "n1")
    assert serials(store) == {old.certificate.serial_number}


def test_a_second_revocation_is_told(store: Path) -> None:
    """It is no failure, and the list stays as it is; what is new beside it is revoked all the same."""
    done("revoke", store, "host", "n1")
    before = (store / "crl.pem").read_bytes()
    said = done("revoke", store, "host", "n1")
    assert "host n1, serial number " in said
    assert said.endswith(f" is revoked already\n{store}/crl.pem is as it was\n")
    assert (store / "crl.pem").read_bytes() == before
    said = done("revoke", store, store / "host" / "n1", store / "host" / "n2")
    assert "is revoked already" in said
    assert len(serials(store)) == 2


def test_a_list_of_few_days(store: Path) -> None:
    """It says when it has to be replaced, is valid from five minutes ago, and never outlives its authority."""
    done("revoke", store)
    assert list_ends(read_lists(store / "crl.pem")[0]) == ends(read_certificate(store))
    said = done("revoke", store, "--days", 7)
    assert f"replace it by then, with 'cmapp keys revoke {store}': once it has expired nobody is let in" in said
    (only,) = read_lists(store / "crl.pem")
    until = list_ends(only)
    assert until is not None
    assert until - list_begins(only) == 7 * DAY + timedelta(minutes=5)
    done("revoke", store, "--days", 36500)
    assert list_ends(read_lists(store / "crl.pem")[0]) == ends(read_certificate(store))


def test_an_expired_list_lets_nobody_in(store: Path) -> None:
    """Peers fail closed, and `check` says so before they do."""
    at, authority = datetime.now(UTC), read_authority(store)
    done("revoke", store)
    old = make_list(authority, None, [], days=1, now=at - 9 * DAY)
    (store / "guest" / "vm1" / "crl.pem").write_bytes(pem.written([old]))
    with pytest.raises(ssl.SSLCertVerificationError, match="CRL has expired"):
        meet(store / "guest" / "vm1", store / "host" / "n1")


def test_keys_with_an_expired_list_are_not_made(store: Path) -> None:
    """They would let nobody in: the list is to be signed anew first, and then all is well."""
    done("request", store / "asks", "guest", "vm3")
    old = make_list(read_authority(store), None, [], days=1, now=datetime.now(UTC) - 9 * DAY)
    (store / "crl.pem").write_bytes(pem.written([old]))
    for command in (["issue", store, "host", "n3"], ["renew", store, "host", "n1"], ["sign", store, store / "asks"]):
        said = refused(*command)
        assert said.startswith(f"{store}/crl.pem has expired on ")
        assert said.endswith(f": sign it anew by 'cmapp keys revoke {store}'")
    done("revoke", store)
    done("issue", store, "host", "n3")


def test_new_keys_get_the_list(store: Path) -> None:
    """Whatever is issued, signed or renewed after a revocation knows of it from the start."""
    done("revoke", store, "host", "n1")
    done("issue", store, "guest", "vm2")
    done("request", store / "asks", "guest", "vm3")
    done("sign", store, store / "asks")
    done("renew", store, "guest", "vm1")
    for name in ("vm1", "vm2", "vm3"):
        assert (store / "guest" / name / "crl.pem").read_bytes() == (store / "crl.pem").read_bytes()


def test_the_list_of_another_authority_stays(store: Path, tmp_path: Path) -> None:
    """A folder that trusts two authorities has a list of each, and a new one replaces only its own."""
    done("init", tmp_path / "other", "--name", "other")
    done("revoke", tmp_path / "other")
    done("trust", store / "guest" / "vm1", tmp_path / "other")
    done("revoke", store, "host", "n1")
    lists = read_lists(store / "guest" / "vm1" / "crl.pem")
    assert [each.issuer for each in lists] == [
        authority.subject for authority in (read_certificate(tmp_path / "other"), read_certificate(store))
    ]
    assert len(read_certificates(store / "guest" / "vm1" / "ca.pem")) == 2


def test_only_what_was_issued_is_revoked(store: Path, tmp_path: Path) -> None:
    """A certificate of another authority, even one of the same name, is refused, and nothing is written."""
    at = datetime.now(UTC)
    namesake = make_authority(read_certificate(store).subject.rfc4514_string()[3:], days=9, now=at)
    for folder, authority in ((tmp_path / "f", make_authority("f", days=9, now=at)), (tmp_path / "n", namesake)):
        write_credential(folder, issue(authority, N1, days=9, now=at), authority, force=False)
        said = refused("revoke", store, folder / "cert.pem")
        assert said == f"{folder}/cert.pem is not of this authority: only the one that issued it can revoke it"
    assert not (store / "crl.pem").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["guest", "vm9"], "there is no certificate of guest vm9 in {}/guest/vm9: name a file that holds it"),
        (["{}/none.pem"], "cannot read {}/none.pem: No such file or directory"),
        (["{}/ca-key.pem"], "{}/ca-key.pem holds no certificate in PEM format"),
    ],
)
def test_what_cannot_be_revoked_is_explained(store: Path, arguments: list[str], complaint: str) -> None:
    """What is missing is named."""
    assert refused("revoke", store, *(each.format(store) for each in arguments)).startswith(complaint.format(store))


@pytest.mark.parametrize("arguments", [["guest"], ["host", "n1", "n2"]])
def test_a_role_takes_one_name(store: Path, arguments: list[str]) -> None:
    """Two names would be one name and a file to some readers."""
    code, _out, err = keys("revoke", store, *arguments)
    assert code == 2
    assert f"after {arguments[0]} comes one NAME (a file that is called so is ./{arguments[0]})" in err


def test_a_list_that_is_not_ours_is_not_replaced(store: Path, tmp_path: Path) -> None:
    """A crl.pem that this authority did not sign would be lost, and all that it revokes."""
    done("init", tmp_path / "other")
    done("revoke", tmp_path / "other")
    (store / "crl.pem").write_bytes((tmp_path / "other" / "crl.pem").read_bytes())
    assert refused("revoke", store, "host", "n1").startswith(f"{store}/crl.pem is not signed by the authority in ")
    (store / "crl.pem").write_text("nothing")
    assert refused("revoke", store, "host", "n1").startswith(f"{store}/crl.pem holds no revocation list ")


def test_an_expired_authority_revokes_nothing(tmp_path: Path) -> None:
    """Nothing that it issued is accepted, so there is nothing to revoke, and its list could not be valid."""
    write_authority(tmp_path, make_authority("old", days=1, now=datetime.now(UTC) - 9 * DAY), force=False)
    assert refused("revoke", tmp_path).startswith("the authority has expired on ")


def test_revocations_at_the_same_time_are_all_kept(store: Path) -> None:
    """Administrators who revoke at once do not take each other's back."""
    for name in ("n3", "n4"):
        done("issue", store, "host", name)
    names = [f"n{number}" for number in range(1, 5)]
    started = [subprocess.Popen([*COMMAND, "revoke", store, "host", name], stdout=subprocess.DEVNULL) for name in names]
    assert [one.wait() for one in started] == [0] * len(names)
    assert serials(store) == {read_certificate(store / "host" / name).serial_number for name in names}
    assert list_number(read_lists(store / "crl.pem")[0]) == len(names)
