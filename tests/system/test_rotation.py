"""Keys that are renewed, and an authority that is succeeded, under applications that run on: nobody notices."""

from __future__ import annotations

import re
import shutil
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from tests.system.keys import NAMES, Keys
from tests.system.processes import alive, end, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

OFTEN = ("--poll-interval", "50ms", "--link-timeout", "20s")


@pytest.fixture
def authorities(tmp_path: Path) -> tuple[Keys, Keys]:
    """Return an old and a new authority, each with a guest and a host of the same names."""
    return Keys(tmp_path / "old"), Keys(tmp_path / "new")


def copy(source: Path, target: Path, *names: str) -> None:
    """Copy files into a key folder, as `cp` does: not in one step."""
    target.mkdir(exist_ok=True)
    for name in names:
        shutil.copyfile(source / name, target / name)
    (target / "key.pem").chmod(0o600)


def start(bed: Bed, host: Path) -> Manager:
    """Start a manager that polls often, and wait until its application runs."""
    manager = bed.start("/bin/sleep", "1000", keys=host, options=OFTEN)
    manager.until_launched()
    return manager


def test_an_authority_is_succeeded(bed: Bed, authorities: tuple[Keys, Keys], tmp_path: Path) -> None:
    """Both authorities, then new keys in the guest and on the host, then only the new authority: no link is lost."""
    old, new = authorities
    guest, host, both = tmp_path / "guest", tmp_path / "host", tmp_path / "both"
    copy(old.guest, guest, "key.pem", "cert.pem", "ca.pem")
    copy(old.host, host, "key.pem", "cert.pem", "ca.pem")
    copy(old.host, both, "key.pem")
    (both / "ca.pem").write_bytes((old.guest / "ca.pem").read_bytes() + (new.guest / "ca.pem").read_bytes())
    server = bed.serve(keys=guest)
    managers = [start(bed, host)]
    for source, target, names in (
        (both, guest, ["ca.pem"]),
        (both, host, ["ca.pem"]),
        (new.guest, guest, ["cert.pem", "key.pem"]),
        (new.host, host, ["key.pem", "cert.pem"]),
        (new.guest, guest, ["ca.pem"]),
        (new.host, host, ["ca.pem"]),
    ):
        copy(source, target, *names)
        managers.append(start(bed, host))
    assert server.process.poll() is None
    pids = [manager.until_launched() for manager in managers]
    assert all(map(alive, pids))
    assert not any("lost the link" in manager.log for manager in managers)
    until(lambda: server.log.count("are used from here on") >= 1, "a word of the new keys")
    late = bed.run("/bin/true", keys=old.host)
    assert (late.wait(), "is not from our authority" in late.last_line) == (122, True)
    for manager in managers:
        manager.process.terminate()
    assert [manager.wait() for manager in managers] == [143] * len(managers)


def test_a_manager_returns_with_the_keys_of_then(bed: Bed, authorities: tuple[Keys, Keys], tmp_path: Path) -> None:
    """A link that breaks after both sides were rekeyed is made again by the new keys, to the same run."""
    old, new = authorities
    guest, host = tmp_path / "guest", tmp_path / "host"
    copy(old.guest, guest, "key.pem", "cert.pem", "ca.pem")
    copy(old.host, host, "key.pem", "cert.pem", "ca.pem")
    server = bed.serve(keys=guest)
    manager = start(bed, host)
    application = manager.until_launched()
    copy(new.guest, guest, "key.pem", "cert.pem", "ca.pem")
    copy(new.host, host, "key.pem", "cert.pem", "ca.pem")
    server.crash()
    manager.until_log("back after")
    assert manager.until_launched() == application
    assert f"the keys in {host} have changed and are used from here on" in manager.log
    manager.process.terminate()
    assert manager.wait() == 143


def test_half_copied_keys_are_not_used(bed: Bed, authorities: tuple[Keys, Keys], tmp_path: Path) -> None:
    """A certificate without its key waits, in the guest and on the host, and is told of."""
    old, _ = authorities
    guest, host = tmp_path / "guest", tmp_path / "host"
    copy(old.guest, guest, "key.pem", "cert.pem", "ca.pem")
    copy(old.host, host, "key.pem", "cert.pem", "ca.pem")
    server = bed.serve(keys=guest)
    other = old.issue("guest", "vm2", *NAMES)
    copy(other, guest, "cert.pem")
    manager = start(bed, host)
    mismatch = f"{guest}/key.pem is not the key of {guest}/cert.pem"
    until(lambda: mismatch in server.log, "a word of the half-copied keys")
    copy(other, guest, "key.pem")
    start(bed, host)
    assert len(re.findall("cannot be used", server.log)) == 1
    end(manager.process)


def test_expiry_is_told_on_both_sides(bed: Bed, authorities: tuple[Keys, Keys]) -> None:
    """A guest's certificate that ends soon is in the server's log, in the package log, and in the status."""
    old, _ = authorities
    soon = old.dated("guest", "vm3", timedelta(days=-1), timedelta(days=9, hours=1))
    bed.keys = old
    server = bed.serve(keys=soon)
    manager = start(bed, old.host)
    manager.until_log(r"WARNING.*the certificate of \S+ expires in 9 days, on \d+-\d+-\d+: issue a new one")
    own = f"our certificate, {soon}/cert.pem, expires in 9 days, on "
    until(lambda: own in server.log, "a word of the server's own certificate")
    assert "our certificate" not in manager.log
    assert "certificates: guest 9 days left, host 825 days left" in bed.cmapp("status")
    end(manager.process)
