"""The faults: what is done to a guest, and what is done to the manager or the application of one post.

A fault on a guest lasts as long as it is told, and is mended before its function returns; others may happen to the
same guest meanwhile. The invariant: each is in the account with the time from before it began until after it was
mended, so that what it explains lies within.
"""

from __future__ import annotations

import signal
import threading
import time
from typing import TYPE_CHECKING

from chaos.guests import UNIT, heeds, send
from chaos.managers import CODES, SIGNALS
from chaos.story import Fault

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from chaos.evidence import Account
    from chaos.guests import Guest
    from chaos.managers import Post, Running

    Pause = Callable[[float], object]
    Inflict = Callable[[Guest, Callable[[], object]], bool]  # tells whether there was anybody to do it to

SERVER = "/cmappserver"
SAME_RUN, TAKEOVER = 0.4, 0.3  # how many of the duplicates launch the same run, or push the other aside


class Wrecker:
    """Inflicts faults and writes them down; `pause` waits, and less long when the campaign is to end."""

    def __init__(self, account: Account, pause: Pause) -> None:
        self._account = account
        self._pause = pause
        self._lock = threading.Lock()

    def inflict(self, kind: str, guest: Guest, seconds: float, second: str = "") -> None:
        """Inflict one fault of GUEST_FAULTS, with a second one of AT_ONCE in the middle of it."""

        def last() -> None:
            self._pause(seconds / 2)
            if second:
                self.inflict(second, guest, 0)
            self._pause(seconds / 2)

        begun = time.monotonic()
        if GUEST_FAULTS[kind][1](guest, last):
            self._note(Fault(kind, guest.name, begun, time.monotonic()))

    def harass(self, kind: str, post: Post, random: Random, seconds: float) -> list[Running]:
        """Do one thing of POST_FAULTS to a post; return the managers that were started for it."""
        if post.manager is None or not post.manager.alive:
            return []
        begun, run_id, manager = time.monotonic(), post.run_id, post.manager
        number, extra = 0, []
        match kind:
            case "manager-kill" | "manager-term" | "manager-detach":
                number = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "detach": signal.SIGUSR1}[kind[8:]]
                manager.send(number)
            case "manager-pause":
                manager.send(signal.SIGSTOP)
                self._pause(seconds)
                manager.send(signal.SIGCONT)
            case "app-order":
                way = random.choice(("exit", "signal"))
                number = random.choice(CODES if way == "exit" else SIGNALS)
                post.order(way, number)
            case "app-kill":
                number = random.choice((signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL))
                # Noted before: what it explains must not be told first.
                self._note(Fault(kind, post.guest.name, begun, begun, run_id, number))
                for pid in post.processes()[:1]:
                    send(pid, number, run_id)
                return []
            case "duplicate":
                same_run, takeover = random.random() < SAME_RUN, random.random() < TAKEOVER
                extra = [post.duplicate(same_run=same_run, takeover=takeover)]
                run_id = post.name
        self._note(Fault(kind, post.guest.name, begun, time.monotonic(), run_id, number))
        return extra

    def _note(self, fault: Fault) -> None:
        with self._lock:
            self._account.faults.append(fault)


def _cut(guest: Guest, last: Callable[[], object]) -> bool:
    guest.cut()
    last()
    guest.heal()
    return True


def _drop(*, towards_guest: bool) -> Inflict:
    def inflict(guest: Guest, last: Callable[[], object]) -> bool:
        guest.drop(towards_guest=towards_guest)
        last()
        guest.heal()
        return True

    return inflict


def _freeze(guest: Guest, last: Callable[[], object]) -> bool:
    guest.freeze()
    last()
    guest.thaw()
    return True


def _crash(guest: Guest, last: Callable[[], object]) -> bool:
    guest.crash()
    last()
    guest.boot()
    return True


def _shut_down(guest: Guest, last: Callable[[], object]) -> bool:
    guest.shut_down()
    last()
    guest.boot()
    return True


def _fill(guest: Guest, last: Callable[[], object]) -> bool:
    guest.fill()
    last()
    guest.empty()
    return True


def _restart(guest: Guest, _: Callable[[], object]) -> bool:
    return guest.call("systemctl", "restart", UNIT).returncode == 0


def _pause_server(guest: Guest, last: Callable[[], object]) -> bool:
    pid = guest.server()
    if pid is None or not send(pid, signal.SIGSTOP, SERVER):
        return False
    last()
    send(pid, signal.SIGCONT, SERVER)
    return True


def _signal_server(number: int) -> Inflict:
    def inflict(guest: Guest, _: Callable[[], object]) -> bool:
        pid = guest.server()
        return pid is not None and send(pid, number, SERVER)

    return inflict


def _ask_server(number: int) -> Inflict:
    """Send what no process survives that has not learned yet to heed it, as a server that has just begun."""

    def inflict(guest: Guest, _: Callable[[], object]) -> bool:
        pid = guest.server()
        return pid is not None and heeds(pid, number) and send(pid, number, SERVER)

    return inflict


# How often each is chosen, and what does it.
GUEST_FAULTS: dict[str, tuple[int, Inflict]] = {
    "cut": (3, _cut),
    "deaf": (2, _drop(towards_guest=True)),
    "mute": (2, _drop(towards_guest=False)),
    "freeze": (3, _freeze),
    "crash": (2, _crash),
    "shutdown": (1, _shut_down),
    "disk-full": (3, _fill),
    "server-kill": (4, _signal_server(signal.SIGKILL)),
    "server-term": (2, _signal_server(signal.SIGTERM)),
    "server-pause": (3, _pause_server),
    "server-restart": (2, _restart),
    "server-upgrade": (4, _ask_server(signal.SIGUSR2)),
    "server-reload": (1, _ask_server(signal.SIGHUP)),
}
# These leave the guest's systemd and its cable alone, so they may happen during another fault.
AT_ONCE = ("server-kill", "server-term", "server-upgrade", "server-reload")
POST_FAULTS = {
    "manager-kill": 4,
    "manager-term": 2,
    "manager-detach": 1,
    "manager-pause": 3,
    "app-order": 4,
    "app-kill": 3,
    "duplicate": 3,
}
