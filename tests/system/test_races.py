"""Races: whatever happens at whatever moment, there is at most one instance, one outcome, and nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.system.processes import alive, children, until, until_gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

MOMENTS = [number / 125 for number in range(20)]  # seconds: from before the first import to well after the launch


def give_time(manager: Manager, seconds: float) -> None:
    """Let a manager come as far as it comes."""
    with suppress(subprocess.TimeoutExpired):
        manager.process.wait(seconds)


def test_manager_killed_at_any_moment(bed: Bed) -> None:
    """A manager that is killed at whatever moment of its start leaves no application behind, and its name is free."""
    server = bed.serve()
    for seconds in MOMENTS:
        manager = bed.start("/bin/sleep", "1000", name="killed", options=["--orphan-timeout", "500ms"])
        give_time(manager, seconds)
        manager.process.kill()
        manager.wait()
    until(lambda: not children(server.process.pid), "the end of all applications")
    assert bed.run("/bin/sh", "-c", "exit 6", name="killed").wait() == 6


def test_manager_stopped_at_any_moment(bed: Bed) -> None:
    """A manager that is stopped at whatever moment of its start tells of the application what is true."""
    server = bed.serve()
    for seconds in MOMENTS:
        manager = bed.start("/bin/sleep", "1000", name="stopped")
        give_time(manager, seconds)
        manager.process.terminate()
        code = manager.wait()
        assert code in {125, 122, 143}
        if manager.has_result:
            assert manager.result["exit_code"] == code
            assert manager.result["cause"] in {"failed", "refused", "signaled"}
        else:  # it died of the signal before it could hear it, and so before anything was launched
            assert (code, manager.log) == (143, "")
    until(lambda: not children(server.process.pid), "the end of all applications")


def test_stop_that_meets_the_end(bed: Bed) -> None:
    """When a stop and the application's own end meet, the outcome is one of the two, and log and result agree on it."""
    script = "sleep 0.1; exit 5"
    managers = [bed.start("/bin/sh", "-c", script) for _ in range(20)]
    for number, manager in enumerate(managers):
        manager.until_log("launched as pid|exited with")
        give_time(manager, 0.07 + number / 500)
        manager.process.terminate()
    for manager in managers:
        code = manager.wait()
        assert (code, manager.result["cause"]) in {(5, "exited"), (143, "signaled")}
        assert f"exit code {code} " in manager.last_line


def test_managers_that_race_for_a_name(bed: Bed, tmp_path: Path) -> None:
    """Of many managers that are started at once for one name, one gets it, and the others are refused."""
    bed.serve()
    options = ["--cwd", str(tmp_path), "--poll-interval", "200ms"]
    script = "echo start >>book; exec sleep 1000"
    managers = [bed.start("/bin/sh", "-c", script, name="one", options=options) for _ in range(12)]
    until(lambda: sum(manager.process.poll() is not None for manager in managers) == 11, "11 refusals")
    [winner] = [manager for manager in managers if manager.process.poll() is None]
    winner.until_launched()
    until((tmp_path / "book").exists, "its start")
    winner.process.terminate()
    assert sorted(manager.wait() for manager in managers) == [122] * 11 + [143]
    assert (tmp_path / "book").read_text() == "start\n"


def test_server_stopped_amid_launches(bed: Bed) -> None:
    """A server that is stopped while it launches leaves each manager an outcome or a reason, and no application."""
    server = bed.serve("--stop-on-exit")
    managers = [bed.start("/bin/sleep", "1000", options=["--connect-timeout", "1s"]) for _ in range(20)]
    for manager in managers[:3]:
        manager.until_launched()
    applications = children(server.process.pid)
    assert server.stop() == 0
    codes = [manager.wait() for manager in managers]
    assert codes[:3] == [143] * 3
    assert set(codes) <= {
        122,
        123,
        143,
    }  # refused as it was being stopped, not reached any more, or stopped
    for manager, code in zip(managers, codes, strict=True):
        assert (manager.result["cause"] == "signaled") == (code == 143)
    until_gone(*applications)


def test_server_killed_amid_a_stop(bed: Bed, tmp_path: Path) -> None:
    """When the server is killed while it stops the application, the outcome is not known, and nobody invents one."""
    server = bed.serve()
    script = "trap 'echo >stopping' TERM; echo >ready; while :; do sleep 0.05; done"
    manager = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path)])
    until((tmp_path / "ready").exists, "its start")
    manager.process.terminate()
    until((tmp_path / "stopping").exists, "the stop signal")
    server.kill()
    assert manager.wait() == 123
    assert manager.result["cause"] == "unreachable"


def test_server_restarted_amid_a_stop(bed: Bed, tmp_path: Path) -> None:
    """When the server crashes while it stops the application, the next one goes on with the stop, and tells its end."""
    server = bed.serve()
    script = "trap 'echo >stopping' TERM; echo >ready; while :; do sleep 0.05; done"
    options = ["--cwd", str(tmp_path), "--stop-timeout", "3s", "--link-timeout", "60s"]
    manager = bed.start("/bin/sh", "-c", script, options=options)
    application = manager.until_launched()
    until((tmp_path / "ready").exists, "its start")
    manager.process.terminate()
    until((tmp_path / "stopping").exists, "the stop signal")
    server.crash()
    assert manager.wait() == 137
    assert "(stopped on request, SIGKILL was needed)" in manager.last_line
    assert not alive(application)


def test_server_paused_amid_a_stop(bed: Bed) -> None:
    """A guest that hangs while the application is to be stopped is noticed within the same bound."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=["--poll-interval", "300ms", "--poll-timeout", "300ms"])
    manager.until_launched()
    server.process.send_signal(signal.SIGSTOP)
    manager.process.terminate()
    assert manager.wait(20) == 123


def test_server_paused_for_a_moment(bed: Bed) -> None:
    """A guest that stands still for less than the bound, as in a migration, costs nothing, on neither side."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=["--poll-interval", "100ms", "--poll-timeout", "20s"])
    application = manager.until_launched()
    server.process.send_signal(signal.SIGSTOP)
    give_time(manager, 3.5)  # longer than the server may fail to look at its clock without noticing
    server.process.send_signal(signal.SIGCONT)
    until(lambda: "stood still for" in server.log, "a word in the server's log")
    assert manager.process.poll() is None
    os.kill(application, signal.SIGUSR1)
    assert manager.wait() == 138
