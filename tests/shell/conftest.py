"""Real servers and real managers on loopback, with keys that are made once."""

from __future__ import annotations

import ctypes
import os
import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cmapp.keys.authority import issue, make_authority
from cmapp.keys.keystore import read_authority, write_authority, write_credential
from cmapp.net.identity import Identity, Role
from tests.shell.caller import Caller
from tests.shell.capture_bed import State
from tests.shell.files_bed import Server as Keeper
from tests.shell.restart_bed import LEAVES, PR_SET_CHILD_SUBREAPER
from tests.shell.served import DEFECT, Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def key_folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with key folders: `host`, `guest`, and as many of a foreign authority, `host-foreign`."""
    root, now = tmp_path_factory.mktemp("key-folders"), datetime.now(UTC)
    for suffix in ("", "-foreign"):
        authority = make_authority(None, days=90, now=now)
        write_authority(root / f"authority{suffix}", authority, force=False)
        for role, name in ((Role.HOST, "n1"), (Role.GUEST, "vm1")):
            credential = issue(authority, Identity(role, name), days=90, now=now)
            write_credential(root / f"{role.value}{suffix}", credential, authority, force=False)
    return root


@pytest.fixture
def other_host(key_folders: Path, tmp_path: Path) -> Path:
    """Return the key folder of another host, `n2`."""
    authority = read_authority(key_folders / "authority")
    other = issue(authority, Identity(Role.HOST, "n2"), days=1, now=datetime.now(UTC))
    write_credential(tmp_path / "n2", other, authority, force=False)
    return tmp_path / "n2"


@pytest.fixture(scope="session")
def _shared_server(key_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("shared"), key_folders / "guest")
    try:
        yield served
        served.stop()
    finally:
        served.close()


@pytest.fixture
def served(_shared_server: Served) -> Iterator[Served]:
    """Return the server that many tests share, each with applications of its own name."""
    before = len(_shared_server.lines)
    yield _shared_server
    assert not DEFECT.search("\n".join(_shared_server.lines[before:]))


@pytest.fixture
def serve(key_folders: Path, tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Return a function that starts a server of the test's own, which is stopped in order unless it has ended."""
    servers: list[Served] = []

    def start(*options: str, **how: object) -> Served:
        folder = tmp_path / f"server-{len(servers)}"
        folder.mkdir()
        keys = how.pop("keys", key_folders / "guest")
        servers.append(Served(folder, keys, *options, **how))  # type: ignore[arg-type]
        return servers[-1]

    try:
        yield start
        for server in servers:
            if server.process.poll() is None:
                server.stop()
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def call(
    key_folders: Path, serve: Callable[..., Served], request: pytest.FixtureRequest
) -> Iterator[Callable[..., Caller]]:
    """Return a function that connects a manager, to the shared server unless told another.

    Managers hang up before the servers of `serve` are stopped.
    """
    del serve
    callers: list[Caller] = []

    def connect(server: Served | None = None, **how: object) -> Caller:
        port = (server or request.getfixturevalue("served")).port
        keys = how.pop("keys", key_folders / "host")
        callers.append(Caller(port, keys, **how))  # type: ignore[arg-type]
        return callers[-1]

    yield connect
    for caller in callers:
        caller.finish()


@pytest.fixture
def no_subreaper() -> None:
    """Leave orphans to init, as they are on a guest: tests before may have made this process their reaper."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0) == 0


@pytest.fixture(params=["auto", "none"])
def server(serve: Callable[..., Served], request: pytest.FixtureRequest) -> Iterator[Served]:
    """Return a server that leaves its applications, with and without cgroups."""
    yield (server := serve("--cgroup", request.param, conf=LEAVES))
    if server.process.poll() is None:
        server.stop()


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Return a pipe: what is written to it is the code that an application exits with which reads it."""
    os.mkfifo(tmp_path / "gate")
    return tmp_path / "gate"


@pytest.fixture
def keep(tmp_path: Path) -> Iterator[Callable[..., Keeper]]:
    """Return a function that starts what keeps the files of runs, each on what the one before has left."""
    keepers: list[Keeper] = []

    def start(folder: Path = tmp_path) -> Keeper:
        keepers.append(Keeper(folder))
        return keepers[-1]

    yield start
    for keeper in keepers:
        keeper.close()


@pytest.fixture
def port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
    return found


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Callable[..., State]]:
    """Return a function that starts the part of a server that captures, on what the one before has left."""
    states: list[State] = []

    def start(**how: int) -> State:
        if states:
            states[-1].close()
        states.append(State(tmp_path, **how))
        return states[-1]

    yield start
    if states:
        states[-1].close()
