"""One manager's connection: what it says is asked of the supervisor, what the roster says to it is sent.

Data goes one way: bytes, messages, the supervisor's methods; what comes back is a message to be said. Output is
sent from offsets that the manager names, as fast as it takes it; what is no longer kept when its turn comes is
told as dropped. The invariant: a manager hears of and touches only the run that it answers for on this link.
"""

from __future__ import annotations

import logging
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.core.session import Role, Session, State, agree
from cmapp.core.text import printable
from cmapp.core.wire import LINE_LIMIT
from cmapp.errors import ProtocolError
from cmapp.guest.channel import Channel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from cmapp.guest.output import Capture
    from cmapp.guest.supervisor import Supervisor
    from cmapp.net.link import Link
    from cmapp.net.tls import Identity

log = logging.getLogger(__name__)

SEND_LIMIT = 512 * 1024  # bytes that may wait for a manager: beyond it is not reading, and is let go
OUTPUT_LIMIT = 128 * 1024  # bytes that may wait while output is still added: the rest waits in the spool
LAST_OUTPUT = 256 * 1024  # the same when the run has ended, and there is no later
RUNS_ROOM = LINE_LIMIT - 1024  # bytes of reports in one answer
FEATURES = (
    "attach",
    "health",
    "hold",
    "kinds",
    "limits",
    "orphans",
    "output",
    "readiness",
    "status",
    "tail",
)


