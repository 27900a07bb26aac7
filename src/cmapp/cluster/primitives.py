"""The resources of a package for Pacemaker: what each agent is told, how long its actions may take, what failures do.

The invariant: no action is given less time than what it waits for may take, for Pacemaker takes one that is late for
failed, and fences the host of a stop that has.
"""

from __future__ import annotations

import math
import shlex
from xml.etree import ElementTree as ET

from cmapp.cluster.package import Rules, Vm, halt_longest
from cmapp.cluster.parameters import text_of
from cmapp.core.pursuit import KILL_MARGIN
from cmapp.core.vigil import FORCE_LIMIT, KILL_LIMIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cmapp.cluster.package import Package, Service

MARGIN = 30.0  # seconds that a busy host, the agent and Pacemaker themselves may need beside what an action waits for
MONITOR_INTERVAL = 10.0  # seconds: ends are told at once, so this is only for what was missed
MONITOR_TIMEOUT = 30.0  # seconds: it looks at this host alone
HANDOVER_TIMEOUT = 60.0  # seconds in which a manager leaves its run
MIGRATION_TIMEOUT = 600.0  # seconds: what a machine's memory takes over the wire; one that fails is stopped and started
STICKINESS = 1000  # points for staying: more than any two hosts of a cluster are apart


def machine_id(package: Package) -> str:
    """Return the id of the machine's resource."""
    return f"{package.name}-vm"


def service_id(package: Package, service: Service) -> str:
    """Return the id of an application's resource."""
    return f"{package.name}-{service.name}"


def machine(package: Package) -> ET.Element:
    """Return the machine's resource."""
    vm = package.vm
    stock = vm.agent == "stock"
    meta = {
        "allow-migrate": _flag(vm.migrate),
        "migration-threshold": str(vm.restart + 1) if stock else _threshold(vm.restart),
        "failure-timeout": "0",
        "resource-stickiness": str(STICKINESS),
    }
    force = 0.0 if stock else FORCE_LIMIT + KILL_LIMIT  # the stock agent forces it 5 s before its time is up
    operations = [
        ("start", vm.start_timeout + MARGIN, {}),
        ("stop", vm.stop_timeout + force + MARGIN, {}),
        ("monitor", MONITOR_TIMEOUT, {"interval": _seconds(MONITOR_INTERVAL), "on-fail": "restart"}),
    ]
    if vm.migrate:
        operations += [("migrate_to", MIGRATION_TIMEOUT, {}), ("migrate_from", vm.start_timeout + MARGIN, {})]
    kind = ("heartbeat", "VirtualDomain") if stock else ("cmapp", "vm")
    parameters = _stock_parameters(package) if stock else _machine_parameters(package)
    return _primitive(machine_id(package), kind, parameters, meta, operations)


def _machine_parameters(package: Package) -> dict[str, str]:
    """Return the parameters of ocf:cmapp:vm."""
    vm = package.vm
    given = {"guest": package.guest, "keys": package.keys, "log_file": package.log}
    if vm.commands:
        commands = {"start_command": vm.start, "stop_command": vm.stop, "state_command": vm.state}
        commands["migrate_command"] = vm.migrate_command
        given |= {key: shlex.join(words) for key, words in commands.items()}
    else:
        given |= {"domain": vm.domain, "uri": vm.uri, "config": vm.config}
    for key in ("start_timeout", "stop_timeout"):
        given[key] = text_of(key, getattr(vm, key))
    if vm.migrate and vm.migration_transport != Vm.fields()["migration_transport"].default:
        given["migration_transport"] = vm.migration_transport
    if vm.migrate and vm.failover != Vm.fields()["failover"].default:
        given["failover"] = vm.failover
    return {key: text for key, text in given.items() if text}


def _stock_parameters(package: Package) -> dict[str, str]:
    """Return the parameters of ocf:heartbeat:VirtualDomain.

    It writes what a domain needs of memory and processors into its own resource unless it is told not to, and a cluster
    that looks at utilization would then refuse the machine a host.
    """
    vm = package.vm
    given = {"config": vm.config, "hypervisor": vm.uri}
    if vm.migrate:
        given["migration_transport"] = vm.migration_transport
    return given | {f"autoset_utilization_{what}": "false" for what in ("cpu", "hv_memory", "host_memory")}


