"""Twenty posts, each with a real cmappmgr whose application ends on request, by an exit code or by a signal.

The application reads its exit code from a pipe in the file system, so it ends when it is told to and at no other
time. The invariant: what a manager exits with, and when, is written down as it was, right or wrong.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attack.arena import STEP, until
from attack.credentials import ADDRESS, HONEST

if TYPE_CHECKING:
    import random

    from attack.arena import Arena

APPLICATION = 'read -r code <"$0"; exit "$code"'
LAUNCHED = re.compile(r"launched as pid (\d+)")
LOST = re.compile(r"lost the link:")
KILLED = 128 + signal.SIGKILL
EXIT_LIMIT = 60.0  # seconds that a manager has to tell an end; what it takes is judged
LAUNCH_LIMIT = 60.0  # likewise to be let in
LINK_TIMEOUT = 45  # seconds: longer than the server may stand still in an attack that it survives


@dataclass(frozen=True)
class Exit:
    """An end: what the manager of `post` had to exit with, what it did exit with (None: nothing), and how soon."""

    post: str
    wanted: int
    code: int | None
    seconds: float


class Post:
    """One place, at which one manager comes after the other."""

    def __init__(self, arena: Arena, folder: Path, number: int) -> None:
        self.name = f"post-{number}"
        self._arena = arena
        self._folder = folder / self.name
        self._folder.mkdir(parents=True)
        self._pipe = self._folder / "code"
        os.mkfifo(self._pipe)
        self._turns = 0
        self.process: subprocess.Popen[bytes]
        self._began = 0.0
        self.pid = 0

    def fill(self) -> None:
        """Start a manager; it is not waited for."""
        self._turns += 1
        self.pid = 0
        files = ["--log-file", str(self._log), "--result", str(self._folder / "result.json")]
        times = ["--poll-interval", "500ms", "--link-timeout", f"{LINK_TIMEOUT}s", "--poll-timeout", "30s"]
        command = [str(self._arena.programs / "cmappmgr"), "--keys", str(self._arena.keys / HONEST), "--no-syslog"]
        command += ["--name", self.name, *files, *times, f"{ADDRESS}:{self._arena.port}"]
        command += ["--", "/bin/sh", "-c", APPLICATION, str(self._pipe)]
        quiet = subprocess.DEVNULL
        self._began = time.monotonic()
        self.process = subprocess.Popen(command, env={}, stdin=quiet, stdout=quiet, stderr=quiet)

    @property
    def _log(self) -> Path:
        return self._folder / f"package-{self._turns}.log"

    def _said(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def run_id(self) -> str:
        """The run that the manager asked for."""
        found = re.search(r"\brun ([0-9a-f-]{36})", self._said())
        return "" if found is None else found[1]

    def until_launched(self) -> float | None:
        """Return in how many seconds the manager was let in and its application launched, or None."""
        deadline = self._began + LAUNCH_LIMIT
        while (found := LAUNCHED.search(self._said())) is None:
            if self.process.poll() is not None or self._arena.pid is None or time.monotonic() > deadline:
                return None
            time.sleep(STEP / 4)
        self.pid = int(found[1])
        return time.monotonic() - self._began

    @property
    def log_name(self) -> str:
        """The package log of the manager that is there."""
        return str(self._log)

    def lives(self) -> bool:
        """Tell whether the application is the one that was launched."""
        try:
            return str(self._pipe).encode() in Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False

    def losses(self) -> int:
        """Return how often the manager says that it lost its link."""
        return len(LOST.findall(self._said()))

    def begin_end(self, draw: random.Random) -> tuple[int, float]:
        """Have the application end; return what the manager has to exit with, and when it ended."""
        if draw.random() < 1 / 3:
            self._kill()
            return KILLED, time.monotonic()
        code = draw.randrange(256)
        pipe = until(self._opened, f"the application of {self.name} reads its code") or -1
        os.write(pipe, b"%d\n" % code)
        ended = time.monotonic()
        os.close(pipe)
        return code, ended

    def end(self, wanted: int, ended: float) -> Exit:
        """Wait for the manager's exit."""
        deadline = ended + EXIT_LIMIT
        while (code := self.process.poll()) is None and self._arena.pid is not None and time.monotonic() < deadline:
            time.sleep(STEP / 10)
        if code is None:
            self.close()
        return Exit(self.name, wanted, code, time.monotonic() - ended)

    def close(self) -> None:
        """Kill the manager, if it is still there, and the application, which a server that died has left."""
        self.process.kill()
        self.process.wait()
        if self.lives():
            self._kill()

    def _opened(self) -> int | None:
        try:
            return os.open(self._pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            return None

    def _kill(self) -> None:
        """Kill the application, if it is the one that was launched."""
        handle = os.pidfd_open(self.pid)
        try:
            if self.lives():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
