"""One manager's connection: what it says is asked of the supervisor, what the roster says to it is sent.

Data goes one way: bytes, messages, the supervisor's methods; what comes back is a message to be said. Who asks for
much at once is answered a little at a time, and not heard meanwhile. The invariant: a manager hears of and touches
only the run that it answers for on this link.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, ClassVar

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.core.session import Role, Session, State, agree
from cmapp.core.text import printable
from cmapp.core.wire import LINE_LIMIT
from cmapp.errors import ProtocolError
from cmapp.guest.channel import Channel
from cmapp.guest.outlet import Outlet

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from typing import Any

    from cmapp.guest.complaints import Complaints
    from cmapp.guest.output import Capture
    from cmapp.guest.supervisor import Supervisor
    from cmapp.guest.turns import Turns
    from cmapp.net.link import Link

log = logging.getLogger(__name__)

SEND_LIMIT = 512 * 1024  # bytes that may wait for a manager: beyond it is not reading, and is let go
LINES_AT_ONCE = 0.002  # seconds for what one read has brought: the rest is done in later turns of the loop
LINE_TIME = 10.0  # seconds in which a line that was begun is finished
SILENT = "nothing was heard for too long"
TALK = 100  # log lines of one kind in ten seconds that one manager can cause
RUNS_ROOM = LINE_LIMIT - 1024  # bytes of reports in one answer
FEATURES = (
    "attach",
    "definitions",
    "health",
    "hold",
    "kinds",
    "limits",
    "orphans",
    "output",
    "readiness",
    "status",
    "tail",
    "units",
)


class Connection:
    """A proven manager; `closed` is called once, when it is gone."""

    __slots__ = (
        "_came",
        "_channel",
        "_closed",
        "_complaints",
        "_launch",
        "_line_since",
        "_outlet",
        "_rest",
        "_run_id",
        "_session",
        "_silence",
        "_supervisor",
        "_turns",
        "heard",
        "manager",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what it needs of the server
        self,
        loop: asyncio.AbstractEventLoop,
        link: Link,
        manager: str,
        supervisor: Supervisor,
        turns: Turns,
        complaints: Complaints,
        *,
        closed: Callable[[Connection], None],
    ) -> None:
        """Serve `manager`, who is at the other end of `link`; what it wants too much of is for the `turns`."""
        self.manager = manager
        self.heard = self._came = time.monotonic()
        self._line_since: float | None = None
        self._supervisor = supervisor
        self._turns = turns
        self._complaints = complaints
        self._closed = closed
        self._session = Session(Role.SERVER)
        self._rest: Iterator[m.Message | m.Unrecognized] | None = None
        self._launch: m.Launch | None = None
        self._run_id = ""
        self._outlet = Outlet(self._output, self.say, self._has_room)
        self._silence: float | None = supervisor.settings.handshake_timeout  # until its hello says better
        link.peer = f"manager {manager} at {link.peer}"
        self._channel = Channel(
            loop, link, turns, heard=self._on_heard, drained=self._on_drained, closed=self._on_closed
        )
        self._tell("connected", logging.INFO, "%s connected", self)

    # ---- what the server and the supervisor ask ------------------------------------------------------------

    def trouble(self, now: float) -> str:
        """Return why the manager is to be hung up on, or an empty string: it is silent, or slow, for too long."""
        if self._channel.ending:
            return ""
        since = self._came if self._session.state is State.NEW else self.heard
        if self._silence is not None and now - since > self._silence:
            return SILENT
        if self._line_since is not None and (self._rest is not None or self._channel.full):
            self._line_since = now  # it is us who does not read on
        if self._line_since is not None and now - self._line_since > LINE_TIME:
            return "a line was begun and not finished"
        if self._channel.stalls(now):
            return "it does not read what it is sent"
        return ""

    def excuse(self, now: float) -> None:
        """Judge nobody by the time that has passed: this machine, or this server, stood still."""
        self.heard = self._came = now
        self._line_since = None if self._line_since is None else now
        self._channel.excuse()

    @property
    def concluding(self) -> bool:
        """Whether the manager was told its end, and has yet to say that it recorded it."""
        return self._session.state is State.ENDED

    def say(self, message: m.Message) -> None:
        """Say a message, unless the link is being closed; before the end of the run, what it wrote last."""
        if isinstance(message, m.Exited):
            self._outlet.pass_last(SEND_LIMIT)
        if self._session.state is not State.CLOSED:
            self._channel.send(self._session.send(message))
        if isinstance(message, m.Launched):
            self._run_id = message.run_id
            self._outlet.begin()

    def pass_output(self) -> None:
        """Send what the run has written and the manager has not got yet, as far as there is room for it."""
        self._outlet.pass_on()

    def dismiss(self, reason: str) -> None:
        """Say why, and hang up; the run is without this manager from here on."""
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

    def _on_heard(self, data: bytes) -> None:
        self.heard = time.monotonic()
        if data.endswith(b"\n"):
            self._line_since = None
        elif self._line_since is None or b"\n" in data:
            self._line_since = self.heard
        self._supervisor.heard(self)
        self._rest = self._session.receive(data)
        self._do_the_rest()

    def _do_the_rest(self) -> None:
        """Do what was asked for, for a moment; nothing more is read before all of it is done."""
        if self._rest is None:
            return
        until = time.monotonic() + LINES_AT_ONCE
        self._channel.gather(True)
        try:
            for message in self._rest:
                self._HEARD[type(message)](self, message)
                if self._channel.full or time.monotonic() >= until:
                    break
            else:
                self._rest = None
        except ProtocolError as error:
            self._tell("bad line", logging.WARNING, "%s: %s", self, error)
            self.dismiss(str(error))
            self._rest = None
        self._channel.gather(False)
        self._channel.hold(self._rest is not None)
        if self._rest is not None and not self._channel.full:  # else it is gone on with when the manager has read
            self._turns.ask(self._do_the_rest)

    def _on_drained(self) -> None:
        self._do_the_rest()
        self.pass_output()

    def _on_closed(self, reason: str) -> None:
        self._rest = None
        if reason:
            level = logging.INFO if self._supervisor.answers_for(self) else logging.DEBUG
            self._tell("closed", level, "%s", reason)
        self._supervisor.lost(self)
        self._closed(self)

    def _output(self, stream: m.Stream) -> Capture | None:
        return self._supervisor.output(self._run_id, stream)

    def _has_room(self, limit: int) -> bool:
        return self._session.state is State.WATCHING and self._channel.waiting < limit

    def _tell(self, kind: str, level: int, text: str, *words: object) -> None:
        self._complaints.log(f"manager {self.manager}, {kind}", level, text, *words, most=TALK)

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
        self._outlet.want(launch)
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
        capture = self._output(tail.stream)
        offset, data = (0, b"") if capture is None else capture.tail(tail.limit)
        self.say(m.Output(tail.stream, offset, data, id=tail.id))

    def _bye(self, bye: m.Bye) -> None:
        self._channel.close(f"{self} said bye: {printable(bye.reason)}")

    def _unrecognized(self, line: m.Unrecognized) -> None:
        self._tell("unknown", logging.WARNING, "%s asked for %s, which this version does not know", self, line.type)
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
