"""A package and a cluster's configuration: what applying changes and says, and what it leaves alone.

Pacemaker's own tools work on a file here, so all but the cluster's reaction is real; that is in tests/cluster.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from cmapp.cluster import apply, cib
from cmapp.cluster.cib import ClusterError
from tests.system.scheduler import TEMPLATE, Scheduler, cluster_of, package_of, read

if TYPE_CHECKING:
    from pathlib import Path

    from cmapp.cluster.package import Package

pytestmark = pytest.mark.skipif(not shutil.which("cibadmin"), reason="there is no Pacemaker here")

OTHERS = """<primitive id="{0}" class="ocf" provider="heartbeat" type="Dummy"><meta_attributes id="{0}-m">
<nvpair id="{0}-m-1" name="target-role" value="Started"/></meta_attributes></primitive>"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    """A cluster without any package, on which the tools work."""
    scheduler = Scheduler(tmp_path, cluster_of(None))
    scheduler.file.chmod(0o600)
    monkeypatch.setenv("CIB_file", str(scheduler.file))
    monkeypatch.setenv("CIB_shadow_dir", str(tmp_path))
    return scheduler


def add(scheduler: Scheduler, section: str, text: str) -> None:
    """Have an administrator add something."""
    root = scheduler.cib
    found = root.find(f"configuration/{section}")
    assert found is not None
    found.append(ET.fromstring(text))  # noqa: S314 - our own
    scheduler.edit(root)


def configuration(scheduler: Scheduler) -> str:
    """Return the cluster's configuration as a text that is the same for the same configuration."""
    found = scheduler.cib[0]
    return ET.canonicalize(ET.tostring(found, encoding="unicode"), strip_text=True)


def without(service: str, package: Package) -> Package:
    """Return the package without a service."""
    return package.replace(services=tuple(each for each in package.services if each.name != service))


def test_first_apply(cluster: Scheduler) -> None:
    """All of it is shown as new, with what happens then; the second time there is no difference."""
    package = package_of()
    text = apply.difference(package)
    assert text.startswith("erp-vm is new\n    agent: ocf:cmapp:vm\n")
    assert "    parameter command: /usr/bin/db --port 5432\n" in text
    assert "    may run on: n1, n2\n" in text
    assert text.endswith("erp-vm is started on n1\n    erp-db is started on n1\n    erp-web is started on n1")
    apply.apply(package)
    assert apply.difference(package) == ""
    before = configuration(cluster)
    assert apply.apply(package).lines == ()
    assert configuration(cluster) == before
    assert set(cluster.settle()) == {"erp-vm start n1", "erp-db start n1", "erp-web start n1"}


def test_change_of_one_service(cluster: Scheduler) -> None:
    """Only what is different is shown and changed."""
    apply.apply(package_of())
    cluster.settle()
    cluster.file.chmod(0o600)
    changed = package_of(db='user = "pg"\nstop_timeout = "100s"')
    assert apply.difference(changed) == (
        "erp-db changes\n"
        "    parameter user: pg\n"
        "    parameter stop_timeout: 100s\n"
        "    action start: timeout=195s -> timeout=265s\n"
        "    action stop: timeout=115s -> timeout=175s\n"
        "At once, as Pacemaker would have it:\n"
        "    erp-db is restarted on n1"
    )
    apply.apply(changed)
    assert apply.difference(changed) == ""
    assert "    parameter user: pg -> (none)\n" in apply.difference(package_of())
    assert cluster.settle() == ["erp-db stop n1", "erp-db start n1"]
    cluster.file.chmod(0o600)
    assert apply.difference(package_of(restart="7", db='user = "pg"\nstop_timeout = "100s"')).endswith(
        "At once, as Pacemaker would have it:\n    nothing: no resource is started, stopped or moved"
    )


def test_other_hosts(cluster: Scheduler) -> None:
    """A package that moves to other hosts loses its old preferences, and the move is foretold."""
    apply.apply(package_of())
    cluster.settle()
    cluster.file.chmod(0o600)
    moved = package_of(hosts=("n2", "n3"))
    text = apply.difference(moved)
    assert "    points on n2: 10 -> 20\n    points on n3: 10\n    points on n1: 20 -> (none)\n" in text
    assert "    may run on: n1, n2 -> n2, n3\n" in text
    assert "    erp-vm is migrated alive from n1 to n2" in text
    apply.apply(moved)
    assert cluster.cib.find(".//*[@id='erp-prefers.n1']") is None
    cluster.settle()
    assert cluster.places()["erp-web"] == "n2"


