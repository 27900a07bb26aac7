"""What the benchmarks are played with: keys, compiled floors, every kind of server and manager to compare.

A kind is a server and its manager: `ours` (the installed commands), `c` and `python` (the floors), `ssh` (the
peer). What is not there is in `missing` with what to install. All of it lives in one temporary folder.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from measure import PATIENCE, BenchError, Child
from table import Figure, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

FLOOR = Path(__file__).parent / "floor"
ADDRESS = "127.0.0.1"
KILLED = 128 + signal.SIGKILL
LABELS = {"c": "C", "python": "bare Python", "ssh": "ssh localhost"}
COMPILER = "a C compiler and OpenSSL's headers (apt install gcc libssl-dev)"
COMMANDS = "cmappserver, cmappmgr and cmapp (pip install . into this Python's environment)"


@dataclass(frozen=True)
class Kind:
    """A server (from a port) and a manager (from a port, its options and a command), both as argv.

    `killed` is the manager's exit code for an application that was killed with SIGKILL; `weight` says how
    much dearer than others it is to start, so that there are fewer of them.
    """

    name: str
    server: Callable[[int], list[str]]
    manager: Callable[[int, Sequence[str], Sequence[str]], list[str]]
    killed: int = KILLED
    weight: int = 1


@dataclass(frozen=True)
class Server:
    """A server that listens; `output` is what it prints."""

    child: Child
    port: int
    output: int


@dataclass
class Stage:
    """The temporary folder, the kinds that are there, and what to install for those that are not."""

    folder: Path
    keys: Path
    kinds: dict[str, Kind] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def present(self, *names: str) -> list[Kind]:
        """Return those of the kinds that are there."""
        return [self.kinds[name] for name in names if name in self.kinds]

    def log(self, name: str) -> Path:
        """Return the file that takes the stderr of everything of that name."""
        return self.folder / f"{name}.log"

    @contextlib.contextmanager
    def serve(self, kind: Kind) -> Iterator[Server]:
        """Start a server of that kind, give it once it accepts connections, and end it."""
        port = free_port()
        read, write = os.pipe()
        child = Child(kind.server(port), self.log(f"{kind.name}-server"), {"PATH": os.defpath}, stdout=write)
        os.close(write)
        try:
            _await(port, child)
            yield Server(child, port, read)
        finally:
            child.end(signal.SIGTERM)
            os.close(read)

    def manage(
        self,
        kind: Kind,
        port: int,
        command: Sequence[str],
        *options: str,
        log: Path | None = None,
        ahead: bool = False,
    ) -> Child:
        """Start a manager as a cluster does: no environment, and the package log is its stderr."""
        argv = kind.manager(port, options, command)
        return Child(argv, log or self.log(f"{kind.name}-manager"), ahead=ahead)

    def beside(self, floor: str, figure: Figure, goal: float | None = None) -> Row:
        """Return the row that puts ours beside `floor`, or says what to install to measure it."""
        lacking = [self.missing[kind] for kind in ("ours", floor) if kind in self.missing]
        how = f"not measured: install {' and '.join(lacking)}" if lacking else figure.how
        name, n = f"{figure.name} / {LABELS[floor]}", figure.n or len(figure.samples.get("ours", []))
        return Row(name, figure.unit, figure.of("ours"), figure.of(floor), goal, n, how)


def free_port() -> int:
    """Return a loopback port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def _await(port: int, child: Child) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and not select.select([child.pidfd], [], [], 0.02)[0]:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection((ADDRESS, port)):
            return
    raise BenchError(f"the server does not listen: {child.last_words()}")


def set_up(stack: contextlib.ExitStack, folder: Path, keys: Path | None) -> Stage:
    """Make keys unless given, compile the floors, look for everything else."""
    stage = Stage(folder, keys or folder / "keys")
    tools = {name: _find(name) for name in ("cmappserver", "cmappmgr", "cmapp")}
    if keys is None:
        if tools["cmapp"] is None:
            raise BenchError(f"there are no keys: install {COMMANDS}, or give --keys")
        _make_keys(tools["cmapp"], stage.keys)
    guest, host = str(stage.keys / "guest/bench"), str(stage.keys / "host/bench")
    if tools["cmappserver"] and tools["cmappmgr"]:
        stage.kinds["ours"] = _ours(folder, tools["cmappserver"], tools["cmappmgr"], guest, host)
    else:
        stage.missing["ours"] = COMMANDS
    if shutil.which("cc") and _compile(folder):
        stage.kinds["c"] = Kind(
            "c",
            lambda port: [f"{folder}/server", guest, str(port)],
            lambda port, _options, command: [f"{folder}/manager", host, ADDRESS, str(port), *command],
        )
    else:
        stage.missing["c"] = COMPILER
    shutil.copy(FLOOR / "manager.py", folder / "bare_manager.py")
    start = f"import sys; sys.path.insert(0, {str(folder)!r}); import bare_manager; bare_manager.main()"
    stage.kinds["python"] = Kind(
        "python",
        lambda port: [sys.executable, str(FLOOR / "server.py"), guest, str(port)],
        lambda port, options, command: (
            [sys.executable, "-c", start, "--keys", host, *options, f"{ADDRESS}:{port}", "--", *command]
        ),
    )
    server, client = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.defpath), shutil.which("ssh")
    if server and client:
        _add_ssh(stage, _ssh(stack, folder, server, client))
    else:
        stage.missing["ssh"] = "OpenSSH (apt install openssh-server openssh-client)"
    return stage


