"""What systemd tells of a unit, read off its properties, and what its words mean to us.

The invariant: what systemd does not tell is the value that claims nothing: no process, no ending, no success.
"""

from __future__ import annotations

from cmapp.core.outcome import SIGNAL_LAST, Exited, Outcome, Signaled, Unknown, describe
from cmapp.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_EXITED, _KILLED, _DUMPED = 1, 2, 3  # CLD_EXITED and so on, as systemd tells how a process ended
_COMMANDS = ("ExecCondition", "ExecStartPre", "ExecStart", "ExecStartPost")  # in the order in which they are run
_PID, _CODE, _STATUS = 7, 8, 9  # of the ten that systemd tells of such a command
_TOLD = 10
_LONGEST = 200  # characters of what systemd says that we repeat
RESULTS = {  # systemd's word for why it failed, beyond how its main process ended
    "timeout": "a time that its unit file sets ran out",
    "watchdog": "systemd did not hear its watchdog in time",
    "oom-kill": "it was killed for want of memory",
    "start-limit-hit": "it was started too often in too short a time",
    "protocol": "it did not come up in the way that its Type= demands",
    "resources": "the guest lacked resources for it",
    "exec-condition": "its ExecCondition= was not met",
}
STATUSES = {  # what systemd exits with in place of a command that it cannot execute: systemd.exec(5)
    200: "CHDIR",
    201: "NICE",
    202: "FDS",
    203: "EXEC",
    205: "LIMITS",
    208: "STDIN",
    209: "STDOUT",
    214: "SETSCHEDULER",
    216: "GROUP",
    217: "USER",
    218: "CAPABILITIES",
    219: "CGROUP",
    222: "STDERR",
    225: "NETWORK",
    226: "NAMESPACE",
    228: "SECCOMP",
    231: "APPARMOR",
    232: "ADDRESS_FAMILIES",
    233: "RUNTIME_DIRECTORY",
    238: "STATE_DIRECTORY",
    240: "LOGS_DIRECTORY",
    241: "CONFIGURATION_DIRECTORY",
}


class UnitState(Record):
    """A unit at one moment.

    `active` is systemd's state of any unit, `sub` that of a service; `main` and `control` are the numbers of the
    processes that live, 0 if none does; `last` that of the last main process, `code` and `status` how it ended;
    `invocation` names what was started last, `restarts` how often systemd did that by itself. `job` is what systemd is
    about to do with it, 0 if nothing; `restarting` that it may restart it by itself. `began` is when it became
    active last, `ceased` when it ceased to be, in microseconds since the boot. `command` is a command that failed
    before there was a main process: its pid, code and status.
    """

    name: str = ""
    load: str = ""
    trouble: str = ""
    active: str = ""
    sub: str = ""
    result: str = ""
    main: int = 0
    control: int = 0
    last: int = 0
    code: int = 0
    status: int = 0
    restarts: int = 0
    invocation: str = ""
    job: int = 0
    group: str = ""
    began: int = 0
    ceased: int = 0
    restarting: bool = False
    masked: bool = False
    unmet: str = ""
    says: str = ""
    members: tuple[str, ...] = ()
    command: tuple[int, int, int] = (0, 0, 0)

    @property
    def runs(self) -> bool:
        """Whether it is active, or on its way there."""
        return self.active in ("active", "activating", "reloading", "refreshing")

    @property
    def over(self) -> bool:
        """Whether systemd is through with it: it does not run, and nothing is about to be done with it."""
        return self.active in ("inactive", "failed") and not self.job

    @property
    def without_process(self) -> bool:
        """Whether it is active although it has no process by which it could end."""
        return self.active == "active" and self.sub == "exited"

    @property
    def outcome(self) -> Outcome:
        """How its last main process ended, or the command that failed before there was one."""
        code, status = (self.code, self.status) if self.code else self.command[1:]
        return ending(code, status) or Unknown("systemd does not tell how: it has had no main process")


def ending(code: int, status: int) -> Outcome | None:
    """Return how a process ended, as systemd tells it by two numbers, None if it tells of none."""
    if code == _EXITED and 0 <= status <= 255:  # noqa: PLR2004 - what a process can exit with
        return Exited(status)
    if code in (_KILLED, _DUMPED) and 1 <= status <= SIGNAL_LAST:
        return Signaled(status, core_dumped=code == _DUMPED)
    return None


