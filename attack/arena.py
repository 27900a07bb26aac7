"""The server that is attacked: a real one, installed, with keys, a state folder and a log of its own.

The invariant: what was started is ended, with all that it launched, and nothing is looked at but the server's own
process and files.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from attack.credentials import ADDRESS, GUEST, Mint

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

SOON = 30.0  # seconds within which a server starts, and ends
STEP = 0.02
HANDSHAKE_TIMEOUT = 1.0  # seconds; the default of 10 would only make every attack as much longer
PAGE = os.sysconf("SC_PAGESIZE")
T = TypeVar("T")


class ArenaError(Exception):
    """The campaign itself cannot go on."""


class Arena:
    """A server in `folder`, started as a context; `programs` is where the commands are, `plant` a planted defect."""

    def __init__(self, folder: Path, programs: Path, plant: str = "") -> None:
        self.keys = folder / "keys"
        self.programs = programs
        Mint(self.keys, str(programs / "cmapp"))
        self._log = folder / "server.log"
        self._state = folder / "state"
        self._plant = plant
        self.process: subprocess.Popen[bytes]
        self.port = 0

    def __enter__(self) -> Self:
        """Start it, and wait until it listens."""
        self.start(f"{ADDRESS}:0")
        return self

    def start(self, listen: str) -> None:
        """Start a server."""
        command = [str(self.programs / "cmappserver")]
        if self._plant:
            command = [sys.executable, "-m", "attack.plants", self._plant]
        command += ["--keys", str(self.keys / GUEST), "--state-dir", str(self._state), "--listen", listen]
        command += ["--handshake-timeout", f"{HANDSHAKE_TIMEOUT:g}s", "--stop-on-exit"]
        before = self.log_size
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env={}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
            )
        found = until(lambda: re.search(r"listening on \S+:(\d+)\n", self.log(before)) or self._died(), "a server")
        if isinstance(found, re.Match):
            self.port = int(found[1])
        until(lambda: "of its own" in self.log(before) or self._died(), "a server that is ready")

    def __exit__(self, *_: object) -> None:
        """End it with all that it launched."""
        self.process.terminate()
        try:
            self.process.wait(SOON)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)  # a second one kills what is left
            self.process.wait(SOON)

    def _died(self) -> bool:
        if self.process.poll() is not None:
            raise ArenaError(f"the server does not start: {self.log(0).strip()}")
        return False

    def log(self, since: int = 0) -> str:
        """Return what it has logged after the first `since` bytes."""
        if not self._log.exists():
            return ""
        with self._log.open("rb") as file:
            file.seek(since)
            return file.read().decode(errors="replace")

    @property
    def log_size(self) -> int:
        """How many bytes it has logged."""
        return self._log.stat().st_size if self._log.exists() else 0

    @property
    def pid(self) -> int | None:
        """Its process, as long as it lives."""
        return self.process.pid if self.process.poll() is None else None

    @property
    def memory(self) -> int:
        """Resident bytes."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE
        except OSError:
            return 0

    @property
    def connections(self) -> int:
        """How many descriptors it has open."""
        try:
            return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))
        except OSError:
            return 0

    def settle(self, descriptors: int, limit: float) -> bool:
        """Wait until it has no more than so many descriptors open; return whether it came to that."""
        deadline = time.monotonic() + limit
        while self.connections > descriptors:
            if time.monotonic() > deadline:
                return False
            time.sleep(STEP)
        return True


def until(condition: Callable[[], T], what: str, limit: float = SOON) -> T:
    """Return what `condition` returns as soon as it is true; raise ArenaError when it does not become so."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise ArenaError(f"not within {limit:g} s: {what}")
        time.sleep(STEP)
    return found
