"""`cmapp status`: how the applications are, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.system.fates import PATIENT
from tests.system.processes import end, until

if TYPE_CHECKING:
    from tests.system.bed import Bed

HEADS = ["NAME", "STATE", "PID", "UP", "CPU", "MEMORY", "HELD", "READY", "HEALTH", "ORPHANED", "STATUS"]


def runs(bed: Bed, *names: str) -> list[dict[str, Any]]:
    """Return what the status says of the runs, for programs."""
    said = json.loads(bed.cmapp("status", *names, "--json"))
    assert said.keys() == {"guest", "software", "boot_id", "certificates", "runs"}
    found = said["runs"]
    assert isinstance(found, list)
    return found


def test_nothing_runs(bed: Bed) -> None:
    """A guest without applications is no error, one that was asked for by name is."""
    bed.serve()
    nothing, certificates = bed.cmapp("status").splitlines()
    assert nothing == f"nothing runs in {bed.server.guest} that this host's key launched"
    assert certificates == "certificates: guest 825 days left, host 825 days left"
    assert runs(bed) == []
    done = bed.ask("status", "db")
    assert done.returncode == 1
    assert done.stderr == f"cmapp: there is no run of db in {bed.server.guest} that this host's key launched\n"


def test_table(bed: Bed) -> None:
    """Each run is a line, in the order of their names, or only the one that was asked for."""
    bed.serve()
    managers = {name: bed.start("/bin/sleep", "1000", name=name) for name in ("web", "db", "mail")}
    pids = {name: manager.until_launched() for name, manager in managers.items()}
    head, *lines, certificates = bed.cmapp("status").splitlines()
    assert head.split() == HEADS
    assert [line.split()[:3] for line in lines] == [[name, "running", str(pids[name])] for name in sorted(pids)]
    assert certificates.startswith("certificates: guest ")
    assert [line.split()[0] for line in bed.cmapp("status", "db").splitlines()] == ["NAME", "db", "certificates:"]


def test_json(bed: Bed) -> None:
    """Programs get every number as it is."""
    bed.serve()
    options = ["--health-command", "/bin/true", "--health-interval", "100ms"]
    manager = bed.start("/bin/sh", "-c", "sleep 1000 & sleep 1000; :", name="db", options=options)
    pid = manager.until_launched()
    until(lambda: runs(bed)[0]["health"] == "ok", "a check of its health")
    [run] = runs(bed, "db")
    assert (run["name"], run["run_id"], run["state"], run["pid"]) == ("db", manager.run_id, "running", pid)
    assert run["processes"] >= 3  # a check may run beside them
    assert run["memory"] > 0
    assert run["uptime"] > 0
    assert run["held"] is False
    assert run["orphaned"] is None


def test_orphan(bed: Bed) -> None:
    """A run without a manager says for how long, also under the next server, also if it was left on purpose."""
    server = bed.serve()
    lost = bed.start("/bin/sleep", "1000", name="lost", options=PATIENT)
    left = bed.start("/bin/sleep", "1000", name="left", options=PATIENT)
    for manager in (lost, left):
        manager.until_launched()
    end(lost.process)
    left.process.send_signal(10)
    assert left.wait() == 0
    until(lambda: all(run["orphaned"] is not None for run in runs(bed)), "the loss of both managers")
    server.crash()
    assert [run["name"] for run in runs(bed) if run["orphaned"] is not None] == ["left", "lost"]


def test_another_host(bed: Bed) -> None:
    """A host neither sees nor holds what another host's key has launched."""
    bed.serve()
    manager = bed.start("/bin/sleep", "1000", name="db")
    manager.until_launched()
    other = ["--keys", str(bed.keys.issue("host", "node-other"))]
    assert json.loads(bed.cmapp("status", "--json", *other))["runs"] == []
    done = bed.ask("hold", "db", *other)
    assert done.returncode == 1
    assert "no application db runs here" in done.stderr
    assert not runs(bed)[0]["held"]


def test_server_that_is_not_there(bed: Bed) -> None:
    """A guest that cannot be asked is one line and 1."""
    bed.serve().kill()
    done = bed.ask("status")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nothing listens there" in done.stderr
