"""ocf:cmapp:vm, as installed, on a machine that is a process with a set of commands: each action, and each end.

What libvirt and QEMU do is for tests/shell; here it is what the cluster is told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.agents import (
    AGENT,
    CONFIGURED,
    GENERIC,
    INSTALLED,
    NOT_RUNNING,
    SUCCESS,
    UNIMPLEMENTED,
    Said,
)
from tests.system.commands import BIN, END_LIMIT, check_for_defects
from tests.system.processes import alive, until, until_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bed import Bed

START = "cd {at}; [ ! -e broken ] || {{ echo no disk; exit 1; }}; sleep 1000 & echo $! > pid; echo started >> history"
STOP = 'cd {at}; [ ! -e stubborn ] || [ "$CMAPP_FORCE" ] || exit 0; echo stopped >> history; kill $(cat pid)'
STATE = """cd {at}; [ ! -e word ] || exec cat word
kill -0 $(cat pid) 2>/dev/null && ! grep -q ') Z' /proc/$(cat pid)/stat && echo running || echo down"""
MIGRATE = (
    "cd {at}; [ ! -e broken ] || {{ echo no way; exit 4; }}; echo to $CMAPP_TARGET >> history; echo elsewhere > word"
)
NAME = "erp-vm"


class Host:
    """A host of the cluster with the resource of one machine; `at` is where the machine's files are."""

    def __init__(self, folder: Path, at: Path, node: str) -> None:
        self.at = at
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        self.folder = self.run / f"cmapp-{NAME}"
        self.log = folder / "package.log"
        self.environ = {
            "PATH": os.environ["PATH"],
            "OCF_RESOURCE_INSTANCE": NAME,
            "OCF_RESKEY_CRM_meta_on_node": node,
            "HA_RSCTMP": str(self.run),
        }
        self.given = {
            "log_file": str(self.log),
            "syslog": "false",
            "state_dir": str(self.run),
            "poll_interval": "200ms",
            "stop_timeout": "1s",
        }
        for name, text in (("start", START), ("stop", STOP), ("state", STATE), ("migrate", MIGRATE)):
            path = folder / f"{name}.sh"
            path.write_text(f"#!/bin/sh\n{text.format(at=at)}\n")
            path.chmod(0o755)
            self.given[f"{name}_command"] = str(path)

    def begin(self, action: str, meta: dict[str, str] | None, given: dict[str, str]) -> subprocess.Popen[str]:
        """Begin an action."""
        told = {f"OCF_RESKEY_{key}": text for key, text in {**self.given, **given}.items()}
        told |= {f"OCF_RESKEY_CRM_meta_{key}": text for key, text in (meta or {}).items()}
        return subprocess.Popen(
            [AGENT, "vm", action],
            env=self.environ | told,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def act(self, action: str, given: dict[str, str] | None = None, *, meta: dict[str, str] | None = None) -> Said:
        """Carry out an action."""
        begin = time.monotonic()
        meta = {"interval": "10000"} if meta is None and action == "monitor" else meta
        process = self.begin(action, meta, given or {})
        stdout, stderr = process.communicate(timeout=END_LIMIT)
        check_for_defects(stdout, stderr)
        return Said(process.returncode, time.monotonic() - begin, stdout, stderr)

    @property
    def history(self) -> list[str]:
        """What was done to the machine."""
        path = self.at / "history"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def machine(self) -> int:
        """The machine's process."""
        return int((self.at / "pid").read_text())

    @property
    def watcher(self) -> int:
        """The process that watches it."""
        return int((self.folder / "lock").read_text().split()[0])

    def close(self) -> None:
        """End what is left."""
        for file in (self.folder / "lock", self.at / "pid"):
            with suppress(OSError, ValueError, IndexError):
                pid = int(file.read_text().split()[0])
                if pid and alive(pid):
                    os.kill(pid, signal.SIGKILL)
        if self.log.exists():
            check_for_defects(self.log.read_text())


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Return a function that makes a host by its name."""
    hosts: list[Host] = []
    (tmp_path / "machine").mkdir()

    def make_host(node: str = "n1") -> Host:
        hosts.append(Host(tmp_path / node, tmp_path / "machine", node))
        return hosts[-1]

    yield make_host
    for host in hosts:
        host.close()


@pytest.fixture
def host(make: Callable[..., Host]) -> Host:
    """Return a host."""
    return make()


def test_a_life(host: Host) -> None:
    """Each action says what is so, and each again says the same."""
    assert host.act("monitor").code == NOT_RUNNING
    assert host.act("stop").code == SUCCESS
    said = host.act("start")
    assert said.code == SUCCESS, said.stderr
    assert alive(host.machine)
    assert [host.act(action).code for action in ("monitor", "start", "monitor")] == [SUCCESS] * 3
    assert host.act("stop").code == SUCCESS
    assert [host.act(action).code for action in ("monitor", "stop")] == [NOT_RUNNING, SUCCESS]
    assert host.history == ["started", "stopped"]


def test_its_end_is_told_at_once(host: Host) -> None:
    """The cluster hears of it without a monitor, which then says the same; and a start after it starts it anew."""
    assert host.act("start").code == SUCCESS
    words = Path(f"/proc/{host.watcher}/cmdline").read_text().split("\0")
    assert f"exec crm_resource --fail -r {NAME} -N n1" in words[words.index("--on-end") + 1]
    os.kill(host.machine, signal.SIGKILL)
    until((host.folder / "result").exists, "its end")
    said = host.act("monitor")
    assert said.code == GENERIC
    assert "exit code 1 (gone)" in said.reason
    assert [host.act(action).code for action in ("stop", "start", "monitor")] == [SUCCESS] * 3
    assert host.history == ["started", "started"]
    assert host.act("stop").code == SUCCESS


def test_a_watcher_that_is_killed_takes_nothing_with_it(host: Host) -> None:
    """The machine runs on, and the next monitor has it watched again; the stop works without one, too."""
    assert host.act("start").code == SUCCESS
    machine, watcher = host.machine, host.watcher
    os.kill(watcher, signal.SIGKILL)
    until_gone(watcher)
    assert host.act("monitor").code == SUCCESS
    assert (host.machine, host.history) == (machine, ["started"])
    assert host.watcher != watcher
    assert host.act("monitor").code == SUCCESS
    os.kill(host.watcher, signal.SIGKILL)
    until_gone(host.watcher)
    assert host.act("stop").code == SUCCESS
    assert not alive(machine)


def test_a_probe_starts_nothing(host: Host) -> None:
    """Of a machine that somebody else has started, the cluster only wants to know."""
    subprocess.run([host.given["start_command"]], check=True)
    assert host.act("monitor", meta={"interval": "0"}).code == SUCCESS
    assert not (host.folder / "lock").exists()
    assert host.act("monitor", meta={"interval": "10000"}).code == SUCCESS
    assert alive(host.watcher)
    assert host.history == ["started"]
    assert host.act("stop").code == SUCCESS


def test_a_start_that_fails(host: Host) -> None:
    """Says why, tells nobody else, and leaves nothing."""
    (host.at / "broken").touch()
    said = host.act("start")
    assert said.code == GENERIC
    assert "no disk" in said.reason
    (host.at / "broken").unlink()
    assert [host.act(action).code for action in ("stop", "start", "stop")] == [SUCCESS] * 3


def test_a_stop_that_has_to_force_it(host: Host) -> None:
    """It succeeds after the stop timeout."""
    assert host.act("start").code == SUCCESS
    (host.at / "stubborn").touch()
    said = host.act("stop")
    assert (said.code, alive(host.machine)) == (SUCCESS, False)
    assert said.seconds >= 1


@pytest.mark.slow
def test_a_stop_that_nobody_can_prove(host: Host) -> None:
    """It fails, and the cluster fences."""
    assert host.act("start").code == SUCCESS
    (host.at / "word").write_text("unknown: nobody knows\n")
    assert host.act("stop").code == GENERIC  # though it was ended: nobody can prove it


def test_migration(make: Callable[..., Host]) -> None:
    """The machine is left, moved, and adopted by the other host; here it is neither stopped nor started again."""
    one, two = make("n1"), make("n2")
    assert one.act("start").code == SUCCESS
    machine = one.machine
    said = one.act("migrate_to", meta={"migrate_target": "n2"})
    assert said.code == SUCCESS, said.stderr
    assert one.act("monitor").code == NOT_RUNNING
    assert one.act("stop").code == SUCCESS
    (one.at / "word").unlink()  # what n2's command says
    assert two.act("migrate_from", meta={"migrate_source": "n1"}).code == SUCCESS
    assert two.act("monitor").code == SUCCESS
    assert (two.machine, one.history) == (machine, ["started", "to n2"])
    assert two.act("stop").code == SUCCESS
    assert not alive(machine)


def test_a_migration_that_fails(host: Host) -> None:
    """The machine is watched on where it is."""
    assert host.act("start").code == SUCCESS
    (host.at / "broken").touch()
    said = host.act("migrate_to", meta={"migrate_target": "n2"})
    assert said.code == GENERIC
    assert "no way" in said.reason
    assert host.act("monitor").code == SUCCESS
    assert alive(host.watcher)
    assert host.act("stop").code == SUCCESS


def test_a_machine_in_which_an_application_has_failed_is_not_migrated(host: Host) -> None:
    """It would fail there as well: the machine is started anew."""
    assert host.act("start").code == SUCCESS
    mark = host.run / "cmapp-erp-db" / "failed"
    mark.parent.mkdir()
    mark.write_text(NAME)
    said = host.act("migrate_to", meta={"migrate_target": "n2"})
    assert said.code == GENERIC
    assert "erp-db has failed in it" in said.reason
    os.utime(mark, (0, 0))
    assert host.act("migrate_to", meta={"migrate_target": "n2"}).code == SUCCESS


def test_nothing_to_adopt_is_not_started(host: Host) -> None:
    """A machine that got lost on its way is an error, and not started by the one who waits for it."""
    said = host.act("migrate_from", meta={"migrate_source": "n2"})
    assert said.code == GENERIC
    assert "does not run here" in said.reason
    assert host.history == []


@pytest.mark.parametrize(
    ("given", "code", "reason"),
    [
        ({}, SUCCESS, ""),
        ({"bogus": "1"}, CONFIGURED, "bogus"),
        ({"adopt": "1"}, CONFIGURED, "adopt"),
        ({"stop_timeout": "soon"}, CONFIGURED, "stop_timeout"),
        ({"state_command": "state"}, CONFIGURED, "absolute path"),
        ({"state_command": "/nowhere/state"}, INSTALLED, "/nowhere/state"),
        ({"guest": "vm1", "keys": "/nowhere"}, INSTALLED, "/nowhere"),
        ({"start_command": "", "stop_command": "", "state_command": ""}, CONFIGURED, "domain is missing"),
    ],
    ids=["well", "unknown", "ours", "no duration", "relative", "no command", "no keys", "no domain"],
)
def test_validate_all(host: Host, given: dict[str, str], code: int, reason: str) -> None:
    """What cannot be used anywhere is told from what this host lacks."""
    said = host.act("validate-all", given)
    assert said.code == code, said.stderr
    assert reason in said.reason


def test_meta_data_and_what_is_no_action(host: Host) -> None:
    """The agent says what it takes; it takes nothing else."""
    assert '<parameter name="migration_options"' in host.act("meta-data").stdout
    assert host.act("fly").code == UNIMPLEMENTED


def test_monitors_are_cheap(host: Host) -> None:
    """Nothing is asked, nothing is loaded that is not needed: the fastest of ten says what it costs."""
    assert host.act("start").code == SUCCESS
    assert min(host.act("monitor").seconds for _ in range(10)) < 0.15
    assert host.act("stop").code == SUCCESS


def test_with_its_server(host: Host, bed: Bed) -> None:
    """A start waits for the cmappserver in the machine; one that answers before it was started runs elsewhere."""
    subprocess.run([host.given["start_command"]], check=True)
    where = {"guest": bed.server.guest, "keys": str(bed.keys.host)}
    assert host.act("start", where).code == SUCCESS
    assert "its server answers" in host.log.read_text()
    assert host.act("stop").code == SUCCESS
    said = host.act("start", where)
    assert said.code == GENERIC
    assert "runs elsewhere already" in said.reason
    assert host.history == ["started", "stopped"]
    assert BIN
