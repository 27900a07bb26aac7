"""Readiness, health, watchdog and stop command through the real server: what is not well is stopped, and says why."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled, exit_code
from cmapp.core.rules import Probe, ReadyRules
from tests.shell.care_rules import PYTHON, TELLS, UNHEALTHY, asked, checked
from tests.shell.served import alive, members, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

# ---- readiness ---------------------------------------------------------------------------------------------------


def test_ready_by_tcp(call: Callable[..., Caller], port: int) -> None:
    """A run is ready when its port answers, which is pushed once; until then its report says that it is not."""
    caller = call()
    caller.launch("sleep", "1000", ready=asked(Probe.TCP, str(port)))
    report = caller.report()
    assert (report.state, report.ready) == (m.Phase.READYING, False)
    with socket.create_server(("127.0.0.1", port)):
        assert caller.await_(m.Ready).run_id == caller.run_id
    report = caller.report()
    assert (report.state, report.ready) == (m.Phase.RUNNING, True)


def test_ready_by_http(call: Callable[..., Caller], port: int, tmp_path: Path) -> None:
    """A run is ready when its page is served: a page that is not there is no page."""
    caller = call()
    serves = (sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(tmp_path), str(port))
    caller.launch(*serves, ready=asked(Probe.HTTP, f"http://127.0.0.1:{port}/health"))
    until(lambda: connects(port), "it serves")
    assert caller.report().ready is False
    (tmp_path / "health").touch()
    caller.await_(m.Ready)


def connects(port: int) -> bool:
    """Tell whether somebody listens."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def test_ready_by_command(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A run is ready when its command succeeds, which is run with its environment, and its folder."""
    caller = call()
    command = asked(Probe.COMMAND, "", "sh", "-c", 'test "$MOOD" = fine && test -e up')
    caller.launch("sleep", "1000", ready=command, env={"MOOD": "fine", "PATH": "/bin:/usr/bin"}, cwd=str(tmp_path))
    assert caller.report().ready is False
    (tmp_path / "up").touch()
    caller.await_(m.Ready)


