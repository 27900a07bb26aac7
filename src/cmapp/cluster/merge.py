"""A cluster's configuration with a guest package put into it, and without what its file does not have any more.

Pure: a configuration and a package give a configuration. A package's own is what its tag names and its agents run, and
the constraints and values whose ids only this program makes. The invariant: whatever else is there stays as it is,
what administrators have added to the package's own resources too; only constraints on a removed resource go with it.
"""

from __future__ import annotations

import copy
from xml.etree import ElementTree as ET

from cmapp.cluster.cib import ClusterError
from cmapp.cluster.pacemaker import (
    PROPERTIES,
    START_FAILURE,
    bond_ids,
    sections,
    start_failures_count,
)
from cmapp.cluster.primitives import machine_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cmapp.cluster.package import Package

_ENDS = ("rsc", "with-rsc", "first", "then")  # of a constraint, where a resource may stand
_SETS = {"instance_attributes": "parameters.", "meta_attributes": "meta.", "operations": "op."}


def merged(cib: ET.Element, package: Package) -> ET.Element:
    """Return the configuration that a cluster with `cib` should have; raises ClusterError if others have our ids."""
    after = copy.deepcopy(cib)
    configuration = after.find("configuration")
    if configuration is None:
        raise ClusterError("what Pacemaker has for its configuration is not one")
    parts = sections(package)
    mine = own_resources(cib, package)
    _check_ids(configuration, package, mine, parts)
    wanted = [element.attrib["id"] for element in parts["resources"]]
    for ident in mine:
        if ident not in wanted:
            _remove(configuration, ident)
    for element in parts["resources"]:
        _put(configuration, "resources", element, _merged_primitive)
    _drop(_section(configuration, "constraints"), _former_places(package, parts["constraints"]))
    for element in parts["constraints"]:
        _put(configuration, "constraints", element, lambda _there, here: here)
    for element in parts["tags"]:
        _put(configuration, "tags", element, _merged_tag)
    _count_start_failures(configuration)
    return after


def own_resources(cib: ET.Element, package: Package) -> list[str]:
    """Return the ids of the package's resources that the cluster has: those of its tag that are of its making."""
    tag = cib.find(f"configuration/tags/tag[@id='{package.name}']")
    named = [] if tag is None else [item.attrib["id"] for item in tag.findall("obj_ref")]
    return [ident for ident in named if _is_own(_resource(cib, ident), package)]


def start_failure_is_fatal(cib: ET.Element) -> str | None:
    """Return what the cluster says of failed starts, None if it says nothing."""
    for pair in cib.iterfind("configuration/crm_config/cluster_property_set/nvpair"):
        if pair.get("name") == START_FAILURE:
            return pair.get("value")
    return None


def _is_own(resource: ET.Element | None, package: Package) -> bool:
    if resource is None or not resource.attrib["id"].startswith(f"{package.name}-"):
        return False
    return resource.get("provider") == "cmapp" or resource.get("id") == machine_id(package)


def _resource(cib: ET.Element, ident: str) -> ET.Element | None:
    return cib.find(f"configuration/resources//primitive[@id='{ident}']")


def _check_ids(
    configuration: ET.Element, package: Package, mine: Iterable[str], parts: dict[str, list[ET.Element]]
) -> None:
    """See that whatever has an id of the package's is the package's; raises ClusterError."""
    there = {item.attrib["id"]: item for item in configuration.iter() if "id" in item.attrib and item.tag != "obj_ref"}
    for section in ("tags", "resources"):
        for element in parts[section]:
            found = there.get(element.attrib["id"])
            if found is None or found.attrib["id"] in mine or (found.tag == "tag" and mine):
                continue
            raise ClusterError(
                f"the cluster already has a {found.tag} called {found.attrib['id']}, which is not of the package"
                f" {package.name}: rename the package or the service, or remove what is there"
            )
    for element in parts["constraints"]:
        found = there.get(element.attrib["id"])
        if found is not None and not mine:
            raise ClusterError(
                f"the cluster already has a constraint called {found.attrib['id']}, but no package {package.name}:"
                " remove it, or rename the package"
            )


# ---- what is there, and what goes there --------------------------------------------------------------------


def _section(configuration: ET.Element, name: str) -> ET.Element:
    found = configuration.find(name)
    return ET.SubElement(configuration, name) if found is None else found


def _put(
    configuration: ET.Element,
    section: str,
    element: ET.Element,
    merge: Callable[[ET.Element, ET.Element], ET.Element],
) -> None:
    """Put an element where the one of its id is, in a group too, or at the end of its section."""
    ident = element.attrib["id"]
    for parent in _section(configuration, section).iter():
        for position, child in enumerate(parent):
            if child.tag == element.tag and child.get("id") == ident:
                parent[position] = merge(child, element)
                return
    _section(configuration, section).append(copy.deepcopy(element))


