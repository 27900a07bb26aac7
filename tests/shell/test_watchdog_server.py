"""Watchdog, stop command and limits through the real server."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled, exit_code
from cmapp.core.rules import Probe, StopRules
from tests.shell.care_rules import PYTHON, TELLS, UNHEALTHY, asked, checked
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

# ---- the watchdog ------------------------------------------------------------------------------------------------


def test_watchdog(served: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """An application that feeds its watchdog runs on; when it no longer does, it is stopped as hung."""
    os.mkfifo(tmp_path / "hang")
    caller, since = call(), len(served.lines)
    script = (
        f"{TELLS}\nassert os.environ['WATCHDOG_USEC'] == '700000'\n"
        "pipe = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)\n"
        "while not os.read(pipe, 1):\n    tell('WATCHDOG=1')\n    time.sleep(0.1)\ntime.sleep(1000)"
    )
    caller.launch(*PYTHON, script, str(tmp_path / "hang"), watchdog=0.7)
    caller.report_until(lambda report: report.uptime > 2)
    (tmp_path / "hang").write_text("x")
    receipt = caller.ended().receipt
    assert (receipt.reason, exit_code(receipt), receipt.outcome) == (Reason.HUNG, UNHEALTHY, Signaled(15))
    served.logged(f"{caller.run_id}.*stopped because its watchdog was not heard", since=since)


def test_watchdog_that_is_triggered(call: Callable[..., Caller]) -> None:
    """An application may say by itself that it hangs."""
    caller = call()
    script = f"{TELLS}\ntell('WATCHDOG=trigger')\ntime.sleep(1000)"
    caller.launch(*PYTHON, script, watchdog=1000.0)
    receipt = caller.ended().receipt
    assert (receipt.reason, exit_code(receipt)) == (Reason.UNHEALTHY, UNHEALTHY)
    assert "WATCHDOG=trigger" in receipt.detail


def test_watchdog_after_a_restart(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """The next server hears the watchdog too, and misses it too."""
    os.mkfifo(tmp_path / "hang")
    server = serve(conf="")
    first = call(server)
    script = (
        f"{TELLS}\npipe = os.open(sys.argv[1], os.O_RDONLY | os.O_NONBLOCK)\n"
        "while not os.read(pipe, 1):\n    try:\n        tell('WATCHDOG=1')\n    except OSError:\n        pass\n"
        "    time.sleep(0.1)\ntime.sleep(1000)"
    )
    pid = first.launch(*PYTHON, script, str(tmp_path / "hang"), watchdog=1.5, output=True)
    server.upgrade()
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    server.kill()
    server.start()
    second = call(server)
    assert second.resume(first).pid == pid
    begin = second.report().uptime
    second.report_until(lambda report: report.uptime > begin + 2.5)
    (tmp_path / "hang").write_text("x")
    assert second.ended().receipt.reason is Reason.HUNG


@pytest.mark.parametrize("way", ["kill", "upgrade"])
def test_readiness_after_a_restart(
    serve: Callable[..., Served], call: Callable[..., Caller], port: int, way: str
) -> None:
    """A run that was not ready yet is asked by the next server; one that was is not asked again, and told so."""
    server = serve(conf="")
    first = call(server)
    first.launch("sleep", "1000", ready=asked(Probe.TCP, str(port)), health=checked("true"))
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    if way == "upgrade":
        server.upgrade()
    else:
        server.kill()
        server.start()
    second = call(server)
    second.resume(first)
    assert second.report().ready is False
    with socket.create_server(("127.0.0.1", port)):
        second.await_(m.Ready)
    until(lambda: b'"ready":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    server.kill()
    server.start()
    third = call(server)
    third.resume(first)
    third.await_(m.Ready)  # which it may have missed
    third.report_until(lambda report: report.health == "ok")


# ---- the stop command --------------------------------------------------------------------------------------------


def test_stop_command(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A stop runs the stop command first, with the main process in MAINPID; if that ended it, no signal is needed."""
    os.mkfifo(tmp_path / "gate")
    caller = call()
    command = (
        "sh",
        "-c",
        f"echo $MAINPID > {tmp_path}/pid; echo 6 > {tmp_path}/gate; while kill -0 $MAINPID; do :; done",
    )
    script = f"trap 'exit 1' TERM; echo up; read code < {tmp_path}/gate; exit $code"
    pid = caller.launch("sh", "-c", script, output=True, stop=StopRules(timeout=60.0, command=command))
    caller.wrote(b"up")
    receipt = caller.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Exited(6), Reason.ASKED, False)
    assert (tmp_path / "pid").read_text() == f"{pid}\n"


def test_stop_command_is_not_enough(call: Callable[..., Caller]) -> None:
    """When the stop command has ended and the application has not, the stop signal follows."""
    caller = call()
    caller.launch("sleep", "1000", stop=StopRules(timeout=60.0, command=("true",)))
    assert caller.stop().outcome == Signaled(15)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/nowhere/stop",), "could not be run"),
        (("sh", "-c", "echo no such thing; exit 3"), "exited with code 3: no such thing"),
        (("sleep", "1000"), "gave no answer within 500 ms"),
    ],
    ids=["missing", "fails", "hangs"],
)
def test_stop_command_that_fails(served: Served, call: Callable[..., Caller], command: tuple[str], why: str) -> None:
    """A stop command that fails or hangs is told of in the log, and the signal comes all the same."""
    caller, since = call(), len(served.lines)
    caller.launch("sleep", "1000", stop=StopRules(timeout=1.0, command=command))
    receipt = caller.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(15), Reason.ASKED, False)
    served.logged(f"{caller.run_id}.*the stop command {why}", since=since)


def test_kill_does_not_wait_for_the_stop_command(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A kill runs no stop command, and ends the one that runs."""
    caller = call()
    command = ("sh", "-c", f"echo $$ > {tmp_path}/pid; sleep 1000")
    caller.launch("sleep", "1000", stop=StopRules(timeout=1000.0, command=command))
    caller.ask(m.Done, m.Stop)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the stop command runs")
    receipt = caller.stop(kill=True).receipt
    assert (receipt.outcome, receipt.forced) == (Signaled(9), True)
    assert not alive(int((tmp_path / "pid").read_text()))


def test_unhealthy_is_stopped_by_the_stop_command(call: Callable[..., Caller], tmp_path: Path) -> None:
    """Also what the server itself decides to stop is stopped in its own way."""
    caller = call()
    stop = StopRules(timeout=60.0, command=("sh", "-c", f"touch {tmp_path}/asked; kill -INT $MAINPID; sleep 0.2"))
    caller.launch("sleep", "1000", stop=stop, health=checked("false"))
    receipt = caller.ended().receipt
    assert (receipt.outcome, receipt.reason) == (Signaled(2), Reason.UNHEALTHY)
    assert (tmp_path / "asked").exists()


# ---- limits ------------------------------------------------------------------------------------------------------


def test_limits(call: Callable[..., Caller]) -> None:
    """Resource limits are those that were asked for."""
    caller = call()
    ended = caller.run("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c", limits={"nofile": (50, 60), "core": (0, 0)})
    assert ended.stdout == b"50\n60\n0\n"


def test_limits_that_need_a_cgroup(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Where there is no cgroup a limit of memory or processes is refused, and nothing is started without it."""
    caller = call(serve("--cgroup", "none"))
    for limits in ({"memory": (1 << 26, 1 << 26)}, {"pids": (10, 10)}):
        assert caller.refused("sleep", "1000", limits=limits).code == "unsupported"
