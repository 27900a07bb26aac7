"""A run's process by itself: held back until it may go, limited, followed, and handed over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited
from cmapp.guest.process import Process
from tests.shell.served import alive, stat, until
from tests.shell.tree_bed import TreeBed, readable

if TYPE_CHECKING:
    from collections.abc import Iterator


SUCCESSOR = """
import json, os, select, sys
from cmapp.guest.containment import containment_for
from cmapp.guest.process import Process, keep_descriptors
keep_descriptors()
tree = containment_for("none")
if len(sys.argv) == 1:
    plan = {"argv": ["sleep", "1000"], "env": {}, "cwd": "/", "user": None, "group": None,
            "umask": 0, "descriptors": (99, 99), "search_path": "/usr/bin:/bin"}
    process = Process(plan, 1, 2)
    for descriptor in process.descriptors:
        os.set_inheritable(descriptor, True)
    told = json.dumps(process.handover())
    os.execv(sys.executable, [sys.executable, __file__, told])
process = Process.take_over(json.loads(sys.argv[1]))
inherited = [os.get_inheritable(each) for each in process.descriptors]
process.go()
select.select([process.trouble], [], [])
while not process.hear_trouble():
    pass
trouble = process.take_trouble()
process.signal_group(15)
select.select([process.pidfd], [], [])
print(inherited, trouble, process.outcome(), process.kept == {process.pid}, flush=True)
process.reap()
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[TreeBed]:
    """Return a bed without cgroups."""
    bed = TreeBed(tmp_path, None)
    yield bed
    bed.close()


@pytest.mark.parametrize("way", ["withhold", "close"])
def test_nothing_runs_without_go(bed: TreeBed, way: str) -> None:
    """A run that the server refuses after all, or did not live to record, never becomes the application."""
    mark = bed.folder / "mark"
    process, _, reading = bed.start("touch", str(mark), go=False)
    os.close(reading)
    if way == "withhold":
        process.withhold()
        until(process.hear_trouble, "it says no more")
        assert process.take_trouble() == ("resources", "the process that was to become it ended before it could")
    else:
        os.close(process.trouble)
        process.trouble = -1
    assert bed.end(process) == Exited(1)
    assert not mark.exists()


def test_go_may_come_before_it_is_waited_for(bed: TreeBed) -> None:
    """A server that records faster than the trampoline starts loses nothing; nor one that refuses a lost cause."""
    assert bed.end(bed.launch("sh", "-c", "exit 9")[0]) == Exited(9)
    process, _, reading = bed.start("true", user="nobody-at-all")
    os.close(reading)
    until(process.hear_trouble, "it says why not")
    assert process.take_trouble() == ("no-such-user", "there is no user nobody-at-all")

    bed.end(process)


def test_server_that_dies_after_go(bed: TreeBed) -> None:
    """Once it may go, the application starts whatever becomes of the server."""
    process, _, reading = bed.start("sh", "-c", "echo up; exit 33")
    os.close(process.trouble)
    process.trouble = -1
    assert readable(reading)
    assert os.read(reading, 9) == b"up\n"
    os.close(reading)
    assert bed.end(process) == Exited(33)


def test_limits(bed: TreeBed) -> None:
    """An application has the limits that it was given, soft and hard, and none is -1."""
    limits = {"core": (0, 1 << 20), "nofile": (50, 60), "stack": (1 << 20, -1)}
    _, _, numbers = bed.launch("sh", "-c", "for x in Sc Hc Sn Hn Ss; do ulimit -$x; done", limits=limits, words=5)
    assert numbers == [0, 2048, 50, 60, 1024]


@pytest.mark.parametrize("limits", [{"core": (2, 1)}, {"nofile": (1 << 40, 1 << 40)}])
def test_limit_that_cannot_be_set(bed: TreeBed, limits: dict[str, tuple[int, int]]) -> None:
    """An application without the limit that it was to have does not run."""
    process, _, reading = bed.start("true", limits=limits)
    os.close(reading)
    until(process.hear_trouble, "it says why not")
    trouble = process.take_trouble()
    assert trouble is not None
    assert trouble[0] == "not-permitted"
    assert trouble[1].startswith(f"the limit {next(iter(limits))} cannot be set to")
    bed.end(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_output_can_be_opened_by_its_user(bed: TreeBed) -> None:
    """What an application writes to belongs to its user, so /dev/stdout and /dev/stderr are no closed doors."""
    _, _, numbers = bed.launch("sh", "-c", "echo 1 >/proc/self/fd/1; echo 2 >/proc/self/fd/2", user="nobody", words=2)
    assert numbers == [1, 2]


def test_following_a_daemon(bed: TreeBed) -> None:
    """A daemon whose parent has ended is the run's main process from then on, and its end is the run's."""
    go = bed.folder / "go"
    os.mkfifo(go)
    script = f"setsid sh -c 'echo $$; read x <{go}; exit 42' & exit 0"
    process, tree, (daemon,) = bed.launch("sh", "-c", script, words=1)
    assert bed.end(process) == Exited(0)
    assert process.follow(daemon, tree.owns)
    assert (process.main.pid, process.kept) == (daemon, {process.pid, daemon})
    assert process.outcome() is None
    go.write_text("\n")
    assert bed.end(process) == Exited(42)
    assert stat(process.pid)[0] == "Z", "the leader's number is still its own"


def test_following_goes_no_further_than_the_tree(bed: TreeBed) -> None:
    """A number in a file is no proof: only a member of the run is followed, and one that is there."""
    process, tree, _ = bed.launch("sleep", "1000")
    for stranger in (1, os.getpid(), os.getppid(), 1 << 22, 0, -1):
        assert not process.follow(stranger, tree.owns)
    assert process.main.pid == process.pid
    assert process.follow(process.pid, tree.owns)


def test_handing_over(tmp_path: Path) -> None:
    """A server that becomes another program keeps its processes as children, and one that has not yet started too."""
    script = tmp_path / "successor.py"
    script.write_text(SUCCESSOR)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[False, False] None Signaled(signal=15, core_dumped=False) True\n"
    assert done.stderr == ""


def test_handing_over_what_is_none() -> None:
    """A descriptor that is not of the process that it is said to be is never believed."""
    descriptor = os.pidfd_open(os.getpid())
    try:
        for wrong in (0, descriptor):
            told = {"leader": [1, 5, wrong], "main": [1, 5, wrong], "trouble": -1, "said": ""}
            with pytest.raises(OSError, match=r"not a pidfd|is not that of process 1"):
                Process.take_over(told)
    finally:
        os.close(descriptor)


def test_no_descriptor_is_lost(bed: TreeBed) -> None:
    """A process that is forgotten leaves no descriptor and no zombie."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    tree = bed.containment.tree("x")
    process = bed.process(["true"], 1, tree)
    process.go()
    until(process.hear_trouble, "it runs")
    process.take_trouble()
    bed.end(process)
    process.reap()
    tree.remove()
    assert not alive(process.pid)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
