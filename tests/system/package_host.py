"""A host without a cluster: a machine with a real systemd, on which guest packages are started as units.

The server that its managers ask runs on it too, and stands for the guest's: it is the machine that `cmapp vm run`
starts, watches and stops by commands.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from chaos.grounds import Grounds
from chaos.guests import Guest
from chaos.rootfs import ENTRY
from cmapp.cluster.reading import read_package
from cmapp.cluster.systemd import render
from tests.system.keys import Keys
from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

ROOT = Path(__file__).parents[2]
PROGRAMS = "/opt"
PROGRAM = """#!/usr/bin/python3
import sys
from cmapp.cli import vmrun
sys.exit(getattr(vmrun, sys.argv[2])(sys.argv[3:]))
"""
# The machine that `cmapp vm run` starts and stops by commands: the server, with all that it runs.
MACHINE = """#!/bin/sh
case $1 in
    start) echo "$2 starts" >>/books/machine; [ ! -e /books/broken ] && systemctl start cmappserver ;;
    stop)
        echo "$2 stops, alive: $(ls /books/alive | tr '\\n' ' ')" >>/books/machine
        systemctl kill --kill-who=main -s QUIT cmappserver
        systemctl stop cmappserver
        ;;
    state) if systemctl --quiet is-active cmappserver; then echo running; else echo down: not active; fi ;;
esac
"""
# Each start leaves a line with its pid, and a file for as long as it lives.
APPLICATION = """#!/bin/sh
trap 'rm -f /books/alive/$1; exit 7' TERM
touch /books/alive/$1
echo $$ >>/books/$1
[ -z "$2" ] || exit "$2"
while :; do sleep 1000 & wait; done
"""
HEAD = """
name = "{name}"
hosts = ["here"]
guest = "127.0.0.1"
keys = "/books/keys"
log = "/books/{name}.log"
[vm]
start = "/opt/machine start {name}"
stop = "/opt/machine stop {name}"
state = "/opt/machine state {name}"
start_timeout = "20s"
stop_timeout = "5s"
restart = {restart}
[settings]
poll_interval = "1s"
stop_timeout = "5s"
"""
SERVICE = """
[service.{name}]
command = {command}
{rules}
"""


class Host:
    """A machine on which packages are started by systemd."""

    def __init__(self, machine: Guest, folder: Path) -> None:
        self.machine = machine
        self.books = machine.books
        self._folder = folder
        self._last = "none"

    def call(self, *words: str) -> str:
        """Run a command that must succeed, and return what it says."""
        done = self.machine.call(*words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout

    def install(
        self,
        name: str,
        restart: int = 0,
        codes: Mapping[str, int] = MappingProxyType({}),
        commands: Mapping[str, str] = MappingProxyType({}),
        **services: str,
    ) -> None:
        """Render a package whose services have these rules, and start it.

        A service is an application that runs until it is stopped, or ends with its code at once, or its command.
        """
        text = HEAD.format(name=name, restart=restart)
        for service, rules in services.items():
            ours = json.dumps(f"/opt/application {name}-{service} {codes.get(service, '')}")
            text += SERVICE.format(name=service, command=commands.get(service, ours), rules=rules)
        self.machine.call("systemctl", "stop", f"{self._last}.target")
        self._last = name
        file = self._folder / f"{name}.toml"
        file.write_text(text)
        units = self.books / "units"
        units.mkdir(exist_ok=True)
        for unit, content in render(read_package(str(file)), PROGRAMS).items():
            (units / unit).write_text(content)
        self.call("sh", "-c", f"cp /books/units/{name}* /etc/systemd/system/ && systemctl daemon-reload")
        self.call("systemctl", "start", "--no-block", f"{name}.target")

    def state(self, unit: str, what: str = "ActiveState") -> str:
        """Return a property of a unit."""
        return self.call("systemctl", "show", "--value", "-P", what, unit).strip()

    def starts(self, name: str) -> list[str]:
        """Return the pids, as the machine knows them, of each start of an application."""
        path = self.books / name
        return path.read_text().split() if path.exists() else []

    def alive(self, name: str) -> bool:
        """Tell whether an application runs, and was not killed."""
        starts = self.starts(name)
        return bool(starts) and self.machine.call("test", "-d", f"/proc/{starts[-1]}").returncode == 0

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something; what the machine's systemd has logged lately is told if it does not come about."""
        try:
            until(condition, what)
        except AssertionError:
            print(self.machine.call("journalctl", "-q", "--no-pager", "-n", "60", "-o", "cat").stdout)
            raise

    def until_started(self, name: str, times: int) -> None:
        """Wait until an application was started so often, and its unit is ready."""
        self.until(lambda: len(self.starts(name)) == times, f"start {times} of {name}")
        self.until(lambda: self.state(f"{name}.service") == "active", f"{name} being ready")

    def kill(self, name: str) -> None:
        """Kill an application in the guest."""
        self.call("sh", "-c", f"kill -9 {self.starts(name)[-1]}")

    def end_machine(self) -> None:
        """Let the guest's machine crash: its server and all that it runs."""
        self.call("systemctl", "kill", "-s", "KILL", "cmappserver")

    def alive_when_stopped(self, package: str) -> list[str]:
        """Return which applications of a package had not ended in order when its machine was stopped last."""
        told = re.findall(rf"^{package} stops, alive: (.*)$", (self.books / "machine").read_text(), re.MULTILINE)
        return [name for name in told[-1].split() if name.startswith(f"{package}-")]

    def until_given_up(self, package: str, unit: str) -> None:
        """Wait until the package stands still, because this unit was given up."""
        self.until(lambda: self.state(f"{unit}.service") == "failed", f"{unit} being given up")
        self.until(lambda: self.state(f"{package}.target") == "inactive", f"{package} being stopped")
        self.until(lambda: self.state(f"{package}-vm.service") in {"inactive", "failed"}, "its machine's stop")
        assert self.machine.call("systemctl", "is-active", "cmappserver").stdout != "active\n"


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Host]:
    """Boot a machine with a systemd, our programs, and a server that is the guest; `folder` is for files."""
    keys = Keys(folder / "keys")
    for name, text in (
        ("cmappmgr", ENTRY.format(command="cmappmgr")),
        ("cmapp", PROGRAM),
        ("machine", MACHINE),
        ("application", APPLICATION),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    wheel = max((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    with Grounds() as site:
        machine = Guest(site, "here", 8)
        programs = [folder / name for name in ("cmappmgr", "cmapp", "machine", "application")]
        machine.equip(wheel, ROOT / "packaging/cmappserver.service", keys.guest, *programs)
        shutil.copytree(keys.host, machine.books / "keys")
        (machine.books / "alive").mkdir()
        machine.boot()
        # A machine that has crashed does not come back by itself.
        once = "mkdir $0.d && printf '[Service]\\nRestart=no\\n' >$0.d/once.conf && systemctl daemon-reload"
        machine.call("sh", "-c", once, "/etc/systemd/system/cmappserver.service")
        machine.call("systemctl", "disable", "--now", "cmappserver")
        yield Host(machine, folder)
