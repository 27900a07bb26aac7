"""Target: everything behind a server's port, in this process: entrance, TLS, connection, session, supervisor.

A stranger with a host's certificate, a guest's, or none comes, and somebody does what he likes with its records; what
it says once it is in may be anything too, but nothing is launched, for the policy allows nothing. The invariants: who
is in has proven to be a host; nothing is an internal error; and of who has hung up nothing is left, not even a
descriptor.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any

from cmapp.core.wire import encode
from cmapp.guest.containment import containment_for
from cmapp.guest.disk import Disk
from cmapp.guest.reception import Reception, keys_of
from cmapp.guest.settings import Settings
from cmapp.guest.supervisor import Supervisor
from fuzz import papers
from fuzz.breach import require
from fuzz.draw import Draw, expand
from fuzz.lines import message_of
from fuzz.records import Other, interfere
from fuzz.silence import heard_by

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 60  # at most, of one visit
TURNS = 12  # of the loop after each, and twice that at the end: what is to be done is done by then
DESCRIPTORS = (1024, 1024)


class Server(logging.Handler):
    """A server without a port, its loop turned by hand."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.wrong.append(str(context)))
        self.wrong: list[str] = []
        state = papers.scratch() / "served"
        state.mkdir(0o700)
        nobody: Any = [{"managers": "nobody"}]
        settings = Settings(keys=str(papers.key_folder("guest")), state_dir=str(state), cgroup="none", allow=nobody)
        supervisor = Supervisor(self.loop, settings, Disk(self.loop), containment_for("none", str(state)), DESCRIPTORS)
        supervisor.load({}, {})
        self.reception = Reception(self.loop, settings, keys_of(settings), supervisor, DESCRIPTORS[0])

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what a server calls an internal error."""
        if "internal error" in record.getMessage():
            self.wrong.append(record.getMessage())

    def turn(self, times: int = TURNS) -> None:
        """Turn the loop so often, and no further."""
        for _ in range(times):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()

    def clear(self) -> None:
        """Begin anew, whatever went wrong."""
        for connection in list(self.reception.connections):
            connection.close()
        self.reception.turn_strangers_away()
        self.wrong.clear()

    @property
    def managers(self) -> set[str]:
        """Who is in."""
        return {connection.manager for connection in self.reception.connections}


@functools.cache
def _server() -> Server:
    with heard_by(logging.NullHandler()):
        return Server()


@functools.cache
def _visitors() -> tuple[ssl.SSLContext, ...]:
    """Return the contexts of a host, of a guest, and of somebody without a certificate."""
    several = []
    for role in ("host", "guest", ""):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["cmapp/1"])
        if role:
            context.load_cert_chain(papers.key_folder(role) / "cert.pem", papers.key_folder(role) / "key.pem")
        several.append(context)
    return tuple(several)


def port(data: bytes) -> None:
    """Have somebody come to a server, and do and say what was drawn."""
    draw, server = Draw(data), _server()
    with heard_by(server):
        _come(server, draw)


def _come(server: Server, draw: Draw) -> None:
    before = _descriptors()
    try:
        _visit(server, draw)
        require(not server.reception.connections, "somebody is in who has gone", server.managers)
        server.reception.turn_strangers_away()
        require(_descriptors() == before, "descriptors are left", before)
        require(not server.wrong, "an internal error", server.wrong)
    finally:
        server.clear()


def _visit(server: Server, draw: Draw) -> None:
    visitor = draw.below(3)
    near, far = socket.socketpair()
    with far:
        other = Other(far, _visitors()[visitor])
        server.reception.let_in(near, "somebody", "somewhere")
        for _ in _steps(draw):
            _say_or_interfere(other, draw)
            server.turn()
            other.go_on()
            require(visitor == 0 or not server.managers, "somebody is in who is no host", server.managers)
            require(server.managers <= {papers.HOST}, "somebody is in who is another", server.managers)
            require(not server.wrong, "an internal error", server.wrong)
    server.turn(2 * TURNS)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - it is counted, several times for each input


def _steps(draw: Draw) -> Iterator[int]:
    for step in range(STEPS):
        if draw.done:
            return
        yield step


def _say_or_interfere(other: Other, draw: Draw) -> None:
    how = draw.below(4)
    if how == 0:
        while other.records:
            other.send(other.records.pop(0))
    elif how == 1:
        interfere(other, draw)
    else:
        other.say(encode(message_of(draw)) if how == 2 else expand(draw.chunk()) or b"\n")  # noqa: PLR2004 - of four
