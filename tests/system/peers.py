"""Peers that are not cmapp: a client of the protocol that is its own, and listeners that are something else."""

from __future__ import annotations

import json
import selectors
import socket
import ssl
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LOOPBACK = "127.0.0.1"
PATIENCE = 60.0  # seconds that a peer waits for anything


def client_context(keys: Path, *, protocol: str | None = "cmapp/1") -> ssl.SSLContext:
    """Return TLS as a manager with these keys speaks it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    context.load_verify_locations(keys / "ca.pem")
    if protocol:
        context.set_alpn_protocols([protocol])
    return context


class Client:
    """A manager's side of the protocol, on a blocking socket."""

    def __init__(self, port: int, keys: Path, context: ssl.SSLContext | None = None) -> None:
        """Connect, by a TLS of its own if `context` is given."""
        plain = socket.create_connection((LOOPBACK, port), PATIENCE)
        try:
            self.tls = (context or client_context(keys)).wrap_socket(plain, server_hostname=LOOPBACK)
        except OSError:
            plain.close()
            raise
        self._lines = self.tls.makefile("rb")
        self._requests = 0

    def ask(self, word: str, **fields: Any) -> None:
        """Send a request."""
        self._requests += 1
        self.tls.sendall(line({"type": word, "id": self._requests, **fields}))

    def hear(self) -> dict[str, Any]:
        """Return the next message; an empty one when the server has hung up."""
        said = self._lines.readline()
        message = json.loads(said) if said else {}
        assert isinstance(message, dict)
        return message

    def greet(self) -> dict[str, Any]:
        """Say hello, and return the answer."""
        self.ask("hello", versions=[1])
        return self.hear()

    def launch(self, name: str, *argv: str, **fields: Any) -> dict[str, Any]:
        """Launch a command, and return the answer."""
        self.ask("launch", name=name, run_id=str(uuid.uuid4()), argv=argv, **fields)
        return self.hear()

    def close(self) -> None:
        """Close the connection without a word."""
        self._lines.close()
        self.tls.close()


def line(message: dict[str, Any]) -> bytes:
    """Return the line that says `message`."""
    return json.dumps(message).encode() + b"\n"


@contextmanager
def listener(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a free port, which is given back, and have `serve` deal with each connection in a thread of its own."""
    with socket.create_server((LOOPBACK, 0)) as listening:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    connection.settimeout(PATIENCE)
                    threading.Thread(target=deal, args=(connection,), daemon=True).start()

        def deal(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                serve(connection)

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def greet_plainly(connection: socket.socket) -> None:
    """Be a server of something else that speaks first, and no TLS."""
    connection.sendall(b"220 mail.example.org ESMTP\r\n")
    connection.recv(4096)


def answer_plainly(connection: socket.socket) -> None:
    """Be a server of something else that speaks when spoken to, and no TLS."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")


def say_nothing(connection: socket.socket) -> None:
    """Be a server that takes everything and answers nothing."""
    while connection.recv(4096):
        pass


def hang_up(connection: socket.socket) -> None:
    """Be a server that has no time."""
    connection.shutdown(socket.SHUT_RDWR)


def another_service(keys: Path, *, protocol: str | None = None) -> Callable[[socket.socket], None]:
    """Be a TLS server that has these keys, and perhaps speaks a protocol, but is not cmappserver."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if protocol:
        context.set_alpn_protocols([protocol])
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            say_nothing(tls)

    return serve


class Crowd:
    """Many managers in one process: each with a connection of its own, all served by one loop."""

    def __init__(self, port: int, keys: Path, count: int) -> None:
        """Connect and greet, one after the other."""
        self._context = client_context(keys)
        self._selector = selectors.DefaultSelector()
        self._members = [_Member(self._connect(port), number) for number in range(count)]
        for member in self._members:
            member.tls.setblocking(False)
            self._selector.register(member.tls, selectors.EVENT_READ, member)

    @property
    def pids(self) -> list[int]:
        """The applications' processes."""
        return [member.heard["launched"]["pid"] for member in self._members]

    def launch(self, argv: list[str], limit: float) -> None:
        """Launch the command on every connection, and wait until all run."""
        for member in self._members:
            member.ask("launch", name=f"crowd-{member.number}", run_id=str(uuid.uuid4()), argv=argv)
        self._until_heard("launched", limit)

    def poll(self, limit: float) -> list[dict[str, Any]]:
        """Poll all, and return the reports."""
        for member in self._members:
            member.ask("poll")
        self._until_heard("report", limit)
        return [member.heard["report"]["run"] for member in self._members]

    def ends(self, limit: float) -> list[dict[str, Any]]:
        """Wait until all have ended, and return the outcomes."""
        self._until_heard("exited", limit)
        return [member.heard["exited"]["receipt"]["outcome"] for member in self._members]

    def close(self) -> None:
        """Close all connections."""
        self._selector.close()
        for member in self._members:
            member.tls.close()

    def _connect(self, port: int) -> ssl.SSLSocket:
        plain = socket.create_connection((LOOPBACK, port), PATIENCE)
        tls = self._context.wrap_socket(plain, server_hostname=LOOPBACK)
        tls.sendall(line({"type": "hello", "id": 1, "versions": [1]}))
        return tls

    def _until_heard(self, word: str, limit: float) -> None:
        deadline = time.monotonic() + limit
        while waiting := sum(word not in member.heard for member in self._members):
            if time.monotonic() > deadline:
                raise AssertionError(f"{waiting} of {len(self._members)} heard no {word!r} within {limit:g} s")
            for key, _ in self._selector.select(1.0):
                if not key.data.listen():
                    self._selector.unregister(key.fileobj)


class _Member:
    """One connection of a crowd, and the one message of each type that it heard."""

    def __init__(self, tls: ssl.SSLSocket, number: int) -> None:
        self.tls = tls
        self.number = number
        self.heard: dict[str, dict[str, Any]] = {}
        self._requests = 1
        self._rest = b""

    def ask(self, word: str, **fields: Any) -> None:
        """Send a request, which is small enough to go at once."""
        self._requests += 1
        self.tls.send(line({"type": word, "id": self._requests, **fields}))

    def listen(self) -> bool:
        """Hear what has come; return whether there may be more.

        Each type of message comes once, a refusal not at all, and a goodbye only when the end was told.
        """
        try:
            data = self.tls.recv(65536)
        except ssl.SSLWantReadError:
            return True
        if not data:
            raise AssertionError(f"connection {self.number} was closed: {self.heard}")
        *lines, self._rest = (self._rest + data).split(b"\n")
        for said in lines:
            message = json.loads(said)
            word = message["type"]
            if word == "bye" and "exited" in self.heard:
                return False
            if word in self.heard or word not in {"welcome", "launched", "report", "exited"}:
                raise AssertionError(f"connection {self.number} heard {message} after {self.heard}")
            self.heard[word] = message
        return True
