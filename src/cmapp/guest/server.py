"""The server: one event loop that listens, lets proven managers in, and stops or reloads on a signal.

asyncio's own TLS transports cost 290 KiB a connection, so the loop only tells when a socket is ready and the
links do the rest. The invariant: what is not proven is bounded in number and time, and at every bound those
who are in are served on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, Any

from cmapp.core.duration import LATE
from cmapp.errors import SettingsError, place_of
from cmapp.guest import fdstore, privilege, upgrade
from cmapp.guest.containment import become_subreaper, containment_for, is_closed
from cmapp.guest.disk import Disk
from cmapp.guest.listeners import Listeners
from cmapp.guest.process import keep_descriptors
from cmapp.guest.reception import Reception, keys_of
from cmapp.guest.service import notify, start_logging
from cmapp.guest.statefolder import MASK, lock_state
from cmapp.guest.supervisor import Supervisor
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmapp.core.policy import Policy
    from cmapp.guest.connection import Connection
    from cmapp.guest.settings import Settings
    from cmapp.net.keyring import Keyring

log = logging.getLogger(__name__)

SWEEP = 1.0  # seconds between looks at who is late
HEEDED = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR2)
PARTING = 1.0  # seconds that a manager has to acknowledge the end that it was told last
LAST_WRITES = 5.0  # seconds that the disk is waited for at the end
STARTING_AGAIN = 0.05  # seconds until it is looked again whether every launch is through, before an upgrade
DESCRIPTORS_EACH = 6  # of a run with its manager: pidfd, two pipes, connection, notification socket, a check


class Server:
    """The server's loop and what hangs on it."""

    def __init__(self, settings: Settings, reread: Callable[[], Settings], given: list[str]) -> None:
        """Load the keys, raising SettingsError if they cannot be used.

        `reread` returns the settings anew, `given` are the arguments by which the next version is started.
        """
        self._settings = settings
        self._given = given
        self._reread = reread
        privilege.hide_memory()
        self._keys = _keys(settings)
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(_defect)
        self._disk = Disk(self._loop)
        self._supervisor: Supervisor
        self._reception: Reception
        self._listeners = Listeners(self._loop)
        self._last_sweep = 0.0
        self._stopping: int | None = None
        self._upgrading = False
        self._descriptors: tuple[int, int] = (0, 0)
        self._lock = -1

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, or SIGQUIT and the end of the last run; raises SettingsError at the start."""
        handed = upgrade.taken()
        os.umask(MASK)
        settings = self._settings
        self._lock = handed["lock"] if handed else lock_state(settings.state_dir)
        become_subreaper()
        keep_descriptors()
        containment = containment_for(settings.cgroup, settings.state_dir)
        descriptors = handed.get("descriptors") or _raise_descriptors(settings.max_applications)
        self._descriptors = soft, hard = descriptors
        self._supervisor = Supervisor(self._loop, settings, self._disk, containment, (soft, hard))
        self._reception = Reception(self._loop, settings, self._keys, self._supervisor, hard)
        self._listeners.let_in = self._reception.let_in
        if handed:
            self._listeners.take_over(handed["listeners"])
        for address in () if handed else settings.listen:
            self._listeners.listen(address)
        upgrade.write_identity(self._lock)
        policy = settings.policy()
        privilege.shrink(policy.users, closed_cgroup=is_closed(containment))  # before the disk's thread
        self._supervisor.load(handed.get("runs", {}), fdstore.kept())
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._leave)
        self._loop.add_signal_handler(signal.SIGQUIT, self._stop, signal.SIGQUIT)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        self._loop.add_signal_handler(signal.SIGUSR2, self._upgrade)
        # Of more signals than the loop's socket holds CPython would complain by a way on which it can deadlock.
        signal.set_wakeup_fd(signal.set_wakeup_fd(-1), warn_on_full_buffer=False)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HEEDED)
        self._last_sweep = time.monotonic()
        self._loop.call_later(SWEEP, self._sweep)
        log.info("each application has a %s of its own", containment.kind)
        _tell(policy)
        notify("READY=1")
        try:
            self._loop.run_forever()
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)  # closing gives them back, and one more would kill us
            self._supervisor.leave()
            self._flush()
            self._loop.close()

    def _flush(self) -> None:
        if not self._disk.flush(LAST_WRITES):
            log.error("the disk did not take all that was to be written within %g s", LAST_WRITES)

    def _sweep(self) -> None:
        now = time.monotonic()
        still, self._last_sweep = now - self._last_sweep, now
        self._loop.call_later(SWEEP, self._sweep)
        self._supervisor.sweep()
        if still > LATE:
            log.warning("this machine, or this server, stood still for %.1f s: nobody is judged by it", still)
            self._reception.excuse(now)
        else:
            self._reception.sweep(now)

    # ---- signals -------------------------------------------------------------------------------------------

    def _leave(self) -> None:
        """Leave the applications to the next server, unless they are to be stopped with this one."""
        if self._settings.stop_on_exit:
            self._stop(signal.SIGTERM)
        elif self._stopping is None:
            self._begin_to_stop(signal.SIGTERM, "the applications run on")
            self._supervisor.roster.leave()
            self._ended()

    def _stop(self, number: int) -> None:
        """Stop the applications, by SIGKILL if the same signal asks again, and then ourselves."""
        if self._stopping not in (None, number):
            return  # systemd sends SIGTERM after the SIGQUIT of its unit: that is no second request
        self._begin_to_stop(number, "after the applications that run")
        self._supervisor.end_all(self._ended)

    def _begin_to_stop(self, number: int, how: str) -> None:
        if self._stopping is None:
            notify("STOPPING=1")  # once, however often we are told
        self._stopping = number
        log.info("stopping, %s: %d", how, self._supervisor.count)
        self._listeners.close()

    def _ended(self) -> None:
        """Hang up on all, but give those who were just told an end the time to acknowledge it."""
        self._reception.turn_strangers_away()
        self._dismiss([connection for connection in self._reception.connections if not connection.concluding])
        self._loop.call_later(PARTING, lambda: self._dismiss(list(self._reception.connections)))
        self._loop.call_soon(self._leave_when_told)

    def _dismiss(self, connections: list[Connection]) -> None:
        for connection in connections:
            connection.dismiss("the server is stopped")

    def _leave_when_told(self) -> None:
        """Leave once every manager has hung up: each is lingered for, so this is bounded."""
        if self._reception.connections:
            self._loop.call_later(0.01, self._leave_when_told)
        else:
            log.info("stopped")
            self._loop.stop()

    def _reload(self) -> None:
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            settings = self._reread()
            keys = _keys(settings)
        except SettingsError as error:
            log.error("not reloaded, everything stays as it was: %s", error)
        else:
            if (settings.listen, settings.state_dir) != (self._settings.listen, self._settings.state_dir):
                log.warning("listen and state_dir change only when the server is started anew")
            start_logging(settings.log_level)
            self._settings = settings
            self._supervisor.use(settings)
            self._reception.use(settings, keys)
            _tell(settings.policy())
            log.info("reloaded: settings and keys are those for the connections and launches from here on")
        notify("READY=1")

    def _upgrade(self) -> None:
        """Become the installed version, if that is seen to start with these settings."""
        if self._upgrading or self._stopping is not None:
            return
        self._upgrading = True
        try:
            upgrade.try_out(self._loop, self._given, self._supervisor.leaders, self._hand_over)
        except OSError as error:
            self._hand_over(str(error))

    def _hand_over(self, problem: str, tries: int = 100) -> None:
        if not problem and self._stopping is None and self._supervisor.starting and tries:
            self._loop.call_later(STARTING_AGAIN, self._hand_over, problem, tries - 1)
            return
        self._upgrading = False
        if problem:
            log.error("not upgraded, everything stays as it was: the installed version says: %s", problem)
            return
        if self._stopping is not None:
            return
        log.info("becoming the installed version, with the applications that run: %d", self._supervisor.count)
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self._supervisor.roster.leave()
        self._reception.turn_strangers_away()
        for connection in list(self._reception.connections):
            connection.dismiss("the server becomes another version, and is back at once")
        runs, descriptors = self._supervisor.handover()
        self._flush()
        listeners = self._listeners.descriptors
        told = {"lock": self._lock, "listeners": listeners, "descriptors": self._descriptors, "runs": runs}
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)  # what comes meanwhile is the next program's
        try:
            upgrade.become(self._given, told, [self._lock, *listeners, *descriptors])
        except OSError as error:  # it was there a moment ago; systemd starts another, which finds the applications
            log.error("the installed version cannot be executed: %s", error)
            self._loop.stop()


def _keys(settings: Settings) -> Keyring:
    """Load the keys; what may pass with time is logged, what cannot serve is raised as SettingsError."""
    keys = keys_of(settings)
    for problem in check_keys(settings.keys, Role.GUEST):
        log.error("keys: %s", problem)
    return keys


def _tell(policy: Policy) -> None:
    """Tell the log who may do what here, most of all if nobody has said it."""
    log.log(logging.INFO if policy.written else logging.WARNING, "%s", policy)


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
