"""The sockets that managers connect to: opened, or handed over, accepted from, and closed.

The invariant: a lack of descriptors pauses accepting for a moment, and never ends it.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any

from cmapp.errors import SettingsError
from cmapp.net.address import ANY

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from cmapp.net.address import Address

log = logging.getLogger(__name__)

BACKLOG = 1024
ACCEPTED_AT_ONCE = 32
ACCEPT_PAUSE = 0.5  # seconds without accepting when there is no descriptor left


class Listeners:
    """The listening sockets; `let_in` gets each connection, and what to call its peer in the log."""

    def __init__(self, loop: asyncio.AbstractEventLoop, let_in: Callable[[socket.socket, str], None]) -> None:
        self._loop = loop
        self._let_in = let_in
        self._listeners: list[socket.socket] = []

    @property
    def descriptors(self) -> list[int]:
        """What the next program of this process needs to go on listening."""
        return [listener.fileno() for listener in self._listeners]

    def take_over(self, descriptors: Iterable[int]) -> None:
        """Go on listening where the program before us did."""
        for descriptor in descriptors:
            listener = socket.socket(fileno=descriptor)
            listener.setblocking(False)
            self._serve(listener)

    def close(self) -> None:
        """Listen no more."""
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()

    def listen(self, address: Address) -> None:
        """Listen on all that `address` means; raises SettingsError if that cannot be."""
        try:
            host = None if address.host == ANY else address.host
            found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, where in found:
                try:
                    self._bind(family, kind, protocol, where)
                except OSError as error:
                    if host is not None or error.errno != errno.EAFNOSUPPORT:  # a machine may do without IPv6
                        raise
        except OSError as error:
            raise SettingsError(f"cannot listen on {address}: {error.strerror}") from None

    def _bind(self, family: int, kind: int, protocol: int, where: Any) -> None:
        listener = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            listener.bind(where)
            listener.listen(BACKLOG)
        except OSError:
            listener.close()
            raise
        self._serve(listener)

    def _serve(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        self._loop.add_reader(listener.fileno(), self._accept, listener)
        host, port = listener.getsockname()[:2]
        log.info("listening on %s", f"[{host}]:{port}" if ":" in host else f"{host}:{port}")

    def _accept(self, listener: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                sock, where = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error("no manager can connect for now: %s", error.strerror)
                    self._loop.remove_reader(listener.fileno())
                    self._loop.call_later(ACCEPT_PAUSE, self._resume, listener)
                    return
                continue
            self._let_in(sock, f"[{where[0]}]:{where[1]}" if ":" in where[0] else f"{where[0]}:{where[1]}")

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)
