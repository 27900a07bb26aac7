"""Losses: a manager, a server or a whole guest vanishes or hangs, and what the other side makes of it."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.bed import Bed, Manager
from tests.system.processes import alive, paused, until, until_gone, until_written

if TYPE_CHECKING:
    from pathlib import Path

# The application keeps the book: it says when it starts, and cries out if another instance still holds the lock.
BOOKED = "exec 9>>lock; flock -n 9 || echo overlap >>book; echo $$ >pid; echo start >>book; exec sleep 1000"
BOUND = re.compile(r"a hung guest within ([\d.]+ m?s) .*, and each is given up [\d.]+ m?s later, within ([\d.]+ m?s);")


def start_booked(bed: Bed, folder: Path, *options: str) -> Manager:
    """Start a manager of the one application that keeps the book in `folder`."""
    return bed.start("/bin/sh", "-c", BOOKED, name="booked", options=["--cwd", str(folder), *options])


def book(folder: Path) -> list[str]:
    """Return what the application has written in its book."""
    return (folder / "book").read_text().split() if (folder / "book").exists() else []


def until_booked(folder: Path, *entries: str) -> None:
    """Wait until the book has as many entries, and check that they are these."""
    until(lambda: len(book(folder)) >= len(entries), f"{entries} in the book")
    assert book(folder) == list(entries)


def test_manager_killed(bed: Bed) -> None:
    """The application of a manager that was killed without a word is stopped after its orphan timeout, not before."""
    manager = bed.start("/bin/sleep", "1000", options=["--orphan-timeout", "1500ms"])
    application = manager.until_launched()
    begin = time.monotonic()
    manager.process.kill()
    until_gone(application)
    assert 1.5 <= time.monotonic() - begin < 15
    assert not manager.has_result
    assert re.search(rf"{manager.name} \(run .*\): its manager is lost: it is stopped if none comes", bed.server.log)


def test_orphan_that_is_kept(bed: Bed) -> None:
    """With --orphan-action keep the application of a lost manager goes on until one comes for it."""
    options = ["--orphan-timeout", "100ms", "--orphan-action", "keep"]
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    application = manager.until_launched()
    manager.process.kill()
    until(lambda: re.search(rf"{manager.name} .*: it is kept until one comes", bed.server.log), "a word in the log")
    again = bed.start("/bin/true", name=manager.name, options=["--on-existing", "attach"])
    assert again.until_launched() == application
    assert alive(application)
    again.process.terminate()
    assert again.wait() == 143


def test_manager_killed_and_restarted(bed: Bed, tmp_path: Path) -> None:
    """A restarted manager gets its application each time, and never are there two: the application keeps the book."""
    for count in range(1, 11):
        manager = start_booked(bed, tmp_path)
        manager.until_launched()
        until_booked(tmp_path, *["start"] * count)
        manager.process.kill()


def test_restart_waits_for_one_that_is_slow_to_stop(bed: Bed, tmp_path: Path) -> None:
    """A new launch waits until the old instance, which takes its time to stop, has gone; then it is launched."""
    slow = "trap 'sleep 1; echo end >>book; exit' TERM; echo start >>book; while :; do sleep 0.05; done"
    options = ["--cwd", str(tmp_path)]
    first = bed.start("/bin/sh", "-c", slow, name="slow", options=options)
    first.until_launched()
    until_booked(tmp_path, "start")
    first.process.kill()
    second = bed.start("/bin/sh", "-c", slow, name="slow", options=options)
    second.until_launched()
    until_booked(tmp_path, "start", "end", "start")
    assert not first.has_result


def test_manager_paused(bed: Bed) -> None:
    """A manager that is silent for longer than it said it would be is lost, and told what became of its application."""
    server = bed.serve()
    options = ["--poll-interval", "100ms", "--poll-timeout", "100ms", "--orphan-timeout", "300ms"]
    manager = bed.start("/bin/sleep", "1000", options=[*options, "--link-timeout", "60s"])
    application = manager.until_launched()
    manager.process.send_signal(signal.SIGSTOP)
    until(lambda: not alive(application), "the end of its application")
    assert "has been silent for too long" in server.log
    manager.process.send_signal(signal.SIGCONT)
    assert manager.wait() == 143
    assert "stopped because its manager was lost" in manager.last_line
    assert manager.result["reason"] == "manager-lost"


def test_server_killed(bed: Bed) -> None:
    """A server that is killed and stays away is given up after --link-timeout, not before: 123, and why."""
    bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=["--link-timeout", "1500ms"])
    manager.until_launched()
    begin = time.monotonic()
    bed.server.kill()
    manager.until_log("lost the link: .*the application may well go on, trying for 1.5 s")
    assert manager.wait() == 123
    assert 1.5 <= time.monotonic() - begin < 15
    assert "closed the connection" in manager.last_line
    assert "no way back within 1.5 s: " in manager.last_line
    assert "nothing listens there" in manager.last_line
    assert "exit code 123 means that the server was unreachable" in manager.last_line
    assert manager.result["cause"] == "unreachable"


def test_no_time_to_come_back(bed: Bed) -> None:
    """With a --link-timeout of 0 a lost link is the end at once."""
    bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=["--link-timeout", "0"])
    manager.until_launched()
    bed.server.kill()
    assert manager.wait(20) == 123


def test_server_stopped(bed: Bed) -> None:
    """A server that is stopped by SIGTERM leaves its applications to the next, and their managers come back."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=["--link-timeout", "60s"])
    application = manager.until_launched()
    assert server.stop() == 0
    manager.until_log("lost the link: ")
    assert alive(application)
    server.restart()
    manager.until_log(rf"back after .*: pid {application}, run {manager.run_id}")
    assert "found as process" in server.log
    os.kill(application, signal.SIGUSR1)
    assert manager.wait() == 138


