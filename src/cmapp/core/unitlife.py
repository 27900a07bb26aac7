"""The life of one run that is a unit: what systemd tells of the unit comes in, what it means for the run goes out.

A run is one stretch: from its start until systemd is through with the unit. What systemd does by itself on the way,
restarts and reloads, is told and is not the end; an invocation, systemd's own name for one start, tells that what is
seen is still what was started. The invariant: launched is told first, the end is told once and last, and never because
systemd could not be asked.
"""

from __future__ import annotations

from cmapp.core.messages import Refusal
from cmapp.core.outcome import Outcome, Unknown
from cmapp.core.record import Record
from cmapp.core.unitstate import UnitState, how_it_ended, times, why_failed

NO_JOB = -1  # in place of ours: it runs already, or systemd does not say which
SYSTEMD = 1  # the process that answers for a unit which has no process of its own, or none yet
GONE = "it ended while there was no server, and systemd keeps no record of how"
STARTED_ANEW = "somebody started it anew while there was no server: how it ended before is not known"
UNSURE = "the server was restarted while it was being launched"
_JOBS = {  # how a job for it ended that was to start it, and did not
    "canceled": "somebody cancelled its start",
    "timeout": "its start took too long",
    "dependency": "a unit that it requires could not be started",
    "skipped": "systemd skipped it",
    "assert": "an assertion of its file is not met",
    "unsupported": "systemd does not support it here",
}


class Telling(Record):
    """Anything that is to be told of the run."""


class Launched(Telling):
    """It runs."""


class Identified(Telling):
    """Its main process and invocation, which are to be known to later servers."""

    pid: int
    invocation: str


class Ready(Telling):
    """Systemd takes it for active."""


class Noted(Telling):
    """Something happened to it that is not its end; `grave` if somebody should do something about it."""

    text: str
    grave: bool = False


class Says(Telling):
    """What it says of itself, by sd_notify's STATUS."""

    text: str


class Refused(Telling):
    """It was not started: `code` is a word of the protocol's refusals."""

    code: str
    text: str


class Ended(Telling):
    """Systemd is through with it; `detail` is what is known beyond the outcome."""

    outcome: Outcome
    detail: str


