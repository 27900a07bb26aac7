"""Stops: cmappmgr is asked to stop, and exits with what became of the application; nothing of it is left."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.processes import session, until, until_gone, until_written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

STOPS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
READY = "echo $$ >ready; while :; do sleep 0.05; done"


def start_script(bed: Bed, folder: Path, script: str, *options: str, **how: Any) -> Manager:
    """Start a manager of a shell script, and wait until the script has written the file `ready`."""
    options = ("--cwd", str(folder), "--stop-timeout", "60", *options)
    manager = bed.start("/bin/sh", "-c", script, options=options, **how)
    manager.until_launched()
    until_written(folder / "ready")
    return manager


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_application_that_stops_in_order(bed: Bed, tmp_path: Path, number: signal.Signals) -> None:
    """Each signal that asks cmappmgr to stop gives the application SIGTERM, and its own exit code comes back."""
    manager = start_script(bed, tmp_path, "trap 'echo bye >bye; exit 7' TERM; " + READY)
    manager.process.send_signal(number)
    assert manager.wait() == 7
    assert (tmp_path / "bye").read_text() == "bye\n"
    assert f"asked to stop by {number.name}" in manager.log
    assert "(stopped on request, the stop signal was enough); exit code 7" in manager.last_line
    assert "ERROR" not in manager.log


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_application_that_dies_of_the_stop_signal(bed: Bed, number: signal.Signals) -> None:
    """An application that does nothing about SIGTERM ends by it: 143, whichever signal cmappmgr was given."""
    manager = bed.start("/bin/sleep", "1000")
    manager.until_launched()
    manager.process.send_signal(number)
    assert manager.wait() == 143
    assert (manager.result["reason"], manager.result["forced"]) == ("asked", False)


def test_stop_signal_of_its_own(bed: Bed, tmp_path: Path) -> None:
    """The application is stopped by the signal that --stop-signal names."""
    manager = start_script(bed, tmp_path, "trap 'exit 8' QUIT; trap '' TERM; " + READY, "--stop-signal", "QUIT")
    manager.process.terminate()
    assert manager.wait() == 8


def test_application_that_ignores_the_stop_signal(bed: Bed, tmp_path: Path) -> None:
    """SIGKILL follows after --stop-timeout and not before: 137, and the log says that SIGKILL was needed."""
    manager = start_script(bed, tmp_path, "trap '' TERM; " + READY, "--stop-timeout", "700ms")
    begin = time.monotonic()
    manager.process.terminate()
    assert manager.wait() == 137
    assert 0.7 <= time.monotonic() - begin < 5
    assert "(stopped on request, SIGKILL was needed); exit code 137" in manager.last_line
    assert manager.result["forced"] is True


def test_no_time_to_stop(bed: Bed, tmp_path: Path) -> None:
    """With a --stop-timeout of 0 an application that ignores the stop signal is killed at once."""
    manager = start_script(bed, tmp_path, "trap '' TERM; " + READY, "--stop-timeout", "0")
    manager.process.terminate()
    assert manager.wait(5) == 137


def test_second_signal_kills(bed: Bed, tmp_path: Path) -> None:
    """A second signal, later than one and the same halt, does not wait for --stop-timeout."""
    manager = start_script(bed, tmp_path, "trap '' TERM; " + READY)
    manager.process.terminate()
    manager.until_log("asked to stop by SIGTERM")
    begin = time.monotonic()

    def ended() -> bool:
        manager.process.send_signal(signal.SIGINT)
        return manager.process.poll() is not None

    until(ended, "its end", 10)
    assert manager.wait() == 137
    assert time.monotonic() - begin < 10
    assert "by SIGINT again" in manager.log
    assert "SIGKILL was needed" in manager.last_line


def test_halt_of_a_cluster(bed: Bed, tmp_path: Path) -> None:
    """SIGTERM to cmappmgr and at once to its group, as a package is halted, is one request and kills nothing."""
    script = (
        "trap 'n=$((n+1)); echo $n >told' TERM; echo $$ >ready; until [ -e go ]; do sleep 0.05; done; exit $((10 + n))"
    )
    manager = start_script(bed, tmp_path, script, start_new_session=True)
    manager.process.terminate()
    os.killpg(manager.process.pid, signal.SIGTERM)
    until_written(tmp_path / "told")
    (tmp_path / "go").touch()
    assert manager.wait() == 11
    assert "again" not in manager.log


def test_children_are_gone_after_the_end(bed: Bed, tmp_path: Path) -> None:
    """Children that an application leaves behind are gone after it: also those that ignore signals or were orphaned."""
    script = (
        "sleep 1000 & (trap '' TERM HUP INT; sleep 1000 & sleep 1000) & (sleep 1000 &) ; "
        "until [ $(pgrep -c -g $$ sleep) = 4 ]; do sleep 0.01; done; echo $$ >ready; exit 5"
    )
    manager = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path)])
    assert manager.wait() == 5
    leader = manager.until_launched()
    until(lambda: not session(leader), "the end of its children", 5)


def test_children_are_gone_after_a_stop(bed: Bed, tmp_path: Path) -> None:
    """When cmappmgr exits after a stop, nothing is left of the tree, though a child ignored the stop signal."""
    script = "(trap '' TERM; sleep 1000 & sleep 1000) & trap 'exit 4' TERM; " + READY
    manager = start_script(bed, tmp_path, script, "--stop-timeout", "500ms")
    leader = manager.until_launched()
    until(lambda: len(session(leader)) >= 3, "its children")
    manager.process.terminate()
    assert manager.wait() == 4
    assert session(leader) == []
    assert "SIGKILL was needed" in manager.last_line


@pytest.mark.parametrize("cgroup", ["auto", "none"])
def test_daemon(bed: Bed, tmp_path: Path, cgroup: str) -> None:
    """A command that daemonizes has ended when its parent exits: that is told, and what left its session dies too."""
    bed.serve("--cgroup", cgroup)
    script = "setsid sh -c 'echo $$ >daemon; exec sleep 1000' & while [ ! -s daemon ]; do sleep 0.01; done; exit 3"
    manager = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path)])
    daemon = int(until_written(tmp_path / "daemon"))
    assert manager.wait() == 3
    assert manager.last_line.endswith("exit code 3 is the application's own")
    until_gone(daemon)


def test_paused_application(bed: Bed, tmp_path: Path) -> None:
    """An application that stands still by SIGSTOP is stopped in order all the same."""
    manager = start_script(bed, tmp_path, "trap 'exit 7' TERM; " + READY)
    os.kill(manager.until_launched(), signal.SIGSTOP)
    manager.process.terminate()
    assert manager.wait(10) == 7


def test_stop_before_the_launch(bed: Bed) -> None:
    """A stop while the guest is still sought ends cmappmgr at once, with its own code: nothing was launched."""
    manager = bed.start("/bin/true", guest="127.0.0.1:9", options=["--connect-timeout", "60"])
    manager.until_log("not reached yet")
    manager.process.terminate()
    assert manager.wait(5) == 125
    assert "before it was launched" in manager.last_line
    assert manager.result["cause"] == "failed"
