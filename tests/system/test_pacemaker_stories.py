"""What Pacemaker does with a rendered package, by its own scheduler: who is restarted, who moves, and who is let be."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from tests.system.scheduler import Scheduler, cluster_of, package_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cmapp.cluster.package import Package

    Make = Callable[..., Scheduler]

pytestmark = pytest.mark.skipif(not shutil.which("crm_simulate"), reason="there is no Pacemaker here")

ALL = ("erp-vm", "erp-db", "erp-web")
TOLD = (1, "asyncmon_0")  # how a failure is recorded that `crm_resource --fail` tells of
FOUND = (7, "monitor_10000")  # how one is that a monitor finds
RESTARTED = ["erp-db stop n1", "erp-db start n1"]
ALIVE = [
    "erp-vm migrate_to n1",
    "erp-vm migrate_from n2",
    "erp-db migrate_to n1",
    "erp-db migrate_from n2",
    "erp-web migrate_to n1",
    "erp-web migrate_from n2",
    # What follows is only Pacemaker's way to say that the old host has nothing to do with it any more.
    "erp-db stop n1",
    "erp-web stop n1",
    "erp-vm stop n1",
]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a cluster with a package, which is up on its first host."""

    def up(package: Package | None = None, **properties: str) -> Scheduler:
        scheduler = Scheduler(tmp_path, cluster_of(package or package_of(), **properties))
        assert where(scheduler) == {"n1"}
        return scheduler

    return up


def where(scheduler: Scheduler) -> set[str]:
    """Return the hosts on which the package's resources are, which is one if all is well."""
    places = scheduler.places()
    return {places[resource] for resource in ALL}


def set_meta(scheduler: Scheduler, resource: str, name: str, value: str) -> None:
    """Have an administrator set a meta attribute of a resource, as crm_resource does."""
    cib = scheduler.cib
    values = cib.find(f".//primitive[@id='{resource}']/meta_attributes")
    assert values is not None
    ET.SubElement(values, "nvpair", id=f"{values.get('id')}-{name}", name=name, value=value)
    scheduler.edit(cib)


def set_standby(scheduler: Scheduler, node: str) -> None:
    """Have an administrator put a host into standby."""
    cib = scheduler.cib
    found = cib.find(f"configuration/nodes/node[@uname='{node}']")
    assert found is not None
    values = ET.SubElement(found, "instance_attributes", id=f"standby-{node}")
    ET.SubElement(values, "nvpair", id=f"standby-{node}-1", name="standby", value="on")
    scheduler.edit(cib)


@pytest.mark.parametrize(("code", "operation"), [FOUND, TOLD])
def test_failure_within_the_restarts(make: Make, code: int, operation: str) -> None:
    """The application is restarted where it is; its sibling and the machine have nothing done to them."""
    scheduler = make(package_of(restart="2"))
    for _ in range(2):
        assert scheduler.fail("erp-db", code, operation) == RESTARTED
    assert where(scheduler) == {"n1"}


def test_both_kinds_of_failures_count_together(make: Make) -> None:
    """What a monitor finds and what the manager tells are the same count."""
    scheduler = make(package_of(restart="1", migrate="false"))
    assert scheduler.fail("erp-db", *TOLD) == RESTARTED
    assert "erp-vm start n2" in scheduler.fail("erp-db", *FOUND)


def test_past_the_threshold_everything_moves(make: Make) -> None:
    """A machine that is not moved alive is stopped here and started on the next host, with all its applications."""
    scheduler = make(package_of(restart="2", migrate="false", hosts=("n1", "n3", "n2")))
    for _ in range(2):
        scheduler.fail("erp-db")
    done = scheduler.fail("erp-db")
    assert done[:3] == ["erp-db stop n1", "erp-web stop n1", "erp-vm stop n1"]
    assert done[3] == "erp-vm start n3", "the next in order of preference"
    assert set(done[4:]) == {"erp-db start n3", "erp-web start n3"}
    assert where(scheduler) == {"n3"}


def test_past_the_threshold_the_agent_has_the_machine_restarted(make: Make) -> None:
    """A machine that may be moved alive is restarted over there all the same, once its agent refuses to migrate it."""
    scheduler = make(package_of(restart="0"))
    done = scheduler.fail("erp-db", fails=["erp-vm_migrate_to_0@n1=1"])
    assert done[:2] == ["erp-db stop n1", "erp-vm migrate_to n1"]
    assert done.index("erp-web stop n1") < done.index("erp-vm stop n1") < done.index("erp-vm start n2")
    assert set(done[-2:]) == {"erp-db start n2", "erp-web start n2"}
    assert where(scheduler) == {"n2"}


def test_past_the_threshold_the_stock_agent_migrates(make: Make) -> None:
    """An agent that does not refuse moves the machine alive: the sibling is handed over, the failed one started."""
    scheduler = make(package_of(restart="0", vm='agent = "stock"\nconfig = "/etc/libvirt/qemu/erp.xml"'))
    done = scheduler.fail("erp-db")
    assert done[:3] == ["erp-db stop n1", "erp-vm migrate_to n1", "erp-vm migrate_from n2"]
    assert "erp-web migrate_from n2" in done
    assert "erp-web start n2" not in done
    assert where(scheduler) == {"n2"}


