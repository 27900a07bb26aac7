"""The manager: carries out what the pursuit of one run says.

It is one loop around poll(2) over one call of the server and one descriptor that signals wake. Bytes become
messages, messages events, events actions, and the actions are carried out here; nothing calls back.
The invariant: the end is in the log and in the result file before any action of it is carried out, so an
acknowledgement that reaches the server says that the outcome is kept.
"""

from __future__ import annotations

import math
import os
import select
import time

from cmapp.core import messages as m
from cmapp.core.duration import format_duration
from cmapp.core.outcome import Failed, NotStarted, Refused, Unreachable, Verdict, describe
from cmapp.core.pursuit import ATTEMPT_LIMIT, LINKED, Action, Event, Pursuit, State
from cmapp.core.rules import OnExisting
from cmapp.errors import LinkError, RemoteProtocolError, TrustError, internal_error
from cmapp.host.call import Call
from cmapp.host.halts import DISMISSAL, Halts
from cmapp.host.output import sink_for
from cmapp.host.requests import HELLO_ID, Requests
from cmapp.host.task import LAUNCH_ID, lacking, meaning_of
from cmapp.net.keyring import Reminder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmapp.host.opinion import Question
    from cmapp.host.report import Reporter
    from cmapp.host.settings import Settings
    from cmapp.host.task import Task
    from cmapp.net.keyring import Keyring

LONGEST_WAIT = 86400.0  # seconds: poll(2) counts milliseconds in an int
_CALLING = (State.CONNECTING, State.RECONNECTING)
_BETWEEN = (State.WAITING, State.AWAY)


