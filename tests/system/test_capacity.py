"""Many at once: the original's 30, 200 with a manager each, and 2,000 applications on one server."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import PATIENT
from tests.system.peers import Crowd
from tests.system.processes import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

MANY = 2000
LAUNCH_LIMIT, KILL_LIMIT = 200.0, 60.0  # seconds for all of them


@pytest.mark.parametrize("count", [30, 200], ids=["the-original-limit-of-30", "200"])
def test_managers_at_once(bed: Bed, tmp_path: Path, count: int) -> None:
    """So many managers run at once, all applications end in one instant, and each manager has its own one's code."""
    gate, arrived = tmp_path / "gate", tmp_path / "arrived"
    arrived.touch()
    with gate.open("w") as closed:
        fcntl.flock(closed, fcntl.LOCK_EX)
        script = f"exec 9>>{arrived}; echo $0 >&9; flock -s {gate} true; exit $0"
        managers = [bed.start("/bin/sh", "-c", script, str(number), options=PATIENT) for number in range(count)]
        until(lambda: len(arrived.read_text().split()) == count, "all of them at the gate", 60)
        assert [manager.log for manager in managers if manager.process.poll() is not None] == []
    codes = [manager.wait() for manager in managers]
    assert codes == list(range(count))
    assert sum(codes) == count * (count - 1) // 2
    assert [manager.result["code"] for manager in managers] == codes


@pytest.mark.timeout(300)
def test_2000_applications(bed: Bed) -> None:
    """2,000 applications run on one server, are polled and killed, and each one's end is told once, with its signal."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 6 * MANY:
        pytest.skip(f"{hard} open files are too few for {MANY} applications on one server")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        server = bed.serve("--max-applications", str(MANY), "--max-connections-per-manager", str(MANY + 1))
        crowd = Crowd(server.port, bed.keys.host, MANY)
        try:
            crowd.launch(["/bin/sleep", "1000"], LAUNCH_LIMIT)
            assert len(set(crowd.pids)) == MANY
            reports = crowd.poll(KILL_LIMIT)
            assert {report["state"] for report in reports} == {"running"}
            assert bed.run("/bin/true").wait() == 122
            for number, pid in enumerate(crowd.pids):
                os.kill(pid, (signal.SIGKILL, signal.SIGTERM)[number % 2])
            server.process.send_signal(signal.SIGQUIT)  # amid all the ends, which must not make it deaf
            outcomes = crowd.ends(KILL_LIMIT)
            assert [outcome["signal"] for outcome in outcomes] == [(9, 15)[number % 2] for number in range(MANY)]
        finally:
            crowd.close()
        assert server.process.wait(KILL_LIMIT) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