def test_removed_service(cluster: Scheduler) -> None:
    """It is stopped and gone, with an administrator's constraint on it; the others are not touched."""
    package = package_of()
    apply.apply(package)
    add(cluster, "constraints", '<rsc_location id="cli-ban" rsc="erp-web" node="n3" score="-INFINITY"/>')
    add(cluster, "constraints", '<rsc_order id="chain"><resource_set id="chain-1"><resource_ref id="erp-web"/>'
        '<resource_ref id="erp-db"/></resource_set></rsc_order>')  # fmt: skip
    cluster.settle()
    cluster.file.chmod(0o600)
    less = without("web", package)
    text = apply.difference(less)
    assert "erp-web is stopped and removed\n    constraint cli-ban: node=n3 score=-INFINITY -> (none)\n" in text
    assert text.endswith("At once, as Pacemaker would have it:\n    erp-web is stopped on n1")
    apply.retire(apply.plan(less))
    assert cluster.settle() == ["erp-web stop n1"], "with its own timeouts, for it is still there"
    cluster.file.chmod(0o600)
    assert 'name="target-role" value="Stopped"' in configuration(cluster)
    apply.apply(less)
    assert "erp-web" not in configuration(cluster)
    assert [item.get("id") for item in cluster.cib.iter("resource_ref")] == ["erp-db"]
    assert cluster.settle() == []


def test_what_others_have_stays(cluster: Scheduler) -> None:
    """Resources, constraints and tags of others are as they were, to the letter, those of other packages too."""
    add(cluster, "resources", OTHERS.format("address"))
    add(cluster, "resources", f'<group id="erp-group">{OTHERS.format("erp-disk")}</group>')
    add(cluster, "constraints", '<rsc_location id="mine" rsc="address" node="n1" score="7"/>')
    text = TEMPLATE.format(hosts='"n1"', migrate="false", vm="", restart=1, db="")
    apply.apply(read(text.replace('"erp"', '"erp-two"', 1)))
    before = configuration(cluster)
    package = package_of()
    apply.apply(package)
    apply.apply(without("web", package_of(hosts=("n3", "n2"), db='user = "pg"')))
    root = cluster.cib
    for parent in list(root.iter()):
        for child in list(parent):
            ident = child.get("id", "")
            if ident in ("erp", "erp-vm", "erp-db") or ident.startswith(("erp-hosts", "erp-prefers.", "erp-db-")):
                parent.remove(child)
    cluster.edit(root)
    assert configuration(cluster) == before


def test_what_an_administrator_has_set_stays(cluster: Scheduler) -> None:
    """Roles, maintenance and any other value that is not the package's are kept, and shown by nobody."""
    apply.apply(package_of())
    root = cluster.cib
    resource = root.find(".//primitive[@id='erp-db']")
    assert resource is not None
    ET.SubElement(resource[1], "nvpair", id="erp-db-meta-target-role", name="target-role", value="Stopped")
    ET.SubElement(resource[1], "nvpair", id="erp-db-meta-maintenance", name="maintenance", value="true")
    ET.SubElement(resource[0], "nvpair", id="erp-db-parameters-cwd", name="cwd", value="/srv")
    ET.SubElement(resource[2], "op", id="deep", name="monitor", interval="60s", timeout="20s")
    ET.SubElement(resource, "utilization", id="erp-db-u")
    tag = root.find(".//tag[@id='erp']")
    assert tag is not None
    ET.SubElement(tag, "obj_ref", id="fence")
    cluster.edit(root)
    assert apply.difference(package_of()) == ""
    apply.apply(package_of(db='user = "pg"'))
    text = configuration(cluster)
    for kept in (
        "target-role",
        "erp-db-meta-maintenance",
        'value="/srv"',
        'id="deep"',
        "erp-db-u",
        '<obj_ref id="fence">',
    ):
        assert kept in text
    apply.apply(package_of(db='cwd = "/opt"'))
    assert 'value="/srv"' not in configuration(cluster), "what the file says wins over the same by hand"


def test_what_an_administrator_has_changed_of_ours(cluster: Scheduler) -> None:
    """A value of the package's own that was changed by hand is shown, and made the file's again."""
    apply.apply(package_of())
    root = cluster.cib
    pair = root.find(".//nvpair[@id='erp-db-meta.migration-threshold']")
    assert pair is not None
    pair.set("value", "9")
    cluster.edit(root)
    assert apply.difference(package_of()).startswith("erp-db changes\n    migration-threshold: 9 -> 5\n")


@pytest.mark.parametrize(
    ("section", "text", "what"),
    [
        ("resources", OTHERS.format("erp-db"), "a primitive called erp-db"),
        ("resources", f'<group id="erp">{OTHERS.format("one")}</group>', "a group called erp"),
        ("resources", OTHERS.format("erp-vm"), "a primitive called erp-vm"),
        (
            "constraints",
            '<rsc_location id="erp-hosts" rsc="fence" node="n1" score="1"/>',
            "a constraint called erp-hosts",
        ),
    ],
)
def test_names_that_are_taken(cluster: Scheduler, section: str, text: str, what: str) -> None:
    """Nothing that is not ours is overwritten: it is refused, with what is in the way."""
    add(cluster, section, text)
    before = configuration(cluster)
    with pytest.raises(ClusterError, match=f"^the cluster already has {what}"):
        apply.apply(package_of())
    assert configuration(cluster) == before


