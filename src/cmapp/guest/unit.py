"""One run that is a unit, carried out by systemd: the lifecycle's actions become calls, what systemd tells its events.

Systemd is asked and heard by unitwatch.py; what it tells means is core/unitlife.py's matter. Commands beside the unit
(checks, what stops it in its way) have a tree of their own. The invariant: to the supervisor it is an execution like
any other: launched or refused once, its end told once, and "tree empty" when nobody of it is left.
"""

from __future__ import annotations

import logging
import signal
from typing import TYPE_CHECKING, ClassVar, Self

from cmapp.core import unitlife as life
from cmapp.core.lifecycle import Action, Event
from cmapp.core.messages import Refusal
from cmapp.core.outcome import Unknown
from cmapp.core.rules import Probe
from cmapp.core.unitlife import SYSTEMD
from cmapp.errors import RunError
from cmapp.guest.command import Commands
from cmapp.guest.containment import tree_left
from cmapp.guest.health import Care, check
from cmapp.guest.proc import Usage
from cmapp.guest.unitrest import Remains
from cmapp.guest.unitwatch import UnitWatch

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from cmapp.core.effects import Adopt
    from cmapp.core.messages import Launch, Stream
    from cmapp.core.unitlife import Telling
    from cmapp.guest.containment import Tree
    from cmapp.guest.output import Capture
    from cmapp.guest.surroundings import Surroundings

log = logging.getLogger(__name__)

_OWN_READINESS = (Probe.TCP, Probe.HTTP, Probe.COMMAND)  # which somebody else than systemd tells


