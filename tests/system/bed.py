"""The test bed: servers and managers as installed commands, and what they leave behind.

Nothing of the package is imported: what is known of it here is what its users know. A manager runs in an empty
environment, as a cluster manager would start it, and its application gets a name of its own. The invariant:
whatever a bed has started is gone when it is closed, applications of servers that were killed too, and nothing of it
has told of a defect of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from tests.system.commands import CMAPP, END_LIMIT, MANAGER, check_for_defects, run
from tests.system.processes import end, until
from tests.system.remains import end_runs, run_ids
from tests.system.server import LOOPBACK, Server, end_server

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from tests.system.keys import Keys

# What a manager is given unless a test says otherwise: a server that is gone for good is given up soon, and so is an
# application whose manager is.
BRIEF = ("--link-timeout", "2s", "--orphan-timeout", "3s")
AT_ONCE = 6  # managers side by side: enough to keep two processors busy

_numbers = itertools.count(1)


class Manager:
    """A cmappmgr and its application; everything that it says is kept in files."""

    def __init__(self, folder: Path, name: str, command: Sequence[str], **how: Any) -> None:
        """Start it: `how` is for subprocess.Popen, over files for stdout and stderr."""
        self.name = name
        self._log_file, self._result_file = manager_files(folder)
        self._stdout_file, self._stderr_file = folder / "stdout", folder / "stderr"
        with self._stdout_file.open("wb") as stdout, self._stderr_file.open("wb") as stderr:
            plan: dict[str, Any] = {"env": {}, "stdin": subprocess.DEVNULL, "stdout": stdout, "stderr": stderr} | how
            self.process: subprocess.Popen[bytes] = subprocess.Popen(command, **plan)

    @property
    def log(self) -> str:
        """The package log."""
        return self._log_file.read_text(errors="replace") if self._log_file.exists() else ""

    @property
    def stdout(self) -> bytes:
        """What it wrote to its standard output."""
        return self._stdout_file.read_bytes()

    @property
    def stderr(self) -> str:
        """What it wrote to its standard error."""
        return self._stderr_file.read_text(errors="replace")

    @property
    def result(self) -> dict[str, Any]:
        """The outcome that it wrote."""
        result = json.loads(self._result_file.read_text())
        assert isinstance(result, dict)
        return result

    @property
    def has_result(self) -> bool:
        """Whether it wrote an outcome."""
        return self._result_file.exists()

    @property
    def last_line(self) -> str:
        """The end of the package log: what ended, how, and which exit code that makes."""
        return self.log.splitlines()[-1]

    def wait(self, limit: float = END_LIMIT) -> int:
        """Return its exit code as a shell would see it, once it has ended."""
        code = self.process.wait(limit)
        return code if code >= 0 else 128 - code

    def until_log(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait until the package log has `pattern` after that many characters, and return the match."""

        def found() -> re.Match[str] | None:
            ended = self.process.poll()
            match = re.search(pattern, self.log[after:])
            if ended is not None and match is None:
                raise AssertionError(f"it ended with {ended}: {self.log}{self.stderr}")
            return match

        return until(found, f"{pattern!r} in the package log")

    def until_launched(self) -> int:
        """Wait for the launch, and return the application's process id."""
        return int(self.until_log(r"(?:launched|found running) as pid (\d+)")[1])

    @property
    def run_id(self) -> str:
        """The run that it watches, or asked for at first."""
        return self.until_log(r"\brun ([0-9a-f-]{36})")[1]


class Bed:
    """What one test has: a folder, keys, the common server, and everything that it starts."""

    def __init__(self, folder: Path, keys: Keys, server: Server | None) -> None:
        self.folder = folder
        self.keys = keys
        self._server = server
        self._servers: list[Server] = []
        self._managers: list[Manager] = []
        self._watched: list[int] = []

    @property
    def server(self) -> Server:
        """The server that all tests share, or the first of the test's own."""
        return self._server or self._servers[0]

    def serve(self, *options: str, keys: Path | None = None, listen: str = f"{LOOPBACK}:0", **how: Any) -> Server:
        """Start a server of the test's own, which the managers call from here on."""
        folder = self.folder / f"server-{next(_numbers)}"
        server = Server(folder, keys or self.keys.guest, *options, listen=listen, **how)
        self._servers.append(server)
        self._server = server
        return server

    def command(
        self, folder: Path, name: str, argv: Sequence[str], *, options: Sequence[str] = (), guest: str | None = None
    ) -> list[str]:
        """Return the command line of a manager whose files are in `folder`; an option that is repeated holds last."""
        log, result = manager_files(folder)
        files = ["--log-file", str(log), "--result", str(result)]
        common = ["--keys", str(self.keys.host), "--name", name, "--no-syslog", *files]
        return [MANAGER, *common, *BRIEF, *options, guest or self.server.guest, "--", *argv]

    def start(
        self,
        *argv: str,
        name: str = "",
        options: Sequence[str] = (),
        guest: str | None = None,
        keys: Path | None = None,
        **how: Any,
    ) -> Manager:
        """Start a manager for the command `argv`."""
        number = next(_numbers)
        folder = self.folder / f"manager-{number}"
        folder.mkdir()
        name = name or f"app-{number}"
        options = [*options, *(["--keys", str(keys)] if keys else [])]
        command = self.command(folder, name, argv, options=options, guest=guest)
        manager = Manager(folder, name, command, **how)
        self._managers.append(manager)
        return manager

    def run(self, *argv: str, **details: Any) -> Manager:
        """Run a manager for the command `argv` to its end."""
        manager = self.start(*argv, **details)
        manager.wait()
        return manager

    def run_all(self, commands: Iterable[Sequence[str]], **details: Any) -> list[Manager]:
        """Run a manager for each command to its end, a few side by side, and return them in the same order."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda argv: self.run(*argv, **details), commands))

    def adopt(self, manager: Manager) -> Manager:
        """Take over a manager that the test has started otherwise."""
        self._managers.append(manager)
        return manager

    def look_after(self, pid: int) -> int:
        """Have a process killed at the end, if it lives, that may be lost from sight; return it."""
        with suppress(ProcessLookupError):
            self._watched.append(os.pidfd_open(pid))
        return pid

    def ask(self, word: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Have `cmapp` ask something of the server, and return what became of it."""
        return run([CMAPP, word, "--keys", str(self.keys.host), self.server.guest, *more])

    def cmapp(self, word: str, *more: str) -> str:
        """Have `cmapp` ask something of the server, which must succeed, and return what it said."""
        done = self.ask(word, *more)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def close(self) -> None:
        """End everything, then look for defects in all that was said."""
        for manager in self._managers:
            end(manager.process)
        try:
            for server in self._servers:
                end_server(server)
        finally:
            said = [text for manager in self._managers for text in (manager.log, manager.stderr)]
            said += [server.log for server in self._servers]
            end_runs(run_ids(*said))
            for pidfd in self._watched:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
        check_for_defects(*said)


def manager_files(folder: Path) -> tuple[Path, Path]:
    """Return where a manager keeps its package log and its result."""
    return folder / "package.log", folder / "result.json"
