"""What cmappmgr says of its work: the words of the log, and when they are said.

Responsible for telling people what they need at three in the morning, once. The invariant: the line of the
end says whose word the exit code is.
"""

from __future__ import annotations

import json
import time

from cmapp.core.duration import format_duration
from cmapp.core.messages import Phase
from cmapp.core.outcome import (
    Failed,
    NotStarted,
    Receipt,
    Verdict,
    describe,
    exit_code,
    signal_name,
)
from cmapp.core.pursuit import RETURNING, State
from cmapp.core.rules import Kind
from cmapp.host import result
from cmapp.host.child import spawn
from cmapp.host.notice import Notice
from cmapp.net.link import DEAF

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.messages import Launched, Report, RunReport
    from cmapp.core.opinion import Opinion
    from cmapp.host.journal import Journal
    from cmapp.host.settings import Settings
    from cmapp.host.task import Task

TROUBLE_EVERY = 30.0  # seconds between two warnings that the guest still cannot be reached
SHOWN = 200  # characters of the command that the log repeats
_HEALTHY = ("", "ok", "not checked yet")  # the health of a run of which nothing bad is known
_BEFORE = (State.IDLE, State.CONNECTING, State.WAITING, State.GREETING)
_MEANINGS = {
    "exited": "is the application's own",
    "signaled": "is 128 and the signal's number",
    "unhealthy": "means that the server stopped it for that",
    "unknown": "means that its outcome is unknown",
    "unreachable": "means that the server was unreachable",
    "guest-down": "means that the guest is down",
    "refused": "means that we were refused",
    "detached": "means that it was left on purpose",
    "failed": "means that cmappmgr could not do its work",
}


