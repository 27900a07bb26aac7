"""Names: at most one run of each, whoever comes, goes and comes again."""

from __future__ import annotations

import signal
import socket
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import OrphanRules, StopRules
from tests.shell.served import alive, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

AT_ONCE = OrphanRules(timeout=0)  # stopped as soon as nobody watches it
DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
ALONE = """
import fcntl, os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
try:
    fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    os.close(os.open(sys.argv[2], os.O_CREAT))
signal.sigwait([signal.SIGTERM])
time.sleep(0.02)  # what an application takes to shut down
"""


def deaf(caller: Caller, timeout: float = 1000, **fields: object) -> int:
    """Launch an application that ignores the stop signal; return its process id."""
    pid = caller.launch(*DEAF, output=True, stop=StopRules(timeout=timeout), **fields)
    caller.wrote(b"up")
    return pid


def close(caller: Caller) -> None:
    """Hang up."""
    caller.close()


def reset(caller: Caller) -> None:
    """Have the kernel reset the connection."""
    caller.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()


def say_bye(caller: Caller) -> None:
    """Hang up in order."""
    caller.say(m.Bye, reason="done")


def say_nonsense(caller: Caller) -> None:
    """Be turned away."""
    caller.send(b"nonsense\n")
    assert "JSON" in caller.bye()


def half_close(caller: Caller) -> None:
    """Say that nothing more will come, but go on reading."""
    caller.link.sock.shutdown(socket.SHUT_WR)


def test_name_of_a_watched_application(call: Callable[..., Caller]) -> None:
    """A name that another manager watches is taken, once that manager was heard, and its run is not touched."""
    first, second = call(), call()
    pid = first.launch("sleep", "1000")
    second.try_to_launch("true", name=first.name)
    assert second.report().state is m.Phase.WAITING
    assert first.report().pid == pid
    refusal = second.await_(m.Refused)
    assert (refusal.code, first.name in refusal.text) == ("name-taken", True)
    second.close()
    assert first.report().pid == pid
    third = call()
    third.launch("true")
    assert third.ended().outcome == Exited(0)


def test_name_while_it_is_stopped(call: Callable[..., Caller]) -> None:
    """A name is taken for as long as its manager still waits for the end of the run."""
    first, second = call(), call()
    deaf(first)
    first.ask(m.Done, m.Stop)
    second.try_to_launch("true", name=first.name)
    assert second.report().state is m.Phase.WAITING
    assert first.report().state is m.Phase.STOPPING
    assert second.await_(m.Refused).code == "name-taken"
    first.stop(kill=True)
    second.launch("true", name=first.name)


@pytest.mark.parametrize("leave", [close, reset, say_bye, say_nonsense, half_close])
def test_manager_is_lost(served: Served, call: Callable[..., Caller], leave: Callable[[Caller], None]) -> None:
    """However the link of a manager ends, its application is without one, and stopped as its rules say."""
    caller, since = call(), len(served.lines)
    pid = caller.launch("sleep", "1000", orphan=AT_ONCE)
    leave(caller)
    line = served.logged(f"{caller.run_id}.*because its manager was lost", since=since)[0]
    assert "signal 15 (TERM)" in line
    assert not alive(pid)
    successor = call()
    successor.launch("true", name=caller.name)
    assert successor.ended().outcome == Exited(0)


