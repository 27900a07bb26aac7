"""One connection to a bus, on the event loop: calls go out, their answers and signals come in.

What is said is D-Bus (core/dbus.py). Who connects proves who he is by the kernel's word for it (EXTERNAL). Whatever is
wrong with the connection ends it, and `lost` is told once. The invariant: every call is answered once, by a message,
or by None if the connection is lost or nobody answers in time.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from cmapp.core.dbus import BusMessage, Decoder, Kind, encode
from cmapp.errors import RemoteProtocolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    Answer = BusMessage | None

ANSWER_LIMIT = 25.0  # seconds for the answer to a call, and to say who we are
SEND_LIMIT = 1024 * 1024  # bytes that may wait to be read by the bus
AT_ONCE = 65536  # bytes of one read
READS = 64  # of them in one turn of the loop
NUDGE = 0.02  # seconds
LINE = 1024  # bytes of a line before the first message
DRIVER = "org.freedesktop.DBus"
PING = ("", "/", "org.freedesktop.DBus.Peer")
DRIVEN = (DRIVER, "/org/freedesktop/DBus", DRIVER)


class Bus:
    """A connection; `heard` gets every signal, `lost` why it is over."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        heard: Callable[[BusMessage], None],
        lost: Callable[[str], None],
        *,
        daemon: bool = True,
    ) -> None:
        """Connect to the socket at `address`, of a bus's `daemon` or of a peer itself; raises OSError."""
        self._loop = loop
        self._heard = heard
        self._lost = lost
        self._daemon = daemon
        self._decoder: Decoder | None = None  # once we are let in
        self._line = b""
        self._answered = False
        self._serial = 0
        self._waiting: dict[int, tuple[Callable[[Answer], None], asyncio.TimerHandle]] = {}
        self._out = bytearray()
        self._later: list[bytes] = []  # what was said before we were let in
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._socket.connect(address)
        except OSError:
            self._socket.close()
            raise
        self.open = True
        loop.add_reader(self._socket, self._on_readable)
        self._patience = loop.call_later(ANSWER_LIMIT, self._fail, "it does not let us in")
        self._send(b"\0AUTH EXTERNAL " + str(os.geteuid()).encode().hex().encode() + b"\r\n")
        if daemon:
            self.call(DRIVEN, "Hello", done=self._on_hello)

    def call(
        self,
        target: tuple[str, str, str],
        member: str,
        signature: str = "",
        *body: Any,
        done: Callable[[Answer], None] = lambda _: None,
    ) -> None:
        """Call a method of `target`, a name on the bus, a path and an interface.

        `done` is told what is answered, never from within this.
        """
        self._serial += 1
        destination, path, interface = target
        message = BusMessage(
            Kind.CALL,
            self._serial,
            path=path,
            interface=interface,
            member=member,
            destination=destination,
            signature=signature,
            body=body,
        )
        if not self.open:
            self._loop.call_soon(done, None)
            return
        timer = self._loop.call_later(ANSWER_LIMIT, self._on_silence, self._serial)
        self._waiting[self._serial] = done, timer
        if self._decoder is None:
            self._later.append(encode(message))
        else:
            self._send(encode(message))

    def close(self) -> None:
        """Hang up, and tell nobody."""
        if not self.open:
            return
        self.open = False
        self._patience.cancel()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        waiting, self._waiting = self._waiting, {}
        for done, timer in waiting.values():
            timer.cancel()
            self._loop.call_soon(done, None)

    # ---- what happens --------------------------------------------------------------------------------------

    def _fail(self, why: str) -> None:
        if self.open:
            self.close()
            self._lost(why)

    def _on_silence(self, serial: int) -> None:
        waiting = self._waiting.pop(serial, None)
        if waiting is not None:
            waiting[0](None)

    def _on_hello(self, answer: Answer) -> None:
        if answer is None or answer.kind is Kind.ERROR:
            self._fail("it does not give us a name")

    def _on_readable(self) -> None:
        for _ in range(READS):
            try:
                data = self._socket.recv(AT_ONCE)
            except BlockingIOError:
                return
            except OSError as error:
                self._fail(error.strerror or str(error))
                return
            if not data:
                self._fail("it hung up")
                return
            self._take(data)
            if not self.open:
                return

    def _take(self, data: bytes) -> None:
        if self._decoder is None:
            data = self._let_in(data)
        if self._decoder is None:
            return
        try:
            for message in self._decoder.receive(data):
                self._on_message(message)
                if not self.open:
                    return
        except RemoteProtocolError as error:
            self._fail(str(error))

    def _let_in(self, data: bytes) -> bytes:
        """Hear whether we are let in; return what came after."""
        line, end, rest = (self._line + data).partition(b"\r\n")
        self._line = b"" if end else line
        if not end:
            if len(line) > LINE:
                self._fail("what it says first is too long")
        elif line.startswith(b"OK"):
            self._patience.cancel()
            self._decoder = Decoder()
            self._send(b"BEGIN\r\n" + b"".join(self._later))
            self._later.clear()
            if not self._daemon:
                self._nudge()
        else:
            self._fail("it does not let us in")
        return rest

    def _nudge(self) -> None:
        """Say something until we are answered first.

        A peer that is sd-bus leaves a message lying that came in one piece with our BEGIN, until more comes.
        """
        if self.open and not self._answered:
            self._loop.call_later(NUDGE, self._nudge)
            self.call(PING, "Ping")

    def _on_message(self, message: BusMessage) -> None:
        self._answered = True
        if message.kind is Kind.SIGNAL:
            self._heard(message)
        elif message.kind is not Kind.CALL:  # nobody has anything to ask of us
            done, timer = self._waiting.pop(message.reply_to, (None, None))
            if timer is not None:
                timer.cancel()
            if done is not None:
                done(message)

    def _send(self, data: bytes) -> None:
        self._out += data
        if len(self._out) > SEND_LIMIT:
            self._loop.call_soon(self._fail, "it does not read")
        elif len(self._out) == len(data):  # or else the loop tells when there is room
            self._flush()

    def _flush(self) -> None:
        if not self.open:
            return
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            self._loop.call_soon(self._fail, error.strerror or str(error))
            return
        del self._out[:sent]
        if self._out:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)
