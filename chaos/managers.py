"""The host's side: managers as a cluster runs them, one at a time for each application, started anew when one ends.

A `Post` is the place of one application: whatever happens to its manager or to the application, it sees to it that
there is a manager again. The invariant: a manager is recorded before anything is done to it, and each of our signals
before it is sent.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos.story import Manager

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path
    from random import Random

    from chaos.evidence import Account
    from chaos.grounds import Grounds
    from chaos.guests import Guest

APPLICATION = "/opt/application.py"
CODES = (0, 1, 2, 7, 42, 77, 100, 121, 122, 123, 124, 125, 126, 127, 128, 137, 143, 200, 255)
SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGABRT, signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGUSR1)
RETURNS = 0.5  # how many of those whose manager was killed go on with the same run
STAYS, EXITS = 0.6, 0.6  # how many applications end only when they are made to, and of the others by an exit
LINK_TIMEOUT, ORPHAN_TIMEOUT, STOP_TIMEOUT = 6.0, 4.0, 1.0
PATIENCE = {
    "--poll-interval": "500ms",
    "--poll-timeout": "1500ms",
    "--connect-timeout": "15s",
    "--stop-timeout": f"{STOP_TIMEOUT:g}s",
    "--link-timeout": f"{LINK_TIMEOUT:g}s",
    "--orphan-timeout": f"{ORPHAN_TIMEOUT:g}s",
}


class Running:
    """A manager's process and its record in the account."""

    def __init__(self, office: Office, record: Manager, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.record = record
        self._office = office

    @property
    def alive(self) -> bool:
        """Whether it has not ended; notes its end when it sees it first."""
        code = self.process.poll()
        if code is not None and self.record.code is None:
            self._office.update(self, ended=time.monotonic(), code=code)
        return code is None

    def send(self, number: int) -> None:
        """Send it a signal."""
        if self.alive:
            self._office.update(self, signals=(*self.record.signals, (time.monotonic(), number)))
            self.process.send_signal(number)

    def end(self, limit: float) -> None:
        """Wait for its end; it is killed, and recorded to be overdue, when it does not come."""
        deadline = time.monotonic() + limit
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        if self.alive:
            self._office.update(self, overdue=True)
            self.process.kill()
            self.process.wait()
            assert not self.alive  # noqa: S101 - notes its end


class Office:
    """Starts managers, and keeps their records in the account."""

    def __init__(self, site: Grounds, folder: Path, account: Account, programs: Path, keys: Path) -> None:
        """`programs` is the folder of cmappmgr, `keys` the host's; each manager gets a folder in `folder`."""
        self._site = site
        self._folder = folder
        self._account = account
        self._program = str(programs / "cmappmgr")
        self._keys = keys
        self._lock = threading.Lock()
        self._running: list[Running] = []

    def start(self, guest: Guest, name: str, run_id: str, argv: list[str], *options: str) -> Running:
        """Start a manager of the application `name` on a guest."""
        with self._lock:
            number, attach = len(self._account.managers), "--on-existing=attach" in options
            record = Manager(number, guest.name, name, run_id, time.monotonic(), may_attach=attach)
            self._account.managers.append(record)
        folder = self._folder / str(record.number)
        folder.mkdir(parents=True)
        command = [self._program, "--no-syslog", "--keys", str(self._keys), "--name", name]
        command += ["--log-file", str(folder / "package.log"), "--result", str(folder / "result.json")]
        command += [f"{option}={value}" for option, value in PATIENCE.items()]
        command += ["--run-id", run_id, *options, "--address", guest.address, guest.name, "--", *argv]
        line = self._site.on_host(*command)
        group = self._site.cgroup / "managers"
        process = self._site.start(line, group, stdout=folder / "stdout", stderr=folder / "stderr")
        running = Running(self, record, process)
        with self._lock:
            self._running.append(running)
        return running

    def update(self, running: Running, **changes: object) -> None:
        """Change what is recorded of a manager."""
        with self._lock:
            running.record = replace(running.record, **changes)  # type: ignore[arg-type]
            self._account.managers[running.record.number] = running.record

    def running(self) -> list[Running]:
        """Return those that have not ended, and note the ends of the others."""
        with self._lock:
            everybody = list(self._running)
        ended = [running for running in everybody if not running.alive]
        with self._lock:
            self._running = [running for running in self._running if running not in ended]
        return [running for running in everybody if running not in ended]


class Post:
    """The place of one application's manager on one guest."""

    def __init__(self, office: Office, guest: Guest, name: str, random: Random, trick: str = "") -> None:
        """`trick` makes the application a doctored one, which the checker has to find out."""
        self.guest = guest
        self.name = name
        self._office = office
        self._random = random
        self._trick = trick
        self._argv: list[str] = []
        self.manager: Running | None = None

    @property
    def run_id(self) -> str:
        """The run that its manager has launched last."""
        return self.manager.record.run_id if self.manager is not None else ""

    def fill(self, plan: str = "") -> None:
        """See to it that there is a manager; one whose predecessor was killed may go on with the same run.

        `plan` is what the application does by itself; without it that is drawn.
        """
        if self.manager is not None and self.manager.alive:
            return
        before = self.manager
        killed = before is not None and before.record.code == -signal.SIGKILL
        if before is not None and killed and self._random.random() < RETURNS:
            self.manager = self._office.start(self.guest, self.name, self.run_id, self._argv, "--on-existing=attach")
            return
        run_id = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        self._argv = self._application(run_id, plan)
        self.manager = self._office.start(self.guest, self.name, run_id, self._argv)

    def duplicate(self, *, same_run: bool, takeover: bool) -> Running:
        """Start a second manager beside the first, of the same run or for another one."""
        run_id = self.run_id if same_run else str(uuid.UUID(int=self._random.getrandbits(128), version=4))
        argv = self._argv if same_run else self._application(run_id)
        return self._office.start(self.guest, self.name, run_id, argv, *(["--takeover"] if takeover else []))

    def order(self, way: str, number: int) -> None:
        """Have the application end so."""
        path = self.guest.books / f"{self.name}.book.order"
        new = path.with_suffix(".new")
        new.write_text(f"{self.run_id} {way} {number}\n")
        os.replace(new, path)  # noqa: PTH105 - whole or not at all

    def processes(self) -> list[int]:
        """Return the processes of the run, the application's main one first."""
        return self.guest.processes(self.run_id) if self.run_id else []

    def _application(self, run_id: str, plan: str = "") -> list[str]:
        random = self._random
        after = f"@{random.uniform(0, 6):.2f}"
        if random.random() < STAYS:
            drawn = "forever"
        elif random.random() < EXITS:
            drawn = f"exit:{random.choice(CODES)}{after}"
        else:
            drawn = f"signal:{int(random.choice(SIGNALS))}{after}"
        code = random.choice(CODES)
        on_stop = random.choice((f"exit:{code}", f"slow:{code}", "default", "ignore"))
        book = f"/books/{self.name}.book"
        words = ["/usr/bin/python3", "-IS", APPLICATION, book, run_id]
        if self._trick:
            return [*words, "exit:7@0.5", on_stop, self._trick]  # again and again, so that it is seen
        return [*words, plan or drawn, on_stop]
