"""A guest package in the local Pacemaker: what would change, the change, maintenance, and how it is.

The invariant: what is loaded was checked by crm_verify as a whole, goes in as one change, and touches nothing but the
package's own resources. What Pacemaker does next was asked of its scheduler before and is told. What the package does
not have any more is stopped before it is removed.
"""

from __future__ import annotations

import copy
import math
import time
from xml.etree import ElementTree as ET

from cmapp.cluster import cib
from cmapp.cluster.changes import changes
from cmapp.cluster.cib import ClusterError
from cmapp.cluster.merge import merged, own_resources, start_failure_is_fatal, untie
from cmapp.cluster.pacemaker import START_FAILURE
from cmapp.cluster.primitives import machine_id, service_id
from cmapp.core import messages as m
from cmapp.core.duration import parse_duration
from cmapp.core.record import Record
from cmapp.errors import CmappError
from cmapp.host.inquiry import DeclinedError, Inquiry
from cmapp.net.address import parse_address
from cmapp.net.tls import client_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from cmapp.cluster.package import Package, Service

MAINTENANCE, TARGET_ROLE = "maintenance", "target-role"
PAUSE = 0.2  # seconds from a look at what is being stopped to the next


class Plan(Record):
    """What is to become of a cluster's configuration, in words, and what follows from it at once; str() has both.

    `warnings` are about what stays as it is; no lines mean that nothing is to be done. `leaving` are the resources that
    the package does not have any more.
    """

    lines: tuple[str, ...]
    consequences: tuple[str, ...]
    warnings: tuple[str, ...]
    leaving: tuple[str, ...]
    before: ET.Element
    after: ET.Element

    def __str__(self) -> str:
        """Return all of it, "" if nothing is to be done."""
        if not self.lines:
            return ""
        follows = [f"    {line}" for line in self.consequences] or [
            "    nothing: no resource is started, stopped or moved"
        ]
        return "\n".join([*self.lines, *self.warnings, "At once, as Pacemaker would have it:", *follows])


class ResourceState(Record):
    """How a resource of a package is: `service` is "" for the machine, `role` Pacemaker's word, such as Started.

    `failures` are numbers by host, `hosts` are those where it runs; `known` tells whether the cluster has it at all.
    """

    resource: str
    service: str
    role: str
    hosts: tuple[str, ...]
    failures: dict[str, int]
    maintenance: bool
    failed: bool
    known: bool = True


def difference(package: Package) -> str:
    """Return in words what `apply` would change, and what Pacemaker would then do at once; "" for nothing."""
    return str(plan(package))


def plan(package: Package) -> Plan:
    """Return what is to become of the cluster's configuration.

    Raises ClusterError if Pacemaker cannot be asked, or if the configuration would not be valid.
    """
    before = cib.query()
    after = merged(before, package)
    lines = changes(before, after)
    leaving = tuple(ident for ident in own_resources(before, package) if _resource(after, ident) is None)
    if not lines:
        return Plan((), (), (), leaving, before, after)
    warnings = _check(before, after)
    return Plan(tuple(lines), tuple(cib.consequences(after)), tuple(warnings), leaving, before, after)


def apply(package: Package, planned: Plan | None = None) -> Plan:
    """Load the package, as it was `planned` or as it has to be now; nothing is done where nothing changes.

    Waits for the stop of what is to be removed. Raises ClusterError.
    """
    planned = planned or plan(package)
    if not planned.lines:
        return planned
    before = planned.before
    if active := _active(planned.leaving):
        before = retire(planned)
        _await_stop(before, active)
    cib.change(before, planned.after)
    return planned


def retire(planned: Plan) -> ET.Element:
    """Have Pacemaker stop what is to be removed, and return the configuration that it has then.

    A resource that is running when it is removed is stopped by Pacemaker's defaults: after 20 s it has its host fenced.
    What others have tied to it goes before, or would be stopped with it.
    """
    after = copy.deepcopy(planned.before)
    for ident in planned.leaving:
        untie(after, ident)
        _set_meta(_resource(after, ident), TARGET_ROLE, "Stopped")
    cib.change(planned.before, after)
    return after


def hold(package: Package, services: Iterable[str] = (), *, on: bool) -> None:
    """Have neither Pacemaker nor the guest act on these services, or on the whole package with its machine; or again.

    Pacemaker first lets them be and then the guest, and the other way round: what the guest stops of its own meanwhile
    is then found by a cluster that acts. Raises CmappError for what could not be done; what could be, is.
    """
    chosen = [package.service(name) for name in services]
    resources = [service_id(package, service) for service in chosen]
    if not chosen:
        chosen = list(package.services)
        resources = [machine_id(package), *(service_id(package, service) for service in chosen)]
    if on:
        _maintain(package, resources, on=True)
    trouble = _hold_in_guest(package, chosen, on=on)
    if not on:
        _maintain(package, resources, on=False)
    if trouble:
        done = "Pacemaker lets them be" if on else "Pacemaker watches them again"
        word = "hold" if on else "resume"
        raise ClusterError(
            f"{done}, but the guest could not be told: {trouble};"
            f" where it is up, say 'cmapp {word} {package.guest} NAME' for {', '.join(s.settings.name for s in chosen)}"
        )


def state(package: Package) -> list[ResourceState]:
    """Return how the package's resources are, the machine first; raises ClusterError if Pacemaker cannot be asked."""
    told = cib.monitor()
    of_machine = _state(told, machine_id(package), "")
    return [of_machine, *(_state(told, service_id(package, service), service.name) for service in package.services)]


