"""What is unwise in a guest package that is right in itself: each with its line, and what to do about it.

Responsible for what several settings mean together, and for what this host has of what the file names. The invariant:
nothing here keeps a package from being rendered, for each may be meant so.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from cmapp.cluster.reading import Complaint
from cmapp.cluster.serviceguard import SERVICES_LIMIT
from cmapp.core.duration import format_duration
from cmapp.core.outcome import signal_number
from cmapp.core.pursuit import KILL_MARGIN
from cmapp.core.rules import OnExisting, OrphanAction
from cmapp.core.values import ready_rules
from cmapp.keys.examination import SOON, Examination
from cmapp.net.identity import Role

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cmapp.cluster.package import Package, Service

    Remark = tuple[tuple[str, ...], str]

FAILOVER = 45.0  # seconds in which a cluster looks whether a manager is there, and has started another


def lint(package: Package, known: Collection[str] = (), now: datetime | None = None) -> list[Complaint]:
    """Return what is unwise in `package`, by line; `known` are the hosts of this host's cluster, if there is one."""
    remarks = [*_of_hosts(package, known), *_of_files(package, now or datetime.now(UTC)), *_of_machine(package)]
    for service in package.services:
        own = ("service", service.name)
        for keys, text in _of_service(package, service):
            shared = (*own, *keys) not in package.lines and ("settings", *keys) in package.lines
            remarks.append((("settings", *keys) if shared else (*own, *keys), text))
    told = dict.fromkeys((package.line(*keys), text) for keys, text in remarks)
    return [Complaint(package.path, line, text, fatal=False) for line, text in sorted(told)]


def _of_hosts(package: Package, known: Collection[str]) -> Iterator[Remark]:
    if len(package.hosts) == 1:
        yield ("hosts",), f"{package.hosts[0]} is the only host, so nothing can fail over: add another"
    for host in package.hosts:
        if known and host not in known:
            there = ", ".join(sorted(known))
            yield ("hosts",), f"the cluster does not know the host {host}: it has {there}"
    if len(package.services) >= SERVICES_LIMIT:
        yield (
            ("service",),
            (
                f"{len(package.services)} services and the machine are more than the {SERVICES_LIMIT} of a package that"
                " Serviceguard takes: divide them, or let one command start several"
            ),
        )


def _of_files(package: Package, now: datetime) -> Iterator[Remark]:
    folder = os.path.dirname(package.log)
    if package.log and not os.path.isdir(folder):
        yield ("log",), f"there is no folder {folder} for the log: make it on each host, or nothing is logged"
    if package.vm.config and not os.path.exists(package.vm.config):
        yield ("vm", "config"), f"there is no {package.vm.config} on this host: copy it to each host"
    for keys, where in _key_folders(package):
        if not os.path.isdir(keys):
            yield where, f"there is no key folder {keys} on this host: issue one for each host, by 'cmapp keys issue'"
            continue
        for problem in Examination(Path(keys), Role.HOST, days=SOON, now=now).problems:
            yield where, f"keys: {problem}"


