"""A guest package as a modular package of Serviceguard: the documented parameters, and their values.

Which module and which version of it a parameter is of, only `cmmakepkg` of the installed release knows, so those lines
are left to it. docs/serviceguard.md says where each parameter is documented, and that none of this was run on a
Serviceguard. To it any service that ends has failed, one that was killed too, and the package moves; so a script that
it runs when all services are halted has the machine stopped, and keeps the package from moving where that failed.
The invariant: what is written needs neither a shell's search, nor any variable to mean the same.
"""

from __future__ import annotations

import math
import shlex

from cmapp.cluster.command import PROGRAMS, manager_words, vm_words
from cmapp.cluster.package import NAME_LIMIT, NEVER
from cmapp.core.duration import format_duration
from cmapp.core.text import printable
from cmapp.core.vigil import FORCE_LIMIT, KILL_LIMIT
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmapp.cluster.package import Package

SCRIPTS = "/etc/cmapp/packages"  # on each host
SERVICES_LIMIT = 30  # services of one package, that of the machine among them
HALT_LIMIT = 4294.0  # seconds of service_halt_timeout
FORCE = FORCE_LIMIT + KILL_LIMIT + 5.0  # seconds past the machine's stop timeout in which a stop is over, forced or not
_RISKY = frozenset("\"\\$`\n\r\t'")  # what a value in double quotes is not documented to keep
_HEAD = """\
# Guest package {name}, for Serviceguard: modular packages, A.11.19 or later.
# Made by 'cmapp package render': change {source} and render it again.
# 'cmmakepkg -i FILE -m sg/failover -m sg/service -m sg/external NEW' of your release adds the lines that tell its
# modules and their versions; then 'cmcheckconf -P NEW' and 'cmapplyconf -P NEW'.
"""
_SCRIPT = """\
#!/bin/sh
# The external_script of guest package {name}, for Serviceguard. Made by 'cmapp package render'.
# When all services are halted, it has the machine stopped, for whoever watched it may have been killed. Where that
# fails, the package runs nowhere else, so that the machine never runs twice.
case $1 in
    stop) {stop} </dev/null || exit 1 ;;
esac
exit 0
"""


def render(package: Package, programs: str = PROGRAMS) -> dict[str, str]:
    """Return the files of the package, by name: its parameters, and the script that goes to SCRIPTS on each host.

    Our programs are in the folder `programs` there.
    Raises SettingsError, with the line of the package's file, for what Serviceguard does not take.
    """
    if len(package.services) >= SERVICES_LIMIT:
        _refuse(
            package,
            ("service",),
            f"Serviceguard runs {SERVICES_LIMIT} services of a package at most, and one of them is the machine",
        )
    basic = [
        ("package_name", package.name),
        ("package_description", f'"{f"Guest {package.guest}, watched by cmappmgr"[:80]}"'),
        ("package_type", "failover"),
        *(("node_name", host) for host in package.hosts),
        ("auto_run", "yes"),
        ("node_fail_fast_enabled", "no"),
        ("run_script_timeout", "no_timeout"),
        ("halt_script_timeout", "no_timeout"),
        *([("script_log_file", package.log)] if package.log else []),
        ("failover_policy", "configured_node"),
        ("failback_policy", "manual"),
        ("external_script", f"{SCRIPTS}/{package.name}-vm.sh"),
    ]
    vm = package.vm
    parts = [
        (_HEAD.format(name=package.name, source=printable(package.path or "the package")), basic),
        (
            "# The machine, which comes first: the others try to connect for as long as it may take to start.\n",
            list(
                _service(
                    package, "vm", vm_words(package, "run", programs, alone=True), vm.restart, vm.stop_timeout + FORCE
                )
            ),
        ),
    ]
    for service in package.services:
        words = manager_words(package, service, programs, connect_timeout=connect_timeout(package))
        kept = list(
            _service(package, service.name, words, service.restart, service.halt_timeout, fail_fast=service.fail_fast)
        )
        parts.append((f"# Application {service.settings.name}.\n", kept))
    text = "\n".join(head + "".join(f"{key:<26}{value}\n" for key, value in lines) for head, lines in parts)
    script = _SCRIPT.format(name=package.name, stop=shlex.join(vm_words(package, "stop", programs)))
    return {f"{package.name}.conf": text, f"{package.name}-vm.sh": script}


def connect_timeout(package: Package) -> float:
    """Return how long a cmappmgr that is started with its machine has to try, unless its settings say it."""
    return max(package.vm.start_timeout, package.defaults.connect_timeout)


def _service(  # noqa: PLR0913 - five parameters, of a package
    package: Package, name: str, words: Sequence[str], restart: int | None, halt: float, *, fail_fast: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the five parameters of a service."""
    where = ("vm",) if name == "vm" else ("service", name)
    whole = f"{package.name}-{name}"
    if len(whole) > NAME_LIMIT:
        _refuse(
            package, where, f"{whole} has more than the {NAME_LIMIT} characters that Serviceguard takes of a service"
        )
    for word in words:
        if not _RISKY.isdisjoint(word):
            _refuse(
                package,
                where,
                f"{word!r} cannot be part of a service_cmd, which keeps no quote, backslash, $ or end of line:"
                " put the command into a script, or define the application in the guest",
            )
    if halt > HALT_LIMIT:
        _refuse(
            package,
            where,
            f"to halt it may take {format_duration(halt)}, and Serviceguard waits {HALT_LIMIT:g} s at most",
        )
    yield "service_name", whole
    yield "service_cmd", f'"{shlex.join(words)}"'
    yield "service_restart", "unlimited" if restart is None else str(restart or NEVER)
    yield "service_fail_fast_enabled", "yes" if fail_fast else "no"
    yield "service_halt_timeout", str(math.ceil(halt))


def _refuse(package: Package, where: tuple[str, ...], text: str) -> None:
    raise SettingsError(f"{package.path}:{package.line(*where)}: {text}")
