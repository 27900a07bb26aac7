"""The sockets that managers connect to: opened, or handed over, accepted from, and closed.

They are of TCP or of vsock, which reaches a guest without any network. The invariant: a lack of descriptors pauses
accepting for a moment, and never ends it; and no crowd of callers keeps the loop for more than a few of them.
"""

from __future__ import annotations

import errno
import logging
import socket
from typing import TYPE_CHECKING, Any

from cmapp.errors import SettingsError
from cmapp.net.address import ANY, CID_ANY, VSOCK, Address

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

BACKLOG = 1024
ACCEPTED_AT_ONCE = 16
ACCEPT_PAUSE = 0.5  # seconds without accepting when there is no descriptor left
SITE = 8  # bytes of an IPv6 address that name a network: whoever has one has all the addresses in it


class Listeners:
    """The listening sockets; `let_in`, to be set first, gets each connection, its peer's name, and its source."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.let_in: Callable[[socket.socket, str, str], None]
        self._loop = loop
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
            if address.cid is not None:
                self._listen_on_vsock(address.cid, address.port)
                return
            host = None if address.host == ANY else address.host
            found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            for family, kind, protocol, _, where in found:
                try:
                    self._bind(family, kind, protocol, where)
                except OSError as error:
                    if host is not None or error.errno != errno.EAFNOSUPPORT:  # a machine may do without IPv6
                        raise
        except OSError as error:
            raise SettingsError(f"cannot listen on {address}: {_why_not(error, address.cid)}") from None

    def _listen_on_vsock(self, cid: int, port: int) -> None:
        if not hasattr(socket, "AF_VSOCK"):
            raise OSError(errno.EAFNOSUPPORT, "")
        self._bind(socket.AF_VSOCK, socket.SOCK_STREAM, 0, (cid, port or CID_ANY))

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
        log.info("listening on %s", address_of(listener.getsockname()))

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
            address = address_of(where)
            self.let_in(sock, str(address), source_of(address.host))

    def _resume(self, listener: socket.socket) -> None:
        if listener in self._listeners:
            self._loop.add_reader(listener.fileno(), self._accept, listener)


def source_of(host: str) -> str:
    """Return what the caps count a peer by: its IPv4 address, its IPv6 network, or `vsock:CID`."""
    if ":" not in host or host.startswith(VSOCK):
        return host
    network = socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:SITE]
    return f"{socket.inet_ntop(socket.AF_INET6, network.ljust(16, bytes(1)))}/{8 * SITE}"


def address_of(name: tuple[Any, ...]) -> Address:
    """Return the address that the kernel calls `name`: of TCP, or of vsock, whose first part is a number."""
    host, port = name[:2]
    if isinstance(host, int):
        host = f"{VSOCK}{ANY if host == CID_ANY else host}"
    return Address(host, port)


_NO_VSOCK = {
    errno.EAFNOSUPPORT: "this kernel or this Python has no vsock; load the guest's vsock driver, or listen on TCP only",
    errno.EPERM: "vsock is forbidden here, as containers do; allow it, or listen on TCP only",
    errno.EADDRNOTAVAIL: "that is no CID of this machine; vsock:any is all that it has",
}


def _why_not(error: OSError, cid: int | None) -> str:
    known = None if cid is None else _NO_VSOCK.get(error.errno or 0)
    return known or error.strerror or str(error)
