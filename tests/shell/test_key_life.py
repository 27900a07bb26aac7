"""Keys that are renewed: the same names and role, nothing lost, and the old certificate still known."""

from __future__ import annotations

import re
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cmapp.keys.authority import Credential, issue, make_authority
from cmapp.keys.description import ends, names
from cmapp.keys.keystore import read_certificate, read_certificates, read_issued, write_credential
from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import done, keys, meet, refused, verified

if TYPE_CHECKING:
    from pathlib import Path

VM1, N1 = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the folder of an authority that has issued keys for vm1 and n1."""
    store = tmp_path / "ca"
    done("init", store)
    done("issue", store, "guest", "vm1", "--san", "192.0.2.7", "--days", 20)
    done("issue", store, "host", "n1", "--days", 20)
    return store


@pytest.mark.parametrize("same_key", [False, True], ids=["new-key", "same-key"])
def test_a_renewal_has_the_same_names(store: Path, same_key: bool) -> None:  # noqa: FBT001 - a case of pytest
    """Only the time has changed, and the key unless it was to stay; peers take it as they took the old one."""
    folder = store / "guest" / "vm1"
    old, key = read_certificate(folder), (folder / "key.pem").read_bytes()
    said = done("renew", store, "guest", "vm1", *(["--same-key"] if same_key else []))
    new = read_certificate(folder)
    assert names(new) == names(old) == ("DNS vm1", "IP 192.0.2.7")
    assert new.serial_number != old.serial_number
    assert (ends(new) - ends(old)).days in {804, 805}
    assert ((folder / "key.pem").read_bytes() == key) is same_key
    assert stat.S_IMODE((folder / "key.pem").stat().st_mode) == 0o600
    assert said.startswith(f"renewed {folder}, valid until {ends(new):%Y-%m-%d}; the old one was until ")
    assert f"copy {'cert.pem' if same_key else 'key.pem and cert.pem'} into the key folder of guest vm1" in said
    assert meet(folder, store / "host" / "n1") == (VM1, N1)
    assert verified(folder, "-x509_strict", "-purpose", "sslserver", "-verify_hostname", "vm1")


def test_what_was_replaced_is_still_known(store: Path) -> None:
    """Whoever wants to revoke all of a name finds the old certificates too, forced ones among them, each once."""
    first = read_certificate(store / "guest" / "vm1")
    done("renew", store, "guest", "vm1")
    second = read_certificate(store / "guest" / "vm1")
    done("issue", store, "guest", "vm1", "--force")
    third = read_certificate(store / "guest" / "vm1")
    assert set(read_issued(store, VM1)) == {first, second, third}
    assert len(read_issued(store, VM1)) == 3
    assert read_issued(store, VM1)[0] == third


def test_a_renewal_that_is_shorter_is_told(tmp_path: Path) -> None:
    """An authority that ends sooner than asked is said to: it is time for another."""
    done("init", tmp_path, "--days", 40)
    done("issue", tmp_path, "guest", "vm1", "--days", 5)
    assert "not for 825 days: it ends with its authority; make a new one" in done("renew", tmp_path, "guest", "vm1")
    assert "not for" not in done("renew", tmp_path, "guest", "vm1", "--days", 39)


def test_a_renewal_keeps_whom_it_trusts(store: Path, tmp_path: Path) -> None:
    """An authority that was trusted beside its own is not forgotten, or a rotation would have a gap."""
    done("init", tmp_path / "other", "--name", "other")
    done("trust", store / "guest" / "vm1", tmp_path / "other")
    done("renew", store, "guest", "vm1")
    trusted = read_certificates(store / "guest" / "vm1" / "ca.pem")
    assert trusted == [read_certificate(store), read_certificate(tmp_path / "other")]


def test_a_forced_issue_forgets_whom_it_trusted(store: Path, tmp_path: Path) -> None:
    """Keys that are made anew trust what the authority's own folder does, and have its lists: no more."""
    done("init", tmp_path / "other", "--name", "other")
    done("trust", store / "guest" / "vm1", tmp_path / "other")
    done("issue", store, "guest", "vm1", "--force")
    assert read_certificates(store / "guest" / "vm1" / "ca.pem") == [read_certificate(store)]


