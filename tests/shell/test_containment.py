"""Where processes go: orphans come to the server and are reaped, and what is waited for is the run's and no other."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from cmapp.core.outcome import Exited, Signaled
from cmapp.guest.containment import orphans, reap_orphans, survivors
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
    served.free()


def test_orphan_of_a_living_run_is_stopped_with_it(served: Served, call: Callable[..., Caller]) -> None:
    """A daemon that an application forks twice belongs to the run as long as it stays in its group."""
    caller = call()
    caller.launch("sh", "-c", "(sleep 1000 & echo $!) ; exec sleep 1000", output=True)
    orphan = pid_in(caller.wrote(b"\n"))
    until(lambda: orphan in children(served.pid), "it is the server's child")
    caller.stop()
    assert not alive(orphan)


def test_session_of_its_own_is_out_of_reach(served: Served, call: Callable[..., Caller]) -> None:
    """What leaves the process group outlives the run: it holds up neither its end nor its name, and is reaped."""
    caller = call()
    pid = caller.launch("sh", "-c", "setsid sh -c 'echo $$; exec sleep 1000' & wait", output=True)
    escaped = pid_in(caller.wrote(b"\n"))
    os.kill(pid, signal.SIGKILL)
    assert caller.ended().outcome == Signaled(9)
    successor = call()
    successor.launch("true", name=caller.name)
    assert successor.ended().outcome == Exited(0)
    assert alive(escaped)
    os.kill(escaped, signal.SIGKILL)
    until(lambda: escaped not in children(served.pid), "it is reaped")


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


def test_survivors_are_those_of_the_group() -> None:
    """Only living members of the group are found, and by descriptors that tell of their end."""
    leader = os.posix_spawn("/bin/true", ["true"], {}, setpgroup=0)
    member = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setpgroup=leader)
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {}, setpgroup=0)
    try:
        assert {member, stranger} <= set(orphans({leader}))
        found = survivors(leader, {leader})
        assert len(found) == 1
        signal.pidfd_send_signal(found[0], signal.SIGKILL)
        os.close(found[0])
        os.waitid(os.P_PID, member, os.WEXITED | os.WNOWAIT)
        assert survivors(leader, {leader}) == []
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitid(os.P_PID, stranger, os.WEXITED | os.WNOWAIT)
        os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    before = set(orphans({leader}))
    assert reap_orphans({leader}) >= 2
    assert before - set(orphans({leader})) >= {member, stranger}
    assert os.waitpid(leader, 0)[0] == leader