def application(package: Package, service: Service) -> ET.Element:
    """Return an application's resource."""
    settings = service.settings
    # Whoever starts it anew may have to wait until the server has stopped what was left of the run before.
    leftover = settings.stop_timeout + KILL_MARGIN
    failed = {"on-fail": "fence" if service.fail_fast else "restart"}
    meta = {
        "allow-migrate": _flag(package.vm.migrate),
        "migration-threshold": "0" if service.restart is None else _threshold(service.restart),
        "failure-timeout": "0",
        "critical": "true",
    }
    operations = [
        ("start", settings.connect_timeout + leftover + settings.ready_timeout + MARGIN, {}),
        # Never shorter than a halt may take: Pacemaker fences the host of a stop that is late.
        ("stop", max(service.halt_timeout, halt_longest(settings)) + settings.link_timeout + MARGIN, {}),
        ("monitor", MONITOR_TIMEOUT, {"interval": _seconds(MONITOR_INTERVAL), **failed}),
    ]
    if service.fail_fast:
        # As what `crm_resource --fail` is recorded: what a monitor's failure does would not hold for it.
        operations.append(("asyncmon", MONITOR_TIMEOUT, failed))
    if package.vm.migrate:
        operations += [
            ("migrate_to", HANDOVER_TIMEOUT, {}),
            ("migrate_from", settings.connect_timeout + HANDOVER_TIMEOUT, {}),
        ]
    kind = ("cmapp", "application")
    return _primitive(service_id(package, service), kind, _parameters(package, service), meta, operations)


def _parameters(package: Package, service: Service) -> dict[str, str]:
    given = {"guest": package.guest, "guest_resource": machine_id(package)}
    if service.unreached is not Rules.fields()["on_unreachable"].default:
        given["on_unreachable"] = service.unreached.value
    if service.command:
        given["command"] = shlex.join(service.command)
    if service.unit:
        given["unit"] = service.unit
    return given | {key: text_of(key, value) for key, value in service.given.items() if value is not None}


def _primitive(
    ident: str,
    kind: tuple[str, str],
    parameters: Mapping[str, str],
    meta: Mapping[str, str],
    operations: Iterable[tuple[str, float, Mapping[str, str]]],
) -> ET.Element:
    provider, agent = kind
    primitive = ET.Element("primitive", {"id": ident, "class": "ocf", "provider": provider, "type": agent})
    for tag, short, pairs in (
        ("instance_attributes", "parameters", parameters),
        ("meta_attributes", "meta", meta),
    ):
        own = ET.SubElement(primitive, tag, id=f"{ident}-{short}")
        for name, value in pairs.items():
            # A dot, where Pacemaker's own tools put a hyphen: so what an administrator has added is known by its id.
            own.append(nvpair(f"{ident}-{short}.{name}", name, value))
    actions = ET.SubElement(primitive, "operations")
    for name, timeout, more in operations:
        entry = {"id": f"{ident}-op.{name}", "name": name, "interval": "0", "timeout": _seconds(timeout), **more}
        ET.SubElement(actions, "op", entry)
    return primitive


# ---- how XML has it ----------------------------------------------------------------------------------------


def nvpair(ident: str, name: str, value: str) -> ET.Element:
    """Return a named value, as Pacemaker's XML has it."""
    return ET.Element("nvpair", {"id": ident, "name": name, "value": value})


def _threshold(restarts: int) -> str:
    """Return how many failures Pacemaker has counted when there were more than so many.

    A failure that it is told of from outside counts twice in Debian's 2.1.5, once for each of the two entries that it
    makes in the resource's history; one that a monitor finds counts once, and newer versions may count all once. Our
    agents add what is missing when they stop what has failed, so after each failure the count is an even one.
    """
    return str(2 * restarts + 1)


def _flag(value: bool) -> str:  # noqa: FBT001 - one value, and what it is written like
    return "true" if value else "false"


def _seconds(value: float) -> str:
    return f"{math.ceil(value)}s"