def _key_folders(package: Package) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each key folder once, with the keys of what names it."""
    named: dict[str, tuple[str, ...]]
    named = {package.defaults.keys: ("settings", "keys") if ("settings", "keys") in package.lines else ("keys",)}
    for service in package.services:
        named.setdefault(service.settings.keys, ("service", service.name, "keys"))
    used = {service.settings.keys for service in package.services}
    for folder, where in named.items():
        if folder in used:
            yield folder, where


def _of_machine(package: Package) -> Iterator[Remark]:
    vm = package.vm
    if not vm.stop_timeout:
        yield ("vm", "stop_timeout"), "the machine is never shut down in order, only cut off: give it a minute or two"
    if not vm.start_timeout:
        yield ("vm", "start_timeout"), "no machine starts in no time: give it what its boot takes, twice"
    if vm.domain and not all(service.settings.whom_to_ask for service in package.services):
        yield (
            ("vm", "uri"),
            (
                "who loses a guest does not ask this libvirt whether it is only paused, for the uri is another than"
                " the host's own: give second_opinion, such as 'cmapp vm state --uri=URI DOMAIN' with its whole path"
            ),
        )
    if vm.agent == "stock" and vm.migrate and vm.failover == "restart":
        yield (
            ("vm", "agent"),
            (
                "the stock agent migrates the machine alive when an application was given up, so the application moves"
                " without a restart of its guest: say failover = 'migrate', or make the agent cmapp"
            ),
        )


def _of_service(package: Package, service: Service) -> Iterator[Remark]:
    settings = service.settings
    yield from _of_halting(service)
    if service.restart is None and service.fail_fast:
        yield (
            ("service_fail_fast",),
            "never comes to pass: service_restart is unlimited, so the service is never given up; choose one",
        )
    elif service.restart and service.fail_fast:
        yield (
            ("service_fail_fast",),
            (
                f"on Pacemaker the first failure takes the host down, not the one after {service.restart} restarts:"
                " make service_restart none, so that every cluster does the same"
            ),
        )
    ready = ready_rules(settings.ready, 0).command if settings.ready else ()
    for key, words in (
        ("command", service.command),
        ("ready", ready),
        ("health_command", settings.health_command),
        ("stop_command", settings.stop_command),
    ):
        if words and not words[0].startswith("/"):
            yield (key,), f"{words[0]} is no absolute path, and there is no PATH to find it by: write the whole path"
    if "connect_timeout" in service.given and settings.connect_timeout < package.vm.start_timeout:
        yield (
            ("connect_timeout",),
            (
                f"{format_duration(settings.connect_timeout)} is less than the machine's start_timeout of"
                f" {format_duration(package.vm.start_timeout)}: who is started with it gives up before it is there"
            ),
        )
    yield from _of_orphans(service)
    if settings.on_existing is OnExisting.REFUSE:
        yield (
            ("on_existing",),
            "refuse turns a cmappmgr away that was restarted: make it replace, or attach",
        )
    if not settings.syslog and not settings.log_file:
        yield ("syslog",), "nothing is logged anywhere: give the package a log, or leave syslog on"


def _of_halting(service: Service) -> Iterator[Remark]:
    settings, halt = service.settings, service.halt_timeout
    orderly = settings.stop_timeout + KILL_MARGIN
    bound = settings.patience.bound
    if not halt:
        yield (
            ("service_halt_timeout",),
            (
                "cmappmgr would be killed at once, and could not stop its application, which goes on as an orphan:"
                f" make it {format_duration(max(orderly, bound))}"
            ),
        )
    elif halt < orderly:
        yield (
            ("service_halt_timeout",),
            (
                f"{format_duration(halt)} is too short to stop the application, which has"
                f" {format_duration(settings.stop_timeout)} (stop_timeout) and {format_duration(KILL_MARGIN)} more:"
                f" make it at least {format_duration(orderly)}"
            ),
        )
    elif halt < bound:
        yield (
            ("service_halt_timeout",),
            (
                f"{format_duration(halt)} is shorter than the bound of {format_duration(bound)} in which a guest that"
                " does not answer is given up (poll_interval, poll_timeout, link_timeout): lengthen the one, or shorten"
                " those"
            ),
        )
    if settings.detach_on_signal == signal_number("TERM"):
        yield (
            ("detach_on_signal",),
            "TERM is how a cluster halts a service, so its application would never be stopped: leave it out",
        )


def _of_orphans(service: Service) -> Iterator[Remark]:
    settings = service.settings
    needed = max(settings.link_timeout, FAILOVER)
    if settings.orphan_action is OrphanAction.KEEP:
        yield (
            ("orphan_action",),
            "keep lets an application go on that a cluster takes for stopped: make it stop",
        )
    elif settings.orphan_timeout < needed:
        why = "link_timeout" if needed == settings.link_timeout else "what a cluster takes to start another cmappmgr"
        yield (
            ("orphan_timeout",),
            (
                f"{format_duration(settings.orphan_timeout)} is less than {format_duration(needed)} ({why}): the guest"
                f" stops the application before its manager is back; make it at least {format_duration(needed)}"
            ),
        )
