"""A real cmappserver as a child process: everything that it logs and tells systemd, and nothing left at its end.

Its log is read by a thread of its own, so a test waits for a line instead of for time to pass. It can be killed,
left and started again on the same state folder. The invariant: a server that is stopped in order exits 0, has told
of no defect of its own, and leaves no process behind; whatever a test has done to it, nothing of it is left in the end.
"""

from __future__ import annotations

import itertools
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

SOON = 30.0  # seconds: how long anything is waited for that should happen at once
SCRIPT = Path(sys.executable).with_name("cmappserver")
MAIN = "from cmapp.cli.cmappserver import main; main()"
COMMAND = (str(SCRIPT),) if SCRIPT.exists() else (sys.executable, "-c", MAIN)
HANDS = """
import fcntl, os, sys
at = sys.argv.index("--")
high = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 1000) for number in sys.argv[1:at]]
for number, descriptor in enumerate(high, 3):
    os.dup2(descriptor, number)
    os.close(descriptor)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])
"""
STOPS = "stop_on_exit = true\n"  # in what most servers of tests read, so that their end is the end of everything
ANYBODY = 'run_as = "*"\n'  # where no policy is written, for the tests that launch as another user
CGROUPS = Path("/sys/fs/cgroup/unified" if Path("/sys/fs/cgroup/unified").exists() else "/sys/fs/cgroup")
DEFECT = re.compile(r"Traceback|internal error|Exception ignored|Warning:")
T = TypeVar("T")

_numbers = itertools.count(1)


def until(condition: Callable[[], T | None], what: str, limit: float = SOON) -> T:
    """Return what `condition` returns as soon as it is true; fail the test when it does not become so."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.002)
    return found


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Tell whether the process lives: a zombie does not."""
    return stat(pid)[:1] not in ([], ["Z"], ["X"])


