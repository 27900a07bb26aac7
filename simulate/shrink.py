"""The shortest schedule that still fails: decisions are taken out, and made simpler, as long as it fails.

This is delta debugging: halves are tried first, then quarters, down to single decisions; what is left is then
made as plain as it can be, one value at a time. The invariant: what comes out fails, and was run to prove it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kernel import Behaviour
from schedule import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from schedule import Decision, Schedule

ATTEMPTS = 3000  # schedules that are tried at most


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool]) -> Schedule:
    """Return the shortest part of `schedule`, in its plainest form, that `fails`."""
    search = _Search(schedule, fails)
    before = None
    while before != search.best:
        before = search.best
        search.leave_out()
        search.make_plain()
    return search.best


class _Search:
    def __init__(self, schedule: Schedule, fails: Callable[[Schedule], bool]) -> None:
        self.best = schedule
        self._fails = fails
        self._left = ATTEMPTS

    def leave_out(self) -> None:
        """Take out as many decisions as possible."""
        size = len(self.best.decisions)
        while size >= 1:
            start = 0
            while start < len(self.best.decisions):
                shown = self.best.decisions
                if not self._try(shown[:start] + shown[start + size :]):
                    start += size
            size //= 2

    def make_plain(self) -> None:
        """Make each decision as plain as possible."""
        for index in range(len(self.best.decisions)):
            tried = True
            while tried:
                shown = self.best.decisions
                tried = any(
                    self._try((*shown[:index], plainer, *shown[index + 1 :])) for plainer in _plainer(shown[index])
                )
        for key in ("tells", "retention", "most"):
            self._adopt(replace(self.best, **{key: getattr(type(self.best), key)}))

    def _try(self, decisions: tuple[Decision, ...]) -> bool:
        return self._adopt(replace(self.best, decisions=decisions))

    def _adopt(self, schedule: Schedule) -> bool:
        if self._left <= 0 or schedule == self.best:
            return False
        self._left -= 1
        if not self._fails(schedule):
            return False
        self.best = schedule
        return True


def _plainer(decision: Decision) -> Iterator[Decision]:
    """Yield what is simpler than the decision; whatever is yielded is simpler by a measure that has an end."""
    if decision.step is not None:
        yield replace(decision, step=None)
        return
    for key in ("time", "lasts"):
        value: float = getattr(decision, key)
        halved = [other for other in (value // 2, round(value, 0), round(value, 1)) if abs(other) < abs(value)]
        for other in [*halved, *({round(value, 2)} - {value})]:
            changes: dict[str, Any] = {key: other}
            yield replace(decision, **changes)
    if decision.number:
        yield replace(decision, number=0)
    if decision.task is not None:
        yield from (replace(decision, task=task) for task in _plainer_tasks(decision.task))


def _plainer_tasks(task: Task) -> Iterator[Task]:
    usual = Task(task.number)
    for key in ("existing", "takeover", "orphan", "action", "stop", "host", "behaviour"):
        if getattr(task, key) != getattr(usual, key):
            yield replace(task, **{key: getattr(usual, key)})
    behaviour, plain = task.behaviour, Behaviour()
    for key in ("life", "outcome", "refused", "obeys", "code", "forks", "dying", "command", "ready"):
        if getattr(behaviour, key) != getattr(plain, key):
            yield replace(task, behaviour=replace(behaviour, **{key: getattr(plain, key)}))