def state_of(told: Mapping[str, Any]) -> UnitState:
    """Return what properties of the unit and of the service say; what is missing, or of another type, says nothing."""
    job = _read(told, "Job", (0, ""), tuple)
    trouble = _read(told, "LoadError", ("", ""), tuple)
    members = _read(told, "ConsistsOf", [], list)
    load, kept = _read(told, "LoadState", "", str), _read(told, "UnitFileState", "", str)
    return UnitState(
        name=_read(told, "Id", "", str),
        load=load,
        trouble=str(trouble[-1])[:_LONGEST] if trouble else "",
        active=_read(told, "ActiveState", "", str),
        sub=_read(told, "SubState", "", str),
        result=_read(told, "Result", "", str),
        main=_read(told, "MainPID", 0, int),
        control=_read(told, "ControlPID", 0, int),
        last=_read(told, "ExecMainPID", 0, int),
        code=_read(told, "ExecMainCode", 0, int),
        status=_read(told, "ExecMainStatus", 0, int),
        restarts=_read(told, "NRestarts", 0, int),
        invocation=_read(told, "InvocationID", b"", bytes).hex(),
        job=job[0] if job and isinstance(job[0], int) else 0,
        group=_read(told, "ControlGroup", "", str),
        began=_read(told, "ActiveEnterTimestampMonotonic", 0, int),
        ceased=_read(told, "InactiveEnterTimestampMonotonic", 0, int),
        restarting=_read(told, "Restart", "no", str) != "no",
        masked=load == "masked" or kept.startswith("masked"),
        unmet=_unmet(told),
        says=_read(told, "StatusText", "", str)[:_LONGEST],
        members=tuple(member for member in members if isinstance(member, str) and member.endswith(".service")),
        command=_failed(told),
    )


def why_failed(state: UnitState) -> str:
    """Return what systemd says of a unit that failed beyond how its process ended, "" if that is all."""
    code, status = (state.code, state.status) if state.code else state.command[1:]
    parts = [RESULTS[state.result]] if state.result in RESULTS else []
    if code == _EXITED and status in STATUSES:
        parts.append(f"{status}/{STATUSES[status]} is what systemd says if it could not execute a command as is asked")
    if not state.code and state.command[0]:
        parts.append("it was a command that comes before its main process")
    if code == _EXITED and not status and state.active == "failed" and not parts:
        parts.append(f"to systemd it has failed: {state.result}")
    if state.restarts:
        gave_up = " and gave it up" if state.restarting and state.active == "failed" else ""
        parts.append(f"systemd had restarted it {times(state.restarts)}{gave_up}")
    return "; ".join(parts)


def how_it_ended(state: UnitState) -> str:
    """Return in words how its last main process ended, with what systemd says of it."""
    more = RESULTS.get(state.result, "")
    outcome = state.outcome
    told = "it ended" if isinstance(outcome, Unknown) else f"its main process {describe(outcome)}"
    return f"{told} ({more})" if more else told


def times(number: int) -> str:
    """Return how often, in words."""
    return "once" if number == 1 else f"{number} times"


def _read(told: Mapping[str, Any], key: str, otherwise: Any, kind: type) -> Any:
    value = told.get(key, otherwise)
    return value if isinstance(value, kind) else otherwise


def _unmet(told: Mapping[str, Any]) -> str:
    """Return which conditions kept it from being started, "" if none did."""
    found = []
    for key, word in (("Conditions", "Condition"), ("Asserts", "Assert")):
        if told.get(f"{word}Result", True) is not False or not told.get(f"{word}Timestamp", 0):
            continue  # it is met, or was not looked at
        unmet = [item for item in _read(told, key, [], list) if _is_unmet(item)]
        found += [f"{item[0]}={'!' if item[2] else ''}{item[3]}" for item in unmet] or [key.lower()]
    return ", ".join(found)[:_LONGEST]


def _is_unmet(item: Any) -> bool:
    """Tell whether a condition, of five values, was looked at and found unmet."""
    return isinstance(item, tuple) and len(item) == 5 and isinstance(item[4], int) and item[4] < 0  # noqa: PLR2004


def _failed(told: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the command that failed last before there was a main process."""
    found = (0, 0, 0)
    for key in _COMMANDS:
        for item in _read(told, key, [], list):
            if not isinstance(item, tuple) or len(item) < _TOLD:
                continue
            pid, code, status = (number if isinstance(number, int) else 0 for number in item[_PID : _STATUS + 1])
            if pid and code and (code != _EXITED or status):
                found = (pid, code, status)
    return found
