"""The guest's systemd, as its manager tells of units over a bus: opened when the first unit is asked for.

What is heard is believed only of systemd itself: of the owner of its name, as the bus tells it. A bus that is gone is
tried again for as long as anybody watches a unit, and says nothing of the units. The invariant: whoever watches is told
`back` whenever something may have been missed: at first, on each connection, and when systemd was reloaded or executed
anew.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from cmapp.core.dbus import BusMessage, Kind, bare
from cmapp.guest.bus import DRIVEN, DRIVER, Bus

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence
    from typing import Any

log = logging.getLogger(__name__)

SOCKETS = (("/run/dbus/system_bus_socket", True), ("/run/systemd/private", False))  # the second is for root alone
NAME = "org.freedesktop.systemd1"
MANAGER_PATH = "/org/freedesktop/systemd1"
UNITS = f"{MANAGER_PATH}/unit/"
MANAGER, UNIT, SERVICE = (f"{NAME}.{word}" for word in ("Manager", "Unit", "Service"))
PROPERTIES = "org.freedesktop.DBus.Properties"
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two tries to reach the bus
_OWNER = f"type='signal',sender='{DRIVER}',interface='{DRIVER}',member='NameOwnerChanged',arg0='{NAME}'"
_OF_MANAGER = f"type='signal',sender='{NAME}',interface='{MANAGER}',path='{MANAGER_PATH}'"
_CHANGES = f"type='signal',sender='{NAME}',interface='{PROPERTIES}',member='PropertiesChanged'"
_REPLACED = 3  # values of NameOwnerChanged


class Watcher(Protocol):
    """Who watches a unit."""

    def back(self) -> None:
        """Be told that something may have been missed: look at everything."""

    def away(self, why: str) -> None:
        """Be told that systemd cannot be asked, which says nothing of the unit."""

    def changed(self, interface: str, properties: dict[str, Any]) -> None:
        """Be told properties that have changed: those of a service first, then those of the unit."""

    def job_begun(self, job: int) -> None:
        """Be told of a job for the unit."""

    def job_ended(self, job: int, result: str) -> None:
        """Be told how a job for the unit ended."""


class Systemd:
    """The connection to it, if any is wanted, and who watches which unit, by the unit's name."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sockets: Sequence[tuple[str, bool]] = SOCKETS) -> None:
        self._loop = loop
        self._sockets = sockets
        self._bus: Bus | None = None
        self._direct = False
        self.owner = ""  # of systemd's name, as the bus tells it
        self._watchers: dict[str, Watcher] = {}
        self._pause = FIRST_PAUSE
        self._retry: asyncio.TimerHandle | None = None
        self._told = ""
        self._known = False  # whether it answers

    # ---- what others ask -----------------------------------------------------------------------------------

    def watch(self, name: str, watcher: Watcher) -> None:
        """Tell `watcher` of that unit: `back` soon, or `away`."""
        self._watchers[name] = watcher
        if self._known:
            self._match(name)
            self._loop.call_soon(self._first, name, watcher)
        elif self._bus is None and self._retry is None:
            self._retry = self._loop.call_later(0, self._connect)
        elif self._retry is not None and self._told:
            self._loop.call_soon(self._first, name, watcher)

    def watches(self, name: str) -> bool:
        """Tell whether somebody watches that unit."""
        return name in self._watchers

    def forget(self, name: str, watcher: Watcher) -> None:
        """Tell it no more."""
        if self._watchers.get(name) is watcher:
            del self._watchers[name]
            if self._known and not self._direct:
                self._driver("RemoveMatch", "s", f"{_CHANGES},path='{path_of(name)}'")
            if not self._watchers:
                self.close()

    def close(self) -> None:
        """Hang up; nothing is reached any more until something is watched."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        if self._bus is not None:
            self._bus.close()
            self._bus = None
        self._known = False

    def call(
        self, member: str, signature: str = "", *body: Any, done: Callable[[BusMessage | None], None] = lambda _: None
    ) -> None:
        """Call a method of its manager; `done` is told the answer, None if there is none."""
        if self._bus is None:
            self._loop.call_soon(done, None)
        else:
            self._bus.call((NAME, MANAGER_PATH, MANAGER), member, signature, *body, done=done)

    def properties(self, name: str, done: Callable[[dict[str, Any] | None], None]) -> None:
        """Ask for all that is known of a unit; `done` is told it, None if there is no answer."""

        def answered(answer: BusMessage | None) -> None:
            usable = answer is not None and answer.kind is Kind.RETURN and answer.signature == "a{sv}"
            done(bare(answer.body[0]) if usable and answer is not None else None)

        if self._bus is None:
            self._loop.call_soon(done, None)
        else:
            self._bus.call((NAME, path_of(name), PROPERTIES), "GetAll", "s", "", done=answered)

    def job_type(self, job: int, done: Callable[[str], None]) -> None:
        """Ask what a job is to do, as "stop"; "" if it is over already."""

        def answered(answer: BusMessage | None) -> None:
            usable = answer is not None and answer.kind is Kind.RETURN and answer.signature == "v"
            done(str(bare(answer.body[0])) if usable and answer is not None else "")

        if self._bus is None:
            self._loop.call_soon(done, "")
        else:
            path = f"{MANAGER_PATH}/job/{job}"
            self._bus.call((NAME, path, PROPERTIES), "Get", "ss", f"{NAME}.Job", "JobType", done=answered)

    # ---- the connection ------------------------------------------------------------------------------------

    def _connect(self) -> None:
        self._retry = None
        problems = []
        for address, daemon in self._sockets:
            try:
                self._bus = Bus(self._loop, address, self.heard, self._lost, daemon=daemon)
            except OSError as error:
                problems.append(f"{address}: {error.strerror}")
                continue
            self._direct = not daemon
            self.owner = ""
            self._introduce()
            return
        self._lost("; ".join(problems))

    def _introduce(self) -> None:
        if not self._direct:
            self._driver("AddMatch", "s", _OWNER)
            self._driver("AddMatch", "s", _OF_MANAGER)
            self._driver("GetNameOwner", "s", NAME, done=self._on_owner)
        self.call("Subscribe", done=self._on_subscribed)

    def _driver(
        self, member: str, signature: str, *body: Any, done: Callable[[BusMessage | None], None] = lambda _: None
    ) -> None:
        if self._bus is not None:
            self._bus.call(DRIVEN, member, signature, *body, done=done)

    def _match(self, name: str) -> None:
        if not self._direct:
            self._driver("AddMatch", "s", f"{_CHANGES},path='{path_of(name)}'")

    def _on_owner(self, answer: BusMessage | None) -> None:
        if answer is not None and answer.kind is Kind.RETURN and answer.signature == "s":
            (self.owner,) = answer.body

    def _on_subscribed(self, answer: BusMessage | None) -> None:
        if self._bus is None:
            return
        if answer is None or (answer.kind is Kind.ERROR and not answer.error.endswith("AlreadySubscribed")):
            why = "it does not answer" if answer is None else said_of(answer)
            self._bus.close()
            self._lost(why)
            return
        if self._told:
            log.warning("systemd is reached again")
        self._known, self._told, self._pause = True, "", FIRST_PAUSE
        for name in self._watchers:
            self._match(name)
        self._all_back()

    def _all_back(self) -> None:
        for watcher in list(self._watchers.values()):
            watcher.back()

    def _first(self, name: str, watcher: Watcher) -> None:
        if self._watchers.get(name) is watcher:
            if self._known:
                watcher.back()
            else:
                watcher.away(self._told)

    def _lost(self, why: str) -> None:
        self._bus, self._known = None, False
        if not self._told:
            log.warning("systemd cannot be reached, which says nothing of its units: %s", why)
        self._told = why
        if self._watchers and self._retry is None:
            self._retry = self._loop.call_later(self._pause, self._connect)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        for watcher in list(self._watchers.values()):
            watcher.away(why)

    # ---- signals -------------------------------------------------------------------------------------------

    def heard(self, signal: BusMessage) -> None:
        """Take a signal that came: whoever sent it, systemd's own are believed, and the bus's."""
        if signal.member == "NameOwnerChanged" and signal.sender == DRIVER and not self._direct:
            if signal.signature == "sss" and signal.body[0] == NAME:
                self._on_new_owner(signal.body[2])
        elif self._direct or (self.owner and signal.sender == self.owner):
            self._of_systemd(signal)

    def _on_new_owner(self, owner: str) -> None:
        self.owner = owner
        if owner:
            self.call("Subscribe", done=lambda _: self._all_back())

    def _of_systemd(self, signal: BusMessage) -> None:
        if signal.member == "PropertiesChanged" and signal.signature == "sa{sv}as":
            watcher = self._watchers.get(name_of(signal.path))
            if watcher is not None:
                watcher.changed(signal.body[0], bare(signal.body[1]))
        elif signal.member == "JobRemoved" and signal.signature == "uoss":
            job, _, name, result = signal.body
            watcher = self._watchers.get(name)
            if watcher is not None:
                watcher.job_ended(job, result)
        elif signal.member == "JobNew" and signal.signature == "uos":
            watcher = self._watchers.get(signal.body[2])
            if watcher is not None:
                watcher.job_begun(signal.body[0])
        elif signal.member == "Reloading" and signal.body == (False,):
            self._all_back()


def said_of(answer: BusMessage) -> str:
    """Return what an error says, in its own words."""
    told = answer.body[0] if answer.signature.startswith("s") else ""
    return str(told) or answer.error


def path_of(name: str) -> str:
    """Return the path of a unit's object: what is no letter or digit is written as _ and two hexadecimal digits."""
    told = name.encode()
    return UNITS + "".join(
        chr(byte) if chr(byte).isalpha() or (place and chr(byte).isdigit()) else f"_{byte:02x}"
        for place, byte in enumerate(told)
    )


def name_of(path: str) -> str:
    """Return the name of the unit whose object has that path, "" if it is none's."""
    if not path.startswith(UNITS):
        return ""
    first, *others = path.removeprefix(UNITS).split("_")
    try:
        return first + "".join(chr(int(other[:2], 16)) + other[2:] for other in others)
    except ValueError:
        return ""
