"""Defects to be planted: each breaks one rule of a core, in memory, and the simulator has to find it.

A search that has never found anything proves nothing. The invariant: what is planted is gone when `planted` is
left, and every plant breaks a rule that some promise of the design rests on.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from cmapp.core import course, custody, lifecycle
from cmapp.core import effects as do
from cmapp.core.admission import Admission
from cmapp.core.archive import Archive
from cmapp.core.charge import Facts
from cmapp.core.custody import Custody
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.opinion import Doubt
from cmapp.core.outcome import Exited, Unknown
from cmapp.core.pursuit import Pursuit
from cmapp.core.reading import Word
from cmapp.core.roster import Roster
from cmapp.core.run import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, MutableMapping


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Break the rule that is called `name` for as long as this lasts; none if it is empty."""
    with contextlib.ExitStack() as stack:
        if name:
            PLANTS[name](stack)
        yield


def _set(stack: contextlib.ExitStack, where: Any, name: str, value: Any) -> None:
    """Change an attribute until the stack is left."""
    stack.callback(setattr, where, name, vars(where)[name])
    setattr(where, name, value)


def _enter(stack: contextlib.ExitStack, table: MutableMapping[Any, Any], key: Any, value: Any) -> None:
    """Change an entry of a table until the stack is left."""
    stack.callback(table.__setitem__, key, table[key])
    table[key] = value


def _start_without_waiting(stack: contextlib.ExitStack) -> None:
    """Start a run although something of the run before still lives."""

    def contend(self: Any, launch: Any, peer: Any, _holder: Any, now: float) -> None:
        self._start(launch, peer, now, 0.0)

    _set(stack, Admission, "_contend", contend)


def _push_aside(stack: contextlib.ExitStack) -> None:
    """Let a newcomer in although the manager before it is there and answers."""
    contend: Any = vars(Admission)["_contend"]

    def pushing(self: Any, launch: Any, *others: Any) -> None:
        contend(self, launch.replace(takeover=True), *others)

    _set(stack, Admission, "_contend", pushing)


def _forget_anybody(stack: contextlib.ExitStack) -> None:
    """Forget the oldest receipt when any is acknowledged, whose ever it is."""
    acknowledge: Any = vars(Archive)["acknowledge"]

    def careless(self: Any, manager: str, run_id: str, wall: float) -> Any:
        oldest = next(iter(self._kept), run_id)
        self._acknowledged.setdefault(oldest, wall)
        return acknowledge(self, manager, run_id, wall)

    _set(stack, Archive, "acknowledge", careless)


def _forget_at_once(stack: contextlib.ExitStack) -> None:
    """Keep no receipt for a manager that is away."""
    _set(stack, Custody, "_keep", lambda *_: None)


def _go_early(stack: contextlib.ExitStack) -> None:
    """Execute the command before its run is recorded."""
    prepared: Any = vars(Roster)["prepared"]

    def hasty(self: Any, run_id: str, *others: Any) -> list[Any]:
        return [*prepared(self, run_id, *others), do.Do(run_id, Action.EXECUTE)]

    _set(stack, Roster, "prepared", hasty)
    _enter(stack, lifecycle.TABLE, (State.STARTING, Event.RECORDED), (State.STARTING, ()))


def _launch_anew(stack: contextlib.ExitStack) -> None:
    """Launch on every link as if it were the first, though the run may have been started before."""
    _set(stack, Pursuit, "resume", property(lambda _: False))


def _free_early(stack: contextlib.ExitStack) -> None:
    """Free the name when the leader has ended, whatever it has left behind."""
    actions = (Action.KILL_TREE, Action.TELL_ENDED, Action.FREE_NAME)
    _enter(stack, lifecycle.TABLE, (State.RUNNING, Event.LEADER_ENDED), (State.ENDED, actions))


def _tell_early(stack: contextlib.ExitStack) -> None:
    """Tell the end of a run that is stopped when its leader has ended."""
    actions = (Action.TELL_ENDED, Action.KILL_TREE, Action.WATCH_TREE)
    _enter(stack, lifecycle.TABLE, (State.STOPPING, Event.LEADER_ENDED), (State.CLEARING, actions))


def _spare_stubborn(stack: contextlib.ExitStack) -> None:
    """Never kill what does not obey the stop signal."""
    _enter(stack, lifecycle.TABLE, (State.STOPPING, Event.DEADLINE_PASSED), (State.STOPPING, ()))


def _keep_name(stack: contextlib.ExitStack) -> None:
    """Keep the name of a run that has ended by itself for ever."""
    _enter(stack, lifecycle.TABLE, (State.CLEARING, Event.TREE_EMPTY), (State.ENDED, ()))


def _invent(stack: contextlib.ExitStack) -> None:
    """Take an outcome that nobody knows for a success."""
    receipt: Any = vars(Run)["receipt"]

    def bold(self: Any, now: float) -> Any:
        said = receipt(self, now)
        return said.replace(outcome=Exited(0)) if isinstance(said.outcome, Unknown) else said

    _set(stack, Run, "receipt", bold)


def _believe(stack: contextlib.ExitStack) -> None:
    """Believe how a process ended of which nobody knows whether it was the application yet."""
    charge: Any = vars(Facts)["charge"]

    def sure(self: Any, now: float) -> Any:
        made = charge(self, now)
        made.sure = True
        return made

    _set(stack, Facts, "charge", sure)


def _spare_orphans(stack: contextlib.ExitStack) -> None:
    """Never stop a run whose manager is lost."""
    _set(stack, Run, "orphan", lambda *_: None)


def _haste_orphans(stack: contextlib.ExitStack) -> None:
    """Stop a run as soon as its manager is lost."""
    _set(stack, Run, "orphan", lambda self, now, *_: self._timers.__setitem__(Event.ORPHANED, now))


def _leave_behind(stack: contextlib.ExitStack) -> None:
    """Take over no run from the server before."""
    _set(stack, custody.Custody, "take_over", lambda *_: None)


def _give_up(stack: contextlib.ExitStack) -> None:
    """Take a lost link for the end."""
    end = (course.State.CONCLUDED, (course.Action.HANG_UP, course.Action.CONCLUDE))
    _enter(stack, course.TABLE, (course.State.WATCHING, course.Event.LINK_LOST), end)


def _take_for_down(stack: contextlib.ExitStack) -> None:
    """Take a guest for down of which others cannot tell."""
    _set(
        stack, Doubt, "down", property(lambda self: self.opinion is not None and self.opinion.state is not Word.RUNNING)
    )


PLANTS: dict[str, Callable[[contextlib.ExitStack], None]] = {
    "start-without-waiting": _start_without_waiting,
    "push-aside": _push_aside,
    "forget-anybody": _forget_anybody,
    "forget-at-once": _forget_at_once,
    "go-early": _go_early,
    "launch-anew": _launch_anew,
    "free-early": _free_early,
    "tell-early": _tell_early,
    "spare-stubborn": _spare_stubborn,
    "keep-name": _keep_name,
    "invent": _invent,
    "believe": _believe,
    "spare-orphans": _spare_orphans,
    "haste-orphans": _haste_orphans,
    "leave-behind": _leave_behind,
    "give-up": _give_up,
    "take-for-down": _take_for_down,
}