# ---- changing ----------------------------------------------------------------------------------------------


def _check(before: ET.Element, after: ET.Element) -> list[str]:
    """Return what is to be minded; raises ClusterError if the configuration would not be valid."""
    complaints = cib.complaints(after)
    if complaints:
        known = set(cib.complaints(before))
        ours = [text for text in complaints if text not in known]
        if ours:
            raise ClusterError(f"the cluster's configuration would not be valid, and is not changed: {'; '.join(ours)}")
    warnings = [f"Mind that the cluster's configuration is not in order by itself: {text}" for text in complaints]
    fatal = start_failure_is_fatal(after)
    if fatal is not None and fatal.lower() not in ("false", "off", "no", "0", "n"):
        warnings.append(
            f"Mind that an administrator has set {START_FAILURE}={fatal}: one start that fails moves the guest,"
            " whatever service_restart says"
        )
    return warnings


def _active(resources: Iterable[str]) -> list[str]:
    """Return which of them run somewhere."""
    told = cib.monitor() if resources else None
    return [] if told is None else [ident for ident in resources if _state(told, ident, "").hosts]


def _await_stop(configuration: ET.Element, resources: Sequence[str]) -> None:
    """Wait until they run nowhere, for as long as the slowest may take; raises ClusterError if they still do."""
    timeouts = [
        action.get("timeout", "")
        for ident in resources
        for action in configuration.iterfind(f"configuration/resources//primitive[@id='{ident}']/operations/op")
        if action.get("name") == "stop"
    ]
    deadline = time.monotonic() + cib.LIMIT + max(map(parse_duration, timeouts), default=0.0)
    while active := _active(resources):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{', '.join(active)} is to be removed, but is not stopped yet, and nothing else was changed:"
                " see what 'crm_mon -1' says of it (is it held?), and apply the package again then"
            )
        time.sleep(PAUSE)


def _maintain(package: Package, resources: Sequence[str], *, on: bool) -> None:
    """Set or remove the resources' meta attribute, all in one change."""
    before = cib.query()
    missing = [ident for ident in resources if ident not in own_resources(before, package)]
    if missing:
        raise ClusterError(
            f"the cluster has no {' and no '.join(missing)} of the package {package.name}:"
            " load it by 'cmapp package apply' first"
        )
    after = copy.deepcopy(before)
    for ident in resources:
        _set_meta(_resource(after, ident), MAINTENANCE, "true" if on else None)
    cib.change(before, after)


def _resource(configuration: ET.Element, ident: str) -> ET.Element | None:
    return configuration.find(f"configuration/resources//primitive[@id='{ident}']")


def _set_meta(resource: ET.Element | None, name: str, value: str | None) -> None:
    """Give a resource a meta attribute as crm_resource does, or take it away."""
    if resource is None:
        return
    for values in resource.findall("meta_attributes"):
        for pair in values.findall(f"nvpair[@name='{name}']"):
            values.remove(pair)
    if value is not None:
        ident = f"{resource.attrib['id']}-meta"
        own = resource.find(f"meta_attributes[@id='{ident}']")
        if own is None:
            own = ET.SubElement(resource, "meta_attributes", id=ident)
        ET.SubElement(own, "nvpair", {"id": f"{ident}-{name}", "name": name, "value": value})


def _hold_in_guest(package: Package, services: Iterable[Service], *, on: bool) -> str:
    """Hold the applications in the guest, or no longer; return what went wrong, "" if nothing did.

    An application that has no run there needs no hold, and none has to be taken back.
    """
    settings = package.defaults
    try:
        guest = package.address
        where = parse_address(settings.address, default_port=guest.port) if settings.address else guest
        context = client_context(package.keys, peer=guest.host, allow_tls12=settings.allow_tls12)
        with Inquiry(guest, where, context) as inquiry:
            return "; ".join(filter(None, (_hold_one(inquiry, service.settings.name, on=on) for service in services)))
    except CmappError as error:
        return str(error)


def _hold_one(inquiry: Inquiry, name: str, *, on: bool) -> str:
    try:
        inquiry.hold(name, on=on)
    except DeclinedError as error:
        return "" if error.code == m.Refusal.NO_RUN else str(error)
    return ""


# ---- looking -----------------------------------------------------------------------------------------------


def _state(told: ET.Element, ident: str, service: str) -> ResourceState:
    found = told.find(f".//resources//resource[@id='{ident}']")
    if found is None:
        return ResourceState(ident, service, "", (), {}, maintenance=False, failed=False, known=False)
    times = 2 if found.get("resource_agent", "").startswith("ocf:cmapp:") else 1  # see the thresholds in pacemaker.py
    counts = {
        str(node.get("name")): math.ceil(_count(history.get("fail-count")) / times)
        for node in told.iterfind(".//node_history/node")
        for history in node.iterfind(f"resource_history[@id='{ident}']")
        if history.get("fail-count")
    }
    return ResourceState(
        ident,
        service,
        found.get("role", ""),
        tuple(node.get("name", "") for node in found.findall("node")),
        counts,
        maintenance=found.get("maintenance") == "true" or found.get("managed") == "false",
        failed=found.get("failed") == "true",
    )


def _count(text: str | None) -> int:
    """Return a count of failures; Pacemaker writes a million for without end."""
    return int(text) if text and text.isdecimal() else 1_000_000
