"""An event loop, and real children, for what is asked of a run: commands, and senders of notifications."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

from cmapp.core.messages import Launch
from cmapp.core.outcome import Exited, Outcome, Signaled
from cmapp.core.rules import HealthRules
from cmapp.guest.health import Care

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from pathlib import Path

    Done = Callable[[Outcome | None, str], None]

RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"
SOON = 20.0  # seconds, by when whatever should happen has happened on any machine

SENDER = """
import os, socket, sys
if sys.argv[1] != "0":
    os.setresuid(*3 * [int(sys.argv[1])])
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    for line in sys.stdin.buffer:
        message = eval(line)
        for _ in range(100000 if message == b"FLOOD=1" else 1):
            sock.sendto(message, os.environ["NOTIFY_SOCKET"])
        print(flush=True)
"""


class Command:
    """One command that runs in a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self.process = process

    def kill(self) -> None:
        """End it, and all that it started."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)


class Commands:
    """Runs commands for the one who asks, and remembers them; as the server does it, but simply."""

    def __init__(self) -> None:
        self.env: list[Mapping[str, str]] = []
        self.running: list[Command] = []
        self.most = 0  # that ran at the same time

    def run(self, argv: tuple[str, ...], env: Mapping[str, str], done: Done) -> Command:
        """Run it; what cannot be run is told a moment later."""
        loop = asyncio.get_running_loop()
        self.env.append(env)
        try:
            process = subprocess.Popen(
                argv,
                env={**os.environ, **env},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except FileNotFoundError:
            loop.call_soon(done, None, f"there is no command {argv[0]}")
            return Command(None)
        command = Command(process)
        self.running.append(command)
        self.most = max(self.most, len(self.running))
        pidfd = os.pidfd_open(process.pid)
        loop.add_reader(pidfd, self._on_end, pidfd, command, process, done)
        return command

    def _on_end(self, pidfd: int, command: Command, process: subprocess.Popen[bytes], done: Done) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self.running.remove(command)
        output, _ = process.communicate()
        code = process.returncode
        lines = output.decode().splitlines()
        done(Exited(code) if code >= 0 else Signaled(-code), lines[-1] if lines else "")


class Sender:
    """A process that sends what it is told to the notification socket, and lives until it is closed."""

    def __init__(self, path: str, user: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", SENDER, str(user)],
            env={"NOTIFY_SOCKET": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.pid = self.process.pid

    def send(self, message: bytes) -> None:
        """Have it send a datagram."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{message!r}\n".encode())
        self.process.stdin.flush()

    def sent(self) -> None:
        """Wait, with the loop standing still, until it has sent one more."""
        assert self.process.stdout is not None
        assert self.process.stdout.readline()

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.communicate()


class CareBed:
    """A `Care` for one run, and what it told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "notify")
        self.commands = Commands()
        self.told: list[tuple[str, str]] = []
        self.owned: set[int] = set()
        self.senders: list[Sender] = []
        self.cares: list[Care] = []

    def care(self, commands: Any = None, **launch: Any) -> Care:
        """Take care of a launch with these rules."""
        self.cares.append(
            Care(
                asyncio.get_running_loop(),
                Launch(id=1, name="app", run_id=RUN_ID, argv=("app",), **launch),
                (commands or self.commands).run,
                lambda event, text: self.told.append((event, text)),
                self.owned.__contains__,
            )
        )
        return self.cares[-1]

    def check(self, script: str, *, interval: float = 0.1, timeout: float = 10.0, retries: int = 3) -> HealthRules:
        """Return rules that run a shell script in the bed's folder."""
        command = ("sh", "-c", f"cd {self.folder} && {script}")
        return HealthRules(command=command, interval=interval, timeout=timeout, retries=retries)

    def sender(self) -> Sender:
        """Start a process of the run's tree."""
        self.senders.append(Sender(self.path))
        self.owned.add(self.senders[-1].pid)
        return self.senders[-1]

    async def tells(self, *events: tuple[str, str]) -> None:
        """Wait until these, and no others, were told."""
        await until(lambda: len(self.told) >= len(events))
        assert self.told == list(events)
        self.told.clear()

    async def quiet(self, seconds: float = 0.5) -> None:
        """See that nothing is asked or told for a while."""
        asked = len(self.commands.env)
        await asyncio.sleep(seconds)
        assert len(self.commands.env) == asked
        assert not self.told

    async def end(self) -> None:
        """Close all that is open, and wait for the commands."""
        for care in self.cares:
            care.close()
        await until(lambda: not self.commands.running)


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run a test's loop, in which a defect of a callback is a failure."""
    defects: list[dict[str, Any]] = []

    async def watched() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        await main

    asyncio.run(watched())
    assert not defects


async def until(holds: Callable[[], object]) -> None:
    """Let the loop run until something holds."""
    limit = time.monotonic() + SOON
    while not holds():
        assert time.monotonic() < limit
        await asyncio.sleep(0.005)