class Reporter:
    """Tells how one pursuit goes, on the package log, syslog and the result file."""

    def __init__(self, journal: Journal, settings: Settings, task: Task, notify: str = "") -> None:
        """`notify` is the address for sd_notify(3). Raises SettingsError if there could be no result file."""
        self.journal = journal
        self._notice = Notice(notify)
        self._settings = settings
        self._task = task
        self._run_id = task.launch.run_id
        self._times: dict[str, float] = {"begun": time.time()}
        self._begun = time.monotonic()
        self._launched: float | None = None
        self._lost: float | None = None
        self._held = False
        self._asked = self._dismissed = self._serves = False
        self._attempts = 0
        self._warned = 0.0
        self._told: RunReport | None = None
        self._opinion: Opinion | None = None
        self._new_result = f"{settings.result}.{self._run_id}"
        if settings.result:
            result.make_room(settings.result, self._new_result)

    # ---- the link ------------------------------------------------------------------------------------------

    def begun(self) -> None:
        """Tell what will be watched, and how soon what would be noticed."""
        task, patience = self._task, self._settings.patience
        command = task.launch.unit or " ".join(task.launch.argv) or f"what it defines as {task.launch.name}"
        shown = command if len(command) <= SHOWN else command[:SHOWN] + "..."
        silence, bound, back = map(format_duration, (patience.silence, patience.bound, patience.link_timeout))
        deaf = patience.silence if task.address.cid is not None else min(patience.silence, DEAF)  # vsock has no probes
        cut, connect = map(format_duration, (deaf, patience.connect_timeout))
        self.journal.info(
            f"watching {shown} at {task.address}, run {self._run_id}: an exit is noticed at once,"
            f" a hung guest within {silence} (polled every"
            f" {format_duration(patience.poll_interval)}, {format_duration(patience.poll_timeout)} to answer),"
            f" a link that is cut within {cut}, and each is given up {back} later, within"
            f" {bound}{self._counsel()}; the first connection has {connect}; a wait in which this host itself stood"
            " still begins anew"
        )
        self._notice.say(f"STATUS=connecting to {task.address}")

    def _counsel(self) -> str:
        """Return whose second opinion is heard before the guest is given up."""
        settings = self._settings
        if not settings.whom_to_ask:
            return ""
        who = " ".join(settings.second_opinion) or f"libvirt, about {settings.domain}"
        more = format_duration(settings.pause_timeout)
        return f", after asking {who} (a guest that is paused has {more} more)"

    def attempt_failed(self, text: str) -> None:
        """Tell why an attempt to connect failed: the first at once, the others now and then."""
        self._attempts += 1
        now = time.monotonic()
        since = self._begun if self._lost is None else self._lost
        told = f"not {'reached yet' if self._lost is None else 'back yet'}, attempt {self._attempts}: {text}"
        if self._attempts > 1 and now - self._warned < TROUBLE_EVERY:
            self.journal.debug(told)
            return
        self._warned = now
        limit = self._settings.connect_timeout if self._lost is None else self._settings.link_timeout
        left = "until it is back" if self._held else f"for another {format_duration(max(0.0, limit - (now - since)))}"
        self.journal.warning(f"{told}; trying {left}")

    def connected(self, guest: str, software: str, *, restarted: bool) -> None:
        """Tell who answers, and aloud if it cannot be who answered before."""
        if restarted:
            self.journal.warning("the guest was restarted since the application was to be launched")
        self.journal.debug(f"connected to {software or 'a server'} in {guest or 'the guest'}")

    def lost(self, text: str, *, held: bool) -> None:
        """Tell that the link is lost, which says nothing of the application."""
        self._lost, self._attempts, self._warned, self._held = time.monotonic(), 0, 0.0, held
        limit = self._settings.link_timeout
        trying = "trying until it is back, as it is held" if held else f"trying for {format_duration(limit)}"
        if held or limit:
            self.journal.warning(f"lost the link: {text}; the application may well go on, {trying}")
        self._notice.say(f"STATUS=lost the link: {text}; {trying}")

    def overslept(self, seconds: float) -> None:
        """Tell that the clock says more of us than of the guest."""
        self.journal.warning(
            f"this process, or its host, stood still for {format_duration(seconds)}: what it waits for has its whole"
            " time again"
        )

    def opinion(self, opinion: Opinion) -> None:
        """Tell what others say of the guest, if that is new."""
        before, self._opinion = self._opinion, opinion
        if before is None or before.state is not opinion.state:
            self.journal.warning(
                f"of the guest it is said: {opinion.text}{'; it has more time' if opinion.standing else ''}"
            )
        else:
            self.journal.debug(f"of the guest it is said again: {opinion.text}")

    # ---- the run -------------------------------------------------------------------------------------------

    def launched(self, launched: Launched) -> None:
        """Tell that it runs, or that it still does."""
        self._tell_launched(launched)
        self._note_launched(launched)

    def _tell_launched(self, launched: Launched) -> None:
        back, self._lost, now = self._lost, None, time.monotonic()
        if launched.run_id != self._run_id:
            self.journal.info(f"run {self._run_id} is not needed: one of that name is there, run {launched.run_id}")
            self._run_id = launched.run_id
        if self._launched is not None and back is not None:
            self._opinion = None
            self.journal.info(f"back after {format_duration(now - back)}: pid {launched.pid}, run {launched.run_id}")
            return
        self._times["launched"] = time.time()
        self._launched = now
        how = "found running" if launched.attached else "launched"
        took = format_duration(self._launched - self._begun)
        self.journal.info(f"{how} as pid {launched.pid}, run {launched.run_id}, {took} after the start")

    def ready(self) -> None:
        """Tell that it serves."""
        since = self._begun if self._launched is None else self._launched
        self._times.setdefault("ready", time.time())
        self.journal.info(f"is ready, {format_duration(time.monotonic() - since)} after its launch")
        self._note_serving()

    def _note_launched(self, launched: Launched) -> None:
        """Say to whoever started us that it runs, which is all there is to wait for if nothing else was asked."""
        again = f"STATUS=running as pid {launched.pid}"
        first = f"X_CMAPP_RUN_ID={launched.run_id}", f"X_CMAPP_ATTACHED={int(launched.attached)}"
        self._notice.say(again, *(() if self._serves else first))
        launch = self._task.launch
        if launch.argv and launch.ready is None and launch.kind is Kind.SIMPLE:
            self._note_serving()

    def _note_serving(self) -> None:
        if not self._serves:
            self._serves = True
            self._notice.say("READY=1")

    def reported(self, report: Report) -> None:
        """Tell what the answer to a poll was, and aloud what is new in it."""
        run, told = report.run, self._told
        self._told = run
        if run.state is Phase.RUNNING and run.ready is None:  # what the guest defines may have nothing to wait for
            self._note_serving()
        if run.state is Phase.WAITING and (told is None or told.state is not Phase.WAITING):
            self.journal.info("waits for the end of the run before, or to see whether its manager still answers")
        if run.held != (told is not None and told.held):
            self.journal.info("is held: nothing acts on it" if run.held else "is no longer held")
        if run.health != ("" if told is None else told.health):
            self._tell_health(run.health, before="" if told is None else told.health)
        if run.status and run.status != (told and told.status):
            who = "of its unit it is told" if self._task.launch.unit else "says of itself"
            self.journal.info(f"{who}: {run.status}")
        self.journal.debug(
            f"{run.state.value}, pid {run.pid}, up {format_duration(run.uptime)}, {run.cpu:.2f} s of processor"
            f" time, {run.memory // 1024} KiB in {run.processes} processes"
        )

    def asked_to_stop(self, number: int, state: State) -> None:
        """Tell on which signal what is asked of the server."""
        name = f"SIG{signal_name(number)}"
        settings = self._settings
        if state in _BEFORE:
            self.journal.info(f"asked to stop by {name} before it was launched")
        elif self._asked:
            self.journal.warning(f"asked to stop by {name} again: asking the server to kill it at once{_when(state)}")
        else:
            self.journal.info(
                f"asked to stop by {name}: asking the server for {settings.stop_words} and, after"
                f" {format_duration(settings.stop_timeout)}, SIGKILL{_when(state)}"
            )
        self._asked = True

    def asked_to_leave(self, number: int, state: State) -> None:
        """Tell on which signal the run is to be left to a later manager."""
        name = f"SIG{signal_name(number)}"
        if state in _BEFORE:
            self.journal.info(f"asked to leave it by {name} before it was launched")
        elif self._asked:
            self.journal.warning(f"asked to leave it by {name}, but it is being stopped already")
        else:
            self.journal.info(f"asked to leave it by {name}: asking the server to let it run{_when(state)}")
        self._dismissed = True

    def not_left(self, text: str) -> None:
        """Tell that the server does not let us leave."""
        self.journal.error(f"the server does not let it run without us: {text}; it is watched on")
        self._dismissed = False

    # ---- the end -------------------------------------------------------------------------------------------

    def concluded(self, verdict: Verdict) -> None:
        """Tell how it ended, to the log and to the result file."""
        self._times["concluded"] = time.time()
        code = exit_code(verdict)
        text = f"{describe(verdict)}{self._since(verdict)}; exit code {code} {_meaning(verdict)}"
        asked = self._asked and isinstance(verdict, (Receipt, Failed))
        self.journal.conclude(text, well=code == 0 or asked)
        if self._settings.result:
            self._write_result(verdict, text)
        if self._settings.on_end and not (self._asked or self._dismissed):
            self._send_for_help(verdict)
        self._notice.say("STOPPING=1", f"STATUS={text}")

    def _send_for_help(self, verdict: Verdict) -> None:
        """Start the command that somebody wants to have started at once, whatever becomes of it."""
        told = {
            "CMAPP_NAME": self._task.launch.name,
            "CMAPP_RUN_ID": self._run_id,
            "CMAPP_CAUSE": result.cause(verdict),
            "CMAPP_EXIT_CODE": str(exit_code(verdict)),
        }
        try:
            spawn(self._settings.on_end, env=told)
        except OSError as error:
            self.journal.error(f"{self._settings.on_end[0]} cannot be started at its end: {error.strerror}")

    def _since(self, verdict: Verdict) -> str:
        if isinstance(verdict, Receipt):
            return ""
        since = self._begun if self._launched is None else self._launched
        what = "the start" if self._launched is None else "its launch"
        return f", {format_duration(time.monotonic() - since)} after {what}"

    def _tell_health(self, health: str, before: str) -> None:
        if health not in _HEALTHY:
            self.journal.warning(f"its health: {health}")
        elif before not in _HEALTHY:
            self.journal.info("is healthy again")

    def _write_result(self, verdict: Verdict, text: str) -> None:
        keys = {
            "cause": result.cause(verdict),
            "exit_code": exit_code(verdict),
            "text": text,
            "name": self._task.launch.name,
            "guest": self._task.guest.host,
            "run_id": self._run_id,
            **result.details(verdict),
            **self._times,
        }
        path = self._settings.result
        try:
            result.replace(path, self._new_result, json.dumps(keys).encode() + b"\n")
        except OSError as error:
            self.journal.error(f"the result cannot be written to {path}: {error.strerror}")


def _when(state: State) -> str:
    return ", as soon as it is back" if state in RETURNING else ""


def _meaning(verdict: Verdict) -> str:
    if isinstance(verdict, NotStarted):
        return f"means that the command {'could not be executed' if verdict.found else 'was not found'}"
    return _MEANINGS[result.cause(verdict)]
