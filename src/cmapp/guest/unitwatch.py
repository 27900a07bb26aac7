"""A unit that is watched for one run: systemd is asked and heard, and what that means is told.

The invariant: systemd is not asked to stop or kill the unit before it was seen that what runs is this run's; and what
was told of a change, of which some may be missing, is the end of it only if nothing can come after.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING

from cmapp.core.dbus import Kind
from cmapp.core.unitlife import NO_JOB, UnitLife
from cmapp.core.unitstate import UnitState, state_of
from cmapp.guest.systemd import UNIT, said_of
from cmapp.guest.unitgroup import group_of
from cmapp.guest.unitparts import Parts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from cmapp.core.dbus import BusMessage
    from cmapp.core.unitlife import Telling
    from cmapp.guest.cgroup import CgroupTree
    from cmapp.guest.systemd import Systemd

log = logging.getLogger(__name__)

AGAIN = 1.0  # seconds until systemd is asked again that did not answer
PACE = 0.02  # seconds between two looks at a unit that changes all the time
MODE = "replace"  # of jobs, as systemctl has it


class UnitWatch:
    """The unit `name` of one run, called `title` in the log; `hear` gets what is to be told of it.

    `executing` tells that it is not known yet whether systemd takes the job to start it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        systemd: Systemd,
        name: str,
        title: str,
        hear: Callable[[list[Telling]], None],
    ) -> None:
        self.life = UnitLife()
        self.executing = False
        self._loop = loop
        self._systemd = systemd
        self._name = name
        self._title = title
        self._hear = hear
        self._properties: dict[str, Any] = {}
        self._group = ""  # as systemd calls it, also when it is through with the unit
        self._killing = False
        self._pressing = False  # what is wanted has to be said again
        self._foreign = 0  # a job of somebody else's
        self._parts = Parts(systemd, self._on_part)
        self._looking = self._changed = False  # an answer is awaited, and something has changed since it was asked for
        self._again: asyncio.TimerHandle | None = None

    # ---- what others ask -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start it, or go on with it."""
        self._systemd.watch(self._name, self)

    def stop(self, *, kill: bool = False) -> None:
        """Have systemd stop it, or kill all that belong to it."""
        self.life.asked_to_stop = True
        self._killing = self._killing or kill
        self._press()

    def close(self) -> None:
        """Watch it no more."""
        if self._again is not None:
            self._again.cancel()
        self._parts.close()
        self._systemd.call("UnrefUnit", "s", self._name)
        self._systemd.forget(self._name, self)

    @property
    def group(self) -> CgroupTree | None:
        """Its control group, if that is there."""
        return group_of(self._name, self._group)

    # ---- what systemd tells --------------------------------------------------------------------------------

    def back(self) -> None:
        """Look at the unit: at first, and whenever something may have been missed."""
        if self.life.ended:
            return
        if not self.life.started:
            self.executing = True
            self._systemd.properties(self._name, self._on_first)
            return
        self.life.missed()
        self._pressing, self._looking = True, False
        self._systemd.call("RefUnit", "s", self._name)  # or systemd may forget how it ended
        self._look()

    def away(self, why: str) -> None:
        """Take note that systemd cannot be asked; a run that goes on goes on."""
        self.executing = False
        self._hear(self.life.unreachable(why))

    def changed(self, interface: str, properties: dict[str, Any]) -> None:
        """Take note of what changed; the end is told at once, for anything else all of it is looked at."""
        self._properties.update(properties)
        if interface != UNIT or self.life.ended:
            return
        state = self.state
        if self.life.certain(state):
            self._hear(self.life.see(state))
        else:
            self._look()

    def job_begun(self, job: int) -> None:
        """Ask what a job is about that somebody else has given systemd for this unit."""
        if self.life.ended or self.life.asked_to_stop or not self.life.launched:
            return
        self._foreign, self.life.stopped_by = job, "?"  # it may end before anybody can tell

        def told(kind: str) -> None:
            if kind and self._foreign == job:
                self.life.stopped_by = kind

        self._systemd.job_type(job, told)

    def job_ended(self, job: int, result: str) -> None:
        """Take note of how a job for it ended."""
        self.life.job_ended(job, result)
        if job == self._foreign:
            self._systemd.properties(self._name, self._on_job_of_others)
        elif job == self.life.job:
            self._look()

    def _on_job_of_others(self, told: dict[str, Any] | None) -> None:
        self._see(told)
        self._foreign, self.life.stopped_by = 0, ""

    def _on_first(self, told: dict[str, Any] | None) -> None:
        if told is None or self.life.started or self.life.ended:
            self._look_later()
            return
        self._properties = told
        state = self.state
        if state.name not in ("", self._name):
            self._rename(state.name)
            return
        self._systemd.call("RefUnit", "s", self._name)
        tellings = self.life.start(state)
        if not tellings:
            self._systemd.call("ResetFailedUnit", "s", self._name)  # its count of starts is not the cluster's
            self._systemd.call("StartUnit", "ss", self._name, MODE, done=self._on_job)
            return
        self.executing = False
        self._hear(tellings)

    def _rename(self, name: str) -> None:
        """Watch the unit by its own name, of which ours is another."""
        log.info("%s: the unit %s is called %s", self._title, self._name, name)
        self._systemd.forget(self._name, self)
        if self._systemd.watches(name):
            self.executing = False
            self._hear(self.life.taken(name))
        else:
            self._name = name
            self._systemd.watch(name, self)

    def _on_job(self, answer: BusMessage | None) -> None:
        self.executing = False
        if self.life.ended:
            return
        if answer is None:  # it is not known whether it will be started: that is looked at as soon as it can be
            self.life.started = False
            self._look_later()
        elif answer.kind is Kind.ERROR:
            self._hear(self.life.refused(answer.error, said_of(answer)))
        else:
            job = str(answer.body[0]).rpartition("/")[2] if answer.body else ""
            self.life.job = int(job) if job.isdecimal() else NO_JOB
            self._look()

    def _look_later(self) -> None:
        if not self.life.ended:
            if self._again is not None:
                self._again.cancel()
            self._again = self._loop.call_later(AGAIN, self.back)

    def _look(self) -> None:
        """Ask for all properties: at once, or, of a unit that changes all the time, now and then."""
        if self._looking:
            self._changed = True
            return
        self._looking, self._changed = True, False
        self._systemd.properties(self._name, self._on_properties)

    def _on_properties(self, told: dict[str, Any] | None) -> None:
        if told is None:
            self._looking = False
            self._look_later()
            return
        self._see(told)
        if self._changed and not self.life.ended:
            self._loop.call_later(PACE, self._systemd.properties, self._name, self._on_properties)
            self._changed = False
        else:
            self._looking = False

    def _see(self, told: dict[str, Any] | None) -> None:
        if told is None or self.life.ended:
            return
        self._properties = told
        state = self.state
        self.life.parts = bool(self._parts.names)
        self._hear(self.life.see(state))
        if state.without_process and self.life.launched and not self.life.ended:
            self._parts.watch(state)
        if self._pressing:
            self._pressing = False
            self._press()

    def _on_part(self, part: UnitState) -> None:
        """Stop the rest of a unit of which a part is over, or it could not be started again; tell the end."""
        tellings = self.life.part_ended(part)
        if tellings:
            self._systemd.call("StopUnit", "ss", self._name, MODE)
            self._hear(tellings)
        elif not self.life.ended:
            self._look()

    @property
    def state(self) -> UnitState:
        """The unit as far as it was told of."""
        state = state_of(self._properties)
        self._group = state.group or self._group
        return state

    def _press(self) -> None:
        """Have systemd do what is wanted, once it was seen that the unit is what this run has started."""
        if self.life.ended or self.life.adopted or not self.life.asked_to_stop:
            return
        self._systemd.call("StopUnit", "ss", self._name, MODE)  # before it is killed, or systemd may restart it
        if self._killing:
            self._systemd.call("KillUnit", "ssi", self._name, "all", signal.SIGKILL)
            self._parts.kill()

    def rest(self, done: Callable[[CgroupTree | None, bool], None]) -> None:
        """Have `done` told the unit's control group if anybody of this run may be in it, and whether that is sure."""
        group, whole = self.group, self.state.without_process
        left = group if group is not None and group.members() else None
        if left is None and not whole:
            done(None, True)
            return

        def told(properties: dict[str, Any] | None) -> None:
            if properties is None:
                done(None, False)
            elif (state := state_of(properties)).invocation == self.life.invocation:
                if whole and state.runs:  # nobody may start it before it is stopped, or it would be found running
                    self._systemd.call("StopUnit", "ss", self._name, MODE)
                done(left, not (whole and state.runs) and not self._parts.names)
            else:
                log.warning("%s: somebody has started the unit anew: that is left alone", self._title)
                self._group = ""
                done(None, True)

        self._systemd.properties(self._name, told)