@pytest.mark.parametrize(
    ("number", "options"), [(signal.SIGTERM, ["--stop-on-exit"]), (signal.SIGQUIT, [])], ids=["stop-on-exit", "SIGQUIT"]
)
def test_server_stopped_with_its_applications(
    bed: Bed, tmp_path: Path, number: signal.Signals, options: list[str]
) -> None:
    """A server that is to stop its applications does so first, and their managers exit with the outcomes."""
    server = bed.serve(*options)
    dies = bed.start("/bin/sleep", "1000")
    dies.until_launched()
    script = "trap 'exit 9' TERM; echo >ready; while :; do sleep 0.05; done"
    exits = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path)])
    until_written(tmp_path / "ready")
    server.process.send_signal(number)
    assert server.process.wait(60) == 0
    assert dies.wait() == 143
    assert "stopped because the server was stopped" in dies.last_line
    assert exits.wait() == 9


def test_server_paused(bed: Bed) -> None:
    """A guest that hangs is given up within the bound that was printed at the start: 123, and the log says why."""
    server = bed.serve()
    options = ["--poll-interval", "400ms", "--poll-timeout", "600ms", "--link-timeout", "1s"]
    manager = bed.start("/bin/sleep", "1000", options=options)
    manager.until_launched()
    begin = time.monotonic()
    server.process.send_signal(signal.SIGSTOP)
    until(lambda: paused(server.process.pid), "the pause")
    assert manager.wait() == 123
    took = time.monotonic() - begin
    bound = BOUND.search(manager.log)
    assert bound is not None
    assert bound.groups() == ("1 s", "2 s")
    assert 1.6 <= took < 2 + 3  # the latter for a busy machine
    assert "no answer to a poll within 0.6 s; no way back within 1 s" in manager.last_line


def test_restarted_by_a_cluster_manager(bed: Bed, tmp_path: Path) -> None:
    """A loop that restarts cmappmgr three times and gives up, as a cluster manager does, sees every end."""
    command = bed.command(
        tmp_path,
        "looped",
        ["/bin/sh", "-c", BOOKED],
        options=["--cwd", str(tmp_path)],
    )
    loop = 'n=0; while [ $n -le 3 ]; do "$@"; echo $? >>codes; n=$((n+1)); done; echo failover >>codes'
    manager = bed.adopt(Manager(tmp_path, "looped", ["/bin/sh", "-c", loop, "loop", *command], cwd=tmp_path))
    for count, number in enumerate((9, 15, 11, 6), 1):
        until_booked(tmp_path, *["start"] * count)
        os.kill(int((tmp_path / "pid").read_text()), number)
    assert manager.wait() == 0
    assert (tmp_path / "codes").read_text().split() == ["137", "143", "139", "134", "failover"]
