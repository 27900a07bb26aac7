"""The test bed: servers and managers as installed commands, and what they leave behind.

Nothing of the package is imported: what is known of it here is what its users know. A manager runs in an empty
environment, as a cluster manager would start it, and its application gets a name of its own. The invariant:
whatever a bed has started is gone when it is closed, and nothing of it has told of a defect of its own.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.system.processes import end, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from tests.system.keys import Keys

BIN = Path(sys.executable).parent
CMAPP, MANAGER, SERVER = (str(BIN / name) for name in ("cmapp", "cmappmgr", "cmappserver"))
LOOPBACK = "127.0.0.1"
END_LIMIT = 60.0  # seconds within which whatever was started has ended
AT_ONCE = 6  # managers side by side: enough to keep two processors busy
DEFECT = re.compile(r"Traceback|internal error|Exception ignored")

_numbers = itertools.count(1)


class Server:
    """A cmappserver, ready to be called; `log` is what it said."""

    def __init__(
        self, folder: Path, keys: Path, *options: str, listen: str = f"{LOOPBACK}:0", by: Sequence[str] = ()
    ) -> None:
        """Start it, by another command that becomes it if `by` names one."""
        folder.mkdir(parents=True, exist_ok=True)
        self._log_file = folder / "server.log"
        self._command = [*by, SERVER, "--keys", str(keys), "--state-dir", str(folder / "state"), *options]
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

    def restart(self) -> None:
        """Start it again where it was; the one before must have ended."""
        self.process = self._start(self.guest)

    def stop(self) -> int:
        """Stop it in order, and return its exit code."""
        self.process.terminate()
        return self.process.wait(END_LIMIT)

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

    def until_log(self, pattern: str) -> re.Match[str]:
        """Wait until the package log has `pattern`, and return the match."""

        def found() -> re.Match[str] | None:
            if self.process.poll() is not None and not re.search(pattern, self.log):
                raise AssertionError(f"it ended with {self.process.returncode}: {self.log}{self.stderr}")
            return re.search(pattern, self.log)

        return until(found, f"{pattern!r} in the package log")

    def until_launched(self) -> int:
        """Wait for the launch, and return the application's process id."""
        return int(self.until_log(r"launched as pid (\d+)")[1])


class Bed:
    """What one test has: a folder, keys, the common server, and everything that it starts."""

    def __init__(self, folder: Path, keys: Keys, server: Server | None) -> None:
        self.folder = folder
        self.keys = keys
        self._server = server
        self._servers: list[Server] = []
        self._managers: list[Manager] = []
        self._applications: dict[int, int] = {}

    @property
    def server(self) -> Server:
        """The server that all tests share, or the first of the test's own."""
        return self._server or self._servers[0]

    def serve(
        self, *options: str, keys: Path | None = None, listen: str = f"{LOOPBACK}:0", by: Sequence[str] = ()
    ) -> Server:
        """Start a server of the test's own, which the managers call from here on."""
        folder = self.folder / f"server-{next(_numbers)}"
        server = Server(folder, keys or self.keys.guest, *options, listen=listen, by=by)
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
        return [MANAGER, *common, *options, guest or self.server.guest, "--", *argv]

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
        """Have an application killed at the end that could outlive its server; return its process id."""
        self._applications[pid] = os.pidfd_open(pid)
        return pid

    def close(self) -> None:
        """End everything, then look for defects in all that was said."""
        for manager in self._managers:
            end(manager.process)
        for server in self._servers:
            end_server(server)
        for pidfd in self._applications.values():
            try:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass
            os.close(pidfd)
        said = [text for manager in self._managers for text in (manager.log, manager.stderr)]
        check_for_defects(*said, *(server.log for server in self._servers))


def manager_files(folder: Path) -> tuple[Path, Path]:
    """Return where a manager keeps its package log and its result."""
    return folder / "package.log", folder / "result.json"


def end_server(server: Server) -> None:
    """Have a server kill its applications and end, or kill it if it does not."""
    process = server.process
    if process.poll() is None:
        process.send_signal(signal.SIGCONT)
        for _ in range(2):  # the second time is for those that do not heed their stop signal
            process.terminate()
        try:
            process.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            end(process)
            raise AssertionError(f"cmappserver did not end: {server.log[-2000:]}") from None


def check_for_defects(*texts: str) -> None:
    """Fail if a command told of a defect of its own."""
    for text in texts:
        if found := DEFECT.search(text):
            raise AssertionError(f"a defect was told of: {text[max(0, found.start() - 200) :][:2000]}")


def run(command: Sequence[str], env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run any command to its end in an empty environment, and look for defects in what it says."""
    done = subprocess.run(
        command,
        env=env or {},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=END_LIMIT,
        check=False,
    )
    check_for_defects(done.stdout, done.stderr)
    return done