class Manager:
    """One pursuit, from the first attempt to connect to its verdict."""

    def __init__(self, settings: Settings, task: Task, keyring: Keyring, reporter: Reporter) -> None:
        self._task = task
        self._requests = Requests(task.launch, settings.patience.silence)
        self._keyring = keyring
        self._reminder = Reminder(keyring)
        self._reporter = reporter
        self._dismissals = (DISMISSAL, settings.detach_on_signal)
        self._output = sink_for(settings.output, reporter.journal)
        self._pursuit = Pursuit(settings.patience, _chance, resume=settings.resume)
        self._waited = 0.0
        self._call: Call | None = None
        self._halts = Halts()
        self._question = _question(settings.whom_to_ask)

    def run(self) -> Verdict:
        """Pursue the run to its end and return the verdict, which was told; a defect of ours is one too."""
        try:
            self._halts.listen()
            self._reporter.begun()
            self._step(Event.BEGUN)
            while (verdict := self._pursuit.verdict) is None:
                self._turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line and a code of its own
            failed = Failed(internal_error(error))
            self._reporter.journal.refuse(failed.text)
            self._step(Event.BROKEN, failed)
            verdict = self._pursuit.verdict or failed
        if self._question is not None:
            self._question.end()
        self._output.drain()
        return verdict

    # ---- one turn of the loop ------------------------------------------------------------------------------

    def _turn(self) -> None:
        waiting = select.poll()
        waiting.register(self._halts.descriptor, select.POLLIN)
        for descriptor in self._output.waiting():
            waiting.register(descriptor, select.POLLOUT)
        if self._question is not None:
            self._question.register(waiting)
        called = -1 if self._call is None else self._call.register(waiting)
        ready = dict(waiting.poll(self._patience()))
        self._output.flush()
        try:
            if self._halts.descriptor in ready:
                self._signaled()
            if self._question is not None:
                self._hear_opinion(self._question)
            if self._call is not None:
                self._go_on(self._call, ready=called in ready)
            self._look_at_the_clock()
        except TrustError as error:
            self._step(Event.DENIED, Refused("trust", str(error)))
        except RemoteProtocolError as error:
            reason = f"the server said what it must not say: {error}"
            self._hang_up(reason)
            self._lose(reason)
        except LinkError as error:
            self._hear_the_rest(str(error))

    def _patience(self) -> int:
        """Return for how many milliseconds nothing has to be done."""
        deadline = math.inf if self._pursuit.deadline is None else self._pursuit.deadline
        if self._question is not None:
            deadline = min(deadline, self._question.deadline)
        if self._call is not None:
            deadline = min(deadline, self._call.deadline)
        left = deadline - time.monotonic()
        return max(0, math.ceil(min(left, LONGEST_WAIT) * 1000))

    def _look_at_the_clock(self) -> None:
        before = self._pursuit.state
        actions = self._pursuit.clock(time.monotonic(), self._waited)
        self._waited = 0.0
        if self._pursuit.overslept:
            self._reporter.overslept(self._pursuit.overslept)
        what = "greet us" if before in (State.GREETING, State.REGREETING) else "finish the TLS handshake"
        limit = format_duration(ATTEMPT_LIMIT)
        self._tell_loss(before, f"{self._task.guest.host} did not {what} within {limit}; it may be hung")
        self._carry_out(actions)
        for line in self._reminder.due(time.monotonic(), time.time()):
            self._reporter.journal.warning(line)

    def _signaled(self) -> None:
        for number in self._halts.heard():
            state = self._pursuit.state
            if number in self._dismissals:
                self._reporter.asked_to_leave(number, state)
                self._step(Event.DISMISSED)
            else:
                self._reporter.asked_to_stop(number, state)
                self._step(Event.SIGNALED)

    def _hear_opinion(self, question: Question) -> None:
        now = time.monotonic()
        opinion = question.answer(now)
        if opinion is not None:
            self._reporter.opinion(opinion)
            self._carry_out(self._pursuit.opine(opinion, now))

    # ---- what the server says ------------------------------------------------------------------------------

    def _go_on(self, call: Call, *, ready: bool) -> None:
        if self._pursuit.state in _CALLING:
            began = time.monotonic()
            try:
                proven = call.connect(began, ready=ready)
            finally:
                self._waited = time.monotonic() - began  # the system's resolver may take its time
            if proven:
                if call.certificate is not None:
                    self._reminder.met(self._task.guest.host, call.certificate)
                self._step(Event.CONNECTED)
                ready = self._call is call  # what came with the handshake no poll(2) would tell of
        if ready and self._pursuit.state not in _CALLING:
            self._hear_all(call)

    def _hear_all(self, call: Call, *, to_the_end: bool = False) -> None:
        for message in call.hear(to_the_end=to_the_end):
            self._hear(message)
            if self._call is not call:
                break

    def _hear_the_rest(self, reason: str) -> None:
        """Hear what came before the link broke for `reason`, and lose it for the best reason that there is.

        It may be the outcome, or why the server hung up, or that it does not trust us.
        """
        try:
            if self._call is not None and self._call.spoken:
                self._hear_all(self._call, to_the_end=True)
        except TrustError as error:
            self._step(Event.DENIED, Refused("trust", str(error)))
        except LinkError as error:
            reason = str(error)
        except RemoteProtocolError:
            pass
        if self._call is not None:
            self._lose(reason)

    def _hear(self, message: m.Message | m.Unrecognized) -> None:
        match message:
            case m.Welcome():
                self._welcomed(message)
            case m.Launched():
                self._launched(message)
            case m.Ready(run_id=run_id):
                self._check_run(run_id)
                self._reporter.ready()
            case m.Report(run=run):
                self._check_run(run.run_id)
                self._pursuit.held = run.held
                self._reporter.reported(message)
                self._step(Event.REPORTED)
            case m.Output():
                self._output.take(message)
            case m.Exited(receipt=receipt):
                self._check_run(receipt.run_id)
                self._step(Event.EXITED, receipt)
            case m.Done(id=number) if number == self._requests.detach_id:
                self._step_and_tell(Event.DETACHED)
            case m.Refused():
                self._refused(message)
            case m.Bye(reason=reason):
                raise LinkError(f"{self._task.guest.host} hung up: {reason or 'it gave no reason'}")

    def _welcomed(self, welcome: m.Welcome) -> None:
        if welcome.version not in m.VERSIONS:
            raise RemoteProtocolError(f"version {welcome.version}, which we did not offer")
        self._pursuit.meet(welcome.boot_id)
        self._reporter.connected(welcome.guest, welcome.software, restarted=self._pursuit.restarted)
        missing = lacking(self._requests.launch, welcome.features)
        if missing and not self._pursuit.resume:
            what = f"{welcome.software or 'the server'} cannot do what this launch needs: {', '.join(missing)}"
            self._step(Event.DENIED, Refused(m.Refusal.UNSUPPORTED, what))
        else:
            self._step(Event.WELCOMED)

    def _launched(self, launched: m.Launched) -> None:
        ours = self._requests.launch
        attaches = launched.attached and ours.on_existing is OnExisting.ATTACH
        if launched.run_id != ours.run_id and attaches and not self._pursuit.resume:
            self._requests.adopt(launched.run_id)
        self._check_run(launched.run_id)
        self._reporter.launched(launched)
        self._step(Event.LAUNCHED)
        if not self._task.launch.argv and self._pursuit.state is State.WATCHING:
            self._say(self._requests.poll())  # whether there is anything to wait for is the guest's to say

    def _check_run(self, run_id: str) -> None:
        if run_id != self._requests.launch.run_id:
            raise RemoteProtocolError(f"something about the run {run_id}, which is not ours")

    def _refused(self, refused: m.Refused) -> None:
        """Conclude from a refusal. One of a poll or a stop should not be, and ends the pursuit too."""
        verdict = meaning_of(refused)
        if refused.id == self._requests.detach_id:
            self._reporter.not_left(refused.text)
            if self._pursuit.state is State.DETACHING:
                self._step(Event.REFUSED, verdict)
        elif isinstance(verdict, NotStarted):
            self._step(Event.NOT_STARTED, verdict)
        else:
            self._step(Event.REFUSED if refused.id in (HELLO_ID, LAUNCH_ID) else Event.DENIED, verdict)

    # ---- what is to be done --------------------------------------------------------------------------------

    def _lose(self, text: str) -> None:
        self._step_and_tell(Event.LINK_LOST, Unreachable(text))

    def _step_and_tell(self, event: Event, because: Unreachable | None = None) -> None:
        before = self._pursuit.state
        actions = self._pursuit.step(event, time.monotonic(), because)
        self._tell_loss(before, "" if because is None else because.text)
        self._carry_out(actions)

    def _tell_loss(self, before: State, text: str) -> None:
        """Tell that a link was lost, or that an attempt to have one failed, if that is what happened."""
        if self._pursuit.state in _BETWEEN and before not in _BETWEEN:
            if before in LINKED:
                self._reporter.lost(self._pursuit.loss, held=self._pursuit.held)
            else:
                self._reporter.attempt_failed(text)

    def _step(self, event: Event, because: Verdict | None = None) -> None:
        self._carry_out(self._pursuit.step(event, time.monotonic(), because))

    def _carry_out(self, actions: tuple[Action, ...]) -> None:
        if Action.CONCLUDE in actions and self._pursuit.verdict is not None:
            self._output.end()
            self._reporter.concluded(self._pursuit.verdict)
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        verdict = self._pursuit.verdict
        match action:
            case Action.CONNECT:
                self._call = Call(self._task.guest.host, self._task.address, self._keyring.context())
            case Action.SAY_HELLO:
                self._say(self._requests.hello())
            case Action.LAUNCH:
                self._say(self._requests.launching(self._output.position, resume=self._pursuit.resume))
            case Action.POLL:
                self._say(self._requests.poll())
            case Action.STOP | Action.KILL:
                self._say(self._requests.stop(kill=action is Action.KILL))
            case Action.DETACH:
                self._say(self._requests.detach())
            case Action.ASK if self._question is not None:
                self._question.ask(time.monotonic())
            case Action.ACKNOWLEDGE if self._call is not None:
                self._call.say_at_last(self._requests.acknowledge())
            case Action.HANG_UP:
                self._hang_up("trying again" if verdict is None else describe(verdict))

    def _say(self, message: m.Message) -> None:
        if self._call is not None:
            self._call.say(message)

    def _hang_up(self, reason: str) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.hang_up(reason)


def _question(command: Sequence[str]) -> Question | None:
    """Return whom to ask about the guest, if there is anybody."""
    if not command:
        return None
    from cmapp.host.opinion import Question  # noqa: PLC0415 - costs part of a millisecond, and most ask nobody

    return Question(command)


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32
