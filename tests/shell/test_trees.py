"""The tree of a run, as a cgroup and by sessions: who belongs to it, who does not, and that nothing outlives a kill."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import uuid
from typing import TYPE_CHECKING

import pytest

from cmapp.core.messages import Refusal
from cmapp.core.outcome import Signaled
from cmapp.errors import RunError
from cmapp.guest.process import Process
from tests.shell.served import alive, stat, until
from tests.shell.tree_bed import TreeBed, cgroup_for_tests

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ESCAPE = """
setsid sh -c 'echo $$; exec sleep 1000' &
setsid setsid sh -c 'sh -c "$0" & exit' 'echo $$; exec sleep 1000' &
exec sleep 1000
"""
RUNNER = """
import os
os.write(1, b"1\\n")
while True:
    if os.fork():
        os._exit(0)
"""
CROWD = """
import os, signal
for _ in range(100):
    if os.fork() == 0:
        signal.pause()
os.write(1, b"1\\n")
signal.pause()
"""


HEADLESS = """
import ctypes, os, threading, time
threading.Thread(target=time.sleep, args=(1000,)).start()
os.write(1, b"1\\n")
ctypes.CDLL(None).pthread_exit(None)
"""
LISTENERS = """
import os, signal, sys
heard = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
signal.signal(signal.SIGUSR1, lambda *_: os.write(heard, b"x"))
if os.fork() == 0:
    os.setsid()
    os.fork()
os.write(1, b"%d\\n" % os.getpid())
while True:
    signal.pause()
"""


@pytest.fixture(params=["cgroup", "session"])
def bed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TreeBed]:
    """Return a bed of either kind."""
    cgroup = cgroup_for_tests() if request.param == "cgroup" else None
    if request.param == "cgroup" and cgroup is None:
        pytest.skip("no cgroup to write to")
    bed = TreeBed(tmp_path, cgroup)
    yield bed
    bed.close()


def test_escapees_belong_to_it(bed: TreeBed) -> None:
    """Double forks and sessions of their own do not lead out of the tree, and a kill ends them."""
    process, tree, escaped = bed.launch("sh", "-c", ESCAPE, words=2)
    assert {process.pid, *escaped} <= set(tree.members())
    assert all(tree.owns(pid) for pid in (process.pid, *escaped))
    tree.kill()
    bed.clear(tree)
    assert bed.end(process) == Signaled(9)
    assert not any(map(alive, escaped))


def test_escapees_of_a_leader_that_has_ended(bed: TreeBed) -> None:
    """What a leader left behind belongs to the tree after its end."""
    process, tree, escaped = bed.launch("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & exit 3", words=1)
    bed.end(process)
    assert tree.members() == escaped
    tree.kill()
    bed.clear(tree)
    assert not alive(escaped[0])


def test_without_its_environment_it_is_remembered(bed: TreeBed) -> None:
    """A daemon that wiped its environment and took a session is known if it was seen before it lost its parent."""
    script = "env -i setsid sh -c 'sleep 1000 & echo $! $$; read x' & echo $!; exec sleep 1000"
    process, tree, pids = bed.launch("sh", "-c", script.replace("read x", "exec sleep 1000"), words=3)
    until(lambda: {process.pid, *pids} <= set(tree.members()), "all are seen")
    tree.remember()
    os.kill(process.pid, signal.SIGKILL)
    bed.end(process)
    assert set(pids) <= set(tree.members())
    tree.kill()
    bed.clear(tree)
    assert not any(map(alive, pids))


def test_strangers_do_not_belong_to_it(bed: TreeBed) -> None:
    """Another run, and a child of the server's that is no run, are left alone."""
    _, other, others = bed.launch("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & exec sleep 1000", words=1)
    process, tree, _ = bed.launch("sleep", "1000")
    with subprocess.Popen(["sleep", "1000"], start_new_session=True) as stranger:
        assert tree.members() == [process.pid]
        assert not tree.owns(stranger.pid)
        assert not tree.owns(others[0])
        assert not tree.owns(os.getpid())
        assert not tree.owns(1)
        tree.kill()
        bed.clear(tree)
        assert alive(stranger.pid)
        assert alive(others[0])
        stranger.kill()
    assert other.owns(others[0])


def test_signal_reaches_each_once(bed: TreeBed) -> None:
    """A stop signal is heard by every member, and by each one time."""
    heard = bed.folder / "heard"
    _, tree, pids = bed.launch(sys.executable, "-I", "-S", "-c", LISTENERS, str(heard), words=3)
    assert set(tree.members()) == set(pids)
    tree.signal(signal.SIGUSR1)
    until(lambda: len(heard.read_bytes()) == 3, "each has heard it")
    tree.signal(signal.SIGUSR2)
    bed.clear(tree)
    assert heard.read_bytes() == b"xxx"


