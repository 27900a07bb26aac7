"""A guest with units for tests to launch, and managers of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.grounds import Grounds
from chaos.guests import Guest
from tests.system.keys import Keys
from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
MANAGER = str(Path(sys.executable).parent / "cmappmgr")
LIMIT = 30.0  # seconds
DATABASE = "postgresql@15-main.service"
SLEEPS = "ExecStart=/bin/sleep 1000"
UNITS = {  # what stands in the files of units that the tests start
    "sleepy": f"[Service]\n{SLEEPS}",
    "seven": "[Service]\nExecStart=/bin/sh -c 'sleep 0.1; exit 7'",
    "zero": "[Service]\nExecStart=/bin/true",
    "crash": "[Service]\nExecStart=/bin/sh -c 'kill -SEGV $$$$'\nLimitCORE=0",
    "badly-set": "[Service]\nType=simple",
    "conditional": f"[Unit]\nConditionPathExists=/nowhere\n[Service]\n{SLEEPS}",
    "prepared": f"[Service]\nExecStartPre=/bin/sh -c 'exit 5'\n{SLEEPS}",
    "dependent": f"[Unit]\nRequires=prepared.service\nAfter=prepared.service\n[Service]\n{SLEEPS}",
    "waiting": f"[Service]\nExecStartPre=/bin/sleep 1000\n{SLEEPS}",
    "nothing": "[Service]\nExecStart=/nowhere/x",
    "watched": "[Service]\nType=notify\nNotifyAccess=all\nWatchdogSec=500ms\n"
    "ExecStart=/bin/sh -c 'systemd-notify --ready --status=serving; sleep 1000'",
    "late": "[Service]\nType=notify\nTimeoutStartSec=500ms\nExecStart=/bin/sleep 1000",
    "notifying": "[Service]\nType=notify\nNotifyAccess=all\n"
    "ExecStart=/bin/sh -c 'sleep 0.5; systemd-notify --ready --status=serving; sleep 1000'",
    "forking": "[Service]\nType=forking\nPIDFile=/run/forking.pid\n"
    "ExecStart=/bin/sh -c 'sleep 1000 & echo $! >/run/forking.pid'",
    "persistent": "[Unit]\nStartLimitBurst=3\nStartLimitIntervalSec=60\n[Service]\nRestart=always\nRestartSec=100ms\n"
    "ExecStart=/bin/sh -c 'sleep 0.5; exit 9'",
    "leaving": "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'sleep 2000 & exec sleep 1000'",
    "stubborn": "[Service]\nTimeoutStopSec=60\nExecStart=/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'",
    "umbrella": "[Unit]\nWants=part.service\n[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true",
    "part": f"[Unit]\nPartOf=umbrella.service\n[Service]\n{SLEEPS}\nExecStop=/bin/sleep 0.7",
    "empty": "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true",
}
POLICY = """
[[allow]]
managers = ["*"]
units = ["sle*.service"]
applications = ["base"]
users = ["nobody"]

[application.base]
unit = "notifying.service"
"""


class Run:
    """A manager of a unit, and its log."""

    def __init__(self, bed: Bed, *arguments: str, unit: str = "") -> None:
        self.log = bed.folder / f"{time.monotonic_ns()}.log"
        command = [MANAGER, "--keys", str(bed.keys), "--no-syslog", "--log-file", str(self.log)]
        command += ["--poll-interval", "200ms", "--address", bed.guest.address, *arguments, "vm9"]
        command += ["--unit", f"{unit}.service"] if unit else []
        self.process = subprocess.Popen(bed.site.on_host(*command), env={}, stdin=subprocess.DEVNULL)
        bed.runs.append(self)

    @property
    def told(self) -> str:
        """What the package log says."""
        return self.log.read_text() if self.log.exists() else ""

    def until(self, text: str) -> None:
        """Wait until the log says that."""
        until(lambda: text in self.told, text)

    def end(self, *, stop: bool = False) -> int:
        """Wait for the end, which is asked for with `stop`, and return the exit code."""
        if stop:
            self.process.terminate()
        return self.process.wait(LIMIT)


class Bed:
    """A guest with a server and units."""

    def __init__(self, site: Grounds, guest: Guest, keys: Path, folder: Path) -> None:
        self.site = site
        self.guest = guest
        self.keys = keys
        self.folder = folder
        self.runs: list[Run] = []

    def run(self, unit: str, *arguments: str) -> Run:
        """Launch a unit."""
        return Run(self, *arguments, unit=unit)

    def launched(self, unit: str, *arguments: str) -> Run:
        """Launch a unit and wait until it is ready."""
        run = self.run(unit, *arguments)
        run.until("is ready")
        return run

    def shell(self, command: str) -> str:
        """Run a command in the guest."""
        return self.guest.call("sh", "-c", command).stdout.strip()

    def sleeper(self) -> int:
        """Return the number that the one process which sleeps for a unit has on this side."""
        until(lambda: self.guest.processes("1000"), "the process that sleeps")
        (pid,) = self.guest.processes("1000")
        return pid

    def tidy(self) -> None:
        """Have the server run, and nothing of what a test has launched."""
        self.shell("systemctl start dbus.socket cmappserver")
        for run in self.runs:
            run.process.terminate()
            run.process.wait(LIMIT)
        self.runs.clear()
        self.shell(f"systemctl stop {' '.join(f'{name}.service' for name in UNITS)} {DATABASE}")


@contextlib.contextmanager
def guest_with_units(folder: Path) -> Iterator[Bed]:
    """Boot a guest with the server of this project and those units."""
    keys = Keys(folder / "keys")
    with Grounds() as site:
        guest = Guest(site, "vm9", 9)
        wheel = max((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
        files = [folder / f"{name}.service" for name in UNITS]
        for file, text in zip(files, UNITS.values(), strict=True):
            file.write_text(f"{text}\n")
        guest.equip(wheel, ROOT / "packaging/cmappserver.service", keys.issue("guest", "vm9", guest.address), *files)
        guest.boot()
        made = Bed(site, guest, keys.host, folder)
        made.shell("cp /opt/*.service /etc/systemd/system; systemctl mask masked.service; systemctl daemon-reload")
        yield made
