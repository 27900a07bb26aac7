"""What Pacemaker takes of a guest package: resources, constraints and a tag, as XML of its configuration (the CIB).

The machine and each application are resources of their own, not a group: in a group a member's restart stops all that
stand after it. Each application is ordered after the machine and placed with it, and has nothing to do with the others:

- A failure below the threshold restarts the application where it is; neither the machine nor a sibling has an action.
- Past it Pacemaker bans the application from the host. It adds the bans of what has to be with the machine to the
  machine's own scores, so all of them move to the next host in order of preference; `critical` says that it may.
  An order and a colocation for each application are enough for that. (A set would make siblings depend on each other.)
- It takes such bans back where no host would be left. On the last host only the failed application stays stopped.
- A machine that may be moved alive is so past the threshold too, for nothing is wrong with it as far as Pacemaker
  knows; ocf:cmapp:vm then refuses to migrate (`failover`), and Pacemaker stops it here and starts it there.
- A machine that is moved alive stays up, and the applications change hands after it, by their own migrate_to and
  migrate_from: none is stopped.

tests/system/test_pacemaker_stories.py tries all that on Pacemaker's own scheduler. The invariant: every id begins with
the package's name, no two are alike, and nothing is written that the file does not say, but for what the cluster's
own defaults (rsc_defaults, op_defaults) could otherwise turn into another behaviour.
"""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as ET

from cmapp.cluster.parameters import check_text
from cmapp.cluster.primitives import application, machine, machine_id, nvpair, service_id
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from cmapp.cluster.package import Package

SCHEMA = "pacemaker-3.0"  # of all that Pacemaker 2 ever wrote; nothing newer is needed
PROPERTIES = "cib-bootstrap-options"  # where every tool of Pacemaker keeps the cluster's properties
START_FAILURE = "start-failure-is-fatal"

STEP = 10  # points that a host is preferred to the next one


def render(package: Package) -> str:
    """Return the package as a CIB of its own, for people and for crm_verify; `cmapp package apply` loads it.

    Raises SettingsError if Pacemaker cannot hold what the package says.
    """
    cib = ET.Element("cib", {"validate-with": SCHEMA, "admin_epoch": "0", "epoch": "0", "num_updates": "0"})
    cib.append(ET.Comment(" One guest package: 'cmapp package apply' puts it into a cluster. "))
    configuration = ET.SubElement(cib, "configuration")
    properties = ET.SubElement(ET.SubElement(configuration, "crm_config"), "cluster_property_set", id=PROPERTIES)
    properties.append(start_failures_count())
    ET.SubElement(configuration, "nodes")
    for section, elements in sections(package).items():
        ET.SubElement(configuration, section).extend(elements)
    ET.SubElement(cib, "status")
    ET.indent(cib)
    return ET.tostring(cib, encoding="unicode") + "\n"


def sections(package: Package) -> dict[str, list[ET.Element]]:
    """Return what the package puts into each section of a configuration; raises SettingsError as `render` does."""
    parts = {
        "resources": [machine(package), *(application(package, service) for service in package.services)],
        "constraints": [*_places(package), *_bonds(package)],
        "tags": [_tag(package)],
    }
    _check_texts(package, parts["resources"])
    found = Counter(ident for elements in parts.values() for ident in _ids(elements))
    twice = [ident for ident, count in found.items() if count > 1]
    if twice:
        raise SettingsError(
            f"{package.path}: two things in {package.name} would be called {twice[0]}: rename a service"
        )
    return parts


def start_failures_count() -> ET.Element:
    """Return the property of the cluster by which a failed start counts like any failure, as `service_restart` says.

    Without it the first one bans the application from the host, and the machine moves.
    """
    return nvpair(f"{PROPERTIES}-{START_FAILURE}", START_FAILURE, "false")


def bond_ids(ident: str) -> tuple[str, str]:
    """Return the ids of the order and of the colocation of an application's resource."""
    return f"{ident}-after.vm", f"{ident}-with.vm"


# ---- constraints -------------------------------------------------------------------------------------------


def _places(package: Package) -> Iterator[ET.Element]:
    """Yield where the package may run, whatever other hosts the cluster has or gets, and where it would rather.

    Other hosts are not even asked whether they have it: one whose cmapp is broken, or another one's, would answer that
    something has failed there, and be fenced for a package that it has nothing to do with. The rule of no points says
    that a host may have it, for a cluster that is `symmetric-cluster=false` wants to be told.
    """
    ident = f"{package.name}-hosts"
    yield _rule(package, ident, {}, ("0", "or", "eq"))
    yield _rule(package, f"{ident}.others", {"resource-discovery": "never"}, ("-INFINITY", "and", "ne"))
    for rank, host in enumerate(package.hosts):
        score = str(STEP * (len(package.hosts) - rank))
        entry = {"id": f"{package.name}-prefers.{host}", "rsc": machine_id(package), "node": host, "score": score}
        yield ET.Element("rsc_location", entry)


def _rule(package: Package, ident: str, more: Mapping[str, str], how: tuple[str, str, str]) -> ET.Element:
    """Return a constraint on all of the package by the names of its hosts: its points, and how tests are joined."""
    score, join, test = how
    place = ET.Element("rsc_location", {"id": ident, "rsc": package.name, **more})
    rule = ET.SubElement(place, "rule", {"id": f"{ident}.rule", "score": score, "boolean-op": join})
    for host in package.hosts:
        look = {"attribute": "#uname", "operation": test, "value": host}
        ET.SubElement(rule, "expression", {"id": f"{ident}.rule.{host}", **look})
    return place


def _bonds(package: Package) -> Iterator[ET.Element]:
    """Yield what ties each application to the machine."""
    first = machine_id(package)
    for service in package.services:
        ident = service_id(package, service)
        order, colocation = bond_ids(ident)
        yield ET.Element("rsc_order", {"id": order, "first": first, "then": ident, "kind": "Mandatory"})
        yield ET.Element("rsc_colocation", {"id": colocation, "rsc": ident, "with-rsc": first, "score": "INFINITY"})


def _tag(package: Package) -> ET.Element:
    """Return what makes the resources one package: a name for all, and how the next apply knows them."""
    tag = ET.Element("tag", id=package.name)
    for ident in (machine_id(package), *(service_id(package, service) for service in package.services)):
        ET.SubElement(tag, "obj_ref", id=ident)
    return tag


# ---- how XML has it ----------------------------------------------------------------------------------------


def _check_texts(package: Package, resources: Iterable[ET.Element]) -> None:
    for resource in resources:
        for pair in resource.iter("nvpair"):
            try:
                check_text(pair.attrib["value"])
            except ValueError as error:
                what = f"{pair.get('name')} of {resource.get('id')}"
                raise SettingsError(f"{package.path}: {what} {error}: put it into a script in the guest") from None


def _ids(elements: Iterable[ET.Element]) -> Iterator[str]:
    for element in elements:
        yield from (item.attrib["id"] for item in element.iter() if "id" in item.attrib and item.tag != "obj_ref")