def test_foreign_tag_of_the_same_name(cluster: Scheduler) -> None:
    """A tag that an administrator has made for his own is not taken for a package, and nothing of it is removed."""
    add(cluster, "resources", OTHERS.format("erp-disk"))
    root = cluster.cib
    tags = ET.SubElement(root[0], "tags")
    ET.SubElement(ET.SubElement(tags, "tag", id="erp"), "obj_ref", id="erp-disk")
    cluster.edit(root)
    with pytest.raises(ClusterError, match="a tag called erp, which is not of the package erp"):
        apply.apply(package_of())


def test_start_failures(cluster: Scheduler) -> None:
    """The property is set where nobody has said anything, and mentioned where an administrator wants it otherwise."""
    root = cluster.cib
    pair = root.find(".//nvpair[@name='start-failure-is-fatal']")
    properties = root.find(".//cluster_property_set")
    assert pair is not None
    assert properties is not None
    properties.remove(pair)
    cluster.edit(root)
    assert "the cluster changes\n    start-failure-is-fatal: false\n" in apply.difference(package_of())
    pair.set("value", "true")
    properties.append(pair)
    cluster.edit(root)
    text = apply.difference(package_of())
    assert "start-failure-is-fatal: " not in text
    assert (
        "Mind that an administrator has set start-failure-is-fatal=true: one start that fails moves the guest" in text
    )


def test_not_valid(cluster: Scheduler) -> None:
    """What crm_verify refuses is not loaded, and said with its reason; what was wrong before is only mentioned."""
    root = cluster.cib
    pair = root.find(".//nvpair[@name='stonith-enabled']")
    assert pair is not None
    pair.set("value", "false")
    cluster.edit(root)
    before = configuration(cluster)
    with pytest.raises(ClusterError, match=r"would not be valid, and is not changed: .*'on-fail'.*fencing is disabled"):
        apply.apply(package_of(db="service_fail_fast = true"))
    assert configuration(cluster) == before
    pair.set("value", "true")
    for resource in root.findall(".//primitive[@id='fence']/.."):
        resource.clear()
    cluster.edit(root)
    text = apply.difference(package_of())
    assert "Mind that the cluster's configuration is not in order by itself: " in text
    assert "no STONITH resources have been defined" in text


def test_somebody_else_was_faster(cluster: Scheduler) -> None:
    """A plan for a configuration that has changed meanwhile either still fits, or changes nothing."""
    plan = apply.plan(package_of())
    add(cluster, "resources", OTHERS.format("address"))
    apply.apply(package_of(), plan)
    assert cluster.cib.find(".//primitive[@id='address']") is not None
    assert apply.difference(package_of()) == ""
    plan = apply.plan(package_of(db='user = "pg"'))
    apply.apply(without("db", package_of()))
    before = configuration(cluster)
    with pytest.raises(ClusterError, match=r"somebody has just changed the cluster's configuration too"):
        apply.apply(package_of(), plan)
    assert configuration(cluster) == before


def test_maintenance_and_state(cluster: Scheduler) -> None:
    """Pacemaker lets the chosen ones be, whoever hears of it in the guest; how all of it is can be asked."""
    package = package_of(restart="3")
    with pytest.raises(ClusterError, match=r"the cluster has no erp-vm and no erp-db"):
        apply.hold(package, on=True)
    apply.apply(package)
    cluster.settle()
    cluster.fail("erp-db")
    cluster.file.chmod(0o600)
    with pytest.raises(ClusterError, match=r"^Pacemaker lets them be, but the guest could not be told: .* for db$"):
        apply.hold(package, ["db"], on=True)
    vm, db, web = apply.state(package)
    assert (vm.resource, vm.service, vm.role, vm.hosts, vm.maintenance) == ("erp-vm", "", "Started", ("n1",), False)
    assert (db.service, db.hosts, db.maintenance, db.failures) == ("db", ("n1",), True, {"n1": 1})
    assert (web.service, web.maintenance, web.failures) == ("web", False, {})
    assert apply.difference(package) == "", "maintenance is no difference"
    with pytest.raises(ClusterError, match=r"^Pacemaker watches them again, but the guest could not be told"):
        apply.hold(package, on=False)
    assert "maintenance" not in configuration(cluster)
    assert [one.known for one in apply.state(package_of().replace(name="other"))] == [False] * 3


def test_no_pacemaker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever has no Pacemaker, or whose does not run, is told so in a sentence."""
    monkeypatch.delenv("CIB_file", raising=False)
    with pytest.raises(ClusterError, match=r"^Pacemaker does not run on this host: start it"):
        apply.difference(package_of())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"^Pacemaker is not installed here, or not in PATH: there is no cibadmin"):
        apply.difference(package_of())


def test_broken_xml(cluster: Scheduler) -> None:
    """A configuration that Pacemaker's own tool writes as broken XML is said to be that."""
    add(cluster, "resources", OTHERS.format("x").replace("Started", "ü &quot;"))
    cluster.file.chmod(0o600)
    with pytest.raises(ClusterError, match=r"is not XML .*: look for characters outside of ASCII"):
        cib.query()
