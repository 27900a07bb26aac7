"""The manager: carries out what the pursuit of one run says.

It is one loop around poll(2) over one link (before it, one dial) and one descriptor that signals wake. Bytes
become messages, messages events, events actions, and the actions are carried out here; nothing calls back.
The invariant: the end is in the log and in the result file before any action of it is carried out, so an
acknowledgement that reaches the server says that the outcome is kept.
"""

from __future__ import annotations

import math
import os
import select
import time

import cmapp
from cmapp.core import messages as m
from cmapp.core.duration import format_duration
from cmapp.core.outcome import Failed, NotStarted, Refused, Unreachable, Verdict, describe
from cmapp.core.pursuit import ATTEMPT_LIMIT, Action, Event, Pursuit, State
from cmapp.core.session import Role as Side
from cmapp.core.session import Session
from cmapp.core.session import State as Said
from cmapp.core.text import printable
from cmapp.errors import LinkError, RemoteProtocolError, TrustError, place_of
from cmapp.host.dial import Dial
from cmapp.host.halts import Halts
from cmapp.host.output import sink_for
from cmapp.host.settings import LAUNCH_ID
from cmapp.net.link import Link
from cmapp.net.tls import Role, explain, peer_identity, require_role

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl

    from cmapp.host.report import Reporter
    from cmapp.host.settings import Settings, Task

SOFTWARE = f"cmapp/{cmapp.__version__}"
SILENCE_MARGIN = 5.0  # seconds beyond the longest silence of ours, before the server may take us for lost
SEND_LIMIT = 256 * 1024  # bytes that may wait for the server
READS = 64  # turns of reading in a row: a flood of output must not keep the clock from being looked at
REASON_LIMIT = 500  # characters of what our bye repeats
LONGEST_WAIT = 86400.0  # seconds: poll(2) counts milliseconds in an int
HELLO_ID = 1
_FOUND = {  # the refusals of a launch that mean that the command never ran, and whether it was found
    m.Refusal.NOT_FOUND: False,
    m.Refusal.NOT_EXECUTABLE: True,
    m.Refusal.NO_SUCH_USER: True,
    m.Refusal.NO_SUCH_DIRECTORY: True,
    m.Refusal.NOT_PERMITTED: True,
}