def children(pid: int) -> list[int]:
    """Return the children of `pid`, zombies too."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    """Return all below `pid`."""
    tree = children(pid)
    for child in tree:
        tree += children(child)
    return tree


def members(run_id: str) -> list[int]:
    """Return the living processes of a run, by its cgroup or by what marks its environment."""
    word = run_id.encode()
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _belongs(entry, word)]


def _belongs(entry: Path, word: bytes) -> bool:
    try:
        marked = word in (entry / "cgroup").read_bytes() or word in (entry / "environ").read_bytes()
    except OSError:
        return False
    return marked and alive(int(entry.name))


@contextmanager
def somebody_else() -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that belongs to no run, and end it at the end."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        try:
            yield process
        finally:
            process.kill()


def killed(run_id: str) -> list[int]:
    """Kill the processes of a run; return whom."""
    found = members(run_id)
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


class Served:
    """A cmappserver that is ready; `lines` is its log, from all the times that it was started."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        *options: str,
        command: Sequence[str] = COMMAND,
        env: Mapping[str, str] | None = None,
        conf: str = STOPS + ANYBODY,
        **how: object,
    ) -> None:
        """Start it; `command` is what runs it, `conf` what it reads, `how` is for subprocess.Popen."""
        self.lines: list[str] = []
        self._heard = threading.Condition()
        name = f"cmapp-shell-{os.getpid()}-{next(_numbers)}"
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind("\0" + name)
        self._told: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._kept: dict[str, int] = {}
        threading.Thread(target=self._hear, daemon=True).start()
        kept = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        self.state = folder / "state"
        self.conf = folder / "conf"
        self.conf.write_text(conf)
        fixed = ["--config", str(self.conf), "--keys", str(keys), "--state-dir", str(self.state)]
        if "--state-dir" in options:
            self.state = Path(options[options.index("--state-dir") + 1])
        self._argv = [*command, *fixed, "--listen", "127.0.0.1:0", *options]
        self._env = {**kept, **(env or {}), "NOTIFY_SOCKET": "@" + name}
        self._how = how
        self.process: subprocess.Popen[bytes]
        self.start()

    def start(self, *options: str, hand: bool = False) -> None:
        """Start it, the first time or anew, with more options, and wait until it is ready.

        `hand` it the descriptors that it had kept by systemd, as systemd would; else they are closed.
        """
        since, kept = len(self.lines), self._kept
        self._kept = {}
        argv, env = [*self._argv, *options], self._env
        if hand:
            argv = [sys.executable, "-I", "-S", "-c", HANDS, *map(str, kept.values()), "--", *argv]
            env = {**env, "LISTEN_FDS": str(len(kept)), "LISTEN_FDNAMES": ":".join(kept)}
        self.process = subprocess.Popen(  # type: ignore[call-overload]
            argv,
            env=env,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **{"pass_fds": tuple(kept.values()) if hand else (), **self._how},
        )
        for descriptor in kept.values():
            os.close(descriptor)
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.logged(r"listening on \S+:(\d+)$", since=since)[1])
        assert (notice := self.notice()) == "READY=1", (notice, self.log)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return "\n".join(self.lines)

    def logged(self, pattern: str, *, since: int = 0, limit: float = SOON) -> re.Match[str]:
        """Wait for a line, from number `since` on, that has `pattern` in it; return the match."""

        def found() -> re.Match[str] | None:
            return next((match for line in self.lines[since:] if (match := re.search(pattern, line))), None)

        with self._heard:
            self._heard.wait_for(lambda: found() or not self._reader.is_alive(), limit)
        match = found()
        assert match, f"{pattern!r} was not logged: {self.log}"
        return match

    def notice(self) -> str:
        """Return what it tells systemd next."""
        return self._told.get(timeout=SOON)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    @property
    def descriptors(self) -> int:
        """How many descriptors it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def free(self) -> None:
        """Wait until it has no children, living or not: nothing runs, and everything is reaped."""
        until(lambda: not children(self.pid), f"no children: {descendants(self.pid)}")

    def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        code = self.process.wait(SOON)
        self._reader.join(SOON)
        return code

    def kill(self) -> None:
        """Kill it as a crash would."""
        self.signal(signal.SIGKILL)
        assert self.wait() == -signal.SIGKILL

    def leave(self) -> None:
        """Have it end in order, and leave the applications, which is what it does unless it is told to stop them."""
        self.signal(signal.SIGTERM)
        assert self.notice() == "STOPPING=1"
        assert self.wait() == 0, self.log

    def upgrade(self) -> None:
        """Have it become the installed version, and wait until it has."""
        since = len(self.lines)
        self.signal(signal.SIGUSR2)
        assert self.notice().startswith("RELOADING=1\nMONOTONIC_USEC="), self.log
        assert (notice := self.notice()) == "READY=1", (notice, self.log)
        self.port = int(self.logged(r"listening on \S+:(\d+)$", since=since)[1])

    @property
    def runs(self) -> list[str]:
        """The run ids of what its state folder tells of, but for receipts."""
        folder = self.state / "runs"
        return sorted({entry.name[:36] for entry in folder.iterdir()}) if folder.exists() else []

    def stop(self) -> None:
        """Stop it in order, and see that it does, leaves nothing and had no defect."""
        tree = {pid: stat(pid)[19:20] for pid in descendants(self.pid)}
        runs = self.runs
        self.signal(signal.SIGTERM if self.conf.exists() and STOPS in self.conf.read_text() else signal.SIGQUIT)
        assert self.wait() == 0, self.log
        left = [pid for pid, started in tree.items() if started and stat(pid)[19:20] == started and alive(pid)]
        assert not left, f"left behind: {left}"
        assert not [pid for run_id in runs for pid in members(run_id)]
        assert not DEFECT.search(self.log), self.log

    def close(self) -> None:
        """Make sure that it and all that it started is gone, whatever the test has done to it."""
        self.process.kill()
        self.wait()
        with suppress(OSError):  # it is closed already
            self._notices.shutdown(socket.SHUT_RDWR)
        for run_id in self.runs:
            until(lambda run_id=run_id: not killed(run_id), f"run {run_id} is gone")  # type: ignore[misc]
            for folder in (*CGROUPS.glob(f"*{run_id}*"), *CGROUPS.glob(f"*/*{run_id}*")):
                folder.rmdir()

    def _hear(self) -> None:
        """Hear what it tells systemd, and keep the descriptors that it wants to be kept."""
        with self._notices as notices:
            while True:
                data, descriptors, *_ = socket.recv_fds(notices, 65536, 8)
                words = dict(line.partition("=")[::2] for line in data.decode().splitlines())
                if not data:
                    break
                if {"FDSTORE", "FDSTOREREMOVE"} & words.keys():
                    old = self._kept.pop(words["FDNAME"], None)
                    if old is not None:
                        os.close(old)
                    if descriptors:
                        self._kept[words["FDNAME"]] = descriptors[0]
                else:
                    self._told.put(data.decode())
        for descriptor in self._kept.values():
            os.close(descriptor)

    def _read(self) -> None:
        stderr = self.process.stderr
        assert stderr is not None
        with stderr as log:
            for line in log:
                with self._heard:
                    self.lines.append(line.decode(errors="replace").removesuffix("\n"))
                    self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()
