"""Pacemaker's own scheduler without a cluster: what it would do next with a package whose resources are in some state.

crm_simulate decides as a cluster does, plays that its decisions succeeded (or failed where told to), and writes down
the state that follows, from which the next round begins. So a whole story is told on a file, in fractions of a second.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cmapp.cluster.pacemaker import PROPERTIES, sections, start_failures_count
from cmapp.cluster.reading import examine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from cmapp.cluster.package import Package

NODES = ("n1", "n2", "n3")
FEATURES = "3.16.1"  # the CIB's: what Pacemaker 2.1.5 writes
ROUNDS = 12  # after which nothing more may be left to do
TEMPLATE = """name = "erp"
hosts = [{hosts}]
guest = "10.0.0.50"
[vm]
domain = "erp"
migrate = {migrate}
{vm}
[service.db]
command = "/usr/bin/db --port 5432"
service_restart = {restart}
{db}
[service.web]
command = "/usr/bin/web"
service_restart = {restart}
"""


def package_of(
    restart: str = "2", migrate: str = "true", hosts: Sequence[str] = ("n1", "n2"), vm: str = "", db: str = ""
) -> Package:
    """Return a package of two applications; the others' values as its file has them."""
    named = ", ".join(f'"{host}"' for host in hosts)
    quoted = restart if restart.isdecimal() else f'"{restart}"'
    return read(TEMPLATE.format(hosts=named, restart=quoted, migrate=migrate, vm=vm, db=db))


def read(text: str) -> Package:
    """Return the package that a file of this text would say."""
    package, complaints = examine("erp.toml", text)
    assert package is not None, complaints
    return package


def cluster_of(package: Package | None, nodes: Iterable[str] = NODES, **properties: str) -> ET.Element:
    """Return the CIB of a cluster of these nodes with a fence device, and with the package if there is one."""
    head = {"crm_feature_set": FEATURES, "validate-with": "pacemaker-3.0", "have-quorum": "1", "dc-uuid": "1"}
    cib = ET.Element("cib", {**head, "admin_epoch": "0", "epoch": "1", "num_updates": "0"})
    configuration = ET.SubElement(cib, "configuration")
    own = ET.SubElement(ET.SubElement(configuration, "crm_config"), "cluster_property_set", id=PROPERTIES)
    own.append(start_failures_count())
    for name, value in {"stonith-enabled": "true", **properties}.items():
        ET.SubElement(own, "nvpair", id=f"o-{name}", name=name, value=value)
    places = ET.SubElement(configuration, "nodes")
    status = ET.Element("status")
    for number, node in enumerate(nodes, 1):
        ET.SubElement(places, "node", id=str(number), uname=node)
        state = {"in_ccm": "true", "crmd": "online", "join": "member", "expected": "member"}
        ET.SubElement(status, "node_state", {"id": str(number), "uname": node, **state})
    resources = ET.SubElement(configuration, "resources")
    ET.SubElement(resources, "primitive", {"id": "fence", "class": "stonith", "type": "fence_xvm"})
    for section, elements in (sections(package) if package else {"constraints": []}).items():
        (resources if section == "resources" else ET.SubElement(configuration, section)).extend(elements)
    cib.append(status)
    return cib


class Scheduler:
    """A cluster that is a file in `folder`. It has done what there was to do before the first question."""

    def __init__(self, folder: Path, cib: ET.Element, fails: Iterable[str] = ()) -> None:
        """`done` is what it had to do, where actions fail that are among `fails`."""
        self.file = folder / "cib.xml"
        self._environment = {**os.environ, "CIB_shadow_dir": str(folder)}
        self._write(cib)
        self.done = self.settle(fails=fails)

    @property
    def cib(self) -> ET.Element:
        """What the cluster's configuration and status are now; `edit` changes them."""
        return ET.parse(self.file).getroot()  # noqa: S314 - our own

    def edit(self, cib: ET.Element) -> None:
        """Have an administrator change the configuration."""
        self._write(cib)

    def settle(self, *events: str, fails: Iterable[str] = ()) -> list[str]:
        """Let `events` happen, options of crm_simulate, and the cluster act until nothing is left to do.

        Returns the actions in their order, such as `erp-db stop n1`, monitors left out. Actions that are among `fails`
        (`erp-db_start_0@n1=1`) fail whenever they are tried.
        """
        done: list[str] = []
        before: list[str] | None = None
        options = [word for failure in fails for word in ("--op-fail", failure)]
        for _ in range(ROUNDS):
            counts = {(node, pair.attrib["name"]): int(pair.attrib["value"]) for node, pair in _counts(self.cib)}
            transition = self._simulate(*events, *options)
            self._count_twice(counts)
            # What it plays changes nothing where a monitor says "degraded" or a history is to be deleted.
            if not any(transition) and transition in ([], before):
                return [action for action in done if action]
            done += transition
            events, before = (), transition
        raise AssertionError(f"the cluster does not come to rest: {done}")

    def fail(self, resource: str, code: int = 7, operation: str = "monitor_10000", **how: Iterable[str]) -> list[str]:
        """Let a resource's operation fail where it runs, and return what the cluster does about it."""
        return self.settle("--op-inject", f"{resource}_{operation}@{self.places()[resource]}={code}", **how)

    def places(self) -> dict[str, str]:
        """Return where each resource runs, "" for nowhere."""
        shown = self._run("--xml-file", str(self.file)).find("cluster_status/resources")
        assert shown is not None
        return {
            item.attrib["id"]: ",".join(node.attrib["name"] for node in item.findall("node"))
            for item in shown.iter("resource")
        }

    def _count_twice(self, before: dict[tuple[str, str], int]) -> None:
        """Have each failure since counted twice, as Pacemaker and our agents together do, whoever has found it."""
        cib = self.cib
        ours = tuple(f"fail-count-{item.get('id')}#" for item in cib.iterfind(".//primitive[@provider='cmapp']"))
        for node, pair in _counts(cib):
            if pair.attrib["name"].startswith(ours):
                now = int(pair.attrib["value"])
                pair.set("value", str(2 * now - before.get((node, pair.attrib["name"]), 0)))
        self._write(cib)

    def _simulate(self, *options: str) -> list[str]:
        after = self.file.with_suffix(".next")
        told = self._run("--simulate", "--xml-file", str(self.file), "--save-output", str(after), *options)
        after.replace(self.file)
        return [_action(item) for item in told.findall("transition/*")]

    def _run(self, *options: str) -> ET.Element:
        command = ["crm_simulate", "--output-as=xml", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=self._environment)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        return ET.fromstring(done.stdout)  # noqa: S314 - of crm_simulate

    def _write(self, cib: ET.Element) -> None:
        self.file.write_bytes(ET.tostring(cib))


def _counts(cib: ET.Element) -> Iterator[tuple[str, ET.Element]]:
    """Yield the counts of failures that the cluster keeps, with their nodes."""
    for state in cib.iterfind("status/node_state"):
        for pair in state.iterfind("transient_attributes/instance_attributes/nvpair"):
            if pair.attrib["name"].startswith("fail-count-"):
                yield state.attrib["uname"], pair


def _action(item: ET.Element) -> str:
    """Return one action in words, "" for one that nobody is interested in."""
    if item.tag == "fencing_action":
        return f"fence {item.get('target')}"
    if item.tag != "rsc_action" or item.get("op") in ("monitor", "cancel", "delete") or item.get("resource") == "fence":
        return ""
    return f"{item.get('resource')} {item.get('op')} {item.get('node')}"