class Manager:
    """One pursuit, from the first attempt to connect to its verdict."""

    def __init__(self, settings: Settings, task: Task, context: ssl.SSLContext, reporter: Reporter) -> None:
        self._task = task
        self._context = context
        self._reporter = reporter
        self._silence = settings.patience.silence + SILENCE_MARGIN
        self._output = sink_for(settings.output, reporter.journal)
        self._pursuit = Pursuit(settings.patience, _chance)
        self._session = Session(Side.MANAGER)
        self._requests = LAUNCH_ID
        self._parting = b""  # what leaves in one write with our bye
        self._dial: Dial | None = None
        self._link: Link | None = None
        self._halts = Halts()

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
        self._output.drain()
        return verdict

    # ---- one turn of the loop ------------------------------------------------------------------------------

    def _turn(self) -> None:
        ready = self._wait()
        self._output.flush()
        try:
            if self._halts.descriptor in ready:
                self._signaled()
            if self._dial is not None:
                self._go_on_dialing(self._dial)
            elif self._link is not None and self._link.fileno() in ready:
                self._go_on(self._link)
            self._look_at_the_clock()
        except TrustError as error:
            self._step(Event.DENIED, Refused("trust", str(error)))
        except RemoteProtocolError as error:
            reason = f"the server said what it must not say: {error}"
            self._hang_up(reason)
            self._lose(reason)
        except LinkError as error:
            self._lose(self._read_the_rest(str(error)))

    def _wait(self) -> dict[int, int]:
        """Wait until something has to be done, and return the descriptors that are ready."""
        waiting = select.poll()
        waiting.register(self._halts.descriptor, select.POLLIN)
        for descriptor in self._output.waiting():
            waiting.register(descriptor, select.POLLOUT)
        deadlines = [] if self._pursuit.deadline is None else [self._pursuit.deadline]
        if self._dial is not None:
            deadlines.append(self._dial.deadline)
            if self._dial.sock is not None:
                waiting.register(self._dial.sock, select.POLLOUT)
        elif self._link is not None:
            waiting.register(self._link, select.POLLIN | (select.POLLOUT if self._link.wants_write else 0))
        left = min(deadlines, default=math.inf) - time.monotonic()
        return dict(waiting.poll(max(0, math.ceil(min(left, LONGEST_WAIT) * 1000))))

    def _look_at_the_clock(self) -> None:
        before = self._pursuit.state
        self._carry_out(self._pursuit.clock(time.monotonic()))
        if self._pursuit.state is State.WAITING and before is not State.WAITING:
            what = "greet us" if before is State.GREETING else "finish the TLS handshake"
            guest, limit = self._task.guest.host, format_duration(ATTEMPT_LIMIT)
            self._reporter.attempt_failed(f"{guest} did not {what} within {limit}; it may be hung")

    def _signaled(self) -> None:
        for number in self._halts.heard():
            linked = self._pursuit.state in (State.LAUNCHING, State.WATCHING, State.STOPPING)
            self._reporter.asked_to_stop(number, linked=linked)
            self._step(Event.SIGNALED)

    # ---- connecting ----------------------------------------------------------------------------------------

    def _go_on_dialing(self, dial: Dial) -> None:
        sock = dial.step(time.monotonic())
        if sock is None:
            return
        self._dial, peer = None, self._task.guest.host
        try:
            self._link = Link(sock, self._context, peer=peer, limit=SEND_LIMIT, guest=peer)
        except OSError as error:
            sock.close()
            raise explain(error, peer=peer) from None
        self._go_on(self._link)

    def _go_on(self, link: Link) -> None:
        if self._pursuit.state is not State.CONNECTING:
            if link.wants_write:
                link.flush()
            self._read(link)
        elif link.handshake():
            require_role(peer_identity(link.tls), Role.GUEST)
            self._step(Event.CONNECTED)

    # ---- what the server says ------------------------------------------------------------------------------

    def _read(self, link: Link) -> bool:
        """Hear what has come; return whether there may be more, which is for after a look at the clock."""
        for _ in range(READS):
            data = link.read()
            if data is None:
                raise LinkError(f"{link.peer} closed the connection without a word; its cmappserver may have ended")
            if not data:
                return False
            for message in self._session.receive(data):
                self._hear(message)
                if self._link is not link:
                    return False
        return True

    def _read_the_rest(self, reason: str) -> str:
        """Hear what came before the link broke for `reason`, and return the best reason there is.

        It may be the outcome, or why the server hung up, or that it does not trust us.
        """
        if self._link is None or self._session.state in (Said.NEW, Said.CLOSED):
            return reason
        try:
            while self._read(self._link):
                pass
        except TrustError as error:
            self._step(Event.DENIED, Refused("trust", str(error)))
        except LinkError as error:
            return str(error)
        except RemoteProtocolError:
            pass
        return reason

    def _hear(self, message: m.Message | m.Unrecognized) -> None:
        match message:
            case m.Welcome():
                if message.version not in m.VERSIONS:
                    raise RemoteProtocolError(f"version {message.version}, which we did not offer")
                self._reporter.connected(message.guest, message.software)
                self._step(Event.WELCOMED)
            case m.Launched(run_id=run_id):
                self._check_run(run_id)
                self._reporter.launched(message)
                self._step(Event.LAUNCHED)
            case m.Report(run=run):
                self._check_run(run.run_id)
                self._reporter.reported(message)
                self._step(Event.REPORTED)
            case m.Output():
                self._output.take(message)
            case m.Exited(receipt=receipt):
                self._check_run(receipt.run_id)
                self._step(Event.EXITED, receipt)
            case m.Refused():
                self._refused(message)
            case m.Bye(reason=reason):
                raise LinkError(f"{self._task.guest.host} hung up: {reason or 'it gave no reason'}")

    def _check_run(self, run_id: str) -> None:
        if run_id != self._task.launch.run_id:
            raise RemoteProtocolError(f"something about the run {run_id}, which is not ours")

    def _refused(self, refused: m.Refused) -> None:
        """Conclude from a refusal. One of a poll or a stop should not be, and ends the pursuit too."""
        verdict = Refused(refused.code, f"{refused.text} ({refused.code})")
        if refused.id == LAUNCH_ID and refused.code in _FOUND:
            self._step(Event.NOT_STARTED, NotStarted(_FOUND[refused.code], refused.text))
        elif refused.id in (HELLO_ID, LAUNCH_ID):
            self._step(Event.REFUSED, verdict)
        else:
            self._step(Event.DENIED, verdict)

    # ---- what is to be done --------------------------------------------------------------------------------

    def _lose(self, text: str) -> None:
        self._step(Event.LINK_LOST, Unreachable(text))
        if self._pursuit.state is State.WAITING:
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
                self._session = Session(Side.MANAGER)
                self._dial = Dial(self._task.address)
            case Action.SAY_HELLO:
                node = os.uname().nodename
                self._say(m.Hello(HELLO_ID, m.VERSIONS, SOFTWARE, node, silence=self._silence))
            case Action.LAUNCH:
                self._say(self._task.launch)
            case Action.POLL:
                self._say(m.Poll(self._next_id()))
            case Action.STOP:
                self._say(m.Stop(self._next_id()))
            case Action.KILL:
                self._say(m.Stop(self._next_id(), kill=True))
            case Action.ACKNOWLEDGE:
                self._parting = self._session.send(m.Acknowledge(self._next_id(), self._task.launch.run_id))
            case Action.HANG_UP:
                self._hang_up("trying again" if verdict is None else describe(verdict))

    def _next_id(self) -> int:
        self._requests += 1
        return self._requests

    def _say(self, message: m.Message) -> None:
        if self._link is not None:
            self._link.write(self._session.send(message))

    def _hang_up(self, reason: str) -> None:
        """Say bye if there was a hello, and close, as far as all that goes without waiting."""
        if self._dial is not None:
            self._dial.close()
        link, self._dial, self._link = self._link, None, None
        if link is None:
            return
        try:
            if self._session.state not in (Said.NEW, Said.CLOSED):
                link.write(self._parting + self._session.send(m.Bye(printable(reason)[:REASON_LIMIT])))
            # Closing while there is something left to read would reset what the server has not read yet.
            for _ in range(READS):
                if not link.read():
                    break
        except (LinkError, TrustError):
            pass
        link.hang_up()
        link.close()


def internal_error(error: BaseException) -> str:
    """Return one line for a defect of ours: what it is, and where."""
    place = place_of(error)
    return f"internal error: {type(error).__name__}: {error}{place and f', at {place}'}"


def _chance() -> float:
    return int.from_bytes(os.urandom(4), "big") / 2**32