def test_silent_manager_is_lost(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A manager that says nothing for longer than it promised is taken for lost, and told so; one that polls is not."""
    server = serve()
    silent, polls = call(server, silence=0.5), call(server, silence=2.5)
    for caller in (silent, polls):
        caller.launch("sleep", "1000", orphan=AT_ONCE)
    until(lambda: polls.report() and "too long" in server.log, "the silent one is taken for lost")
    server.logged(f"{silent.run_id}.*because its manager was lost")
    assert polls.report().state is m.Phase.RUNNING
    assert "too long" in silent.bye()


def test_machine_that_stood_still(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """After the whole server stood still, nobody is judged by the time that has passed."""
    server = serve()
    caller = call(server, silence=2)
    caller.launch("sleep", "1000", orphan=AT_ONCE)
    server.signal(signal.SIGSTOP)
    until(lambda: stat(server.pid)[:1] == ["T"], "it stands still")
    with pytest.raises(TimeoutError):
        caller.hear(limit=3.5)
    server.signal(signal.SIGCONT)
    server.logged("stood still")
    assert caller.report().state is m.Phase.RUNNING


def test_launch_waits_for_the_end_of_the_run_before(call: Callable[..., Caller]) -> None:
    """Who launches a name whose run is ending without a manager gets it when nothing of that run is left."""
    first, second, third = call(), call(), call()
    before = deaf(first, timeout=0.5)
    first.close()
    second.try_to_launch("sleep", "1000", name=first.name)
    report = second.report()
    assert (report.state, report.run_id, report.pid) == (m.Phase.WAITING, second.run_id, None)
    assert third.refused("true", name=first.name).code == "name-taken"
    second.await_(m.Launched)
    assert not alive(before)
    assert second.report_until(lambda report: report.state is m.Phase.RUNNING).run_id == second.run_id
    assert second.stop().receipt.reason is Reason.ASKED


def test_launch_that_waits_is_withdrawn_by_a_stop(call: Callable[..., Caller]) -> None:
    """A stop of what has not started yet takes the launch back: it is refused as stopped, and never starts."""
    first, second, third = call(), call(), call()
    deaf(first, timeout=0.7)
    first.close()
    second.try_to_launch("sleep", "1000", name=first.name)
    second.ask(m.Done, m.Stop)
    assert second.await_(m.Refused).code == "stopped"
    third.launch("true", name=first.name)
    assert third.ended().outcome == Exited(0)
    assert second.run("true", name=first.name).outcome == Exited(0)


def test_launch_that_waits_is_withdrawn_when_its_manager_leaves(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A manager that leaves takes its waiting launch with it, and another may wait in its place."""
    first, second, third = call(), call(), call()
    deaf(first, timeout=0.7)
    first.close()
    second.try_to_launch("touch", str(tmp_path / "never"), name=first.name)
    assert second.report().state is m.Phase.WAITING
    second.close()
    third.launch("true", name=first.name)
    assert third.ended().outcome == Exited(0)
    assert not (tmp_path / "never").exists()


def test_capacity_counts_when_a_waiting_launch_starts(
    serve: Callable[..., Served], call: Callable[..., Caller]
) -> None:
    """A launch that waits takes the place of the run before it, not one more."""
    server = serve("--max-applications", "1")
    first, second = call(server), call(server)
    deaf(first, timeout=0.5)
    first.close()
    second.try_to_launch("sleep", "1000", name=first.name)
    second.await_(m.Launched)
    assert second.stop().outcome == Signaled(15)


def test_status_tells_a_manager_its_own_runs(call: Callable[..., Caller], other_host: Path) -> None:
    """Status lists the runs that a manager of this name launched, over any link, and nobody else's."""
    callers = [call(keys=other_host) for _ in range(3)]
    for name, caller in zip("cab", callers, strict=True):
        caller.launch("sleep", "1000", name=name)
    runs = call(keys=other_host).ask(m.Runs, m.Status)
    assert [run.name for run in runs.runs] == ["a", "b", "c"]
    assert {run.state for run in runs.runs} == {m.Phase.RUNNING}
    assert runs.more is False
    assert [run.name for run in callers[0].ask(m.Runs, m.Status, after="a").runs] == ["b", "c"]
    assert not {"a", "b", "c"} & {run.name for run in call().ask(m.Runs, m.Status).runs}


def test_acknowledgement_of_what_is_not_there(call: Callable[..., Caller]) -> None:
    """An acknowledgement is answered even if there is nothing to forget: it may have been said before."""
    caller = call()
    assert caller.run("true").outcome == Exited(0)
    assert caller.ask(m.Done, m.Acknowledge, run_id=caller.run_id)


def test_name_under_attack(call: Callable[..., Caller], tmp_path: Path) -> None:
    """While managers crash and come back in the midst of everything, no two runs of one name are ever alive."""
    lock, clashes = tmp_path / "lock", tmp_path / "clashes"
    lock.touch()
    script = (sys.executable, "-I", "-S", "-c", ALONE, str(lock), str(clashes))
    launched = 0
    for number in range(30):
        caller = call()
        caller.try_to_launch(*script, name="alone", output=True)
        if number % 3:
            launched += isinstance(caller.hear(), m.Launched)
        (reset, close)[number % 2](caller)
    assert launched > 1
    last = call()
    last.try_to_launch("true", name="alone")
    while not isinstance(last.hear(), m.Launched):  # it may be before the last but one is known to be gone
        last.try_to_launch("true", name="alone")
    assert last.ended().outcome == Exited(0)
    assert not clashes.exists()