class UnitExecution:
    """A run here that is a unit; it has no captures, since the guest's journal keeps what it writes."""

    def __init__(self, around: Surroundings, launch: Launch, tree: Tree) -> None:
        """Not to be called: see `prepare` and `adopt`."""
        self.launch = launch
        self.tree = tree
        self.captures: dict[Stream, Capture] = {}
        self._around = around
        self._trouble: tuple[str, str] | None = None
        self._watch = UnitWatch(around.loop, around.systemd, launch.unit, self._title, self._hear)
        self.care = Care(around.loop, launch, Commands(around, launch, tree).run, self._on_said, tree.owns)
        self._remains = Remains(around.loop, tree, self._watch.rest, lambda: self._tell(Event.TREE_EMPTY))

    @classmethod
    def prepare(cls, around: Surroundings, launch: Launch) -> Self:
        """Make what a run needs; systemd is not asked yet. Raises RunError when it cannot be."""
        check(launch)
        if around.systemd.watches(launch.unit):
            raise RunError(Refusal.NAME_TAKEN, f"the unit {launch.unit} is that of another application")
        tree = around.containment.tree(launch.run_id)
        if tree.join is not None:  # nobody enters it but commands, each by a descriptor of its own
            tree.started(SYSTEMD)
        return cls(around, launch, tree)

    @classmethod
    def adopt(cls, around: Surroundings, adopt: Adopt) -> Self:
        """Take over what a server before this one has had systemd start."""
        around.handed.pop(adopt.run_id, None)
        run = cls(around, adopt.launch, tree_left(around.containment, adopt.run_id, adopt.where))
        run._watch.life.adopt(adopt.invocation, over=adopt.over)
        return run

    # ---- what others ask -----------------------------------------------------------------------------------

    @property
    def starting(self) -> bool:
        """Whether it is not known yet if systemd takes the job to start it."""
        return self._watch.executing

    def usage(self) -> Usage:
        """Return what the whole unit uses."""
        try:
            group = self._watch.group
            return Usage(0.0, 0, 0) if group is None else group.usage()
        except OSError:
            return Usage(0.0, 0, 0)

    def look_around(self) -> None:
        """Do nothing: systemd tells."""

    def recorded(self, error: OSError | None) -> None:
        """Take note that the run's file is written, or why not."""
        if error is not None:
            text = f"its record cannot be written to the state folder: {error.strerror}"
            self._trouble = (Refusal.RESOURCES, text)
            log.error("%s: %s", self._title, text)
        self._tell(Event.NOT_RECORDED if error else Event.RECORDED)

    def go_on(self, *, ready: bool) -> None:
        """Watch a run that was adopted."""
        self._watch.life.ready = ready
        self.care.launched(ready=ready)
        self._watch.begin()

    def handover(self) -> tuple[dict[str, Any], list[int]]:
        """Return that there is nothing to be handed over: the next server asks systemd."""
        self.care.rest()
        return {}, []

    def let_go(self) -> None:
        """Touch nothing of it any more: the next server goes on with it."""
        self.care.close(remove=False)
        self._watch.close()

    def do(self, action: Action) -> None:
        """Carry an action of the lifecycle out."""
        self._DO[action](self)

    # ---- what happens --------------------------------------------------------------------------------------

    def _hear(self, tellings: list[Telling]) -> None:
        for telling in tellings:
            self._TELL[type(telling)](self, telling)

    def _on_launched(self, _: life.Launched) -> None:
        self._tell(Event.SPAWNED)
        self.care.launched()

    def _on_ready(self, _: life.Ready) -> None:
        rules = self.launch.ready
        if rules is None or rules.probe not in _OWN_READINESS:
            self.care.ready()
            self._tell(Event.READY)

    def _on_noted(self, noted: life.Noted) -> None:
        log.log(logging.WARNING if noted.grave else logging.INFO, "%s: %s", self._title, noted.text)
        self.care.last_status = noted.text

    def _on_refused(self, refused: life.Refused) -> None:
        self._tell(Event.SPAWN_FAILED, refusal=(refused.code, refused.text))
        self._tell(Event.LEADER_ENDED, outcome=Unknown(refused.text))

    def _on_said(self, event: str, text: str) -> None:
        """Hear what the checks say."""
        if event == "ready":
            self._tell(Event.READY)
        elif event == "unhealthy":
            self._tell(Event.UNHEALTHY, detail=text)

    # ---- what is done --------------------------------------------------------------------------------------

    def _execute(self) -> None:
        self._watch.executing = True
        self._watch.begin()

    def _ask_to_stop(self) -> None:
        log.info("%s: stopping, by systemd, SIGKILL after %g s", self._title, self.launch.stop.timeout)
        self.care.stop(self._watch.state.main or SYSTEMD, self._on_stop_command)

    def _on_stop_command(self, trouble: str) -> None:
        if trouble:
            log.warning("%s: %s", self._title, trouble)
        self._tell(Event.STOP_COMMAND_ENDED)

    def _kill(self) -> None:
        self.care.rest()
        self.tree.kill()
        self._remains.reach(signal.SIGKILL)
        if self._watch.life.ended:
            return
        if self._watch.life.started:
            self._watch.stop(kill=True)
        else:
            self._watch.life.ended = True
            code, text = self._trouble or (Refusal.STOPPED, "it was killed before it was launched")
            self._on_refused(life.Refused(code, text))

    def _signal_rest(self) -> None:
        self.tree.signal(self.launch.stop.signal)
        self._remains.reach(self.launch.stop.signal)

    def _watch_tree(self) -> None:
        self.care.rest()
        self._remains.watch()

    def _complain(self) -> None:
        log.error("%s: processes survive SIGKILL, its name stays taken until they are gone", self._title)

    def _end(self) -> None:
        self.care.close()
        self._watch.close()
        self.tree.remove()

    def _tell(self, event: Event, **details: Any) -> None:
        self._around.happened(self.launch.run_id, event, **details)

    @property
    def _title(self) -> str:
        return f"{self.launch.name} (run {self.launch.run_id})"

    _TELL: ClassVar[dict[type[Telling], Callable[[UnitExecution, Any], None]]] = {
        life.Launched: _on_launched,
        life.Identified: lambda self, it: self._around.identified(self.launch.run_id, it.pid, it.invocation),
        life.Ready: _on_ready,
        life.Noted: _on_noted,
        life.Refused: _on_refused,
        life.Says: lambda self, it: setattr(self.care, "last_status", it.text),
        life.Ended: lambda self, it: self._tell(Event.LEADER_ENDED, outcome=it.outcome, detail=it.detail),
    }
    _DO: ClassVar[dict[Action, Callable[[UnitExecution], None]]] = {
        Action.EXECUTE: _execute,
        Action.ASK_TO_STOP: _ask_to_stop,
        Action.SIGNAL_TREE: lambda self: self._watch.stop(),
        Action.SIGNAL_REST: _signal_rest,
        Action.KILL_TREE: _kill,
        Action.WATCH_TREE: _watch_tree,
        Action.TELL_ENDED: lambda _: None,
        Action.COMPLAIN: _complain,
        Action.FREE_NAME: _end,
    }
