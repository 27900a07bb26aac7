"""A manager as the tests play it: blocking, over the real protocol, with every byte of output accounted for.

The invariant: whatever arrives is legal for a manager (`Session` sees to it) and its output has no gap that was
not announced.
"""

from __future__ import annotations

import itertools
import select
import socket
import time
import uuid
from collections import deque
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from cmapp.core import messages as m
from cmapp.core.session import Role, Session, State
from cmapp.errors import CmappError
from cmapp.net.link import Link
from cmapp.net.tls import client_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from cmapp.core.outcome import Outcome, Receipt

SOON = 30.0  # seconds: how long an answer is waited for that should come at once
WRITE_LIMIT = 4 * 1024 * 1024
M = TypeVar("M", bound=m.Message)

_numbers = itertools.count(1)


class Ended(NamedTuple):
    """How a run ended, and what it wrote."""

    receipt: Receipt
    stdout: bytes
    stderr: bytes

    @property
    def outcome(self) -> Outcome:
        """How its process ended."""
        return self.receipt.outcome


class Caller:
    """One link to the server on `port`; `out` is the output so far, `dropped` what was announced as lost."""

    def __init__(  # noqa: PLR0913 - one for each thing that a manager may say of itself
        self,
        port: int,
        keys: Path,
        *,
        guest: str = "vm1",
        silence: float | None = None,
        instance: str = "",
        greet: bool = True,
    ) -> None:
        """Connect, prove ourselves and, unless not to `greet`, say hello."""
        self.out = {stream: bytearray() for stream in m.Stream}
        self.dropped = dict.fromkeys(m.Stream, 0)
        self.name = ""
        self.run_id = ""
        self._session = Session(Role.MANAGER)
        self._queue: deque[m.Message | m.Unrecognized] = deque()
        self._ids = itertools.count(1)
        sock = socket.create_connection(("127.0.0.1", port), SOON)
        self.link = Link(sock, client_context(str(keys)), peer=guest, limit=WRITE_LIMIT, guest=guest)
        self._poll = select.poll()
        try:
            deadline = time.monotonic() + SOON
            while not self.link.handshake():
                self._wait(deadline)
            if greet:
                self.welcome = self.ask(m.Welcome, m.Hello, versions=m.VERSIONS, silence=silence, instance=instance)
        except BaseException:
            self.link.close()
            raise

    # ---- saying --------------------------------------------------------------------------------------------

    def say(self, message: type[m.Message], /, **fields: Any) -> int:
        """Say such a message, with an id of its own if it is a request; return the id."""
        number = next(self._ids)
        if issubclass(message, m.Request):
            fields["id"] = number
        self.send(self._session.send(message(**fields)))
        return number

    def send(self, data: bytes) -> None:
        """Send bytes as they are, whatever they mean."""
        deadline = time.monotonic() + SOON
        self.link.write(data)
        while self.link.waiting:
            self._wait(deadline)
            self.link.flush()

    def hear(self, limit: float = SOON) -> m.Message | m.Unrecognized | None:
        """Return the next message, None for the server's orderly end."""
        deadline = time.monotonic() + limit
        while not self._queue:
            data = self.link.read()
            if data is None:
                return None
            self._queue.extend(self._session.receive(data))
            if not data:
                self._wait(deadline)
        message = self._queue.popleft()
        if isinstance(message, m.Output) and message.id is None:
            self._account(message)
        return message

    def await_(self, kind: type[M], limit: float = SOON) -> M:
        """Return the next message of `kind`; only output may come before it."""
        while isinstance(message := self.hear(limit), m.Output) and message.id is None and kind is not m.Output:
            pass
        assert isinstance(message, kind), message
        return message

    def ask(self, answer: type[M], question: type[m.Message], /, **fields: Any) -> M:
        """Ask for something and return the answer, which must be of the kind `answer`."""
        number = self.say(question, **fields)
        message = self.await_(answer)
        assert getattr(message, "id", None) == number
        return message

    # ---- runs ----------------------------------------------------------------------------------------------

    def try_to_launch(self, *argv: str, **fields: Any) -> None:
        """Ask for a launch, and wait for nothing."""
        self.name = fields.setdefault("name", f"app-{next(_numbers)}")
        self.run_id = fields.setdefault("run_id", str(uuid.uuid4()))
        self.say(m.Launch, argv=argv, **fields)

    def launch(self, *argv: str, **fields: Any) -> int:
        """Launch a command, and return its process id once it runs."""
        self.try_to_launch(*argv, **fields)
        launched = self.await_(m.Launched)
        assert (launched.run_id, launched.attached) == (self.run_id, False)
        return launched.pid

    def attach(self, name: str, run_id: str, **fields: Any) -> m.Launched:
        """Come back to a run, which is not to be started anew, and return the answer."""
        # Were it started all the same, it would be this.
        self.try_to_launch("false", name=name, run_id=run_id, **{"resume": True, **fields})
        launched = self.await_(m.Launched)
        assert (launched.run_id, launched.attached) == (run_id, True)
        return launched

    def resume(self, before: Caller, **fields: Any) -> m.Launched:
        """Come back to the run of another link, with its output from where that stood."""
        self.out = {stream: bytearray(out) for stream, out in before.out.items()}
        self.dropped = dict(before.dropped)
        begin = {f"{stream.value}_from": len(out) + self.dropped[stream] for stream, out in self.out.items()}
        return self.attach(before.name, before.run_id, **{"output": True, **begin, **fields})

    def refused(self, *argv: str, **fields: Any) -> m.Refused:
        """Ask for a launch that is refused, and return the refusal."""
        self.try_to_launch(*argv, **fields)
        return self.await_(m.Refused)

    def ended(self, limit: float = SOON) -> Ended:
        """Wait for the end of the run, and acknowledge it."""
        receipt = self.await_(m.Exited, limit).receipt
        assert (receipt.name, receipt.run_id) == (self.name, self.run_id)
        self.ask(m.Done, m.Acknowledge, run_id=self.run_id)
        return Ended(receipt, *(bytes(self.out[stream]) for stream in m.Stream))

    def run(self, *argv: str, **fields: Any) -> Ended:
        """Run a command to its end with its output."""
        self.launch(*argv, output=True, **fields)
        return self.ended()

    def report(self) -> m.RunReport:
        """Ask how the run is."""
        return self.ask(m.Report, m.Poll).run

    def report_until(self, condition: Callable[[m.RunReport], object]) -> m.RunReport:
        """Ask again and again how the run is, until `condition` holds of it."""
        deadline = time.monotonic() + SOON
        while not condition(report := self.report()):
            assert time.monotonic() < deadline, report
        return report

    def wrote(self, text: bytes, stream: m.Stream = m.Stream.STDOUT) -> bytes:
        """Wait until the application has written `text`; return all that it wrote there."""
        while text not in self.out[stream]:
            self.await_(m.Output)
        return bytes(self.out[stream])

    def stop(self, *, kill: bool = False) -> Ended:
        """Have the run stopped, and wait for its end."""
        self.ask(m.Done, m.Stop, kill=kill)
        return self.ended()

    def bye(self) -> str:
        """Wait for the server to hang up, and return why it said it did."""
        reason = self.await_(m.Bye).reason
        assert self.hear() is None
        return reason

    def finish(self) -> None:
        """Have the run killed, if there is one, and hang up: nothing of it is left to the tests that follow."""
        try:
            if self._session.state in (State.LAUNCHING, State.WATCHING):
                self.say(m.Stop, kill=True)
        except (CmappError, OSError, TimeoutError):
            pass  # the link is gone already
        self.close()

    def close(self) -> None:
        """Hang up."""
        self.link.close()

    def _account(self, message: m.Output) -> None:
        stream = message.stream
        assert message.offset == len(self.out[stream]) + self.dropped[stream] + message.dropped, message.offset
        self.dropped[stream] += message.dropped
        self.out[stream] += message.data

    def _wait(self, deadline: float) -> None:
        events = select.POLLIN | (select.POLLOUT if self.link.wants_write else 0)
        self._poll.register(self.link.fileno(), events)
        left = deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise TimeoutError("the server says nothing")
