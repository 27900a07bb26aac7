"""A real cmappserver as a child process: everything that it logs and tells systemd, and nothing left at its end.

Its log is read by a thread of its own, so a test waits for a line instead of for time to pass. The invariant:
a server that is stopped in order exits 0, has told of no defect of its own, and leaves no process behind.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SOON = 30.0  # seconds: how long anything is waited for that should happen at once
SCRIPT = Path(sys.executable).with_name("cmappserver")
MAIN = "from cmapp.cli.cmappserver import main; main()"
COMMAND = (str(SCRIPT),) if SCRIPT.exists() else (sys.executable, "-c", MAIN)
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


class Served:
    """A cmappserver that is ready; `lines` is its log."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        *options: str,
        command: Sequence[str] = COMMAND,
        env: Mapping[str, str] | None = None,
        **how: object,
    ) -> None:
        """Start it; `command` is what runs it, `how` is for subprocess.Popen."""
        self.lines: list[str] = []
        self._heard = threading.Condition()
        name = f"cmapp-shell-{os.getpid()}-{next(_numbers)}"
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notices.bind("\0" + name)
        self._notices.settimeout(SOON)
        kept = {key: value for key, value in os.environ.items() if key != "JOURNAL_STREAM"}
        fixed = ["--config", str(folder / "conf"), "--keys", str(keys), "--state-dir", str(folder / "state")]
        (folder / "conf").touch()
        self.process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            [*command, *fixed, "--listen", "127.0.0.1:0", *options],
            env={**kept, **(env or {}), "NOTIFY_SOCKET": "@" + name},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            **how,
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = int(self.logged(r"listening on \S+:(\d+)$")[1])
        assert self.notice() == "READY=1"

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
        return self._notices.recv(4096).decode()

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

    def stop(self) -> None:
        """Stop it in order, and see that it does, leaves nothing and had no defect."""
        tree = {pid: stat(pid)[19:20] for pid in descendants(self.pid)}
        self.signal(signal.SIGTERM)
        assert self.wait() == 0, self.log
        left = [pid for pid, started in tree.items() if started and stat(pid)[19:20] == started and alive(pid)]
        assert not left, f"left behind: {left}"
        assert not DEFECT.search(self.log), self.log

    def close(self) -> None:
        """Make sure that it is gone, whatever the test has done to it."""
        self.process.kill()
        self.wait()
        self._notices.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                with self._heard:
                    self.lines.append(line.decode(errors="replace").removesuffix("\n"))
                    self._heard.notify_all()
        with self._heard:
            self._heard.notify_all()