def _find(command: str) -> str | None:
    beside = Path(sys.executable).with_name(command)
    return str(beside) if beside.exists() else shutil.which(command)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    if done.returncode:
        raise BenchError(f"{shlex.join(argv)}: {done.stderr.strip()}")


def _make_keys(cmapp: str, keys: Path) -> None:
    _run(cmapp, "keys", "init", str(keys))
    _run(cmapp, "keys", "issue", str(keys), "guest", "bench", "--san", ADDRESS, "--san", "localhost")
    _run(cmapp, "keys", "issue", str(keys), "host", "bench")


def _compile(folder: Path) -> bool:
    flags = ["-O2", "-Wall", "-Wextra"]
    try:
        for name in ("server", "manager"):
            _run("cc", *flags, "-o", f"{folder}/{name}", str(FLOOR / f"{name}.c"), "-lssl", "-lcrypto")
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return False
    return True


def _ours(folder: Path, server: str, manager: str, guest: str, host: str) -> Kind:
    def serve(port: int) -> list[str]:
        return [server, "--keys", guest, "--listen", f"{ADDRESS}:{port}", "--state-dir", f"{folder}/state"]

    def manage(port: int, options: Sequence[str], command: Sequence[str]) -> list[str]:
        name = f"bench-{time.monotonic_ns()}"
        fixed = ["--keys", host, "--name", name, "--no-syslog"]
        return [manager, *fixed, *options, f"{ADDRESS}:{port}", "--", *command]

    return Kind("ours", serve, manage)


def _add_ssh(stage: Stage, kind: Kind) -> None:
    """Add the peer if it lets us in: an account that is locked or has no shell is common."""
    try:
        with stage.serve(kind) as server:
            manager = stage.manage(kind, server.port, ["true"])
            problem = manager.last_words() if manager.wait() else ""
    except BenchError as error:
        problem = str(error)
    if problem:
        stage.missing["ssh"] = f"an sshd that lets us in ({' '.join(problem.split())})"
    else:
        stage.kinds["ssh"] = kind


def _ssh(stack: contextlib.ExitStack, folder: Path, server: str, client: str) -> Kind:
    """Arrange for an sshd of our own, with keys of its own, that only we can enter."""
    home, privileges = folder / "ssh", Path("/run/sshd")
    home.mkdir(mode=0o700)
    if os.geteuid() == 0 and not privileges.exists():
        privileges.mkdir(mode=0o755)  # sshd insists on it, and nobody else made it
        stack.callback(privileges.rmdir)
    for name in ("host", "user"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / name))
    user, known = getpass.getuser(), home / "known_hosts"
    known.write_text(f"* {(home / 'host.pub').read_text()}")
    (home / "sshd_config").write_text(
        f"ListenAddress {ADDRESS}\nHostKey {home}/host\nAuthorizedKeysFile {home}/user.pub\nPidFile none\n"
        f"UsePAM no\nStrictModes no\nAllowUsers {user}\nMaxStartups 100\nPrintMotd no\nPrintLastLog no\n"
    )
    options = ["BatchMode=yes", "IdentitiesOnly=yes", "LogLevel=ERROR", f"UserKnownHostsFile={known}"]
    flags = [word for option in options for word in ("-o", option)]

    def manage(port: int, _options: Sequence[str], command: Sequence[str]) -> list[str]:
        to = ["-i", f"{home}/user", "-p", str(port), f"{user}@{ADDRESS}", shlex.join(command)]
        return [client, "-F", "/dev/null", *flags, *to]

    def serve(port: int) -> list[str]:
        return [server, "-D", "-e", "-f", f"{home}/sshd_config", "-p", str(port)]

    return Kind("ssh", serve, manage, killed=255, weight=4)