@pytest.mark.parametrize("migrate", ["true", "false"])
def test_on_the_last_host_only_the_failed_one_stops(make: Make, migrate: str) -> None:
    """With no host left the machine and the sibling run on."""
    scheduler = make(package_of(restart="1", migrate=migrate))
    scheduler.fail("erp-db")
    scheduler.fail("erp-db")
    assert where(scheduler) == {"n2"}
    scheduler.fail("erp-db")
    assert scheduler.fail("erp-db") == ["erp-db stop n2"]
    assert scheduler.places() | {"fence": ""} == {"fence": "", "erp-vm": "n2", "erp-db": "", "erp-web": "n2"}
    assert scheduler.settle() == [], "and it stays so"


def test_live_migration(make: Make) -> None:
    """An administrator's move: the machine first, then each application changes hands; none is stopped or started."""
    scheduler = make()
    set_standby(scheduler, "n1")
    done = scheduler.settle()
    assert sorted(done) == sorted(ALIVE)
    for name in ("db", "web"):
        steps = [f"erp-{name} migrate_to n1", f"erp-{name} migrate_from n2", f"erp-{name} stop n1"]
        order = [done.index(step) for step in ("erp-vm migrate_from n2", *steps, "erp-vm stop n1")]
        assert order == sorted(order)
    assert where(scheduler) == {"n2"}


def test_without_live_migration(make: Make) -> None:
    """The same move with a machine that cannot be moved alive: all are stopped, in order, and started."""
    scheduler = make(package_of(migrate="false"))
    set_standby(scheduler, "n1")
    done = scheduler.settle()
    assert [action.split()[1] for action in done] == ["stop"] * 3 + ["start"] * 3
    assert (done[2], done[3]) == ("erp-vm stop n1", "erp-vm start n2")


@pytest.mark.parametrize("failing", ["erp-vm_migrate_to_0@n1=1", "erp-vm_migrate_from_0@n2=1"])
def test_live_migration_that_fails(make: Make, failing: str) -> None:
    """The machine is stopped everywhere, started once, and has its applications again."""
    scheduler = make(package_of(vm="restart = 1"))
    set_standby(scheduler, "n1")
    done = scheduler.settle(fails=[failing])
    start = done.index("erp-vm start n2")
    assert {"erp-vm stop n1", "erp-vm stop n2"} <= set(done[:start])
    assert where(scheduler) == {"n2"}


def test_application_that_cannot_change_hands(make: Make) -> None:
    """It alone is restarted on the new host."""
    scheduler = make()
    set_standby(scheduler, "n1")
    done = scheduler.settle(fails=["erp-web_migrate_from_0@n2=1"])
    assert [action for action in done if action.endswith(("start n2", "start n1"))] == ["erp-web start n2"]
    assert where(scheduler) == {"n2"}


@pytest.mark.parametrize(("code", "operation"), [FOUND, TOLD])
def test_machine_that_fails(make: Make, code: int, operation: str) -> None:
    """The applications are stopped first; the machine is started on the next host, and they after it."""
    scheduler = make()
    done = scheduler.fail("erp-vm", code, operation)
    assert set(done[:2]) == {"erp-db stop n1", "erp-web stop n1"}
    assert done[2:4] == ["erp-vm stop n1", "erp-vm start n2"]
    assert set(done[4:]) == {"erp-db start n2", "erp-web start n2"}


def test_machine_that_is_restarted_on_the_spot(make: Make) -> None:
    """As often as [vm] says, and then it moves."""
    scheduler = make(package_of(vm="restart = 1"))
    assert "erp-vm start n1" in scheduler.fail("erp-vm")
    assert "erp-vm start n2" in scheduler.fail("erp-vm")


def test_host_that_crashes(make: Make) -> None:
    """It is fenced before anything starts elsewhere, and the guest stays there when it returns."""
    scheduler = make()
    done = scheduler.settle("--node-fail", "n1")
    assert done[:2] == ["fence n1", "erp-vm start n2"]
    assert where(scheduler) == {"n2"}
    assert scheduler.settle("--node-up", "n1") == []
    assert where(scheduler) == {"n2"}


def test_stickiness_of_the_cluster_does_not_hold_it(make: Make) -> None:
    """However much a cluster likes its resources to stay, they move where the application may run."""
    scheduler = make(package_of(restart="0", migrate="false"))
    cib = scheduler.cib
    defaults = ET.SubElement(ET.SubElement(cib[0], "rsc_defaults"), "meta_attributes", id="rsc-options")
    for name, value in (("resource-stickiness", "INFINITY"), ("critical", "false"), ("failure-timeout", "1s")):
        ET.SubElement(defaults, "nvpair", id=f"rsc-options-{name}", name=name, value=value)
    scheduler.edit(cib)
    assert "erp-vm start n2" in scheduler.fail("erp-db")


