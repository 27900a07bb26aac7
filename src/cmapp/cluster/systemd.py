"""A guest package as units of systemd, for a host without a cluster: it restarts and gives up as a cluster would.

What the units hang on:
- A service is started N + 1 times and no more: StartLimitBurst, which counts starts, in an interval that never ends.
  Whatever is stopped on purpose (ExecStop= has a main process then) begins to count anew.
- Every end counts, exit code 0 too, as it does in Serviceguard: Restart=always. No code prevents a restart, for each
  may be the application's own.
- No exit code makes a unit fail: the count alone does, by start-limit-hit. So a stop, which may end with any code, is
  none, and OnFailure= means that the service was given up.
- With its machine, everything begins anew: it forgets the counts of its services when it starts. A service that cannot
  reach its guest any more waits a little for what becomes of the machine, whose end is not its own.
- What is given up takes the package with it: OnFailure= has the package's target stopped. That is reached too by a
  service whose machine could not be started, which may be tried again, so it first looks whether the service failed.

The invariant: a unit stays in the failed state only if it was given up, or could not be stopped in time.
"""

from __future__ import annotations

import math

from cmapp.cluster.command import PROGRAMS, manager_words, vm_words
from cmapp.cluster.serviceguard import FORCE, connect_timeout
from cmapp.core.outcome import Own
from cmapp.core.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cmapp.cluster.package import Package

PAUSE = 1  # seconds before a service that may be restarted for ever is
DOUBT = 15  # seconds in which it turns out whether a machine is gone, if half of the halt timeout is not less
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-=:,+@")
_SPECIAL = {"\\": r"\\", '"': r"\"", "\n": r"\n", "\t": r"\t", "\r": r"\r", "%": "%%", "$": "$$"}
_ANY_CODE = " ".join(map(str, range(1, 256)))
_LOST = int(Own.UNREACHABLE)  # the application's own code may be that too, which only costs it the wait
_AWAIT = (
    '[ "$EXIT_STATUS" != {lost} ] || for i in $(seq {most}); do'
    " systemctl --quiet is-active {machine} || exit 0; sleep 1; done"
)
_FAILED = "systemctl --quiet is-failed %i.service && [ $$(systemctl show --value -p Result %i.service) != timeout ]"
# Only who is stopped on purpose still has a main process then.
_FORGET = "-/bin/sh -c '[ -z \"$$MAINPID\" ] || exec systemctl reset-failed %n'"


def render(package: Package, programs: str = PROGRAMS) -> dict[str, str]:
    """Return the units of the package, by the names of their files; our programs are in the folder `programs`."""
    name, vm = package.name, package.vm
    machine = f"{name}-vm.service"
    names = [f"{name}-{service.name}.service" for service in package.services]
    source = printable(package.path) or "the package"
    head = f"# Guest package {name}. Made by 'cmapp package render': change {source} and render it again.\n"
    units = {
        f"{name}.target": _target(name, [machine, *names]),
        f"{name}-given-up@.service": _given_up(name),
        machine: _service(
            package,
            f"The machine of guest package {name}",
            vm_words(package, "run", programs, alone=len(package.hosts) == 1),
            vm.restart,
            vm.stop_timeout + FORCE,
            unit=[
                "Wants=network-online.target",
                "After=network-online.target libvirtd.service virtqemud.service",
                # Applications that went down with it come back with it.
                f"Wants={' '.join(names)}",
            ],
            # Whoever watches the machine may be killed. Then it is stopped all the same, in order, and not with what
            # else is in the unit's control group, where a machine that commands start may be.
            service=[
                "# With the machine, its applications begin anew.",
                f"ExecStartPre=-systemctl reset-failed {' '.join(names)}",
                "# Whoever watched it may have been killed.",
                f"ExecStopPost={command_line(vm_words(package, 'stop', programs))}",
                "KillMode=process",
            ],
        ),
    }
    for service, file in zip(package.services, names, strict=True):
        limits = ["StartLimitAction=reboot-force"] if service.fail_fast and service.restart is not None else []
        units[file] = _service(
            package,
            f"{service.settings.name} in guest {package.guest}",
            manager_words(package, service, programs, connect_timeout=connect_timeout(package)),
            service.restart,
            service.halt_timeout,
            unit=[f"BindsTo={machine}", f"After={machine}", *limits],
            service=[
                "# One that has lost its guest waits for what becomes of the machine.",
                f"ExecStopPost=-/bin/sh -c '{_await(machine, service.halt_timeout)}'",
                "KillMode=mixed",
            ],
        )
    return {file: head + text for file, text in units.items()}


def _target(name: str, services: Sequence[str]) -> str:
    return _text(
        Unit=[f"Description=Guest package {name}", f"Wants={' '.join(services)}", f"After={' '.join(services)}"],
        Install=["WantedBy=multi-user.target"],
    )


def _given_up(name: str) -> str:
    return _text(
        Unit=[f"Description=Stop guest package {name}, for %i was given up"],
        Service=[
            "Type=oneshot",
            f"ExecCondition=/bin/sh -c '{_FAILED}'",
            f"ExecStart=systemctl stop --no-block {name}.target",
        ],
    )


def _service(  # noqa: PLR0913 - what two kinds of services differ in
    package: Package,
    about: str,
    words: Sequence[str],
    restart: int | None,
    halt: float,
    *,
    unit: Sequence[str],
    service: Sequence[str],
) -> str:
    name = package.name
    return _text(
        Unit=[
            f"Description={about.replace('%', '%%')}",
            f"PartOf={name}.target",
            f"OnFailure={name}-given-up@%N.service",
            *unit,
            *_count(restart),
        ],
        Service=[
            "Type=notify",
            f"ExecStart={command_line(words)}",
            "# What is stopped on purpose is counted anew.",
            f"ExecStop={_FORGET}",
            "Restart=always",
            f"RestartSec={PAUSE if restart is None else 0}",
            "# Every end counts alike, and no code is a failure by itself.",
            f"SuccessExitStatus={_ANY_CODE}",
            "# It has bounds of its own.",
            "TimeoutStartSec=infinity",
            *_halting(halt),
            *service,
        ],
    )


def _count(restart: int | None) -> Iterator[str]:
    """Yield what limits the starts."""
    if restart is None:
        yield "StartLimitIntervalSec=0"
    else:
        yield f"# The first start and {restart} more, and none of them is ever forgotten."
        yield "StartLimitIntervalSec=infinity"
        yield f"StartLimitBurst={restart + 1}"


def _halting(halt: float) -> Iterator[str]:
    """Yield what ends a service; systemd would take 0 for no limit."""
    if halt:
        yield f"TimeoutStopSec={math.ceil(halt)}"
    else:
        yield "KillSignal=SIGKILL"


def _await(machine: str, halt: float) -> str:
    """Return the script that waits for what becomes of the machine, if it was lost."""
    most = max(1, min(DOUBT, int(halt / 2)))
    return _AWAIT.format(lost=_LOST, most=most, machine=machine).replace("$", "$$")


def command_line(words: Sequence[str]) -> str:
    """Return `words` as systemd reads them: nothing in them is a variable or a specifier."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    if word and _PLAIN.issuperset(word):
        return word
    return '"' + "".join(_SPECIAL.get(char, char) for char in word) + '"'


def _text(**sections: Sequence[str]) -> str:
    return "".join(f"\n[{section}]\n" + "".join(f"{line}\n" for line in lines) for section, lines in sections.items())
