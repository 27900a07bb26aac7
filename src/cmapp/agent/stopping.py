"""ocf:cmapp:application: the stop, which is over when nothing of the run is left.

A manager that lives stops its run, and the receipt of that says that nothing is left. The invariant: any other end is
looked into (search.py) before a stop succeeds.
"""

from __future__ import annotations

import signal

from cmapp.agent.codes import Code
from cmapp.agent.ending import FAILED, FAILURES, STARTING, is_marked, is_told_gone, mark, result_of, unmark
from cmapp.agent.failcount import make_even
from cmapp.agent.instance import Instance, wait_for
from cmapp.errors import CmappError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.agent.ocf import Call

_BEFORE = ("failed", "refused", "not-started")


def stop(call: Call) -> Code:
    """Have the run stopped, and return when nothing of it is left."""
    instance = Instance(call.folder, call.instance)
    try:
        instance.take_turn()
    except OSError:
        if instance.told() is not None:
            raise
        return Code.SUCCESS  # where there can be no folder, nothing was started
    pidfd = instance.signal(signal.SIGTERM)
    if pidfd is not None:
        wait_for(pidfd)
    words = instance.told()
    if not words:
        return Code.SUCCESS
    result = result_of(instance, words[0])
    if not (is_told_gone(result) or _never_launched(instance, result)):
        _look_for(call, instance, words[0], result or {})
    _note_failure(call, instance, result, asked=pidfd is not None)
    make_even(call)
    instance.forget()
    unmark(instance, STARTING)
    return Code.SUCCESS


def _look_for(call: Call, instance: Instance, run_id: str, result: dict[str, Any]) -> None:
    """Return when nothing of the run is left, or nobody can be asked."""
    from cmapp.agent.search import Search  # noqa: PLC0415 - what it needs takes its time to load

    try:
        search = Search(call, instance, run_id, result)
    except CmappError as error:  # a slip of the pen must not have a host fenced
        call.warning(f"nobody can be asked whether anything is left of run {run_id} in the guest: {error}")
    else:
        search.go_on()


def _never_launched(instance: Instance, result: dict[str, Any] | None) -> bool:
    """Tell whether the manager of a start has ended before it could ask for a launch, or was refused it."""
    never = result is not None and "launched" not in result and result.get("cause") in _BEFORE
    return never and is_marked(instance, STARTING)


def _note_failure(call: Call, instance: Instance, result: dict[str, Any] | None, *, asked: bool) -> None:
    """Leave a mark for the guest's own resource, if the application has failed."""
    by_itself = result is not None and result.get("cause") in FAILURES and result.get("reason") != "asked"
    if by_itself or (result is None and not asked and is_marked(instance, STARTING)):
        try:
            mark(instance, FAILED, call.given.get("guest_resource", ""))
        except OSError as error:
            call.warning(f"the mark that it has failed cannot be left in {instance.folder}: {error.strerror}")
