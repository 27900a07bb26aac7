"""A process that another server started: found by its number and start, and how it ended though it is not our child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited, Signaled, Unknown
from cmapp.guest import pidfd, proc
from cmapp.guest.process import Process
from tests.shell.served import stat, until
from tests.shell.tree_bed import TreeBed, readable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cmapp.core.outcome import Outcome

NURSERY = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = os.fork()
if child == 0:
    os.setsid()
    signal.sigwait([signal.SIGUSR1])
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    os.execvp("sh", ["sh", "-c", sys.argv[1]])
os.write(1, b"%d\\n" % child)
if sys.argv[2] == "reap":
    os.wait()
signal.pause()
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[TreeBed]:
    """Return a bed without cgroups."""
    bed = TreeBed(tmp_path, None)
    yield bed
    bed.close()


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    """Return a parent whose child is not ours."""
    nursery = Nursery()
    yield nursery
    nursery.close()


class Nursery:
    """A parent of its own, with a child that becomes a script when it is told to."""

    def __init__(self) -> None:
        self._parents: list[subprocess.Popen[bytes]] = []

    def child(self, script: str, *, reap: bool = True) -> int:
        """Return a child that is about to run the script, and that is reaped if its parent does so."""
        parent = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", NURSERY, script, "reap" if reap else "leave"],
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._parents.append(parent)
        assert parent.stdout is not None
        return int(parent.stdout.readline())

    def close(self) -> None:
        """End the parents; children that are left come to us."""
        for parent in self._parents:
            parent.kill()
            parent.wait()
            assert parent.stdout is not None
            parent.stdout.close()


def start_of(pid: int) -> int:
    """Return when a process was started."""
    found = proc.stat(pid)
    assert found is not None
    return found.start


def adopt(pid: int) -> Process:
    """Return a process that is there."""
    process = Process.adopt(pid, start_of(pid))
    assert process is not None
    return process


def ending(process: Process) -> Outcome:
    """Return how it ended, as soon as that is told."""
    assert readable(process.pidfd)
    until(lambda: process.outcome() is not None, "its end is told")
    outcome = process.outcome()
    assert outcome is not None
    return outcome


def test_adopting_takes_number_and_start(bed: TreeBed) -> None:
    """A process is found again by both, and not by a number that somebody else has now."""
    process, _, _ = bed.launch("sleep", "1000")
    assert Process.adopt(process.pid, process.start + 1) is None
    assert Process.adopt(1 << 22, process.start) is None
    again = adopt(process.pid)
    assert (again.pid, again.start, again.main.pid, again.trouble_read) == (
        process.pid,
        process.start,
        process.pid,
        True,
    )
    assert again.outcome() is None
    again.signal_group(signal.SIGTERM)
    assert ending(again) == Signaled(15)
    again.close()
    assert Process.adopt(process.pid, process.start) is None, "a zombie is not adopted"


ENDINGS: list[tuple[str, Outcome]] = [
    ("exit 0", Exited(0)),
    ("exit 1", Exited(1)),
    ("exit 42", Exited(42)),
    ("exit 255", Exited(255)),
]
ENDINGS += [(f"kill -{number} $$", Signaled(number)) for number in (1, 9, 15)]


@pytest.mark.parametrize(("script", "outcome"), ENDINGS)
@pytest.mark.parametrize("reap", [True, False])
def test_end_of_an_adopted_process(nursery: Nursery, script: str, outcome: Outcome, *, reap: bool) -> None:
    """How a process that is not our child ended is told to the letter, or said to be unknown; never 0 instead."""
    process = adopt(nursery.child(script, reap=reap))
    assert process.outcome() is None
    process.signal_main(signal.SIGUSR1)
    told = ending(process)
    assert told == outcome or (isinstance(told, Unknown) and os.uname().release < "6.15")
    process.close()


def test_end_of_an_orphan_that_came_to_us(bed: TreeBed, nursery: Nursery) -> None:
    """An adopted process whose parent dies becomes our child, and is waited for as one."""
    del bed  # which makes us the subreaper
    process = adopt(nursery.child("exit 5"))
    nursery.close()
    process.signal_main(signal.SIGUSR1)
    assert ending(process) == Exited(5)
    process.reap()


def test_kernel_that_cannot_tell(nursery: Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux before 6.15 knows nothing of a process that was reaped: that is said, whatever the code was."""
    monkeypatch.setattr(pidfd, "_GET_INFO", 0)
    pid = nursery.child("exit 0")
    process = adopt(pid)
    process.signal_main(signal.SIGUSR1)
    until(lambda: not stat(pid), "it is reaped")
    assert isinstance(ending(process), Unknown)
    process.close()
