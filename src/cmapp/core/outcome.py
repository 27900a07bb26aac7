"""How a run ended, what a manager concludes from it, and the only map from either to an exit code.

An outcome is what happened to the process. A verdict is what a manager has to say at its end: the receipt of
a run that ended, or why there is none. The invariant: an outcome that is not known is `Unknown`, which has a
code of its own; nothing that is not known to be a success can become 0.
"""

from __future__ import annotations

import enum

from cmapp.core import checks
from cmapp.core.duration import format_duration
from cmapp.core.record import Record, field
from cmapp.core.text import printable

# Linux's numbers, from 1 up, on all architectures but Alpha, MIPS, PA-RISC and SPARC, which have their own.
_NAMES = """HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT
    CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"""
SIGNALS = tuple(_NAMES.split())
SIGRTMIN, SIGNAL_LAST = 34, 64


def signal_name(number: int) -> str:
    """Return the name of a signal without SIG: `TERM`, `RTMIN+1`, or the number where it has none."""
    if 1 <= number <= len(SIGNALS):
        return SIGNALS[number - 1]
    if SIGRTMIN <= number <= SIGNAL_LAST:
        return f"RTMIN+{number - SIGRTMIN}".removesuffix("+0")
    return str(number)


def signal_number(name: str) -> int:
    """Return the number of `TERM`, `SIGTERM`, `RTMIN+1` or `15`; raises ValueError for what is no signal."""
    bare = name.upper().removeprefix("SIG")
    for number in range(1, SIGNAL_LAST + 1):
        if bare in (signal_name(number), str(number)):
            return number
    raise ValueError(f"{name!r} is not a signal: write a name such as TERM or a number from 1 to {SIGNAL_LAST}")


class Exited(Record):
    """The process exited by itself with `code`."""

    word = "exited"
    code: int = field(checks.within(0, 255))


class Signaled(Record):
    """The process was killed by the signal of that number."""

    word = "signaled"
    signal: int = field(checks.within(1, SIGNAL_LAST))
    core_dumped: bool = field(checks.flag, default=False)


class Unknown(Record):
    """The run is over, but how it ended could not be learned."""

    word = "unknown"
    text: str = field(checks.text)


Outcome = Exited | Signaled | Unknown


class Reason(enum.Enum):
    """Why a run ended when it did."""

    ITSELF = "itself"
    ASKED = "asked"
    MANAGER_LOST = "manager-lost"
    REPLACED = "replaced"
    UNHEALTHY = "unhealthy"
    NOT_READY = "not-ready"
    HUNG = "hung"
    SERVER_STOPPED = "server-stopped"


class Receipt(Record):
    """The record of how a run ended: wall-clock times in seconds since 1970, `lasted` in monotonic seconds.

    `forced` tells that SIGKILL had to end it: the stop signal did not end everything in time, or was not given it.
    `detail` says more of the reason, such as what the last check said.
    """

    name: str = field(checks.name)
    run_id: str = field(checks.uuid)
    outcome: Outcome = field(checks.tagged(Exited, Signaled, Unknown))
    reason: Reason = field(checks.one_of(Reason))
    started: float = field(checks.seconds)
    ended: float = field(checks.seconds)
    lasted: float = field(checks.seconds)
    forced: bool = field(checks.flag, default=False)
    detail: str = field(checks.text, default="")


class NotStarted(Record):
    """The command never ran; `found` tells one that could not be executed from one that is not there."""

    found: bool
    text: str


class Unreachable(Record):
    """The server could not be reached, or no longer: nothing is known of the application."""

    text: str


class GuestDown(Record):
    """The server could not be reached any more, and its guest was said to be down."""

    text: str


class Refused(Record):
    """The server, or the trust between us, turned us away."""

    code: str
    text: str


class Detached(Record):
    """The run was left to a later manager, as was asked for."""

    text: str


class Failed(Record):
    """cmappmgr itself could not do its work."""

    text: str


class Own(enum.IntEnum):
    """The exit codes that are cmappmgr's own words."""

    DETACHED = 0
    UNKNOWN = 121
    REFUSED = 122
    UNREACHABLE = 123
    UNHEALTHY = 124
    FAILED = 125
    NOT_EXECUTABLE = 126
    NOT_FOUND = 127
    SIGNAL_BASE = 128


FAULTS = (Reason.UNHEALTHY, Reason.NOT_READY, Reason.HUNG)  # for which the server stops a run by itself

Verdict = Receipt | Unknown | NotStarted | Unreachable | GuestDown | Refused | Detached | Failed


def exit_code(verdict: Verdict | Outcome) -> int:
    """Return the code that cmappmgr exits with. This is the only map from an ending to an exit code."""
    match verdict:
        case Receipt(reason=reason) if reason in FAULTS:
            return Own.UNHEALTHY
        case Receipt(outcome=outcome):
            return exit_code(outcome)
        case Exited(code=code):
            return code
        case Signaled(signal=number):
            return Own.SIGNAL_BASE + number
        case Unknown():
            return Own.UNKNOWN
        case NotStarted(found=found):
            return Own.NOT_EXECUTABLE if found else Own.NOT_FOUND
        case Refused():
            return Own.REFUSED
        case Unreachable() | GuestDown():
            return Own.UNREACHABLE
        case Detached():
            return Own.DETACHED
        case _:  # Failed, and anything else: nothing falls through to None, which sys.exit takes for success
            return Own.FAILED


def describe(verdict: Verdict | Outcome) -> str:
    """Return what happened as part of a sentence whose subject is the application, printable whatever a peer said."""
    match verdict:
        case Receipt():
            lasted = "" if isinstance(verdict.outcome, Unknown) else f" after {format_duration(verdict.lasted)}"
            return f"{describe(verdict.outcome)}{lasted}{_why(verdict)}"
        case Exited(code=code):
            return f"exited with code {code}"
        case Signaled(signal=number, core_dumped=dumped):
            core = " and dumped core" if dumped else ""
            return f"was killed by signal {number} ({signal_name(number)}){core}"
        case _:
            return f"{_ENDINGS[type(verdict)]}: {printable(verdict.text)}"


_ENDINGS = {
    Unknown: "ended, but how is not known",
    NotStarted: "was not started",
    Failed: "is not watched",
    Refused: "was refused",
    Detached: "was left running",
    Unreachable: "cannot be reached",
    GuestDown: "is gone with its guest, which is down",
}


def _why(receipt: Receipt) -> str:
    if receipt.reason is Reason.ITSELF:
        return f" ({printable(receipt.detail)})" if receipt.detail else ""
    means = "SIGKILL was needed" if receipt.forced else "the stop signal was enough"
    who = {
        Reason.ASKED: "stopped on request",
        Reason.MANAGER_LOST: "stopped because its manager was lost",
        Reason.REPLACED: "stopped because another run took its place",
        Reason.UNHEALTHY: "stopped because it was unhealthy",
        Reason.NOT_READY: "stopped because it did not become ready",
        Reason.HUNG: "stopped because its watchdog was not heard",
        Reason.SERVER_STOPPED: "stopped because the server was stopped",
    }[receipt.reason]
    detail = f": {printable(receipt.detail)}" if receipt.detail else ""
    return f" ({who}{detail}, {means})"