class Connection:
    """A manager, from its TCP connection on; `proven` and `closed` are called once each, when it is so."""

    __slots__ = (
        "_channel",
        "_closed",
        "_fetching",
        "_launch",
        "_offsets",
        "_passing",
        "_proven",
        "_run_id",
        "_session",
        "_silence",
        "_supervisor",
        "heard",
        "manager",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        supervisor: Supervisor,
        *,
        proven: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.manager = ""
        self.heard = time.monotonic()
        self._supervisor = supervisor
        self._proven = proven
        self._closed = closed
        self._session = Session(Role.SERVER)
        self._launch: m.Launch | None = None
        self._run_id = ""
        self._offsets: dict[m.Stream, int] = {}
        self._fetching = self._passing = False
        self._silence: float | None = supervisor.settings.handshake_timeout  # until its hello says better
        self._channel = Channel(
            loop,
            link,
            proven=self._on_proven,
            heard=self._on_heard,
            drained=self.pass_output,
            closed=self._on_closed,
        )

    # ---- what the server and the supervisor ask ------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Tell whether the manager has been silent for longer than it said it would ever be."""
        return self._silence is not None and now - self.heard > self._silence and not self._channel.ending

    @property
    def concluding(self) -> bool:
        """Whether the manager was told its end, and has yet to say that it recorded it."""
        return self._session.state is State.ENDED

    def say(self, message: m.Message) -> None:
        """Say a message, unless the link is being closed; before the end of the run, what it wrote last."""
        if isinstance(message, m.Exited):
            self._pass_last_output()
        if self._session.state is not State.CLOSED:
            self._channel.send(self._session.send(message))
        if isinstance(message, m.Launched):
            self._run_id = message.run_id
            for stream, capture in self._captures():
                capture.rebase(self._offsets[stream])
            self.pass_output()

    def pass_output(self) -> None:
        """Send what the run has written and the manager has not got yet, as far as there is room for it."""
        if self._passing:
            return
        self._passing = True
        for stream, capture in self._captures():
            while self._wants(stream, capture, OUTPUT_LIMIT) and not self._fetching:
                self._fetching = True
                capture.fetch(self._offsets[stream], m.OUTPUT_CHUNK, partial(self._fetched, stream))
        self._passing = False

    def _fetched(self, stream: m.Stream, begin: int, data: bytes) -> None:
        """Send what came from memory, at once, or from the disk, later."""
        self._fetching = False
        if begin >= self._offsets[stream]:
            self._send_output(stream, begin, data)
        self.pass_output()

    def _pass_last_output(self) -> None:
        """Send what there is room for, though it is the disk that has it, and tell the rest as dropped."""
        for stream, capture in self._captures():
            while self._wants(stream, capture, LAST_OUTPUT):
                self._send_output(stream, *capture.since(self._offsets[stream], m.OUTPUT_CHUNK))
            if self._wants(stream, capture, SEND_LIMIT):
                self._send_output(stream, capture.total, b"")

    def _captures(self) -> list[tuple[m.Stream, Capture]]:
        found = [(stream, self._supervisor.output(self._run_id, stream)) for stream in self._offsets]
        return [(stream, capture) for stream, capture in found if capture is not None]

    def _wants(self, stream: m.Stream, capture: Capture, room: int) -> bool:
        watching = self._session.state is State.WATCHING
        return watching and self._channel.waiting < room and self._offsets[stream] < capture.total

    def _send_output(self, stream: m.Stream, begin: int, data: bytes) -> None:
        dropped, self._offsets[stream] = begin - self._offsets[stream], begin + len(data)
        self.say(m.Output(stream, begin, data, dropped=dropped))

    def dismiss(self, reason: str) -> None:
        """Say why, and hang up; the run is without this manager from here on."""
        if not self.manager:  # who is not proven is told nothing
            self.close()
            return
        self.say(m.Bye(reason))
        self._supervisor.lost(self)
        self._channel.end()

    def close(self) -> None:
        """Close without a word."""
        self._channel.close("")

    def __str__(self) -> str:
        """Name the peer for the log."""
        return self._channel.peer

    # ---- what the channel tells ----------------------------------------------------------------------------

    def _on_proven(self, identity: Identity) -> None:
        self.manager = identity.name
        log.info("%s connected", self)
        self._proven(self)

    def _on_heard(self, data: bytes) -> None:
        self.heard = time.monotonic()
        self._supervisor.heard(self)
        try:
            for message in self._session.receive(data):
                self._HEARD[type(message)](self, message)
        except ProtocolError as error:
            log.warning("%s: %s", self, error)
            self.dismiss(str(error))

    def _on_closed(self, reason: str) -> None:
        if reason:
            level = logging.INFO if self._supervisor.answers_for(self) else logging.DEBUG
            log.log(level, "%s", reason)
        self._supervisor.lost(self)
        self._closed(self)

    # ---- what the manager says -----------------------------------------------------------------------------

    def _greet(self, hello: m.Hello) -> None:
        version = agree(hello.versions)
        if version is None:
            text = f"this server speaks only version {', '.join(map(str, m.VERSIONS))} of the protocol"
            self.say(m.Refused(m.Refusal.VERSION, text, id=hello.id))
            self._channel.end()
            return
        self._silence = hello.silence
        self._supervisor.greet(self, hello.instance)
        boot_id = self._supervisor.boot_id
        self.say(m.Welcome(hello.id, version, SOFTWARE, socket.gethostname(), boot_id, FEATURES))

    def _launch_it(self, launch: m.Launch) -> None:
        self._launch = launch
        if launch.output:
            self._offsets = {m.Stream.STDOUT: launch.stdout_from, m.Stream.STDERR: launch.stderr_from}
        self._supervisor.launch(self, launch)

    def _poll(self, poll: m.Poll) -> None:
        report, waits = self._supervisor.report(self), self._session.state is State.LAUNCHING
        if waits and report is not None and self._launch is not None and report.run_id != self._launch.run_id:
            report = None  # it is bound to another run, which it is to be told first
        if report is None and self._launch is not None:
            phase = m.Phase.WAITING if waits else m.Phase.ENDED
            report = m.RunReport(self._launch.name, self._launch.run_id, phase)
        if report is None:
            self.say(m.Refused(m.Refusal.NO_RUN, "there is no run on this link", id=poll.id))
        else:
            self.say(m.Report(poll.id, report))

    def _status(self, status: m.Status) -> None:
        reports, more = self._supervisor.reports(self.manager, status.after, RUNS_ROOM)
        self.say(m.Runs(status.id, tuple(reports), more=more))

    def _tail(self, tail: m.Tail) -> None:
        capture = self._supervisor.output(self._run_id, tail.stream)
        offset, data = (0, b"") if capture is None else capture.tail(tail.limit)
        self.say(m.Output(tail.stream, offset, data, id=tail.id))

    def _bye(self, bye: m.Bye) -> None:
        self._channel.close(f"{self} said bye: {printable(bye.reason)}")

    def _unrecognized(self, line: m.Unrecognized) -> None:
        log.warning("%s asked for %s, which this version does not know", self, line.type)
        if line.id is not None:
            text = f"this server does not know {line.type}"
            self.say(m.Refused(m.Refusal.UNKNOWN_TYPE, text, id=line.id))

    _HEARD: ClassVar[dict[type, Callable[[Connection, Any], None]]] = {
        m.Hello: _greet,
        m.Launch: _launch_it,
        m.Poll: _poll,
        m.Stop: lambda self, stop: self._supervisor.stop(self, stop),
        m.Detach: lambda self, detach: self._supervisor.detach(self, detach),
        m.Hold: lambda self, hold: self._supervisor.hold(self, hold),
        m.Acknowledge: lambda self, acknowledge: self._supervisor.acknowledge(self, acknowledge),
        m.Status: _status,
        m.Tail: _tail,
        m.Bye: _bye,
        m.Unrecognized: _unrecognized,
    }
