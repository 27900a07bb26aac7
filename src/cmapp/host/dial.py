"""From an address to a connected socket, without waiting: each IP address of the name has its share of time.

The name is resolved anew for each dial, because a guest that moved may have moved its address. The invariant:
a dial ends within LIMIT, with a socket or with a reason for each address that it tried.
"""

from __future__ import annotations

import errno
import os
import socket

from cmapp.core.duration import format_duration
from cmapp.core.pursuit import ATTEMPT_LIMIT
from cmapp.errors import LinkError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.net.address import Address

LIMIT = ATTEMPT_LIMIT - 1.0  # seconds: what gave no answer is told before the whole attempt is too late
TRIED = 4  # addresses of one name; beyond, each one's share of the time would be too short
_CLOSED = "nothing listens there; is cmappserver running?"
_WORDS = {
    errno.ECONNREFUSED: _CLOSED,
    errno.ECONNRESET: _CLOSED,  # which is how vsock says it
    errno.ETIMEDOUT: "no answer; it may be down, hung or behind a firewall",
    errno.ENODEV: "this kernel has no vsock to it",
    errno.EAFNOSUPPORT: "this kernel has no such sockets",
    errno.EHOSTUNREACH: "no route to it; it, or the network between, may be down",
    errno.ENETUNREACH: "no route to its network",
}


class Dial:
    """One attempt: call `step` now and whenever the socket can be written to or the deadline is due."""

    __slots__ = ("_address", "_left", "_problems", "_share", "deadline", "sock")

    def __init__(self, address: Address) -> None:
        self.sock: socket.socket | None = None
        self.deadline = 0.0
        self._address = address
        self._left: list[tuple[int, Any]] | None = None
        self._share = LIMIT
        self._problems: list[str] = []

    def step(self, now: float) -> socket.socket | None:
        """Go on; return the socket once it is connected. Raises LinkError when no address is left to try."""
        if self._left is None:
            self._left = self._resolve()
            self._share = LIMIT / len(self._left)
        while True:
            if self.sock is not None:
                problem = self._problem(self.sock, self._left[0][1], now)
                if problem is None:
                    return None
                if not problem:
                    connected, self.sock = self.sock, None
                    return connected
                self._give_up(problem)
            if not self._left:
                raise LinkError(f"{self._address}: {'; '.join(self._problems)}")
            try:
                self.sock = socket.socket(self._left[0][0], socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            except OSError as error:
                self._give_up(_WORDS.get(error.errno or 0) or os.strerror(error.errno or 0))
            self.deadline = now + self._share

    def close(self) -> None:
        """Give up the address that is being tried."""
        if self.sock is not None:
            self.sock.close()
            self.sock = None

    def _give_up(self, problem: str) -> None:
        """Go on to the next address."""
        if self._left:
            where = self._left.pop(0)[1][0]
            self._problems.append(problem if self._address.cid is not None else f"{where}: {problem}")
        self.close()

    def _problem(self, sock: socket.socket, target: Any, now: float) -> str | None:
        """Return what keeps the socket from being connected: "" for nothing, None for not known yet."""
        # Asked again, connect(2) says how the first time went on; that of vsock does not, and would begin anew.
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or sock.connect_ex(target)
        if code in (0, errno.EISCONN):
            return ""
        if code not in (errno.EINPROGRESS, errno.EALREADY):
            return _WORDS.get(code) or os.strerror(code)
        if now < self.deadline:
            return None
        return f"no answer within {format_duration(self._share)}; it may be down, hung or behind a firewall"

    def _resolve(self) -> list[tuple[int, Any]]:
        host, cid = self._address.host, self._address.cid
        if cid is not None:
            if not hasattr(socket, "AF_VSOCK"):
                raise LinkError(f"{self._address}: this Python was built without vsock")
            return [(socket.AF_VSOCK, (cid, self._address.port))]
        try:
            # This waits, for as long as the system's resolver does (resolv.conf(5): by default 5 s for each
            # server, twice); signals are heard after it. Bytes spare us the loading of IDNA's tables.
            found = socket.getaddrinfo(host.encode(), self._address.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise LinkError(f"the name {host} cannot be resolved: {error.strerror}") from None
        return [(int(family), target) for family, _, _, _, target in found][:TRIED]
