"""A server as an installed command: started until it is ready, restarted, crashed, upgraded, and ended."""

from __future__ import annotations

import itertools
import os
import re
import signal
import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.system.commands import END_LIMIT, SERVER, run
from tests.system.processes import end, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LOOPBACK = "127.0.0.1"
NUDGE = 0.5  # seconds until a server that was asked to stop is asked again

_numbers = itertools.count(1)


class Server:
    """A cmappserver, ready to be called; `log` is what it said."""

    def __init__(
        self,
        folder: Path,
        keys: Path,
        *options: str,
        listen: str = f"{LOOPBACK}:0",
        by: Sequence[str] = (),
        run_as: Sequence[str] = ("*",),
    ) -> None:
        """Start it, by another command that becomes it if `by` names one; launches may name the users `run_as`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._log_file = folder / "server.log"
        self.state = folder / "state"
        common = ["--keys", str(keys), "--state-dir", str(self.state)]
        common += [word for user in run_as for word in ("--run-as", user)]
        self._command = [*by, SERVER, *common, *options]
        self.process = self._start(listen)
        self.port = int(until(lambda: re.search(r"listening on \S+:(\d+)$", self.log, re.MULTILINE), "a port")[1])

    @property
    def log(self) -> str:
        """What it has logged, over all its starts."""
        return self._log_file.read_text()

    @property
    def guest(self) -> str:
        """How a manager calls it."""
        return f"{LOOPBACK}:{self.port}"

    def restart(self, *options: str) -> None:
        """Start it again where it was, with more options, the last of which holds; the one before must have ended."""
        self._command += options
        self.process = self._start(self.guest)

    def stop(self) -> int:
        """Stop it by SIGTERM, and return its exit code."""
        self.process.terminate()
        return self.process.wait(END_LIMIT)

    def kill(self) -> None:
        """Kill it, and leave what it has launched to itself."""
        end(self.process)

    def crash(self) -> None:
        """Kill it, and start it again at once, as systemd does with a server that crashed."""
        self.kill()
        self.restart()

    def upgrade(self) -> None:
        """Have it become the installed version, and wait until it has."""
        said = len(self.log)
        done = run([SERVER, "--upgrade", "--state-dir", str(self.state)])
        assert (done.returncode, done.stderr) == (0, "")
        until(lambda: re.search(r"each application has", self.log[said:]), "the end of the upgrade")

    def until_kept(self, run_id: str) -> None:
        """Wait until the outcome of a run is safe on disk: a server that is killed before may not know it any more."""
        until((self.state / "receipts" / run_id).exists, f"the receipt of run {run_id}")

    def pid_of(self, name: str) -> int:
        """Return the process of an application, as the log tells it."""
        return int(until(lambda: re.search(rf" {name} \(run .*: launched as process (\d+)", self.log), "its pid")[1])

    def _start(self, listen: str) -> subprocess.Popen[bytes]:
        with (
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready,
            self._log_file.open("ab") as log,
        ):
            name = f"cmapp-system-{os.getpid()}-{next(_numbers)}"
            ready.bind("\0" + name)
            process = subprocess.Popen(
                [*self._command, "--listen", listen],
                env={"NOTIFY_SOCKET": "@" + name},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
            self._await_ready(process, ready)
        return process

    def _await_ready(self, process: subprocess.Popen[bytes], ready: socket.socket) -> None:
        ready.setblocking(False)

        def is_ready() -> bool:
            if process.poll() is not None:
                raise AssertionError(f"cmappserver did not start: {self.log}")
            try:
                return ready.recv(4096) == b"READY=1"
            except BlockingIOError:
                return False

        try:
            until(is_ready, "the server's readiness")
        except AssertionError:
            end(process)
            raise


def end_server(server: Server) -> None:
    """Have a server kill its applications and end, or kill it if it does not."""
    process = server.process
    process.send_signal(signal.SIGCONT)
    for _ in range(round(END_LIMIT / NUDGE)):
        process.send_signal(signal.SIGQUIT)  # the second time is for applications that do not heed their stop signal
        with suppress(subprocess.TimeoutExpired):
            process.wait(NUDGE)
            return
    end(process)
    raise AssertionError(f"cmappserver did not end: {server.log[-2000:]}")