class UnitLife:
    """One run of a unit: `start` says whether to start it, `see` what each look at it means."""

    __slots__ = (
        "_before",
        "_cause",
        "_job_result",
        "_main",
        "_restarts",
        "_says",
        "_told",
        "adopted",
        "asked_to_stop",
        "ended",
        "invocation",
        "is_over",
        "job",
        "launched",
        "parts",
        "ready",
        "started",
        "stopped_by",
    )

    def __init__(self) -> None:
        self.started = self.launched = self.ready = self.ended = self.adopted = False
        self.asked_to_stop = False  # by us
        self.stopped_by = ""  # what somebody else has systemd do with it: stop, restart, or "?" if that is not told
        self.invocation = ""
        self.parts = False  # whether other units that belong to it run, and it has no process itself
        self.is_over = False  # its end was told by a server before this one
        self.job = 0  # ours, to start it
        self._before = ""  # the invocation before ours
        self._job_result = ""
        self._main = 0
        self._restarts = 0
        self._says = self._cause = ""
        self._told: set[str] = set()

    # ---- the start -----------------------------------------------------------------------------------------

    def start(self, state: UnitState) -> list[Telling]:
        """Decide on the start: what is told may be a refusal, or that it runs already; nothing means to start it."""
        name = state.name
        if state.load == "not-found":
            return self._refuse(Refusal.NOT_FOUND, f"there is no unit {name} in this guest")
        if state.load == "masked":
            return self._refuse(Refusal.NOT_EXECUTABLE, f"the unit {name} is masked: systemctl unmask {name}")
        if state.load != "loaded":
            text = f"systemd cannot load the unit {name} ({state.load}): {state.trouble}"
            return self._refuse(Refusal.NOT_EXECUTABLE, text)
        self.started = True
        if not state.runs:
            self._before = state.invocation
            return []
        self.job = NO_JOB
        text = (
            f"the unit {name} ran already, it was not started by this run: nobody else should start it, so disable it"
            f" at boot (systemctl disable {name})"
        )
        return [Noted(text, grave=True), *self.see(state)]

    def refused(self, error: str, text: str) -> list[Telling]:
        """Take note that systemd does not even take the job to start it; `error` is D-Bus's name of the reason."""
        kind = error.rpartition(".")[2]
        if kind == "NoSuchUnit":
            code = Refusal.NOT_FOUND
        elif kind in ("AccessDenied", "InteractiveAuthorizationRequired"):
            code = Refusal.NOT_PERMITTED
        else:
            code = Refusal.NOT_EXECUTABLE
        return self._refuse(code, f"systemd does not start it: {text or error}")

    def taken(self, name: str) -> list[Telling]:
        """Take note that the unit, by its own name, is another run's already."""
        return self._refuse(Refusal.NAME_TAKEN, f"the unit {name} is that of another application")

    def unreachable(self, why: str) -> list[Telling]:
        """Take note that systemd cannot be asked: a run that was not begun is refused, any other goes on."""
        if self.started or self.ended:
            return []
        return self._refuse(Refusal.UNSUPPORTED, f"systemd cannot be reached in this guest: {why}")

    def job_ended(self, job: int, result: str) -> None:
        """Take note of how a job ended."""
        if job == self.job:
            self._job_result = result

    def missed(self) -> None:
        """Take note that the end of the job to start it may not have been told."""
        self._job_result = self._job_result or "nobody heard why"

    def certain(self, state: UnitState) -> bool:
        """Tell whether what was told of a change, without the rest, is the end: if nothing can come after it."""
        known = self.launched and not self.adopted and state.last == self._main
        return known and state.over and bool(state.code) and not state.restarting

    # ---- a server comes back -------------------------------------------------------------------------------

    def adopt(self, invocation: str, *, over: bool = False) -> None:
        """Go on with a run of a server before this one, whose invocation was known, or "" if not.

        With `over` its end was told already, so what is not that invocation is somebody else's.
        """
        self.started = self.launched = self.adopted = True
        self.invocation, self.is_over = invocation, over

    # ---- what is seen --------------------------------------------------------------------------------------

    def see(self, state: UnitState) -> list[Telling]:
        """Return what a look at the unit means."""
        if self.ended or not self.started:
            return []
        if self.adopted:
            return self._found(state)
        if state.over:
            return [] if self.parts else self._over(state)
        told: list[Telling] = []
        if not self.launched:
            if state.invocation == self._before or not (state.main or state.control or state.active == "active"):
                return []  # it has not begun, or has no process yet
            self.launched = True
            self.invocation, self._main, self._restarts = state.invocation, state.main, state.restarts
            told += [Identified(state.main or state.control or SYSTEMD, state.invocation), Launched()]
        else:
            told += self._moved(state)
        told += self._notes(state)
        if state.says not in ("", self._says):
            self._says = state.says
            told.append(Says(state.says))
        if state.active == "active" and not self.ready:
            self.ready = True
            told.append(Ready())
        return told

    def part_ended(self, part: UnitState) -> list[Telling]:
        """Take note that a part of the unit, which has no process itself, is over: so is the run."""
        if self.ended or self.asked_to_stop:
            return []
        return self._end(part.outcome, "; ".join(filter(None, (f"it is its part {part.name}", why_failed(part)))))

    def _found(self, state: UnitState) -> list[Telling]:
        """Look for the first time at a run of a server before this one."""
        self.adopted = False
        known, same = bool(self.invocation), state.invocation == self.invocation
        if known and same:
            self._main, self._restarts = state.main, state.restarts
            return self.see(state)
        if not state.runs:
            return self._end(Unknown(GONE if known else UNSURE), "")
        if self.is_over or (known and not state.restarts):  # what is started by somebody counts from 0
            return self._end(Unknown(STARTED_ANEW), "")
        self.invocation, self._main, self._restarts = state.invocation, state.main, state.restarts
        text = f"systemd has restarted it {times(state.restarts)}, some of it while there was no server"
        noted: list[Telling] = [Noted(text, grave=True)] if known else []
        return [Identified(state.main or SYSTEMD, state.invocation), *noted, *self.see(state)]

    def _moved(self, state: UnitState) -> list[Telling]:
        """Tell of another main process, or another start of the unit."""
        if not state.main and state.code:
            self._cause = how_it_ended(state)
        anew = state.invocation != self.invocation
        if not state.main or (state.main == self._main and not anew):
            return []
        told: list[Telling] = [Identified(state.main, state.invocation)]
        if anew and state.restarts > self._restarts:
            text = f"systemd restarted it, {times(state.restarts)} so far: {self._cause or 'it ended'}"
            told.append(Noted(f"{text}; its main process is {state.main} now", grave=True))
        elif anew:
            told.append(Noted(f"somebody had systemd restart it: its main process is {state.main} now", grave=True))
        elif self._main:
            told.append(Noted(f"its main process is {state.main} now"))
        self.invocation, self._main, self._restarts = state.invocation, state.main, state.restarts
        self._cause = self.stopped_by = ""
        self._told -= {"reloading", "stopping"}
        return told

    def _notes(self, state: UnitState) -> list[Telling]:
        """Tell, once each time, what systemd does with it."""
        seen = {
            "reloading": (state.active in ("reloading", "refreshing"), "systemd reloads it", False),
            "masked": (
                state.masked,
                "it was masked: it goes on, but cannot be started again before it is unmasked",
                True,
            ),
            "empty": (state.without_process, _of_no_process(state), not state.members),
            "stopping": (
                state.active == "deactivating" and not self.asked_to_stop and self.stopped_by == "stop",
                "somebody has systemd stop it",
                True,
            ),
        }
        told = [Noted(text, grave) for word, (now, text, grave) in seen.items() if now and word not in self._told]
        self._told = {word for word, (now, _, _) in seen.items() if now}
        return list(told)

    # ---- the end -------------------------------------------------------------------------------------------

    def _over(self, state: UnitState) -> list[Telling]:
        detail = "; ".join(filter(None, (self._by_whom(state), why_failed(state))))
        if self.launched and state.invocation not in ("", self.invocation):
            self.invocation = state.invocation  # it was restarted, and ended again before anybody looked
        if self.launched:
            return self._end(state.outcome, detail)
        if self.job != NO_JOB and not self._job_result and state.invocation == self._before:
            return []  # the job to start it is not taken, not through, or not told of yet
        pid = state.last if state.code else state.command[0]
        if self.asked_to_stop:
            return self._refuse(Refusal.STOPPED, "it was stopped before it was launched")
        if state.invocation == self._before or not pid:
            return self._refuse(Refusal.NOT_EXECUTABLE, f"systemd did not start it: {self._why_not(state)}")
        self.launched, self.invocation = True, state.invocation
        return [Identified(pid, state.invocation), Launched(), *self._end(state.outcome, detail)]

    def _end(self, outcome: Outcome, detail: str) -> list[Telling]:
        self.ended = True
        return [Ended(outcome, detail)]

    def _refuse(self, code: str, text: str) -> list[Telling]:
        self.ended = True
        return [Refused(code, text)]

    def _by_whom(self, state: UnitState) -> str:
        told = self.stopped_by == "stop" and state.result in ("success", "signal", "exit-code")
        likely = self.stopped_by == "?" and state.result == "success"
        return "somebody had systemd stop it" if (told or likely) and not self.asked_to_stop else ""

    def _why_not(self, state: UnitState) -> str:
        if state.unmet:
            return f"it asks for a condition that is not met: {state.unmet}"
        return why_failed(state) or _JOBS.get(self._job_result, "") or self._job_result or state.result


def _of_no_process(state: UnitState) -> str:
    """Return what is to be said of a unit that is active without any process."""
    if state.members:
        return f"the unit {state.name} has no process: it ends when one of its parts does, {', '.join(state.members)}"
    return f"the unit {state.name} has no process, so its end cannot be seen: name the one that has the process instead"
