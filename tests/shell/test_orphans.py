"""Runs whose manager is gone: they go on for as long as they were promised, and a manager that returns finds them."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import OrphanAction, OrphanRules, StopRules
from tests.shell.served import alive, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
KEEP = OrphanRules(timeout=0.1, action=OrphanAction.KEEP)


def state(asks: Caller, name: str) -> m.RunReport | None:
    """Return what `status` tells of an application, None if it is not there."""
    return next((run for run in asks.ask(m.Runs, m.Status).runs if run.name == name), None)


def orphaned(asks: Caller, name: str, least: float = 0.0) -> m.RunReport:
    """Wait until an application has had no manager for so many seconds."""

    def found() -> m.RunReport | None:
        run = state(asks, name)
        assert run, f"{name} is gone"
        return run if run.orphaned is not None and run.orphaned >= least else None

    return until(found, f"{name} has no manager")


def test_manager_returns_in_time(served: Served, call: Callable[..., Caller]) -> None:
    """Without its manager a run goes on, status says so, and the manager that returns finds it as it was."""
    first, asks, since = call(), call(), len(served.lines)
    pid = first.launch("sleep", "1000")
    assert first.report().orphaned is None
    first.close()
    assert orphaned(asks, first.name).pid == pid
    served.logged(f"{first.run_id}.*its manager is lost: it is stopped if none comes within 1 min|60 s", since=since)
    second = call()
    assert second.resume(first).pid == pid
    assert second.report().orphaned is None
    assert second.stop().outcome == Signaled(15)


def test_nobody_returns_in_time(served: Served, call: Callable[..., Caller]) -> None:
    """A run whose manager does not return in time is stopped by its rules, and its receipt is kept for that one."""
    first, since = call(), len(served.lines)
    pid = first.launch(*DEAF, output=True, orphan=OrphanRules(timeout=0.3), stop=StopRules(timeout=0.2))
    first.wrote(b"up")
    first.close()
    served.logged(f"{first.run_id}.*was killed by signal 9.*because its manager was lost", since=since)
    assert not alive(pid)
    late = call()
    assert late.resume(first).attached
    receipt = late.ended().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.MANAGER_LOST, True)


def test_manager_returns_while_it_is_stopped(call: Callable[..., Caller]) -> None:
    """A manager that returns too late, but before the end, hears the end and why."""
    first, asks = call(), call()
    first.launch(*DEAF, output=True, orphan=OrphanRules(timeout=0.1), stop=StopRules(timeout=1))
    first.wrote(b"up")
    first.close()
    until(lambda: (run := state(asks, first.name)) and run.state is m.Phase.STOPPING, "it is being stopped")
    late = call()
    late.resume(first)
    assert late.ended().receipt.reason is Reason.MANAGER_LOST


def test_orphan_that_is_kept(served: Served, call: Callable[..., Caller]) -> None:
    """A run that is to be kept stays, long after its time without a manager."""
    first, asks, since = call(), call(), len(served.lines)
    pid = first.launch("sleep", "1000", orphan=KEEP)
    first.close()
    assert orphaned(asks, first.name, 1.5).pid == pid
    served.logged(f"{first.run_id}.*its manager is lost: it is kept until one comes", since=since)
    second = call()
    assert second.resume(first).pid == pid


def test_end_of_an_orphan(call: Callable[..., Caller]) -> None:
    """A run that ends while nobody watches it has its receipt, with its own code and reason."""
    first, asks = call(), call()
    pid = first.launch("sh", "-c", "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done", output=True)
    first.wrote(b"up")
    first.close()
    orphaned(asks, first.name)
    os.kill(pid, signal.SIGUSR1)
    until(lambda: state(asks, first.name) is None, "it has ended")
    second = call()
    second.resume(first)
    receipt = second.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Exited(9), Reason.ITSELF)


def test_window_begins_anew(call: Callable[..., Caller]) -> None:
    """Each time that a manager is lost, the next has the whole time again."""
    first, asks = call(), call()
    pid = first.launch("sleep", "1000", orphan=OrphanRules(timeout=1.5))
    for _ in range(3):
        first.close()
        orphaned(asks, first.name, 0.8)
        second = call()
        assert second.resume(first).pid == pid
        first = second
    assert first.report().state is m.Phase.RUNNING


@pytest.mark.parametrize("timeout", [0.0, 0.3])
def test_detach(served: Served, call: Callable[..., Caller], timeout: float) -> None:
    """A run that its manager left on purpose stays without a limit of time, and a later manager gets it."""
    first, asks, since = call(), call(), len(served.lines)
    pid = first.launch("sleep", "1000", orphan=OrphanRules(timeout=timeout))
    first.ask(m.Done, m.Detach)
    served.logged(f"{first.run_id}.*left it to a later one", since=since)
    first.close()
    until(lambda: (run := state(asks, first.name)) and run.uptime > timeout + 1.2, "it outlives its time")
    assert alive(pid)
    second = call()
    assert second.resume(first).pid == pid
    assert second.report().orphaned is None
    assert second.stop().outcome == Signaled(15)


def test_detach_of_nothing(call: Callable[..., Caller]) -> None:
    """To leave a run that has ended is no error: its end may be on its way."""
    caller = call()
    caller.launch("true")
    caller.ended()
    assert caller.ask(m.Done, m.Detach)


def test_detached_run_without_its_link(call: Callable[..., Caller]) -> None:
    """Who left its run has none on its link any more, and may launch another."""
    caller = call()
    caller.launch("sleep", "1000")
    before = caller.name
    caller.ask(m.Done, m.Detach)
    assert caller.ask(m.Done, m.Stop)
    asks = call()
    run = state(asks, before)
    assert run
    assert run.state is m.Phase.RUNNING


def test_server_that_stood_still(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A server that stood still beyond an orphan's time gives it the whole time again, instead of ending it."""
    server = serve()
    first, asks = call(server), call(server)
    pid = first.launch("sleep", "1000", orphan=OrphanRules(timeout=1.0))
    first.close()
    orphaned(asks, first.name)
    server.signal(signal.SIGSTOP)
    until(lambda: stat(server.pid)[:1] == ["T"], "it stands still")
    with pytest.raises(TimeoutError):
        asks.hear(limit=4.5)
    server.signal(signal.SIGCONT)
    second = call(server)
    assert second.resume(first).pid == pid
    assert second.report().state is m.Phase.RUNNING
