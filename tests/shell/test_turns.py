"""Work in turns of the loop, and complaints that are counted: what strangers want has its bounds."""

from __future__ import annotations

import asyncio
import logging
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from cmapp.guest import complaints
from cmapp.guest.complaints import KINDS, MOST, Complaints
from cmapp.guest.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BUDGET = 0.002
PIECE = 0.001


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def busy() -> None:
    """Take the loop for a moment."""
    end = time.monotonic() + PIECE
    while time.monotonic() < end:
        pass


def test_others_are_served_in_between(loop: asyncio.AbstractEventLoop) -> None:
    """However much is asked for, the loop turns to others after a piece or two, and all of it is done in order."""
    turns, done, served = Turns(loop, BUDGET), list[int](), list[int]()

    def work(number: int) -> Callable[[], None]:
        return lambda: (busy(), done.append(number))[0]  # type: ignore[func-returns-value]

    def others() -> None:
        served.append(len(done))
        (loop.call_soon(others) if len(done) < 50 else loop.stop())

    for number in range(50):
        turns.ask(work(number))
    loop.call_soon(others)
    loop.run_forever()
    assert done == list(range(50))
    assert max(after - before for before, after in pairwise(served)) <= BUDGET / PIECE + 1


def test_work_that_fails(loop: asyncio.AbstractEventLoop) -> None:
    """A piece that fails is told as a defect, and the others are done."""
    turns, done, told = Turns(loop, BUDGET), list[str](), list[object]()
    loop.set_exception_handler(lambda _, context: told.append(context["exception"]))
    turns.ask(lambda: done.append("first"))
    turns.ask(lambda: [].clear("too much"))  # type: ignore[call-arg]
    turns.ask(lambda: done.append("last"))
    turns.ask(loop.stop)
    loop.run_forever()
    assert done == ["first", "last"]
    assert [type(error) for error in told] == [TypeError]


def test_work_that_asks_for_more(loop: asyncio.AbstractEventLoop) -> None:
    """What asks again has its turn behind the others."""
    turns, done = Turns(loop, 60.0), list[str]()
    turns.ask(lambda: (done.append("a"), turns.ask(lambda: done.append("again")))[0])  # type: ignore[func-returns-value]
    turns.ask(lambda: done.append("b"))
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    assert done == ["a", "b", "again"]


def test_complaints_are_counted(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each kind the first few are lines; how many more there were is told once the time is over."""
    caplog.set_level(logging.INFO)
    complained = Complaints()
    monkeypatch.setattr(complaints, "WINDOW", 0.2)
    for number in range(5000):
        complained.log("too many", logging.INFO, "%s of many", number)
    complained.log("bad", logging.WARNING, "one of another kind")
    complained.sum_up()
    assert [record.getMessage() for record in caplog.records] == [
        *(f"{number} of many" for number in range(MOST)),
        "one of another kind",
    ]
    time.sleep(0.2)
    caplog.clear()
    complained.sum_up()
    complained.sum_up()
    assert [record.getMessage() for record in caplog.records] == ["too many: and 4,990 more such lines in 0.2 s"]
    complained.log("too many", logging.INFO, "and so on")
    assert caplog.messages[-1] == "and so on"


def test_kinds_of_complaints_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    """However many kinds there are, those beyond a number are one, and nothing is left out without being counted."""
    caplog.set_level(logging.INFO)
    complained = Complaints()
    for number in range(2 * KINDS):
        complained.log(f"manager {number}", logging.INFO, "a line")
    assert len(caplog.messages) == KINDS + MOST
    complained.sum_up(at_last=True)
    assert caplog.messages[-1] == f"of other kinds: and {KINDS - MOST} more such lines in 10 s"
    assert len(complained._kinds) == 0