def refusals(store: Path, tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    """Return renewals that must be refused: arguments, and how the sentence begins."""
    now = datetime.now(UTC)
    foreign = make_authority("foreign", days=9, now=now)
    strange: Credential = issue(foreign, Identity(Role.HOST, "n9"), days=9, now=now)
    write_credential(store / "host" / "n9", strange, foreign, force=False)
    write_credential(store / "host" / "n8", strange, foreign, force=False)
    done("request", tmp_path / "kept", "guest", "vm2")
    done("sign", store, tmp_path / "kept")
    return {
        "nobody": ([store, "guest", "vm9"], f"cannot read {store}/guest/vm9/cert.pem: No such file or directory"),
        "foreign": ([store, "host", "n9"], f"{store}/host/n9/cert.pem is not of the authority in {store}: "),
        "misnamed": ([store, "host", "n8"], f"{store}/host/n8/cert.pem is host n9's, not host n8's: "),
        "keyless": ([store, "guest", "vm2"], f"there is no {store}/guest/vm2/key.pem, for it never left the guest: "),
    }


def test_what_cannot_be_renewed_is_explained(store: Path, tmp_path: Path) -> None:
    """The file at fault is named, what to do is said, and nothing has changed."""
    for arguments, start in refusals(store, tmp_path).values():
        before = {path: path.read_bytes() for path in store.rglob("*.pem")}
        assert refused("renew", *arguments).startswith(start)
        assert {path: path.read_bytes() for path in store.rglob("*.pem")} == before


def test_a_key_that_never_left_its_guest_is_renewed(store: Path, tmp_path: Path) -> None:
    """With --same-key no key is needed: the certificate for it is enough."""
    done("request", tmp_path / "vm2", "guest", "vm2")
    done("sign", store, tmp_path / "vm2", "--out", tmp_path / "answer.pem")
    done("accept", tmp_path / "vm2", store / "guest" / "vm2")
    done("renew", store, "guest", "vm2", "--same-key", "--days", 40)
    assert not (store / "guest" / "vm2" / "key.pem").exists()
    done("accept", tmp_path / "vm2", store / "guest" / "vm2")
    left = ends(read_certificate(tmp_path / "vm2")) - datetime.now(UTC)
    assert timedelta(days=39) < left < timedelta(days=41)


def test_a_revoked_key_is_not_renewed(store: Path) -> None:
    """A new certificate for a key that others may have would undo the revocation; a new key may have one."""
    done("revoke", store, "host", "n1")
    assert "was revoked, and its key with it: renew without --same-key" in refused(
        "renew", store, "host", "n1", "--same-key"
    )
    done("renew", store, "host", "n1")
    assert verified(store / "host" / "n1")
    assert meet(store / "guest" / "vm1", store / "host" / "n1") == (VM1, N1)


def test_another_authority_starts_without_the_old_ones_list(store: Path) -> None:
    """What replaces an authority is not held up by a list that it did not sign."""
    done("revoke", store, "host", "n1")
    done("init", store, "--force")
    assert not (store / "crl.pem").exists()
    done("issue", store, "guest", "vm1", "--force")
    assert not (store / "guest" / "vm1" / "crl.pem").exists()
    assert keys("check", store / "guest" / "vm1")[0] == 0
    assert refused("renew", store, "host", "n1").startswith(f"{store}/host/n1/cert.pem is not of the authority in ")


def test_a_folder_in_order_is_told_with_its_days(store: Path) -> None:
    """Whose it is and for how long it is good stand in one line."""
    code, out, err = keys("check", store / "guest" / "vm1", "--days", 10)
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"{store}/guest/vm1 is in order: guest vm1, 20 days left\n", out)
