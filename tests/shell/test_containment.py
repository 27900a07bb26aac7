"""Where processes go: orphans come to the server and are reaped, and nothing of a run outlives it, wherever it went."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited, Signaled
from cmapp.guest.containment import orphans, reap_orphans
from tests.shell.served import alive, children, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

CROWD = """
import os, signal
for _ in range(200):
    if os.fork() == 0:
        signal.pause()
        os._exit(0)
os.write(1, b"up")
signal.pause()
"""
BROOD = """
import os, sys
for _ in range(20):
    if os.fork() == 0:
        if os.fork() == 0:
            os.read(0, 1)
        os._exit(0)
for _ in range(20):
    os.wait()
os.write(1, b"up")
os.execvp("sleep", ["sleep", "1000"])
"""


ESCAPE = """
trap 'exit 5' USR1
setsid setsid sh -c 'sh -c "$0" & exit' 'echo $$; exec sleep 1000' &
sleep 1000 & wait
"""


def pid_in(text: bytes) -> int:
    """Return the process id that an application wrote."""
    return int(text.split()[0])


def test_orphans_are_reaped(served: Served, call: Callable[..., Caller]) -> None:
    """Whatever an application forks and leaves is the server's when it ends, which leaves no zombie."""
    caller = call()
    caller.launch(sys.executable, "-I", "-S", "-c", BROOD, output=True)
    caller.wrote(b"up")
    until(lambda: not any(stat(pid)[:1] == ["Z"] for pid in children(served.pid)), "no zombie is left")
    assert caller.stop().outcome == Signaled(15)
    until(lambda: not any(stat(pid)[:1] == ["Z"] for pid in children(served.pid)), "and none of them is left either")


def test_orphan_of_a_living_run_is_stopped_with_it(served: Served, call: Callable[..., Caller]) -> None:
    """A daemon that an application forks twice belongs to the run."""
    caller = call()
    caller.launch("sh", "-c", "(sleep 1000 & echo $!) ; exec sleep 1000", output=True)
    orphan = pid_in(caller.wrote(b"\n"))
    until(lambda: orphan in children(served.pid), "it is the server's child")
    caller.stop()
    assert not alive(orphan)


@pytest.fixture(params=["auto", "none"])
def either(request: pytest.FixtureRequest, serve: Callable[..., Served]) -> Served:
    """Return a server with cgroups, where it may make some, and one without."""
    return serve("--cgroup", request.param)


@pytest.mark.parametrize("way", ["stop", "kill", "itself", "signal"])
def test_session_of_its_own_does_not_outlive_the_run(either: Served, call: Callable[..., Caller], way: str) -> None:
    """What took a session of its own, or was forked twice, ends with the run, however that ends."""
    caller = call(either)
    pid = caller.launch("sh", "-c", ESCAPE, output=True)
    escaped = pid_in(caller.wrote(b"\n"))
    if way in ("stop", "kill"):
        caller.stop(kill=way == "kill")
    else:
        os.kill(pid, signal.SIGUSR1 if way == "itself" else signal.SIGKILL)
        assert caller.ended().outcome == (Exited(5) if way == "itself" else Signaled(9))
    successor = call(either)
    successor.launch("true", name=caller.name)
    assert not alive(escaped)
    assert successor.ended().outcome == Exited(0)
    until(lambda: escaped not in children(either.pid), "it is reaped")


def test_runs_keep_their_own(either: Served, call: Callable[..., Caller]) -> None:
    """The end of one run is no other's, wherever their processes went."""
    goes, stays = call(either), call(either)
    for caller in (goes, stays):
        caller.launch("sh", "-c", ESCAPE, output=True)
    gone, there = (pid_in(caller.wrote(b"\n")) for caller in (goes, stays))
    goes.stop()
    assert not alive(gone)
    assert alive(there)
    stays.stop()
    assert not alive(there)


def test_grandchildren_of_a_crowd_are_waited_for(call: Callable[..., Caller]) -> None:
    """More survivors than are watched at once are all waited for."""
    caller = call()
    caller.launch(sys.executable, "-I", "-S", "-c", CROWD, output=True)
    caller.wrote(b"up")
    assert caller.report().processes == 201
    members = children(caller.report().pid or 0)
    caller.stop()
    assert not any(alive(pid) for pid in members)


def test_runs_do_not_wait_for_each_other(call: Callable[..., Caller]) -> None:
    """What lives on in one run's group holds up the end of no other."""
    stays, goes = call(), call()
    stays.launch("sh", "-c", "trap '' TERM; echo up; (sleep 1000) & sleep 1000", output=True)
    stays.wrote(b"up")
    goes.launch("sleep", "1000")
    assert goes.stop().receipt.forced is False
    assert stays.stop(kill=True).receipt.forced is True


def test_orphans_are_told_from_leaders() -> None:
    """Zombies of strangers are reaped, and that of a process whose end somebody asks for is not."""
    leader = os.posix_spawn("/bin/true", ["true"], {})
    stranger = os.posix_spawn("/bin/true", ["true"], {})
    others = set(children(os.getpid())) - {leader, stranger}
    for pid in (leader, stranger):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert orphans(others | {leader}) == [stranger]
    assert reap_orphans(others | {leader}) == 1
    assert orphans(others | {leader}) == []
    assert os.waitpid(leader, 0)[0] == leader
