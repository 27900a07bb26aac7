"""A run that is held: it goes on, nothing acts on it, everybody is told, and what it does by itself still counts."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled, exit_code
from cmapp.core.rules import HealthRules, OnExisting, OrphanRules, Probe, ReadyRules, StopRules
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

UNREADY = ReadyRules(probe=Probe.COMMAND, command=("false",), timeout=0.4)


def state(asks: Caller, name: str) -> m.RunReport:
    """Return what `status` tells of an application."""
    return next(run for run in asks.ask(m.Runs, m.Status).runs if run.name == name)


def hold(asks: Caller, name: str, *, on: bool = True) -> None:
    """Hold an application, or resume it."""
    asks.ask(m.Done, m.Hold, name=name, on=on)


def test_hold_and_resume(served: Served, call: Callable[..., Caller]) -> None:
    """Any link of the run's manager may hold it; reports and the log say so, twice is as good as once."""
    caller, asks, since = call(), call(), len(served.lines)
    caller.launch("sleep", "1000")
    assert caller.report().held is False
    for on, word in ((True, "held"), (True, "held"), (False, "resumed"), (False, "resumed")):
        hold(asks, caller.name, on=on)
        assert (caller.report().held, state(asks, caller.name).held) == (on, on)
        served.logged(f"{caller.name} .*{word} by manager n1", since=since)


def test_hold_of_what_is_not_there(call: Callable[..., Caller], other_host: Path) -> None:
    """What does not run, has ended, or is another manager's cannot be held."""
    caller, asks = call(), call(keys=other_host)
    assert asks.ask(m.Refused, m.Hold, name="nobody").code == "no-run"
    caller.launch("sleep", "1000")
    assert asks.ask(m.Refused, m.Hold, name=caller.name).code == "no-run"
    assert caller.report().held is False
    caller.stop()
    assert caller.ask(m.Refused, m.Hold, name=caller.name).code == "no-run"


def test_health_of_a_held_run(call: Callable[..., Caller]) -> None:
    """A held run is not stopped for its health; when it is resumed, it is looked at anew."""
    caller, asks = call(), call()
    pid = caller.launch("sleep", "1000", health=HealthRules(("false",), interval=0.3, retries=3))
    hold(asks, caller.name)
    caller.report_until(lambda report: report.uptime > 1.5)
    assert alive(pid)
    hold(asks, caller.name, on=False)
    receipt = caller.ended().receipt
    assert (receipt.reason, exit_code(receipt)) == (Reason.UNHEALTHY, 124)


def test_readiness_of_a_held_run(call: Callable[..., Caller]) -> None:
    """A held run has all the time to become ready, and its whole time again when it is resumed."""
    caller, asks = call(), call()
    caller.launch("sleep", "1000", ready=UNREADY)
    hold(asks, caller.name)
    report = caller.report_until(lambda report: report.uptime > 1.2)
    assert (report.state, report.ready) == (m.Phase.READYING, False)
    hold(asks, caller.name, on=False)
    assert caller.report().state is m.Phase.READYING
    assert caller.ended().receipt.reason is Reason.NOT_READY


def test_watchdog_of_a_held_run(call: Callable[..., Caller]) -> None:
    """A held run need not feed its watchdog; when it is resumed, it has to within the time again."""
    caller, asks = call(), call()
    caller.launch("sleep", "1000", watchdog=0.4)
    hold(asks, caller.name)
    caller.report_until(lambda report: report.uptime > 1.2)
    hold(asks, caller.name, on=False)
    assert caller.report().state is m.Phase.RUNNING
    assert caller.ended().receipt.reason is Reason.HUNG


def test_orphan_that_is_held(served: Served, call: Callable[..., Caller]) -> None:
    """A held run outlives its time without a manager, and has it anew when it is resumed."""
    caller, asks, since = call(), call(), len(served.lines)
    pid = caller.launch("sleep", "1000", orphan=OrphanRules(timeout=0.3))
    hold(asks, caller.name)
    caller.close()
    until(lambda: (state(asks, caller.name).orphaned or 0) > 1.2, "nobody watches it")
    assert alive(pid)
    hold(asks, caller.name, on=False)
    served.logged(f"{caller.run_id}.*because its manager was lost", since=since)


def test_hold_of_an_orphan(served: Served, call: Callable[..., Caller]) -> None:
    """A run whose manager is lost already can be held in time, and its manager finds it held."""
    caller, asks, since = call(), call(), len(served.lines)
    pid = caller.launch("sleep", "1000", orphan=OrphanRules(timeout=1.0))
    caller.close()
    served.logged(f"{caller.run_id}.*its manager is lost", since=since)
    hold(asks, caller.name)
    until(lambda: (state(asks, caller.name).orphaned or 0) > 1.5, "its time has passed")
    again = call()
    assert again.resume(caller).pid == pid
    assert again.report().held


def test_held_run_is_not_replaced(call: Callable[..., Caller]) -> None:
    """Another run does not take the place of a held one, not even by a takeover; a manager may attach to it."""
    caller, second, asks = call(), call(), call()
    pid = caller.launch("sleep", "1000")
    hold(asks, caller.name)
    caller.close()
    for takeover in (False, True):
        refusal = second.refused("true", name=caller.name, takeover=takeover)
        assert (refusal.code, "held" in refusal.text) == ("name-taken", True)
    assert alive(pid)
    second.try_to_launch("true", name=caller.name, on_existing=OnExisting.ATTACH)
    assert second.await_(m.Launched).pid == pid


def test_end_of_a_held_run(call: Callable[..., Caller]) -> None:
    """A held run that ends by itself has ended, and that is told at once."""
    caller, asks = call(), call()
    pid = caller.launch("sh", "-c", "trap 'exit 4' USR1; echo up; while :; do sleep 0.01; done", output=True)
    caller.wrote(b"up")
    hold(asks, caller.name)
    os.kill(pid, signal.SIGUSR1)
    receipt = caller.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Exited(4), Reason.ITSELF)


@pytest.mark.parametrize("kill", [False, True])
def test_stop_of_a_held_run(call: Callable[..., Caller], *, kill: bool) -> None:
    """A stop by the run's own manager is obeyed, held or not, with its timeout."""
    caller, asks = call(), call()
    caller.launch(
        "sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done", output=True, stop=StopRules(timeout=0.3)
    )
    caller.wrote(b"up")
    hold(asks, caller.name)
    receipt = caller.stop(kill=kill).receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)


def test_server_that_stops_a_held_run(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A server that is told to stop all applications stops held ones too."""
    server = serve()
    caller, asks = call(server), call(server)
    pid = caller.launch("sleep", "1000")
    hold(asks, caller.name)
    caller.close()
    asks.close()
    server.stop()
    assert not alive(pid)
