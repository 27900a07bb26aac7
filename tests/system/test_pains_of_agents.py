"""Pains of agents that come and go (the table is in test_pains.py): duplicates, dead applications, strangers."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.books import Book
from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import alive, children, end, stat, until, until_gone, until_written
from tests.system.wires import Wire

if TYPE_CHECKING:
    from tests.system.bed import Bed

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


# ---- one instance ----------------------------------------------------------------------------------------------


def test_duplicate_after_any_reconnect_or_restart(bed: Bed, book: Book) -> None:
    """Cut links, crashed, restarted and upgraded servers, managers that return: there is one start in the book."""
    with Wire(bed.serve().port) as wire:
        options = [*book.options, *PATIENT]
        manager = bed.start(*book.ends_with(43), name="one", guest=wire.guest, options=options)
        application, run_id = manager.until_launched(), manager.run_id
        for fate in ("cut", *FATES, "manager", *FATES, "cut", "manager", "both"):
            said = len(manager.log)
            if fate in {"manager", "both"}:
                end(manager.process)
            if fate == "cut":
                wire.cut()
                wire.mend()
            elif fate != "manager":
                renew(bed, "crash" if fate == "both" else fate)
            if fate in {"manager", "both"}:
                again = [*options, "--run-id", run_id]
                manager = bed.start(*book.ends_with(43), name="one", guest=wire.guest, options=again)
                assert manager.until_launched() == application
            else:
                until_back(manager, application, said)
        book.let_end()
        assert manager.wait() == 43
    book.check("start", "end")


def test_duplicate_by_managers_that_reconnect_at_once(bed: Bed, tmp_path: Path) -> None:
    """When a crashed server is back, all its managers return at once, each to its own application."""
    bed.serve()
    managers, books = [], []
    for number in range(12):
        books.append(Book(tmp_path / f"book-{number}"))
        books[-1].folder.mkdir()
        managers.append(bed.start(*books[-1].ends_with(number + 1), options=[*books[-1].options, *PATIENT]))
    applications = [manager.until_launched() for manager in managers]
    bed.server.crash()
    for manager, application, book in zip(managers, applications, books, strict=True):
        until_back(manager, application)
        book.let_end()
    assert [manager.wait() for manager in managers] == list(range(1, 13))
    for book in books:
        book.check("start", "end")


# ---- the agent -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cgroup", ["auto", "none"])
@pytest.mark.parametrize("fate", FATES)
def test_agent_comes_and_goes_and_the_application_stays(bed: Bed, book: Book, fate: str, cgroup: str) -> None:
    """An upgrade, a restart and a crash of the server spare applications and their children, and codes are right."""
    bed.serve("--cgroup", cgroup)
    manager = bed.start(*book.ends_with(43), options=[*book.options, *PATIENT])
    other = bed.start("/bin/sh", "-c", "sleep 1000 & echo $! >child; wait", options=[*book.options, *PATIENT])
    application, killed = manager.until_launched(), other.until_launched()
    child = int(until_written(book.folder / "child"))
    server = bed.server.process.pid
    renew(bed, fate)
    assert (bed.server.process.pid == server) == (fate == "upgrade")
    for each, pid in ((manager, application), (other, killed)):
        until_back(each, pid)
    assert alive(child)
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")
    os.kill(killed, signal.SIGKILL)
    assert other.wait() == 137
    until_gone(child)


def test_agent_that_cannot_be_upgraded_stays_as_it_is(bed: Bed, tmp_path: Path) -> None:
    """An upgrade that would not start is not begun: the log says why, and all goes on."""
    keys = tmp_path / "keys"
    shutil.copytree(bed.keys.guest, keys)
    server = bed.serve(keys=keys)
    manager = bed.start("/bin/sleep", "1000")
    application = manager.until_launched()
    (keys / "cert.pem").rename(keys / "away.pem")
    server.process.send_signal(signal.SIGUSR2)
    until(lambda: "not upgraded, everything stays as it was" in server.log, "the refusal")
    os.kill(application, signal.SIGUSR1)
    assert manager.wait() == 138
    assert "lost the link" not in manager.log


def test_reused_pid_is_not_touched(bed: Bed) -> None:
    """A stranger that has the pid of an application which ended while there was no server is left alone."""
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("the next pid cannot be chosen here: that takes root")
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", options=PATIENT)
    application = manager.until_launched()
    server.kill()
    os.kill(application, signal.SIGKILL)
    with suppress(ChildProcessError):
        os.waitpid(application, 0)  # an orphan is this process's own, where a test before has made it a subreaper
    until(lambda: not stat(application), "that the application is reaped", limit=60)
    stranger = become(application)
    try:
        server.restart()
        assert manager.wait() == 121
        assert manager.result["cause"] == "unknown"
        assert bed.run("/bin/sh", "-c", "exit 6", name=manager.name).wait() == 6
        server.process.send_signal(signal.SIGQUIT)
        assert server.process.wait(60) == 0
        assert stranger.poll() is None
    finally:
        end(stranger)


def become(pid: int) -> subprocess.Popen[bytes]:
    """Start a stranger under that pid."""
    for _ in range(500):
        LAST_PID.write_text(str(pid - 1))
        process = subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True)
        if process.pid == pid:
            return process
        end(process)
    pytest.skip("others start too many processes here to choose a pid")


# ---- whole trees -----------------------------------------------------------------------------------------------

FAMILY = """
trap '' TERM
setsid sh -c 'trap "" TERM HUP; echo $$ >leader; while :; do sleep 0.1; done' &
(setsid sh -c '(trap "" TERM; echo | cat; exec sleep 1000) & echo $! >orphan' &)
(sleep 1000 & echo $! >double) &
while [ ! -s leader ] || [ ! -s orphan ] || [ ! -s double ]; do sleep 0.02; done
echo >ready; while :; do sleep 0.1; done
"""


@pytest.mark.parametrize("cgroup", ["auto", "none"])
@pytest.mark.parametrize("fate", ["none", *FATES])
def test_orphans_and_daemons_die_at_a_stop(bed: Bed, tmp_path: Path, cgroup: str, fate: str) -> None:
    """Double forks, orphans and sessions of their own, all deaf to SIGTERM, are gone when the stop is told."""
    bed.serve("--cgroup", cgroup)
    options = ["--cwd", str(tmp_path), "--stop-timeout", "300ms", *PATIENT]
    manager = bed.start("/bin/sh", "-c", FAMILY, options=options)
    application = manager.until_launched()
    until_written(tmp_path / "ready")
    family = [application, *(int((tmp_path / name).read_text()) for name in ("leader", "orphan", "double"))]
    assert all(map(alive, family))
    if fate != "none":
        renew(bed, fate)
        until_back(manager, application)
    manager.process.terminate()
    assert manager.wait() == 137
    assert [pid for pid in family if alive(pid)] == []


def test_zombies_of_strangers_are_reaped(bed: Bed, tmp_path: Path) -> None:
    """Orphans that an application has lost and that end are no zombies for as long as it runs."""
    server = bed.serve()
    script = "for n in 1 2 3 4 5; do (sleep 0.1 & echo $! >>orphans); done; echo >ready; exec sleep 1000"
    manager = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path)])
    application = manager.until_launched()
    until_written(tmp_path / "ready")
    orphans = [int(word) for word in (tmp_path / "orphans").read_text().split()]
    until(lambda: not any(map(stat, orphans)), "the reaping of the orphans")
    assert application in children(server.process.pid)
    manager.process.terminate()
    assert manager.wait() == 143


# ---- keys ------------------------------------------------------------------------------------------------------


def test_rotated_keys_break_no_link(bed: Bed, book: Book, tmp_path: Path) -> None:
    """When the guest's keys are renewed its managers stay, and come back to the new ones if their link is lost."""
    keys = tmp_path / "keys"
    shutil.copytree(bed.keys.guest, keys)
    server = bed.serve(keys=keys)
    with Wire(server.port) as wire:
        manager = bed.start(*book.ends_with(43), guest=wire.guest, options=[*book.options, *PATIENT])
        application = manager.until_launched()
        shutil.copytree(bed.keys.issue("guest", "vm1-renewed", "127.0.0.1"), keys, dirs_exist_ok=True)
        server.process.send_signal(signal.SIGHUP)
        until(lambda: " reloaded: " in server.log, "the reload")
        assert "lost the link" not in manager.log
        wire.cut()
        wire.mend()
        until_back(manager, application)
        book.let_end()
        assert manager.wait() == 43
    book.check("start", "end")