def _merged_primitive(there: ET.Element, here: ET.Element) -> ET.Element:
    """Return the resource as it should be, with whatever an administrator has added to it."""
    ident = here.attrib["id"]
    made = ET.Element(here.tag, {**there.attrib, **here.attrib})
    left = {child.tag: child for child in here}
    for child in there:
        wanted = left.get(child.tag)
        if wanted is None or (child.tag != "operations" and child.get("id") != wanted.get("id")):
            made.append(child)
            continue
        del left[child.tag]
        made.append(_merged_set(child, wanted, f"{ident}-{_SETS[child.tag]}"))
    made.extend(left.values())
    return made


def _merged_set(there: ET.Element, here: ET.Element, prefix: str) -> ET.Element:
    """Return a set of values: ours as they should be, and those of others that have no name of ours."""
    made = ET.Element(here.tag, {**there.attrib, **here.attrib})
    left = {child.attrib["id"]: child for child in here}
    names = {_name(child) for child in here}
    for child in there:
        ident = child.get("id", "")
        if ident in left:
            made.append(left.pop(ident))
        elif not ident.startswith(prefix) and _name(child) not in names:
            made.append(child)
    made.extend(left.values())
    return made


def _name(child: ET.Element) -> tuple[str | None, str | None]:
    """Return what no two of a set can have alike."""
    return child.get("name"), child.get("interval") if child.tag == "op" else None


def _merged_tag(there: ET.Element, here: ET.Element) -> ET.Element:
    made = ET.Element("tag", there.attrib)
    left = {child.attrib["id"]: child for child in here}
    for child in there:
        made.append(left.pop(child.attrib["id"], child))
    made.extend(left.values())
    return made


def _count_start_failures(configuration: ET.Element) -> None:
    """Have failed starts count like any failure, unless an administrator has said what they are."""
    properties = _section(configuration, "crm_config")
    if any(pair.get("name") == START_FAILURE for pair in properties.iter("nvpair")):
        return
    own = properties.find(f"cluster_property_set[@id='{PROPERTIES}']")
    if own is None:
        own = ET.SubElement(properties, "cluster_property_set", id=PROPERTIES)
    own.append(start_failures_count())


# ---- what goes ---------------------------------------------------------------------------------------------


def _former_places(package: Package, wanted: Iterable[ET.Element]) -> Callable[[ET.Element], bool]:
    """Return what tells the constraints for hosts that the package does not have any more."""
    kept = {element.attrib["id"] for element in wanted}
    return lambda item: item.get("id", "").startswith(f"{package.name}-prefers.") and item.get("id") not in kept


def _remove(configuration: ET.Element, ident: str) -> None:
    """Take a resource away, and whatever would point to nothing."""
    _drop(_section(configuration, "resources"), lambda item: item.tag == "primitive" and item.get("id") == ident)
    _drop(_section(configuration, "resources"), lambda item: item.tag in ("group", "clone") and not _members(item))
    _drop(_section(configuration, "tags"), lambda item: item.tag == "obj_ref" and item.get("id") == ident)
    _drop(_section(configuration, "tags"), lambda item: item.tag == "tag" and not len(item))
    _untie(_section(configuration, "constraints"), ident, ())


def untie(cib: ET.Element, ident: str) -> None:
    """Take the constraints away that others have put on one of our resources, so that it can be stopped alone."""
    for constraints in cib.iterfind("configuration/constraints"):
        _untie(constraints, ident, bond_ids(ident))


def _untie(constraints: ET.Element, ident: str, kept: tuple[str, ...]) -> None:
    _drop(constraints, lambda item: item.tag == "resource_ref" and item.get("id") == ident)
    _drop(constraints, lambda item: item.tag == "resource_set" and not len(item))
    _drop(constraints, lambda item: ident in (item.get(end) for end in _ENDS) and item.get("id") not in kept)
    _drop(constraints, lambda item: not len(item) and not any(item.get(end) for end in _ENDS) and _is_constraint(item))


def _members(item: ET.Element) -> list[ET.Element]:
    return [child for child in item if child.tag in ("primitive", "group")]


def _is_constraint(item: ET.Element) -> bool:
    return (
        item.tag in ("rsc_order", "rsc_colocation", "rsc_location", "rsc_ticket") and "rsc-pattern" not in item.attrib
    )


def _drop(top: ET.Element, unwanted: Callable[[ET.Element], bool]) -> None:
    for parent in list(top.iter()):
        for child in [child for child in parent if unwanted(child)]:
            parent.remove(child)