@pytest.mark.parametrize("times", range(5))
def test_one_that_forks_without_end_is_killed(bed: TreeBed, times: int) -> None:
    """A process that is always already its own child does not outrun a kill."""
    del times
    _, tree, _ = bed.launch(sys.executable, "-I", "-S", "-c", RUNNER, words=1)
    tree.kill()
    bed.clear(tree)


def test_process_whose_first_thread_has_ended(bed: TreeBed) -> None:
    """What looks like a zombie but has threads that run is alive."""
    process, tree, _ = bed.launch(sys.executable, "-I", "-S", "-c", HEADLESS, words=1)
    until(lambda: stat(process.pid)[0] == "Z", "its first thread has ended")
    assert tree.members() == [process.pid]
    assert process.outcome() is None
    again = Process.adopt(process.pid, process.start)
    assert again is not None
    again.close()
    tree.signal(signal.SIGTERM)
    assert bed.end(process) == Signaled(15)


def test_crowd(bed: TreeBed) -> None:
    """More than are watched at once are watched in turns."""
    _, tree, _ = bed.launch(sys.executable, "-I", "-S", "-c", CROWD, words=1)
    assert tree.usage().processes == 101
    held = tree.survivors()
    assert len(held) == 64
    for descriptor in held:
        os.close(descriptor)
    tree.signal(signal.SIGTERM)
    bed.clear(tree)


def test_blind_is_not_empty(bed: TreeBed) -> None:
    """Without a descriptor left nobody can be seen, and that is said; whoever is there is killed when there is one."""
    process, tree, _ = bed.launch("sleep", "1000")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            tree.survivors()
        with pytest.raises(OSError, match="Too many open files"):
            tree.members()
        tree.signal(signal.SIGTERM)
        tree.kill()
        tree.remember()
        assert tree.usage() == (0, 0, 0)
        with pytest.raises(OSError, match="Too many open files"):
            tree.survivors()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    bed.clear(tree)
    assert bed.end(process).word == "signaled"


def test_limits_need_a_controller(bed: TreeBed) -> None:
    """A limit that nobody would enforce is refused instead of forgotten."""
    _, tree, _ = bed.launch("sleep", "1000")
    tree.limit()
    with pytest.raises(RunError, match="a limit of memory") as caught:
        tree.limit(memory=(-1, 1 << 60))
    assert caught.value.code == Refusal.UNSUPPORTED


def test_usage_is_of_all(bed: TreeBed) -> None:
    """What a tree uses is what its escapees use too."""
    burn = "import os; os.setsid(); x = bytearray(32 << 20)\nwhile True: pass"
    _, tree, _ = bed.launch("sh", "-c", '"$0" -c "$1" & echo $!; exec sleep 1000', sys.executable, burn, words=1)
    until(lambda: tree.usage().cpu > 0.1 and tree.usage().memory > 32 << 20, "it burns")
    assert tree.usage().processes == 2


def test_found_again(bed: TreeBed) -> None:
    """Another server finds who is left of a run by its id, and nobody for an id that it does not know."""
    _, tree, escaped = bed.launch("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & exit 3", words=1)
    run_id = bed.run_id(tree)
    again = bed.containment.found(run_id, list(tree.known.items()))
    until(lambda: again.members() == escaped, "it is found by what is known")
    again = bed.containment.found(run_id)
    assert again.members() == escaped
    assert again.owns(escaped[0])
    nobody = bed.containment.found(str(uuid.uuid4()), [(escaped[0], 1)])
    assert nobody.members() == []
    nobody.kill()
    assert alive(escaped[0])
    again.kill()
    bed.clear(again)
    bed.clear(tree)


def test_an_orphan_that_may_be_anybodys(bed: TreeBed) -> None:
    """A process shows no environment while it is executed: as long as one does, nobody is sure that nothing is left.

    One that was started without any looks the same, and does not keep a run from its end for good.
    """
    process, tree, _ = bed.launch("sh", "-c", "exec sleep 1000")
    script = "env -i setsid sleep 1000 >/dev/null & echo $!"
    stranger = int(subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, check=True).stdout)
    try:
        until(lambda: stat(stranger)[3] == str(stranger), "it is executed")
        tree.kill()
        bed.end(process)
        if bed.cgroup is None:
            with pytest.raises(BlockingIOError, match="nobody can tell yet whose it is"):
                tree.survivors()
        bed.clear(tree)
        assert alive(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)
