"""The server: one event loop that listens, lets proven managers in, and stops or reloads on a signal.

asyncio's own TLS transports cost 290 KiB a connection, so the loop only tells when a socket is ready and the
links do the rest. The invariant: what is not proven is bounded in number and time, and at every bound those
who are in are served on.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import resource
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

from cmapp.errors import SettingsError, place_of
from cmapp.guest.connection import SEND_LIMIT, Connection
from cmapp.guest.containment import become_subreaper
from cmapp.guest.process import keep_descriptors
from cmapp.guest.service import notify, start_logging
from cmapp.guest.supervisor import Supervisor
from cmapp.net.address import ANY
from cmapp.net.link import Link
from cmapp.net.tls import Role, check_keys, require_own_role, server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from cmapp.guest.settings import Settings
    from cmapp.net.address import Address

log = logging.getLogger(__name__)

SWEEP = 1.0  # seconds between looks at who is late
_HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
LATE_SWEEP = 3.0  # seconds: a look that comes later means that this machine stood still, and nobody is judged
BACKLOG = 1024
ACCEPTED_AT_ONCE = 32
ACCEPT_PAUSE = 0.5  # seconds without accepting when there is no descriptor left
DESCRIPTORS_EACH = 4  # of a run with its manager: pidfd, two pipes, connection


class Server:
    """The server's loop and what hangs on it."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings]) -> None:
        """Load the keys, raising SettingsError if they cannot be used; `reread` returns the settings anew."""
        self._settings = settings
        self._reread = reread
        self._context = _context(settings)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_defect)
        self._supervisor = Supervisor(self._loop, settings, _raise_descriptors(settings.max_applications))
        self._connections: dict[Connection, None] = {}
        self._unproven: dict[Connection, float] = {}
        self._managers: set[Connection] = set()
        self._listeners: list[socket.socket] = []
        self._last_sweep = 0.0
        self._lock = -1

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT and the end of the last run; raises SettingsError if it cannot start."""
        self._lock = _lock_state(self._settings.state_dir)
        become_subreaper()
        keep_descriptors()
        for address in self._settings.listen:
            self._listen(address)
        for number, handler in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._reload),
        ):
            self._loop.add_signal_handler(number, handler)
        # Of more signals than the loop's socket holds CPython would complain by a way on which it can deadlock.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        self._last_sweep = time.monotonic()
        self._loop.call_later(SWEEP, self._sweep)
        notify("READY=1")
        try:
            self._loop.run_forever()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, _HEEDED)  # closing gives them back, and one more would kill us
            self._loop.close()

    # ---- who comes -----------------------------------------------------------------------------------------

    def _listen(self, address: Address) -> None:
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
        self._listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
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

    def _let_in(self, sock: socket.socket, peer: str) -> None:
        if len(self._connections) >= self._settings.max_connections + self._settings.max_handshakes:
            log.warning("%s turned away: there are %d connections, which is the limit", peer, len(self._connections))
            sock.close()
            return
        while len(self._unproven) >= self._settings.max_handshakes:
            oldest = next(iter(self._unproven))
            log.warning("%s gives way to another before it has proven itself", oldest)
            oldest.close()
        try:
            link = Link(sock, self._context, peer=peer, limit=SEND_LIMIT)
        except OSError as error:
            log.warning("%s went away: %s", peer, error)
            sock.close()
            return
        connection = Connection(self._loop, link, self._supervisor, proven=self._proven, closed=self._closed)
        self._connections[connection] = None
        self._unproven[connection] = time.monotonic()

    def _proven(self, connection: Connection) -> None:
        self._unproven.pop(connection, None)
        if len(self._managers) < self._settings.max_connections:
            self._managers.add(connection)
        else:
            log.warning("%s turned away: max_connections of this guest are there", connection)
            connection.dismiss(f"{self._settings.max_connections} managers are connected, which is max_connections")

    def _closed(self, connection: Connection) -> None:
        self._unproven.pop(connection, None)
        self._managers.discard(connection)
        self._connections.pop(connection, None)

    def _sweep(self) -> None:
        now = time.monotonic()
        still, self._last_sweep = now - self._last_sweep, now
        self._loop.call_later(SWEEP, self._sweep)
        self._supervisor.reap()
        if still > LATE_SWEEP:
            log.warning("this machine, or this server, stood still for %.1f s: nobody is judged by it", still)
            for connection in self._connections:
                connection.heard = now
            return
        for connection, since in list(self._unproven.items()):
            if now - since > self._settings.handshake_timeout:
                log.warning("%s has not proven itself in time", connection)
                connection.close()
        for connection in list(self._connections):
            if connection.overdue(now):
                log.warning("%s has been silent for too long: it is taken for lost", connection)
                connection.dismiss("nothing was heard for too long")

    # ---- signals -------------------------------------------------------------------------------------------

    def _stop(self) -> None:
        if self._listeners:
            notify("STOPPING=1")  # once, however often we are told
        log.info("stopping, after the applications that run: %d", self._supervisor.count)
        for listener in self._listeners:
            self._loop.remove_reader(listener.fileno())
            listener.close()
        self._listeners.clear()
        self._supervisor.end_all(self._ended)

    def _ended(self) -> None:
        for connection in list(self._connections):
            connection.dismiss("the server is stopped")
        self._loop.call_soon(self._leave_when_told)

    def _leave_when_told(self) -> None:
        """Leave once every manager has hung up: each is lingered for, so this is bounded."""
        if self._connections:
            self._loop.call_later(0.01, self._leave_when_told)
        else:
            log.info("stopped")
            self._loop.stop()

    def _reload(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            settings = self._reread()
            self._context = _context(settings)
        except SettingsError as error:
            log.error("not reloaded, everything stays as it was: %s", error)
        else:
            if (settings.listen, settings.state_dir) != (self._settings.listen, self._settings.state_dir):
                log.warning("listen and state_dir change only when the server is started anew")
            start_logging(settings.log_level)
            self._settings = settings
            self._supervisor.use(settings)
            log.info("reloaded: settings and keys are those for the connections and launches from here on")
        notify("READY=1")


def _context(settings: Settings) -> ssl.SSLContext:
    """Load the keys; what may pass with time is logged, what cannot serve is raised as SettingsError."""
    context = server_context(settings.keys, allow_tls12=settings.allow_tls12)
    require_own_role(settings.keys, Role.GUEST)
    for problem in check_keys(settings.keys, Role.GUEST):
        log.error("keys: %s", problem)
    return context


def _defect(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what should not have happened, and go on: the other applications are not to blame."""
    error = context.get("exception")
    place = "" if error is None else place_of(error)
    log.error("internal error%s: %r", place and f" at {place}", error or context.get("message"))


def _raise_descriptors(applications: int) -> tuple[int, int]:
    """Raise our limit of open files as far as we may; return what it was, for the applications."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard < applications * DESCRIPTORS_EACH:
        log.warning("%d open files are allowed, enough for about %d applications", hard, hard // DESCRIPTORS_EACH)
    return soft, hard


def _lock_state(folder: str) -> int:
    """Make the state folder if it is not there, and lock it: two servers must not share it."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        lock = os.open(os.path.join(folder, "lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"{folder} is in use by another cmappserver: give this one its own --state-dir") from None
    except OSError as error:
        raise SettingsError(f"the state folder {folder} cannot be used: {error.strerror}") from None
    return lock
