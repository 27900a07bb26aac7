"""The lives of runs that are cut short: what a server leaves on disk that dies at any moment of them.

Each story is a life of one run. Its file is cut after each of its entries, which is what a server that dies at that
moment leaves behind, and a new server goes on from there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core.checks import build
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import Exited, Receipt, Signaled, Unknown
from cmapp.core.rules import Kind, Probe, ReadyRules
from tests.core.roster_bed import Bed, run_id

if TYPE_CHECKING:
    from collections.abc import Callable

A, E, S = Action, Event, State
READY = ReadyRules(Probe.NOTIFY, timeout=20.0)
UNSURE = Unknown("the server was restarted while it was being launched")
REBOOTED = Unknown("the guest was restarted while it ran")


def story(**fields: Any) -> Bed:
    """Return a guest on which run 1 was launched at second 1."""
    bed = Bed()
    bed.now = 1.0
    bed.connect("one")
    bed.launch("one", 1, **fields)
    bed.now = 2.0
    return bed


def ends_by_itself() -> Bed:
    """It exits with code 3, and that is acknowledged."""
    bed = story()
    bed.end(1, Exited(3))
    bed.acknowledge("one", 1)
    return bed


def is_stopped() -> Bed:
    """It is asked to stop, and exits with code 0."""
    bed = story(ready=READY)
    bed.happen(1, E.READY)
    bed.stop("one")
    bed.end(1, Exited(0))
    return bed


def is_killed() -> Bed:
    """It ignores its stop signal."""
    bed = story()
    bed.stop("one")
    bed.wait(30.0)
    assert bed.run(1).state is S.KILLING
    bed.end(1, Signaled(9))
    return bed


def is_unhealthy() -> Bed:
    """Its checks fail, and it exits with code 0 when it is stopped: a success that is none."""
    bed = story()
    bed.happen(1, E.UNHEALTHY, detail="3 of 3 checks failed")
    bed.now = 5.0
    bed.end(1, Exited(0))
    return bed


def is_an_orphan() -> Bed:
    """Its manager is lost, another comes, is lost too, and none comes."""
    bed = story()
    bed.lose("one")
    bed.wait(30.0)
    bed.connect("two", manager="host2")
    bed.launch("two", 1)
    bed.lose("two")
    bed.wait(60.0)
    bed.end(1, Signaled(15))
    return bed


def is_held_and_left() -> Bed:
    """It is held, left to a later manager, resumed, and ends."""
    bed = story()
    bed.hold("one")
    bed.detach("one")
    bed.connect("two")
    bed.hold("two", on=False)
    bed.end(1, Exited(7))
    return bed


def moves() -> Bed:
    """Another process becomes its main one."""
    bed = story(kind=Kind.FORKING)
    bed.carry_out(bed.roster.moved(run_id(1), 500, 9))
    bed.happen(1, E.READY)
    bed.end(1, Exited(2))
    return bed


def cannot_be_started() -> Bed:
    """Its command is not there; what tried it ends with a code of its own, which is nobody's outcome."""
    bed = Bed()
    bed.refusal = ("not-found", "there is no command web")
    bed.connect("one")
    bed.launch("one", 1)
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(1))
    return bed


STORIES = [
    *(ends_by_itself, is_stopped, is_killed, is_unhealthy, is_an_orphan, is_held_and_left, moves, cannot_be_started),
]
CUTS = [(tell, cut) for tell in STORIES for cut in range(1, len(tell().files[1]) + 1)]
cuts = pytest.mark.parametrize(("tell", "cut"), CUTS, ids=[f"{tell.__name__}-{cut}" for tell, cut in CUTS])


def left_behind(tell: Callable[[], Bed], cut: int) -> tuple[Bed, dict[str, Any]]:
    """Return a guest whose server died when that many entries were written, and what these say, taken together."""
    bed = tell()
    bed.files[1] = bed.files[1][:cut]
    bed.settled.clear()
    bed.alive.clear()
    known: dict[str, Any] = {}
    for entry in bed.files[1]:
        known |= entry
    return bed, known


def written(bed: Bed) -> list[Receipt]:
    """Return the receipts in the file of the run."""
    return [build(Receipt, receipt) for receipt in bed.receipts(1)]
