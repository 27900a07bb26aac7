"""Carries out what the roster decides: effects become processes, files, messages and log lines.

Everything that happens (a manager's message, an event of a run, the clock) is an input of the roster, and what
comes back is done in order before the next input's effects; so this file decides nothing. The invariant: of each
run that the roster has in its charge there is one execution here, from the moment it is prepared or adopted.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from typing import TYPE_CHECKING, ClassVar

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.charge import Facts
from cmapp.core.ledger import encode_line
from cmapp.core.lifecycle import Action, Event
from cmapp.core.outcome import Unknown
from cmapp.core.roster import Roster
from cmapp.errors import RunError, place_of
from cmapp.guest import fdstore
from cmapp.guest.containment import reap_orphans
from cmapp.guest.launching import adopt, identity_of, is_executed, is_found, prepare
from cmapp.guest.leftovers import Leftovers
from cmapp.guest.receipts import Receipts
from cmapp.guest.reports import page_of, report_of
from cmapp.guest.surroundings import Surroundings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.core.effects import Effect
    from cmapp.guest.client import Client
    from cmapp.guest.containment import Containment
    from cmapp.guest.disk import Disk
    from cmapp.guest.launching import AnyExecution
    from cmapp.guest.output import Capture
    from cmapp.guest.settings import Settings

log = logging.getLogger(__name__)

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
FILE_LONG = 256 * 1024  # bytes of a run's file from which on it is written anew, as one entry
RECEIPTS_KEPT = 10_000
LEVELS = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Supervisor:
    """The roster, its executions and its files."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        disk: Disk,
        containment: Containment,
        descriptors: tuple[int, int],
    ) -> None:
        """Give applications `descriptors` as their limit of open files, soft and hard."""
        with open(BOOT_ID_FILE) as file:  # now, while there are descriptors
            self.boot_id = file.read().strip()
        self.roster = Roster(self.boot_id, most=0, receipts=RECEIPTS_KEPT, retention=0.0)  # the rest is in the settings
        self.files = Receipts(disk, settings.state_dir)
        self._loop = loop
        self._around = Surroundings(loop, disk, containment, settings, descriptors)
        self._around.report_to(self._happened, self._moved, self._identified, self._beat, self._wrote)
        self.leaders = self._around.leaders
        self._executions: dict[str, AnyExecution] = {}
        self._leftovers = Leftovers(self._around)
        self._effects: deque[Effect] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._all_ended: Callable[[], None] | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Go by these settings from here on; what runs goes on as it was launched."""
        self.settings = self._around.settings = settings
        self.roster.admission.policy = settings.policy()
        self.roster.admission.most = settings.max_applications
        self.roster.archive.retention = settings.receipt_retention

    def load(self, handed: Mapping[str, Mapping[str, Any]], stored: dict[str, int]) -> None:
        """Take over what servers before this one have left on disk, and, by run id, what was `handed` or `stored`."""
        found = []
        for run_id, entries in self.files.load():
            try:
                found.append(Facts(entries, settled=self.files.is_settled(run_id)))
            except (ValueError, KeyError, TypeError) as error:
                log.error("the file of run %s is left alone: %s", run_id, error)
                self.files.leave_alone(run_id)
        self._around.handed, self._around.stored = dict(handed), stored
        self._carry_out(self.roster.load(found, time.monotonic(), time.time(), self.files.unusable))
        waiting = [facts.launch for facts in found if self.roster.archive.waits(facts.launch.run_id)]
        self._leftovers.clear_up(self._executions.keys(), self.files.spared, waiting)
        for run_id, descriptor in self._around.stored.items():
            fdstore.drop(run_id)
            os.close(descriptor)

    # ---- what managers do ----------------------------------------------------------------------------------

    def greet(self, client: Client, instance: str) -> None:
        """Let a proven manager in."""
        self._carry_out(self.roster.greet(client, client.manager, instance, time.monotonic()))

    def heard(self, client: Client) -> None:
        """Take note that the manager answers."""
        if effects := self.roster.heard(client):  # mostly there are none, and this is asked for all that is heard
            self._carry_out(effects)

    def lost(self, client: Client) -> None:
        """Take note that its link is gone, or will be."""
        self._carry_out(self.roster.lost(client, time.monotonic()))

    def launch(self, client: Client, launch: m.Launch) -> None:
        """Launch, attach, have it wait, or refuse."""
        self._carry_out(self.roster.launch(client, launch, time.monotonic(), time.time()))

    def stop(self, client: Client, stop: m.Stop) -> None:
        """Stop the manager's run."""
        self._carry_out(self.roster.stop(client, stop, time.monotonic()))

    def detach(self, client: Client, detach: m.Detach) -> None:
        """Leave the manager's run to a later one."""
        self._carry_out(self.roster.detach(client, detach, time.monotonic()))

    def hold(self, client: Client, hold: m.Hold) -> None:
        """Let a run be, or no longer."""
        self._carry_out(self.roster.hold(client, hold, time.monotonic()))

    def acknowledge(self, client: Client, acknowledge: m.Acknowledge) -> None:
        """Take note that the manager has recorded an outcome."""
        self._carry_out(self.roster.acknowledge(client, acknowledge, time.time()))

    # ---- what managers ask ---------------------------------------------------------------------------------

    def answers_for(self, client: Client) -> bool:
        """Tell whether the manager has a run here that lives."""
        charge = self.roster.mine(client)
        return charge is not None and charge.run.alive

    def report(self, client: Client) -> m.RunReport | None:
        """Return how the manager's run is, measured now, or None if it has none."""
        charge = self.roster.mine(client)
        return None if charge is None else report_of(charge, self._executions.get(charge.run_id))

    def reports(self, manager: str, after: str, room: int) -> tuple[list[m.RunReport], bool]:
        """Return a page of reports of the runs that `manager` may see, as `page_of` does."""
        return page_of(self.roster.seen_by(manager), self._executions, after, room)

    def output(self, run_id: str, stream: m.Stream) -> Capture | None:
        """Return what is kept of the run's output, as long as there is anything of it."""
        execution = self._executions.get(run_id)
        captures = self._leftovers.find(run_id) if execution is None else execution.captures
        return None if captures is None else captures.get(stream)

    # ---- the server ----------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Look after what nothing tells of, once a second: zombies of strangers, escaping processes, old receipts.

        SIGCHLD is not listened to: many at once would fill asyncio's wake-up pipe, and a SIGTERM that finds it full
        is lost.
        """
        reap_orphans(self._around.leaders)
        self._around.containment.tidy()
        for execution in self._executions.values():
            execution.look_around()
        self._on_clock()

    def end_all(self, when_ended: Callable[[], None]) -> None:
        """Stop all runs by their rules, at a second call by SIGKILL; call `when_ended` once none is left."""
        self._all_ended = when_ended
        self._carry_out(self.roster.end_all(time.monotonic()))

    def handover(self) -> tuple[dict[str, dict[str, Any]], list[int]]:
        """Return what the next program of this process must be told of each run, and the descriptors it needs."""
        told, descriptors = {}, []
        for run_id, execution in self._executions.items():
            said, held = execution.handover()
            told[run_id] = said
            descriptors += held
        return told, descriptors

    def leave(self) -> None:
        """Let go of everything without touching what runs."""
        if self._timer is not None:
            self._timer.cancel()
        for execution in self._executions.values():
            execution.let_go()
        self._leftovers.tidy()

    @property
    def starting(self) -> bool:
        """Whether any run is being launched at this moment."""
        return any(execution.starting for execution in self._executions.values())

    @property
    def count(self) -> int:
        """How many runs there are."""
        return len(self.roster.charges)

    # ---- what happens to runs ------------------------------------------------------------------------------

    def _happened(self, run_id: str, event: Event, **details: Any) -> None:
        self._carry_out(self.roster.happened(run_id, event, time.monotonic(), time.time(), **details))

    def _moved(self, run_id: str, pid: int, start: int) -> None:
        self._carry_out(self.roster.moved(run_id, pid, start))

    def _identified(self, run_id: str, pid: int, invocation: str) -> None:
        self._carry_out(self.roster.identified(run_id, pid, invocation))

    def _beat(self, run_id: str) -> None:
        self.roster.beat(run_id, time.monotonic())

    def _wrote(self, run_id: str) -> None:
        charge = self.roster.charge(run_id)
        if charge is not None and charge.link is not None:
            client: Any = charge.link
            client.pass_output()

    def _on_clock(self) -> None:
        runs = self._executions
        self._carry_out(self.roster.clock(time.monotonic(), time.time(), lambda run_id: runs[run_id].care.trouble))

    # ---- what is done --------------------------------------------------------------------------------------

    def _carry_out(self, effects: list[Effect]) -> None:
        busy = bool(self._effects)
        self._effects += effects
        if busy:  # by way of an effect that is being carried out: whoever does that goes on with these
            return
        while self._effects:
            effect = self._effects[0]
            try:
                self._DO[type(effect)](self, effect)
            except Exception as error:  # noqa: BLE001 - a defect of ours: the other runs are not to blame
                log.error("internal error at %s: %r", place_of(error), error)
            self._effects.popleft()
        self._set_timer()
        if self._all_ended is not None and not self.roster.charges:
            all_ended, self._all_ended = self._all_ended, None
            all_ended()

    def _set_timer(self) -> None:
        deadline = self.roster.deadline
        if self._timer is not None:
            if not self._timer.cancelled() and self._timer.when() == deadline:
                return
            self._timer.cancel()
        self._timer = None if deadline is None else self._loop.call_at(deadline, self._on_clock)

    def _spawn(self, effect: do.Spawn) -> None:
        run_id = effect.launch.run_id
        try:
            execution = prepare(self._around, effect.launch)
        except RunError as error:
            self._carry_out(self.roster.unprepared(run_id, error.code, str(error), time.monotonic(), time.time()))
            return
        self._executions[run_id] = execution
        self._carry_out(self.roster.prepared(run_id, *identity_of(execution), execution.tree.where))

    def _begin(self, effect: do.Begin) -> None:
        run_id, execution = effect.run_id, self._executions[effect.run_id]

        def done(error: OSError | None) -> None:
            if self._executions.get(run_id) is execution:  # and not one that was launched under that run id since
                execution.recorded(error)

        self.files.begin(run_id, b"".join(map(encode_line, effect.entries)), done)

    def _adopt(self, effect: do.Adopt) -> None:
        charge = self.roster.charge(effect.run_id)
        execution = adopt(self._around, effect)
        self._executions[effect.run_id] = execution
        if charge is not None and charge.run.held:
            execution.care.hold(True)
        if is_found(execution):
            log.info("%s: found as process %d", charge, effect.pid)
            execution.go_on(ready=charge is not None and charge.run.ready)
            self._carry_out(self.roster.adopted(effect.run_id, executed=is_executed(execution)))
        else:
            self._happened(effect.run_id, Event.LEADER_ENDED, outcome=Unknown("it ended while there was no server"))

    def _act(self, effect: do.Do) -> None:
        execution = self._executions.get(effect.run_id)
        if execution is None:
            return
        execution.do(effect.action)
        if effect.action is Action.FREE_NAME:
            del self._executions[effect.run_id]
            self._leftovers.keep(effect.run_id, execution.captures)
            if not self.roster.archive.waits(effect.run_id):
                self._leftovers.drop(effect.run_id)

    def _write(self, effect: do.Write) -> None:
        self.files.add(effect.run_id, encode_line(effect.entry), sync=effect.sync)
        charge = self.roster.charge(effect.run_id)
        if charge is not None and self.files.size(effect.run_id) > FILE_LONG:
            self.files.rewrite(effect.run_id, encode_line(charge.facts))

    def _forget(self, effect: do.Forget) -> None:
        self.files.forget(effect.run_id)
        self._leftovers.drop(effect.run_id)

    def _hold(self, effect: do.Hold) -> None:
        execution = self._executions.get(effect.run_id)
        if execution is not None:
            execution.care.hold(effect.on)

    _DO: ClassVar[dict[type, Callable[[Supervisor, Any], None]]] = {
        do.Spawn: _spawn,
        do.Begin: _begin,
        do.Do: _act,
        do.Write: _write,
        do.Settle: lambda self, effect: self.files.end(effect.run_id),
        do.Forget: _forget,
        do.DropOutput: lambda self, effect: self._leftovers.drop(effect.run_id),
        do.Adopt: _adopt,
        do.Hold: _hold,
        do.Say: lambda _, effect: effect.link.say(effect.message),
        do.Dismiss: lambda _, effect: effect.link.dismiss(effect.reason),
        do.Log: lambda _, effect: log.log(LEVELS[effect.level], "%s", effect.text),
    }