def test_never_on_other_hosts(make: Make) -> None:
    """A package is stopped rather than run on a host that it does not name, in either kind of cluster."""
    scheduler = make(package_of(hosts=("n1",)), **{"symmetric-cluster": "false"})
    done = scheduler.settle("--node-fail", "n1")
    assert done == ["fence n1"]
    assert where(scheduler) == {""}


def test_other_hosts_are_not_asked(tmp_path: Path) -> None:
    """Whatever the agents would answer on a host that the package does not name, it is not fenced for it."""
    failing = [f"{resource}_monitor_0@{node}=1" for resource in ALL for node in ("n3", "n4")]
    scheduler = Scheduler(tmp_path, cluster_of(package_of(), nodes=("n1", "n2", "n3", "n4")), fails=failing)
    assert scheduler.done == ["erp-vm start n1", "erp-db start n1", "erp-web start n1"]


@pytest.mark.parametrize("resource", ALL)
def test_maintenance(make: Make, resource: str) -> None:
    """Nothing is done about what fails meanwhile; it is restarted when maintenance ends."""
    scheduler = make(package_of(restart="unlimited", vm="restart = 3"))
    for one in ALL:
        set_meta(scheduler, one, "maintenance", "true")
    assert scheduler.settle() == []
    assert scheduler.settle("--op-inject", f"{resource}_monitor_10000@n1=7") == []
    for one in ALL:
        cib = scheduler.cib
        values = cib.find(f".//primitive[@id='{one}']/meta_attributes")
        assert values is not None
        values.remove(values[-1])
        scheduler.edit(cib)
    assert f"{resource} start n1" in scheduler.settle()
    assert where(scheduler) == {"n1"}


def test_unlimited_never_moves(make: Make) -> None:
    """An application without a limit is restarted on the spot for ever."""
    scheduler = make(package_of(restart="unlimited"))
    for _ in range(12):
        assert scheduler.fail("erp-db") == RESTARTED


def test_none_moves_at_once(make: Make) -> None:
    """An application without restarts takes the package along at its first failure."""
    scheduler = make(package_of(restart="none", migrate="false"))
    assert "erp-vm start n2" in scheduler.fail("erp-db")


@pytest.mark.parametrize(("code", "operation"), [FOUND, TOLD])
def test_fail_fast(make: Make, code: int, operation: str) -> None:
    """The host is fenced, also where the manager tells of it, which Pacemaker does not take for a monitor's."""
    scheduler = make(package_of(restart="0", db="service_fail_fast = true"))
    assert scheduler.fail("erp-db", code, operation)[:2] == ["fence n1", "erp-vm start n2"]
    assert where(scheduler) == {"n2"}


def test_failed_starts_count(make: Make) -> None:
    """A start that fails is a failure like any other: as many as are restarted on the spot, then all move.

    That it counts as one, and not as a million, is the controller's doing: see tests/cluster/test_apply.py.
    """
    scheduler = make(package_of(restart="2", migrate="false"))
    done = scheduler.fail("erp-db", fails=["erp-db_start_0@n1=1"])
    assert done.count("erp-db start n1") == 2
    assert done.index("erp-vm stop n1") > 3
    assert where(scheduler) == {"n2"}


def test_wrong_configuration_moves_nobody(make: Make) -> None:
    """What would be wrong on every host (OCF_ERR_CONFIGURED) stops the application, not its siblings."""
    scheduler = make()
    done = scheduler.fail("erp-db", fails=["erp-db_start_0@n1=6"])
    assert done == [*RESTARTED, "erp-db stop n1"]
    assert scheduler.places()["erp-web"] == scheduler.places()["erp-vm"] == "n1"


@pytest.mark.parametrize("code", [4, 5])
def test_missing_on_a_host_moves_all(make: Make, code: int) -> None:
    """What is not allowed to this host (OCF_ERR_PERM) or not installed there (OCF_ERR_INSTALLED) may be on another."""
    scheduler = make(package_of(migrate="false"))
    scheduler.fail("erp-db", fails=[f"erp-db_start_0@n1={code}"])
    assert where(scheduler) == {"n2"}


def test_stop_that_fails(make: Make) -> None:
    """A stop that fails has the host fenced, which is why ours do not fail where the guest makes sure of it."""
    scheduler = make()
    assert scheduler.fail("erp-db", fails=["erp-db_stop_0@n1=1"])[:2] == ["erp-db stop n1", "fence n1"]


def test_degraded_is_no_failure(make: Make) -> None:
    """A monitor that says that it is degraded (190), because the guest is being looked for, has nothing done."""
    scheduler = make(package_of(restart="1"))
    assert scheduler.fail("erp-db", 190) == []
    assert where(scheduler) == {"n1"}


def test_two_that_fail_on_different_hosts(make: Make) -> None:
    """The machine goes where more of its applications may run."""
    scheduler = make(package_of(restart="0", migrate="false"))
    scheduler.fail("erp-db")
    assert scheduler.fail("erp-web") == ["erp-web stop n2"]
    assert scheduler.places()["erp-db"] == "n2"
    scheduler.fail("erp-db")
    assert scheduler.places() | {"fence": ""} == {"fence": "", "erp-vm": "n1", "erp-db": "", "erp-web": "n1"}
