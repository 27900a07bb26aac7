"""Crowds at the server's port: strangers of all kinds from any address of the loopback, and many managers at once."""

from __future__ import annotations

import selectors
import socket
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Self

from cmapp.core import messages as m
from cmapp.core.wire import encode
from cmapp.net.link import Link
from cmapp.net.refusals import ALPN
from cmapp.net.tls import client_context
from tests.shell.served import SOON

if TYPE_CHECKING:
    from pathlib import Path

    from tests.shell.caller import Caller

OTHER = "127.0.0.66"  # another source than the tests' own, 127.0.0.1
RECORD = b"\x16\x03\x01"
HELLO = encode(m.Hello(1, m.VERSIONS))
LIMIT = 1 << 20
USUAL, LATE = 0.1, 1.0  # seconds: a poll takes 1 ms, and a machine that is busy with tests adds its own


def client_hello() -> bytes:
    """Return the first message of a handshake that the server answers."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([ALPN])
    out = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), out).do_handshake()
    return out.read()


def fragments(hello: bytes) -> bytes:
    """Return the same message in a record for each of its bytes."""
    return b"".join(RECORD + b"\0\1" + hello[number : number + 1] for number in range(5, len(hello)))


class Strangers:
    """Connections that say `data`, and nothing after."""

    def __init__(self, port: int, count: int, data: bytes = b"", source: str = OTHER) -> None:
        self.socks: list[socket.socket] = []
        self._port, self._data, self._source = port, data, source
        self.add(count)

    def __enter__(self) -> Self:
        """Be there until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Go, all of them."""
        for sock in self.socks:
            sock.close()

    def add(self, count: int) -> None:
        """Have more come."""
        for _ in range(count):
            sock = socket.create_connection(("127.0.0.1", self._port), SOON, (self._source, 0))
            self.socks.append(sock)
            with suppress(OSError):  # it was hung up on already
                sock.sendall(self._data)

    def turned_away(self, count: int) -> None:
        """Wait until as many as that have been hung up on."""
        deadline = time.monotonic() + SOON
        with selectors.DefaultSelector() as waiting:
            for sock in self.socks:
                sock.setblocking(False)
                waiting.register(sock, selectors.EVENT_READ)
            while count > 0:
                assert time.monotonic() < deadline, f"{count} more are still there"
                for key, _ in waiting.select(1.0):
                    if _hung_up(key.fileobj):  # type: ignore[arg-type]
                        waiting.unregister(key.fileobj)
                        count -= 1


def _hung_up(sock: socket.socket) -> bool:
    try:
        return not sock.recv(65536)
    except BlockingIOError:
        return False
    except OSError:
        return True


class Herd:
    """Managers of one host that connect all at once, and each wait until they are welcomed."""

    def __init__(self, port: int, keys: Path, count: int) -> None:
        context = client_context(str(keys))
        self._waiting = selectors.DefaultSelector()
        self._links: list[Link] = []
        self.welcomed = 0
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            sock.connect_ex(("127.0.0.1", port))
            link = Link(sock, context, peer="vm1", limit=LIMIT, guest="vm1")
            self._links.append(link)
            self._waiting.register(sock, selectors.EVENT_WRITE, (link, "dials"))

    def get_in(self, limit: float) -> float:
        """Wait until all are welcomed; return how long that took. Fails if one is hung up on."""
        began = time.monotonic()
        while self.welcomed < len(self._links):
            assert time.monotonic() - began < limit, f"{self.welcomed} of {len(self._links)} are in"
            for key, _ in self._waiting.select(1.0):
                self._step(*key.data)
        return time.monotonic() - began

    def close(self) -> None:
        """Hang up, all of them."""
        self._waiting.close()
        for link in self._links:
            link.close()

    def _step(self, link: Link, stage: str) -> None:
        if stage == "says hello":
            heard = link.read()
            assert heard is not None
            if b'"welcome"' in heard:
                self._waiting.unregister(link)
                self.welcomed += 1
        elif link.handshake():
            link.write(HELLO)
            self._waiting.modify(link, selectors.EVENT_READ, (link, "says hello"))
        elif stage == "dials":
            self._waiting.modify(link, selectors.EVENT_READ, (link, "shakes hands"))


def undisturbed(caller: Caller, seconds: float) -> None:
    """Poll for so long; fail if the answers take long, or one in a hundred of them very long."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while (began := time.monotonic()) < end or len(times) < 100:
        caller.report()
        times.append(time.monotonic() - began)
        time.sleep(0.001)
    times.sort()
    median, late = times[len(times) // 2], times[len(times) * 99 // 100]
    assert median < USUAL, f"{median * 1e3:.0f} ms, and {late * 1e3:.0f} ms at worst"
    assert late < LATE, f"{median * 1e3:.0f} ms, and {late * 1e3:.0f} ms at worst"