def test_ready_by_its_own_word(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A run is ready when it says so by sd_notify, and what it says of its state is in the report."""
    os.mkfifo(tmp_path / "go")
    caller = call()
    script = f"{TELLS}\ntell('STATUS=warming up')\nopen(sys.argv[1]).read()\ntell('READY=1')\ntime.sleep(1000)"
    caller.launch(*PYTHON, script, str(tmp_path / "go"), ready=asked(Probe.NOTIFY))
    caller.report_until(lambda report: report.status == "warming up")
    assert caller.report().ready is False
    (tmp_path / "go").write_text("\n")
    caller.await_(m.Ready)


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (asked(Probe.TCP, "1", timeout=0.5), "127.0.0.1:1: Connection refused"),
        (asked(Probe.HTTP, "http://127.0.0.1:1/x", timeout=0.5), "Connection refused"),
        (
            asked(Probe.COMMAND, "", "sh", "-c", "echo the disk is missing; exit 7", timeout=1.0),
            "the disk is missing",
        ),
        (asked(Probe.NOTIFY, timeout=0.3), "it did not say READY=1"),
    ],
    ids=["tcp", "http", "command", "notify"],
)
def test_never_ready(served: Served, call: Callable[..., Caller], rules: ReadyRules, why: str) -> None:
    """A run that does not become ready in time is stopped, and the receipt says what was still missing."""
    caller, since = call(), len(served.lines)
    pid = caller.launch("sleep", "1000", ready=rules)
    receipt = caller.ended().receipt
    assert (receipt.reason, receipt.outcome, exit_code(receipt)) == (Reason.NOT_READY, Signaled(15), UNHEALTHY)
    assert why in receipt.detail
    assert not alive(pid)
    served.logged(f"{caller.run_id}.*did not become ready: .*{why}", since=since)


def test_end_before_it_is_ready(call: Callable[..., Caller]) -> None:
    """What ends before it is ready ended by itself, with its own code."""
    receipt = call().run("sh", "-c", "exit 5", ready=asked(Probe.NOTIFY)).receipt
    assert (receipt.outcome, receipt.reason) == (Exited(5), Reason.ITSELF)


@pytest.mark.parametrize("target", ["", "x", "99999", "db.example.org:80"])
def test_probe_that_cannot_be_made(call: Callable[..., Caller], target: str) -> None:
    """A launch with a readiness that nobody can ask for is refused, in words, and nothing is started."""
    refusal = call().refused("sleep", "1000", ready=asked(Probe.TCP, target))
    assert (refusal.code, bool(refusal.text)) == ("unsupported", True)


# ---- health ------------------------------------------------------------------------------------------------------


def test_healthy(call: Callable[..., Caller]) -> None:
    """A health command that succeeds is reported, and runs beside the application as often as it should."""
    caller = call()
    caller.launch("sleep", "1000", health=checked("true"))
    assert caller.report_until(lambda report: report.health == "ok").state is m.Phase.RUNNING


def test_unhealthy(served: Served, call: Callable[..., Caller]) -> None:
    """A run whose check fails often enough in a row is stopped by its rules, and the receipt says what was wrong."""
    caller, since = call(), len(served.lines)
    check = ("sh", "-c", "echo first; echo no more room; exit 3")
    pid = caller.launch("sleep", "1000", health=checked(*check, interval=0.3, retries=3))
    caller.report_until(lambda report: report.health == "1 of 3 checks failed: exited with code 3: no more room")
    receipt = caller.ended().receipt
    assert (receipt.reason, receipt.outcome, exit_code(receipt)) == (Reason.UNHEALTHY, Signaled(15), UNHEALTHY)
    assert receipt.detail == "the health command failed 3 times in a row: exited with code 3: no more room"
    assert not alive(pid)
    served.logged(f"{caller.run_id}.*stopped because it was unhealthy: the health command failed", since=since)


def test_check_that_recovers(call: Callable[..., Caller], tmp_path: Path) -> None:
    """Failures count only in a row: a run that is well again has all its tries again."""
    caller = call()
    script = 'echo x >> "$0"; test $(($(wc -l < "$0") % 3)) = 0'  # every third time
    caller.launch(
        "sleep", "1000", health=checked("sh", "-c", script, str(tmp_path / "count"), interval=0.05, retries=3)
    )
    until(lambda: lines(tmp_path / "count") > 12, "it was checked often")
    assert caller.report().state is m.Phase.RUNNING


def lines(path: Path) -> int:
    """Return how many lines a file has."""
    return path.read_text().count("\n") if path.exists() else 0


def test_check_that_hangs(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A check that gives no answer has failed, is killed with what it started, and counts as any."""
    caller = call()
    script = 'echo $$ >> "$0"; sleep 1000 & echo $! >> "$0"; wait'
    rules = checked("sh", "-c", script, str(tmp_path / "pids"), timeout=0.3, interval=0.1, retries=2)
    caller.launch("sleep", "1000", health=rules)
    receipt = caller.ended().receipt
    assert (receipt.reason, "gave no answer within" in receipt.detail) == (Reason.UNHEALTHY, True)
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 4
    until(lambda: not [pid for pid in pids if alive(pid)], "no check is left")


def test_check_that_cannot_be_run(call: Callable[..., Caller]) -> None:
    """A check that is not there says nothing of the application: it is reported, and stops nothing."""
    caller = call()
    caller.launch("sleep", "1000", health=checked("/nowhere/check", interval=0.05, retries=1))
    report = caller.report_until(lambda report: "not checked" in report.health and "yet" not in report.health)
    assert (report.state, "/nowhere/check" in report.health) == (m.Phase.RUNNING, True)


def test_health_begins_when_it_is_ready(call: Callable[..., Caller], tmp_path: Path) -> None:
    """What is not ready is not checked."""
    caller = call()
    ready = asked(Probe.COMMAND, "", "test", "-e", str(tmp_path / "up"))
    caller.launch("sleep", "1000", ready=ready, health=checked("touch", str(tmp_path / "checked"), interval=0.05))
    caller.report_until(lambda report: report.uptime > 0.6)
    assert not (tmp_path / "checked").exists()
    (tmp_path / "up").touch()
    caller.await_(m.Ready)
    until((tmp_path / "checked").exists, "it is checked")


def test_checks_leave_nothing(call: Callable[..., Caller], served: Served) -> None:
    """Checks are no part of the application's end: after a stop none is left, nor anything that one had started."""
    caller = call()
    caller.launch("sleep", "1000", health=checked("sh", "-c", "(setsid sleep 1000 &); true", interval=0.05))
    caller.report_until(lambda report: report.health == "ok")
    assert caller.stop().outcome == Signaled(15)
    assert members(caller.run_id) == []
    assert served.process.poll() is None
