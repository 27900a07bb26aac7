"""What is particular to trees that are cgroups: their files, and which servers they are told apart by."""

from __future__ import annotations

import os
import signal
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core.messages import Refusal
from cmapp.core.outcome import Exited, Signaled
from cmapp.errors import RunError, SettingsError
from cmapp.guest import cgroup as module
from cmapp.guest.cgroup import Cgroups, CgroupTree
from cmapp.guest.containment import containment_for
from tests.shell.served import alive, until
from tests.shell.tree_bed import TreeBed, cgroup_for_tests

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNNER = """
import os
os.write(1, b"1\\n")
while True:
    if os.fork():
        os._exit(0)
    os.setsid()
"""


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[TreeBed]:
    """Return a bed with a cgroup for each run."""
    cgroup = cgroup_for_tests()
    if cgroup is None:
        pytest.skip("no cgroup to write to")
    bed = TreeBed(tmp_path, cgroup)
    yield bed
    bed.close()


def folder_of(tree: object) -> Path:
    """Return the cgroup of a tree."""
    assert isinstance(tree, CgroupTree)
    return Path(tree.path)


def test_it_is_entered_before_the_application_runs(bed: TreeBed) -> None:
    """Not even the first moment of a run is outside of its cgroup, and the descriptor is closed by then."""
    _, tree, reading = bed.start("sh", "-c", "cat /proc/self/cgroup; ls -l /proc/self/fd")
    with os.fdopen(reading) as file:
        said = file.read()
    assert f"/{folder_of(tree).name}\n" in said
    assert "cgroup.procs" not in said
    assert tree.join is None


@pytest.mark.parametrize("kill", ["cgroup.kill", "cgroup.of-another-kernel"])
def test_nothing_outruns_a_kill(bed: TreeBed, monkeypatch: pytest.MonkeyPatch, kill: str) -> None:
    """What forks without end, each in a session of its own, is killed, by Linux before 5.14 too."""
    monkeypatch.setattr(module, "_KILL", kill)
    _, tree, _ = bed.launch(sys.executable, "-I", "-S", "-c", RUNNER, words=1)
    tree.kill()
    bed.clear(tree)


def test_cgroups_of_the_application_belong_to_it(bed: TreeBed) -> None:
    """A run that makes cgroups of its own is signalled, killed and removed with them."""
    _, tree, pids = bed.launch("sh", "-c", "sleep 1000 & echo $!; sleep 1000 & echo $!; exec sleep 1000", words=2)
    inner = folder_of(tree) / "one" / "two"
    inner.mkdir(parents=True)
    (inner / "cgroup.procs").write_text(str(pids[0]))
    (inner.parent / "cgroup.procs").write_text(str(pids[1]))
    assert set(pids) < set(tree.members())
    assert tree.owns(pids[0])
    assert tree.usage().processes == 3
    tree.signal(signal.SIGTERM)
    bed.clear(tree)
    tree.remove()
    assert not folder_of(tree).exists()


def test_zombie_is_owned_but_no_survivor(bed: TreeBed) -> None:
    """One that has ended and waits to be reaped is known as the run's, but holds up nothing."""
    process, tree, _ = bed.launch("true")
    assert bed.end(process) == Exited(0)
    until(lambda: tree.members() == [], "it is no member")
    bed.clear(tree)
    assert tree.owns(process.pid)


def test_cgroup_that_is_still_held_is_removed_later(bed: TreeBed) -> None:
    """What cannot be removed now is removed when the last of it is gone."""
    process, tree, _ = bed.launch("sleep", "1000")
    tree.remove()
    assert folder_of(tree).exists()
    assert alive(process.pid)
    tree.kill()
    bed.clear(tree)
    until(lambda: bed.containment.strays() == [], "it is removed")
    assert bed.end(process) == Signaled(9)


def test_servers_that_share_a_cgroup_are_told_apart(bed: TreeBed, tmp_path: Path) -> None:
    """A server never takes another's runs for strays of its own."""
    assert bed.cgroup is not None
    ours, theirs = (containment_for(bed.cgroup, str(tmp_path / name)) for name in ("ours", "theirs"))
    run_id = str(uuid.uuid4())
    tree = ours.tree(run_id)
    assert ours.strays() == [run_id]
    assert theirs.strays() == bed.containment.strays() == []
    assert containment_for(bed.cgroup, str(tmp_path / "ours")).strays() == [run_id]
    tree.remove()
    assert ours.strays() == []


def test_cgroup_that_is_gone_is_empty(bed: TreeBed) -> None:
    """A run of which no cgroup is left has no members, and everything can be asked of it."""
    tree = bed.containment.found(str(uuid.uuid4()))
    tree.signal(signal.SIGTERM)
    tree.kill()
    assert (tree.members(), tree.survivors(), tree.usage()) == ([], [], (0, 0, 0))
    tree.remove()


def test_cgroup_that_cannot_be_made(bed: TreeBed) -> None:
    """A cgroup that the kernel refuses is a launch that is refused."""
    assert bed.cgroup is not None
    Path(bed.cgroup, "cgroup.max.descendants").write_text("0")
    with pytest.raises(RunError, match="no cgroup can be made") as caught:
        bed.containment.tree(str(uuid.uuid4()))
    assert caught.value.code == Refusal.RESOURCES


def test_cgroup_that_cannot_be_entered(bed: TreeBed) -> None:
    """A run whose cgroup was taken away in the meantime does not run outside of it."""
    tree = bed.containment.tree(str(uuid.uuid4()))
    folder_of(tree).rmdir()
    assert tree.join is not None
    reading, writing = os.pipe()
    os.close(reading)
    process = bed.process(["true"], writing, tree)
    os.close(writing)
    process.go()
    until(process.hear_trouble, "it says why not")
    trouble = process.take_trouble()
    assert trouble is not None
    assert (trouble[0], trouble[1].partition(":")[0]) == ("resources", "its cgroup cannot be entered")
    bed.end(process)
    process.reap()
    tree.remove()


def test_what_a_setting_may_say(tmp_path: Path) -> None:
    """A cgroup that is none, or is of version 1, is an error; "none" does without."""
    assert containment_for("none").kind == "session"
    for path in (str(tmp_path), "/nowhere", "somewhere", "/proc"):
        with pytest.raises(SettingsError, match="is no cgroup of version 2"):
            containment_for(path)


def test_automatic_choice_is_the_servers_own_cgroup() -> None:
    """Where the server may write to its own cgroup, its runs have cgroups below that."""
    containment = containment_for("auto")
    assert containment.kind in ("cgroup", "session")
    if isinstance(containment, Cgroups):
        assert str(os.getpid()) in Path(containment.base, "cgroup.procs").read_text().split()
