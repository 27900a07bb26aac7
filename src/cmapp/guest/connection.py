"""One manager's connection: what it says is asked of the supervisor, what its run tells is said to it.

Data goes one way: bytes, messages, calls of the supervisor; what a run tells comes back as a message to its
owner, which is this connection. The invariant: a manager hears and touches only the run that it launched on
this link, and those that it launched before.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, ClassVar

import cmapp
from cmapp.core import messages as m
from cmapp.core.outcome import Reason
from cmapp.core.session import Role, Session, State, agree
from cmapp.core.text import printable
from cmapp.errors import ProtocolError, RunError
from cmapp.guest.channel import Channel

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from cmapp.core.outcome import Receipt
    from cmapp.guest.execution import Execution
    from cmapp.guest.supervisor import Supervisor
    from cmapp.net.link import Link
    from cmapp.net.tls import Identity

log = logging.getLogger(__name__)

SEND_LIMIT = 512 * 1024  # bytes that may wait for a manager: beyond it is not reading, and is let go
OUTPUT_LIMIT = 256 * 1024  # bytes that may wait while output is still added: beyond it is dropped
RUNS_A_PAGE = 100  # reports in one answer: they fit a line
SOFTWARE = f"cmapp/{cmapp.__version__}"
FEATURES = ("output", "status", "tail")


class Connection:
    """A manager, from its TCP connection on; `proven` and `closed` are called once each, when it is so."""

    __slots__ = (
        "_channel",
        "_closed",
        "_dropped",
        "_launch",
        "_proven",
        "_run",
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
        self._run: Execution | None = None
        self._silence: float | None = supervisor.settings.handshake_timeout  # until its hello says better
        self._dropped: dict[m.Stream, int] | None = None
        self._channel = Channel(loop, link, proven=self._on_proven, heard=self._on_heard, closed=self._on_closed)

    # ---- what the server asks ------------------------------------------------------------------------------

    def overdue(self, now: float) -> bool:
        """Tell whether the manager has been silent for longer than it said it would ever be."""
        return self._silence is not None and now - self.heard > self._silence

    def dismiss(self, reason: str) -> None:
        """Say why, and hang up; the run is without its manager from here on."""
        if not self.manager:  # who is not proven is told nothing
            self.close()
            return
        self._send(m.Bye(reason))
        self._leave()
        self._channel.end()

    def close(self) -> None:
        """Close without a word."""
        self._channel.close("")

    def __str__(self) -> str:
        """Name the peer for the log."""
        return self._channel.peer

    # ---- what a run tells its owner ------------------------------------------------------------------------

    def launched(self, run: Execution) -> None:
        """Answer the launch: it runs."""
        self._run = run
        self._send(m.Launched(run.launch.id, run.launch.run_id, run.pid))

    def not_started(self, error: RunError) -> None:
        """Answer the launch: it does not run."""
        launch, self._launch = self._launch, None
        if launch is not None:
            self._send(m.Refused(error.code, str(error), id=launch.id))

    def output(self, stream: m.Stream, offset: int, data: bytes) -> None:
        """Pass output on, if it was asked for; what finds no room is counted, and told with what does."""
        if self._launch is None or not self._launch.output or self._run is None:
            return
        self._dropped = self._dropped or dict.fromkeys(m.Stream, 0)
        if self._channel.waiting > OUTPUT_LIMIT:
            self._dropped[stream] += len(data)
            return
        self._send(m.Output(stream, offset, data, dropped=self._dropped[stream]))
        self._dropped[stream] = 0

    def ended(self, receipt: Receipt) -> None:
        """Push the end of the run, after telling of the output that was dropped last."""
        for stream, dropped in (self._dropped or {}).items():
            if dropped and self._run is not None:
                offset, _ = self._run.tail(stream, 0)
                self._send(m.Output(stream, offset, b"", dropped=dropped))
        self._send(m.Exited(receipt))

    # ---- what the channel tells ----------------------------------------------------------------------------

    def _on_proven(self, identity: Identity) -> None:
        self.manager = identity.name
        log.info("%s connected", self)
        self._proven(self)

    def _on_heard(self, data: bytes) -> None:
        self.heard = time.monotonic()
        try:
            for message in self._session.receive(data):
                self._HEARD[type(message)](self, message)
        except ProtocolError as error:
            log.warning("%s: %s", self, error)
            self.dismiss(str(error))

    def _on_closed(self, reason: str) -> None:
        if reason:
            run = self._mine()
            log.log(logging.INFO if run is not None and run.alive else logging.DEBUG, "%s", reason)
        self._leave()
        self._closed(self)

    # ---- what the manager says -----------------------------------------------------------------------------

    def _greet(self, hello: m.Hello) -> None:
        version = agree(hello.versions)
        if version is None:
            text = f"this server speaks only version {', '.join(map(str, m.VERSIONS))} of the protocol"
            self._send(m.Refused(m.Refusal.VERSION, text, id=hello.id))
            self._channel.end()
            return
        self._silence = hello.silence
        boot_id = self._supervisor.boot_id
        self._send(m.Welcome(hello.id, version, SOFTWARE, socket.gethostname(), boot_id, FEATURES))

    def _launch_it(self, launch: m.Launch) -> None:
        self._launch = launch
        try:
            self._supervisor.launch(launch, self)
        except RunError as error:
            log.warning("%s: launch of %s refused: %s", self, launch.name, error)
            self.not_started(error)

    def _poll(self, poll: m.Poll) -> None:
        run, launch = self._mine(), self._launch
        if run is not None:
            self._send(m.Report(poll.id, run.report()))
        elif launch is not None:
            self._send(m.Report(poll.id, m.RunReport(launch.name, launch.run_id, m.Phase.WAITING)))
        else:
            self._send(m.Refused(m.Refusal.NO_RUN, "there is no run on this link", id=poll.id))

    def _stop(self, stop: m.Stop) -> None:
        self._send(m.Done(stop.id))
        run = self._mine()
        if run is not None:
            run.stop(Reason.ASKED, kill=stop.kill)
        elif self._launch is not None and self._supervisor.withdraw(self._launch.name, self):
            self.not_started(RunError(m.Refusal.STOPPED, "it was stopped before it was launched"))

    def _detach(self, detach: m.Detach) -> None:
        text = "this server keeps no application without its manager"
        self._send(m.Refused(m.Refusal.UNSUPPORTED, text, id=detach.id))

    def _acknowledge(self, acknowledge: m.Acknowledge) -> None:
        self._supervisor.receipts.forget(self.manager, acknowledge.run_id)
        self._send(m.Done(acknowledge.id))

    def _status(self, status: m.Status) -> None:
        reports, more = self._supervisor.reports(self.manager, status.after, RUNS_A_PAGE)
        self._send(m.Runs(status.id, tuple(reports), more=more))

    def _tail(self, tail: m.Tail) -> None:
        offset, data = self._run.tail(tail.stream, tail.limit) if self._run is not None else (0, b"")
        self._send(m.Output(tail.stream, offset, data, id=tail.id))

    def _bye(self, bye: m.Bye) -> None:
        self._channel.close(f"{self} said bye: {printable(bye.reason)}")

    def _unrecognized(self, line: m.Unrecognized) -> None:
        log.warning("%s asked for %s, which this version does not know", self, line.type)
        if line.id is not None:
            text = f"this server does not know {line.type}"
            self._send(m.Refused(m.Refusal.UNKNOWN_TYPE, text, id=line.id))

    _HEARD: ClassVar[dict[type, Callable[[Connection, Any], None]]] = {
        m.Hello: _greet,
        m.Launch: _launch_it,
        m.Poll: _poll,
        m.Stop: _stop,
        m.Detach: _detach,
        m.Acknowledge: _acknowledge,
        m.Status: _status,
        m.Tail: _tail,
        m.Bye: _bye,
        m.Unrecognized: _unrecognized,
    }

    def _mine(self) -> Execution | None:
        if self._run is None and self._launch is not None:
            return self._supervisor.run_of(self._launch.name, self)
        return self._run

    def _send(self, message: m.Message) -> None:
        if self._session.state is not State.CLOSED:
            self._channel.send(self._session.send(message))

    def _leave(self) -> None:
        launch, self._launch = self._launch, None
        if launch is not None:
            self._supervisor.leave(launch.name, self)
