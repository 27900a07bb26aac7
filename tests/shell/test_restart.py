"""The server comes and goes, by a crash, in order, and by an upgrade: what runs goes on, and its end is still told."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.ledger import decode
from cmapp.core.outcome import Exited, Reason, Signaled, Unknown
from cmapp.core.rules import OrphanRules, StopRules
from tests.shell.restart_bed import (
    DEAF,
    LEAVES,
    WAYS,
    amend,
    crash,
    hang_up,
    kept,
    recorded,
    restart,
    upgrade,
    waits,
)
from tests.shell.served import alive, members, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

pytestmark = pytest.mark.usefixtures("no_subreaper")

# ---- runs in every state ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", [0, 7, 255])
def test_running(server: Served, call: Callable[..., Caller], gate: Path, way: Callable[..., None], code: int) -> None:
    """A run outlives its server: the manager finds it again, and hears the very code that it exits with."""
    first = call(server)
    pid = waits(first, gate)
    before = first.report()
    way(server, first)
    second = call(server)
    launched = second.resume(first)
    assert (launched.pid, alive(pid)) == (pid, True)
    report = second.report()
    assert (report.state, report.pid, report.uptime >= before.uptime) == (m.Phase.RUNNING, pid, True)
    gate.write_text(f"{code}\n")
    receipt = second.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Exited(code), Reason.ITSELF)
    assert receipt.lasted >= before.uptime


@pytest.mark.parametrize("way", WAYS)
def test_killed_by_a_signal(server: Served, call: Callable[..., Caller], way: Callable[..., None]) -> None:
    """The signal that ends an adopted run is told as it was."""
    first = call(server)
    pid = first.launch("sleep", "1000")
    way(server, first)
    second = call(server)
    second.resume(first)
    os.kill(pid, signal.SIGSEGV)
    outcome = second.ended().outcome
    assert isinstance(outcome, Signaled)
    assert outcome.signal == signal.SIGSEGV


@pytest.mark.parametrize("way", WAYS)
def test_stopped_later(server: Served, call: Callable[..., Caller], way: Callable[..., None]) -> None:
    """A stop of an adopted run is one like any: its rules, its tree, its receipt."""
    first = call(server)
    script = "trap 'exit 5' TERM; (setsid sh -c 'trap \"\" TERM; echo $$; sleep 1000' &) ; while :; do sleep 0.01; done"
    first.launch("sh", "-c", script, output=True, stop=StopRules(timeout=0.5))
    escaped = int(first.wrote(b"\n"))
    way(server, first)
    second = call(server)
    second.resume(first)
    receipt = second.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Exited(5), Reason.ASKED, True)
    assert not alive(escaped)
    assert members(first.run_id) == []


@pytest.mark.parametrize("way", WAYS)
def test_while_it_is_stopped(server: Served, call: Callable[..., Caller], way: Callable[..., None]) -> None:
    """A stop goes on where the server before was in the midst of it, and its reason stays."""
    first = call(server)
    first.launch(*DEAF, output=True, stop=StopRules(timeout=1.0))
    first.wrote(b"up")
    first.ask(m.Done, m.Stop)
    recorded(server, first.run_id, stopping="asked")
    way(server, first)
    second = call(server)
    second.resume(first)
    assert second.report().state is m.Phase.STOPPING
    receipt = second.ended().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)


def test_while_it_is_killed(server: Served, call: Callable[..., Caller]) -> None:
    """What the server before meant to kill is killed by the next."""
    first = call(server)
    pid = first.launch(*DEAF, output=True, stop=StopRules(timeout=1000))
    first.wrote(b"up")
    server.kill()
    amend(server, first.run_id, stopping="asked", detail="", forced=True)  # it died between this and the signal
    server.start()
    second = call(server)
    second.resume(first)
    receipt = second.ended().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)
    assert not alive(pid)


@pytest.mark.parametrize("polls", [0, 1, 2, 4, 8, 16])
def test_while_it_is_started(server: Served, call: Callable[..., Caller], tmp_path: Path, polls: int) -> None:
    """A server that dies while it launches starts nothing twice: it is launched once, or not known to have been."""
    book = tmp_path / "book"
    command = ("sh", "-c", 'echo $$ >> "$0"; exec sleep 1000', str(book))
    first = call(server)
    first.try_to_launch(*command)
    for _ in range(polls):  # each is a turn of the server's loop, more or less
        first.say(m.Poll)
        while not isinstance(first.hear(), m.Report):
            pass
    server.kill()
    server.start()
    second = call(server)
    second.try_to_launch(*command, name=first.name, run_id=first.run_id)
    assert second.await_(m.Launched).run_id == first.run_id
    second.say(m.Poll)
    if isinstance(answer := second.hear(), m.Report):
        until(book.exists, "it runs")
        assert answer.run.state is m.Phase.RUNNING
        assert len(members(first.run_id)) == 1
        assert len(book.read_text().split()) == 1
    else:
        assert isinstance(answer, m.Exited)
        assert isinstance(answer.receipt.outcome, Unknown)
        assert members(first.run_id) == []


@pytest.mark.parametrize("way", WAYS)
def test_ended_before(server: Served, call: Callable[..., Caller], way: Callable[..., None]) -> None:
    """A receipt is told after a restart, to whoever asks for the run, acknowledged before or not."""
    first, second = call(server), call(server)
    first.launch("sh", "-c", "exit 3")
    receipt = first.await_(m.Exited).receipt
    second.launch("sh", "-c", "exit 4")
    second.ended()
    for caller in (first, second):
        kept(server, caller.run_id)
    way(server, first, second)
    for caller, code in ((first, 3), (second, 4)):
        again = call(server)
        assert again.resume(caller).attached
        assert again.await_(m.Exited).receipt.outcome == Exited(code)
    again = call(server)
    again.resume(first)
    assert again.ended().receipt == receipt


def go(server: Served, end: str, *callers: Caller) -> None:
    """End the server, and hang up."""
    server.signal(signal.SIGKILL if end == "kill" else signal.SIGTERM)
    hang_up(callers)
    server.wait()
    if end != "kill":
        assert server.notice() == "STOPPING=1"


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_ended_while_there_was_no_server(server: Served, call: Callable[..., Caller], gate: Path, end: str) -> None:
    """How a run ended while nobody could look is not known, and said to be so, with what is left of it killed."""
    first, other = call(server), call(server)
    pid = waits(first, gate)
    left = other.launch("sh", "-c", "sleep 1000 & echo $!; wait", output=True)
    child = int(other.wrote(b"\n"))
    for caller in (first, other):
        recorded(server, caller.run_id, launched=True)
    go(server, end, first, other)
    gate.write_text("0\n")
    os.kill(left, signal.SIGKILL)
    until(lambda: not alive(pid) and not alive(left), "both have ended")
    server.start()
    for before in (first, other):
        again = call(server)
        assert again.resume(before).attached
        receipt = again.ended().receipt
        assert isinstance(receipt.outcome, Unknown)
        assert receipt.reason is Reason.ITSELF
    until(lambda: not alive(child), "what it left is gone")
    assert call(server).run("true", name=other.name).outcome == Exited(0)


@pytest.mark.parametrize("end", ["kill", "leave"])
def test_ended_while_systemd_kept_it(server: Served, call: Callable[..., Caller], gate: Path, end: str) -> None:
    """Where systemd keeps the descriptors of processes, an end while there was no server is told as it was."""
    first, other, lives = call(server), call(server), call(server)
    pid = waits(first, gate)
    killed, goes_on = (caller.launch("sleep", "1000") for caller in (other, lives))
    for caller in (first, other):
        recorded(server, caller.run_id, launched=True)
    go(server, end, first, other, lives)
    gate.write_text("42\n")
    os.kill(killed, signal.SIGKILL)
    until(lambda: not alive(pid) and not alive(killed), "both have ended")
    server.start(hand=True)
    for before, outcome in ((first, Exited(42)), (other, Signaled(9))):
        again = call(server)
        again.resume(before)
        assert again.ended().outcome == outcome
    again = call(server)
    assert again.resume(lives).pid == goes_on
    assert again.stop().outcome == Signaled(15)


def test_many_times(server: Served, call: Callable[..., Caller], gate: Path) -> None:
    """A run outlives one server after the other, however each of them ended."""
    caller = call(server)
    pid = waits(caller, gate)
    for way in (crash, upgrade, restart, upgrade, upgrade, crash):
        way(server, caller)
        before, caller = caller, call(server)
        assert caller.resume(before).pid == pid
    gate.write_text("9\n")
    assert caller.ended().outcome == Exited(9)
    until(lambda: server.runs == [], "its file is among the receipts")


def test_many_runs(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """Every one of many runs is found again, and each has its own end."""
    callers = [call(server) for _ in range(20)]
    for number, caller in enumerate(callers):
        os.mkfifo(tmp_path / f"gate-{number}")
        waits(caller, tmp_path / f"gate-{number}")
    crash(server)
    for number, before in enumerate(callers):
        again = call(server)
        again.resume(before)
        (tmp_path / f"gate-{number}").write_text(f"{number}\n")
        assert again.ended().outcome == Exited(number)


def test_orphans_time_goes_on(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A run whose manager does not come back is stopped by a later server, in the time that was promised."""
    server = serve(conf=LEAVES)
    first, lost = call(server), call(server)
    pid = first.launch("sleep", "1000", orphan=OrphanRules(timeout=1.0))
    lost.launch("sleep", "1000", orphan=OrphanRules(timeout=1.0))
    lost.close()
    recorded_orphan = server.state / "runs" / lost.run_id
    until(lambda: any(entry.get("orphaned") for entry in decode(recorded_orphan.read_bytes()).entries), "it is lost")
    server.kill()
    server.start()
    for caller in (first, lost):
        server.logged(f"{caller.run_id}.*because its manager was lost")
    assert not alive(pid)
    again = call(server)
    again.resume(first)
    assert again.ended().receipt.reason is Reason.MANAGER_LOST


