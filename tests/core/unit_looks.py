"""Looks at a unit, as systemd tells of it, and runs that have seen them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core import unitlife as life
from cmapp.core.unitlife import UnitLife
from cmapp.core.unitstate import UnitState

if TYPE_CHECKING:
    from cmapp.core.outcome import Outcome

ONE, TWO = "1" * 32, "2" * 32
FREE = UnitState("db.service", load="loaded", active="inactive", sub="dead")
STARTING = FREE.replace(active="activating", sub="start", control=40, invocation=ONE, job=3)
RUNNING = FREE.replace(active="active", sub="running", main=42, last=42, invocation=ONE)
KILLED = FREE.replace(active="failed", sub="failed", result="signal", last=42, code=2, status=9, invocation=ONE)
STOPPED = FREE.replace(result="success", last=42, code=2, status=15, invocation=ONE)
AGAIN = RUNNING.replace(main=43, last=43, invocation=TWO, restarts=1, restarting=True)


def begun(*looks: UnitState) -> UnitLife:
    """Return a run that was started, and has seen these."""
    run = UnitLife()
    assert run.start(FREE) == []
    for look in looks:
        run.see(look)
    return run


def kinds(told: list[life.Telling]) -> list[str]:
    """Return what is told by its names."""
    return [type(one).__name__ for one in told]


def end_of(told: list[life.Telling]) -> tuple[Outcome, str]:
    """Return the end that is told last."""
    last = told[-1]
    assert isinstance(last, life.Ended)
    return last.outcome, last.detail


def adopted(invocation: str, *, over: bool = False) -> UnitLife:
    """Return a run of a server before this one."""
    run = UnitLife()
    run.adopt(invocation, over=over)
    run.ready = True
    return run
