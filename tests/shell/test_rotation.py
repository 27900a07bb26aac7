"""Keys that are replaced under load: whoever comes while files are half copied is served all the same."""

from __future__ import annotations

import re
import shutil
import threading
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.errors import TrustError
from tests.shell.certificates import DAY, Made, new_authority, new_leaf, new_list, pin, plain, write_keys
from tests.shell.served import SOON, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

PIECES = 3  # in which a file is copied


class Copying:
    """Somebody who copies key folders over another in the clumsiest way, again and again."""

    def __init__(self, target: Path, *sources: Path) -> None:
        self._target, self._sources = target, sources
        self._stop = threading.Event()
        self.rounds = 0
        self._thread = threading.Thread(target=self._copy)
        self._thread.start()

    def _copy(self) -> None:
        while not self._stop.is_set():
            source = self._sources[self.rounds % len(self._sources)]
            for name in ("ca.pem", "key.pem", "cert.pem") if self.rounds % 2 else ("cert.pem", "ca.pem", "key.pem"):
                content = (source / name).read_bytes()
                with (self._target / name).open("wb", buffering=0) as file:
                    for piece in range(PIECES):
                        file.write(content[piece * len(content) // PIECES : (piece + 1) * len(content) // PIECES])
                        self._stop.wait(0.003)
            self.rounds += 1
            self._stop.wait(0.02)

    def end(self) -> None:
        """Finish the folder that is being copied."""
        self._stop.set()
        self._thread.join(SOON)


@pytest.fixture
def authorities() -> tuple[Made, Made]:
    """Return an old authority and its successor."""
    return new_authority("old"), new_authority("new")


@pytest.fixture
def guests(authorities: tuple[Made, Made], tmp_path: Path) -> list[Path]:
    """Return two key folders of one guest, by each of the authorities; both trust both."""
    old, new = authorities
    return [
        write_keys(tmp_path / f"guest-{name}", new_leaf(by, "guest", "vm1"), old, new)
        for name, by in (("old", old), ("new", new))
    ]


def test_nobody_is_turned_away_while_files_are_copied(
    serve: Callable[..., Served],
    call: Callable[..., Caller],
    authorities: tuple[Made, Made],
    guests: list[Path],
    tmp_path: Path,
) -> None:
    """Sixty managers come while the folder changes all the time, and one that is there stays."""
    old, new = authorities
    keys = tmp_path / "keys"
    shutil.copytree(guests[0], keys)
    hosts = [
        write_keys(tmp_path / f"host-{number}", new_leaf(by, "host", "n1"), old, new)
        for number, by in enumerate((old, new))
    ]
    server = serve(keys=keys)
    first = call(server, keys=hosts[0])
    first.launch("/bin/sleep", "1000")
    copying = Copying(keys, *guests)
    try:
        for number in range(60):
            caller = call(server, keys=hosts[number % 2])
            assert caller.welcome.guest
            caller.close()
        until(lambda: copying.rounds > 3, "some rounds of copying")
    finally:
        copying.end()
    assert first.report().state is m.Phase.RUNNING
    first.stop(kill=True)


def test_the_log_says_what_becomes_of_new_keys(
    serve: Callable[..., Served],
    call: Callable[..., Caller],
    authorities: tuple[Made, Made],
    guests: list[Path],
    tmp_path: Path,
) -> None:
    """A folder that stays half copied is told of once; once it is whole, that is told too."""
    old, new = authorities
    keys = tmp_path / "keys"
    shutil.copytree(guests[0], keys)
    host = write_keys(tmp_path / "host", new_leaf(old, "host", "n1"), old, new)
    server = serve(keys=keys)
    shutil.copy(guests[1] / "cert.pem", keys)
    for _ in range(3):
        call(server, keys=host).close()
    kept = "have changed, but cannot be used, so those from before stay in use"
    server.logged(re.escape(f"the keys in {keys} {kept}: {keys}/key.pem is not the key of"))
    shutil.copy(guests[1] / "key.pem", keys)
    call(server, keys=host).close()
    server.logged("have changed and are used from here on, until 20")
    assert sum("cannot be used" in line for line in server.lines) == 1
    new_keys = call(server, keys=host).link.tls.getpeercert()
    assert new_keys is not None
    assert new_keys["issuer"] == ((("commonName", "new"),),)


def test_a_revoked_manager_is_refused_without_a_restart(
    serve: Callable[..., Served],
    call: Callable[..., Caller],
    authorities: tuple[Made, Made],
    guests: list[Path],
    tmp_path: Path,
) -> None:
    """The list counts for the next connection; the one that is there ends when its manager ends."""
    old, new = authorities
    hosts = {
        name: (made, write_keys(tmp_path / name, made, old, new))
        for name in ("n1", "n2")
        for made in [new_leaf(old, "host", name)]
    }
    server = serve(keys=guests[0])
    before = call(server, keys=hosts["n1"][1])
    (guests[0] / "crl.pem").write_bytes(new_list(old, [hosts["n1"][0]]) + new_list(new))
    with pytest.raises(TrustError, match="has been revoked"):
        call(server, keys=hosts["n1"][1])
    server.logged("has been revoked: issue a new one")
    assert call(server, keys=hosts["n2"][1]).welcome.guest
    assert before.ask(m.Runs, m.Status, after="").runs == ()


def test_what_expires_is_in_the_log_at_once(
    serve: Callable[..., Served], authorities: tuple[Made, Made], tmp_path: Path
) -> None:
    """The server warns of its own certificate, its pins and its lists, by itself."""
    keys = write_keys(tmp_path / "keys", new_leaf(authorities[0], "guest", "vm1", until=9 * DAY), authorities[0])
    pin(keys, "host", "n9", plain(until=20 * DAY))
    server = serve(keys=keys)
    server.logged(re.escape(f"our certificate, {keys}/cert.pem, expires in 9 days, on "))
    server.logged("the pinned certificate of host n9 expires in 20 days, on ")