@pytest.mark.parametrize("way", WAYS)
def test_what_was_decided_stays(
    serve: Callable[..., Served], call: Callable[..., Caller], way: Callable[..., None]
) -> None:
    """That a run is held, or was left on purpose, is known to the next server, and who may ask for it."""
    server = serve(conf=LEAVES)
    held, left, asks = call(server), call(server), call(server)
    for caller in (held, left):
        caller.launch("sleep", "1000", orphan=OrphanRules(timeout=0.2))
    asks.ask(m.Done, m.Hold, name=held.name)
    left.ask(m.Done, m.Detach)
    held.close()
    asks.ask(m.Runs, m.Status)
    recorded(server, held.run_id, held=True)
    recorded(server, left.run_id, detached=True)
    way(server, left, asks)
    asks = call(server)
    until(lambda: all(run.uptime > 1.5 for run in asks.ask(m.Runs, m.Status).runs), "their time has passed")
    runs = {run.name: run for run in asks.ask(m.Runs, m.Status).runs}
    assert {name: (run.held, run.state) for name, run in runs.items()} == {
        held.name: (True, m.Phase.RUNNING),
        left.name: (False, m.Phase.RUNNING),
    }
    for before in (held, left):
        again = call(server)
        again.resume(before)
        assert again.stop().outcome == Signaled(15)
