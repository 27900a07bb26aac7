"""The thread that does file work: in order, off the loop, bounded, and never the end of the server."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from cmapp.guest import disk as module
from cmapp.guest.disk import QUEUE_LIMIT, Disk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT = 60  # seconds


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """Return a loop of the test's own."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def disk(loop: asyncio.AbstractEventLoop) -> Iterator[Disk]:
    """Return a disk that tells on the loop."""
    disk = Disk(loop)
    yield disk
    disk.close()


@pytest.fixture
def block(disk: Disk) -> Iterator[Callable[[], threading.Event]]:
    """Return a function that has the disk hang until the event that it returns is set."""
    events = []

    def hang() -> threading.Event:
        begun, event = threading.Event(), threading.Event()
        events.append(event)

        def work() -> bool:
            begun.set()
            return event.wait(LIMIT)

        disk.do(work)
        assert begun.wait(LIMIT)
        return event

    yield hang
    for event in events:
        event.set()


def run(loop: asyncio.AbstractEventLoop, until: Callable[[], Any]) -> None:
    """Run the loop until something is so."""

    async def wait() -> None:
        deadline = time.monotonic() + LIMIT
        while not until():
            assert time.monotonic() < deadline, "it never happened"
            await asyncio.sleep(0.005)

    loop.run_until_complete(wait())


def test_work_is_done_in_order(loop: asyncio.AbstractEventLoop, disk: Disk) -> None:
    """Work is done in the order in which it came, by one thread that is not the loop's, and told so on it."""
    threads: list[threading.Thread] = []
    told: list[tuple[int, threading.Thread]] = []

    def work(number: int) -> int:
        threads.append(threading.current_thread())
        return number

    def tell(result: int | OSError) -> None:
        assert isinstance(result, int)
        told.append((result, threading.current_thread()))

    for number in range(100):
        disk.do(partial(work, number), tell)
    run(loop, lambda: len(told) == 100)
    assert told == [(number, threading.current_thread()) for number in range(100)]
    assert len(set(threads)) == 1
    assert threads[0] is not threading.current_thread()
    assert threads[0].daemon


def test_error_is_told(disk: Disk) -> None:
    """The error of the file work is what is told; the next work is not touched by it."""
    told: list[object] = []
    disk.do(lambda: open("/nowhere/at/all"), told.append)  # noqa: SIM115, PTH123
    disk.do(lambda: 3, told.append)
    assert disk.flush(LIMIT)
    assert isinstance(told[0], FileNotFoundError)
    assert told[1] == 3


def test_defect_in_the_work(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    """A defect of ours in one piece of work is logged with its place, told as an error, and ends nothing else."""
    told: list[object] = []
    disk.do(lambda: 1 // 0, told.append)
    disk.do(lambda: 3, told.append)
    assert disk.flush(LIMIT)
    assert isinstance(told[0], OSError)
    assert told[1] == 3
    assert "internal error in file work at test_disk.py:" in caplog.text


def test_defect_in_who_is_told(loop: asyncio.AbstractEventLoop, disk: Disk) -> None:
    """Who fails over what it is told does not keep others from being told."""
    told: list[object] = []
    defects: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: defects.append(context))
    over = threading.Event()
    disk.do(lambda: None, lambda _: 1 // 0)
    for number in range(3):
        disk.do(partial(int, number), told.append)
    disk.do(over.set)
    assert over.wait(LIMIT)
    run(loop, lambda: told == [0, 1, 2])
    assert isinstance(defects[0]["exception"], ZeroDivisionError)


def test_slow_disk_does_not_hold_the_loop(
    loop: asyncio.AbstractEventLoop, disk: Disk, block: Callable[[], threading.Event]
) -> None:
    """While a piece of work hangs, the loop turns, more work is taken, and how long it hangs can be seen."""
    assert disk.waiting == 0
    event = block()
    told: list[object] = []
    turns: list[float] = []
    before = time.monotonic()
    for number in range(1000):
        disk.do(partial(int, number), told.append)
    assert time.monotonic() - before < 1

    def turn() -> None:
        turns.append(time.monotonic())
        loop.call_later(0.01, turn)

    turn()
    run(loop, lambda: len(turns) > 20)
    assert max(after - before for before, after in itertools.pairwise(turns)) < 1
    assert disk.waiting > 0.1
    assert not told
    assert not disk.flush(0.05)
    event.set()
    assert disk.flush(LIMIT)
    assert told == list(range(1000))
    assert disk.waiting == 0


def test_disk_that_hangs_is_complained_of(
    loop: asyncio.AbstractEventLoop,
    disk: Disk,
    block: Callable[[], threading.Event],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A disk that hangs is told of once, and that it does no more, too."""
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    caplog.set_level(logging.WARNING)
    event = block()
    run(loop, lambda: disk.waiting > 0.3)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "the disk has not answered for" in caplog.text
    event.set()
    run(loop, lambda: len(caplog.records) == 2)
    assert caplog.records[1].message == "the disk answers again"


def test_work_with_a_size_is_bounded(disk: Disk, block: Callable[[], threading.Event]) -> None:
    """What gives its size is refused when too much waits; what gives none, such as a receipt, never."""
    event = block()
    part = QUEUE_LIMIT // 4
    assert [disk.do(lambda: None, size=part) for _ in range(6)] == [True] * 4 + [False] * 2
    assert disk.do(lambda: None)
    event.set()
    assert disk.flush(LIMIT)
    assert disk.do(lambda: None, size=part)


def test_what_goes_first(disk: Disk, block: Callable[[], threading.Event]) -> None:
    """What is to be done first is done before all that waits, in the order in which it came."""
    event = block()
    told: list[object] = []
    for number in range(4):
        disk.do(partial(int, number), told.append)
        disk.do(partial(int, 10 + number), told.append, first=True)
    event.set()
    assert disk.flush(LIMIT)
    assert told == [10, 11, 12, 13, 0, 1, 2, 3]


def test_flush_waits_for_what_follows(disk: Disk) -> None:
    """Work that is given when other work was told is waited for too, without the loop turning."""
    told: list[int] = []

    def again(number: int | OSError) -> None:
        assert isinstance(number, int)
        told.append(number)
        if number < 5:
            disk.do(lambda: number + 1, again)

    disk.do(lambda: 0, again)
    assert disk.flush(LIMIT)
    assert told == [0, 1, 2, 3, 4, 5]
    assert disk.flush(0)


def test_closed_disk(disk: Disk, block: Callable[[], threading.Event]) -> None:
    """A closed disk takes no more, does what it took, and its thread ends; the loop may be gone by then."""
    event = block()
    told: list[int | OSError] = []
    disk.do(lambda: 3, told.append)
    disk.close()
    assert not disk.do(lambda: 4, told.append)
    disk.loop.close()
    event.set()
    assert disk._thread is not None
    disk._thread.join(LIMIT)
    assert not disk._thread.is_alive()
    assert disk.flush(LIMIT)
    assert told == [3]
