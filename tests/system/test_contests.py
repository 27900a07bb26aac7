"""Many at once and everything in the way: contests for one name, and servers that crash amid it all."""

from __future__ import annotations

import random
import subprocess
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.system.books import Book
from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import alive, end, until, until_gone, until_written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

OFTEN = ("--poll-interval", "200ms")


def test_takeovers_that_race(bed: Bed, book: Book) -> None:
    """Of managers that all take over from each other at once one is left, and no two instances ever met."""
    bed.serve()
    options = [*book.options, "--takeover", *OFTEN]
    managers = [bed.start(*book.command(), name="one", options=options) for _ in range(8)]
    until(lambda: sum(manager.process.poll() is None for manager in managers) == 1, "a winner")
    [winner] = [manager for manager in managers if manager.process.poll() is None]
    application = winner.until_launched()
    assert {manager.wait() for manager in managers if manager is not winner} <= {122, 143}
    assert alive(application)
    assert set(until(lambda: book.entries, "its first entry")) == {"start"}
    winner.process.terminate()
    assert winner.wait() == 143


def test_one_run_id_that_many_want(bed: Bed, book: Book) -> None:
    """Of managers that come at once with one run id one has the run, and it was started once."""
    bed.serve()
    options = [*book.options, "--run-id", str(uuid.uuid4()), *OFTEN]
    managers = [bed.start(*book.command(), name="one", options=options) for _ in range(8)]
    until(lambda: sum(manager.process.poll() is None for manager in managers) == 1, "a winner")
    [winner] = [manager for manager in managers if manager.process.poll() is None]
    winner.until_launched()
    assert {manager.wait() for manager in managers if manager is not winner} == {122}
    book.check("start")


@pytest.mark.parametrize("fate", FATES)
def test_servers_that_come_and_go_amid_launches(bed: Bed, tmp_path: Path, fate: str) -> None:
    """Whenever the server goes, each application was started at most once, and its code is its own, or unknown."""
    bed.serve()
    books, managers = [], []
    for number in range(1, 21):
        books.append(Book(tmp_path / f"book-{number}"))
        books[-1].folder.mkdir()
        command = books[-1].command(f"sleep 0.{number % 5}; exit {number}")
        managers.append(bed.start(*command, options=[*books[-1].options, *PATIENT]))
        if number % 4 == 0:
            renew(bed, fate)
    for number, (manager, book) in enumerate(zip(managers, books, strict=True), 1):
        assert manager.wait() in {number, 121}
        assert book.entries in ([], ["start"])
        assert book.entries or manager.wait() == 121


def test_manager_that_is_killed_and_returns_at_any_moment(bed: Bed, book: Book) -> None:
    """A manager with a run id of its own that is killed at whatever moment, again and again, starts one instance."""
    bed.serve()
    options = [*book.options, *PATIENT, "--run-id", str(uuid.uuid4())]
    for number in range(15):
        manager = bed.start(*book.ends_with(43), name="one", options=options)
        with suppress(subprocess.TimeoutExpired):
            manager.process.wait(number / 100)
        end(manager.process)
    last = bed.start(*book.ends_with(43), name="one", options=options)
    last.until_launched()
    book.let_end()
    assert last.wait() == 43
    book.check("start", "end")


def test_hundred_applications_and_a_crash(bed: Bed) -> None:
    """The next server finds all of them, and all of their managers find it."""
    server = bed.serve()
    managers = [bed.start("/bin/sh", "-c", f"exec sleep 10{n:02}", options=PATIENT) for n in range(100)]
    applications = [manager.until_launched() for manager in managers]
    server.crash()
    for manager, application in zip(managers, applications, strict=True):
        until_back(manager, application)
    for manager in managers:
        manager.process.terminate()
    assert {manager.wait() for manager in managers} == {143}
    assert not any(map(alive, applications))


@pytest.mark.parametrize(("before", "after"), [("auto", "none"), ("none", "auto")])
def test_next_server_with_another_containment(bed: Bed, tmp_path: Path, before: str, after: str) -> None:
    """A run stays what it was, in a cgroup or not, whatever the next server has: a stop ends all of it."""
    server = bed.serve("--cgroup", before)
    script = "setsid sh -c 'trap \"\" TERM; echo $$ >daemon; while :; do sleep 0.1; done' & wait"
    options = ["--cwd", str(tmp_path), "--stop-timeout", "500ms", *PATIENT]
    manager = bed.start("/bin/sh", "-c", script, options=options)
    application = manager.until_launched()
    daemon = int(until_written(tmp_path / "daemon"))
    server.kill()
    server.restart("--cgroup", after)
    until_back(manager, application)
    manager.process.terminate()
    assert manager.wait() == 143
    assert not alive(daemon)
    assert bed.run("/bin/sh", "-c", "exit 6", name=manager.name).wait() == 6


def test_receipt_that_was_kept_long_enough(bed: Bed, book: Book) -> None:
    """A receipt that was acknowledged is forgotten after --receipt-retention, and not before, across a crash too."""
    server = bed.serve("--receipt-retention", "4s")
    options = [*book.options, "--run-id", str(uuid.uuid4())]
    assert bed.run(*book.command("exit 43"), name="one", options=options).wait() == 43
    begin = time.monotonic()
    server.until_kept(options[-1])
    server.crash()
    again = bed.run(*book.command("exit 44"), name="one", options=options)
    assert again.wait() == 43 or time.monotonic() - begin > 3
    time.sleep(max(0.0, begin + 5 - time.monotonic()))
    until(lambda: not list((server.state / "receipts").iterdir()), "the end of the receipt")
    assert bed.run(*book.command("exit 44"), name="one", options=options).wait() == 44


@pytest.mark.parametrize("fate", FATES)
def test_never_ready_under_the_next_server(bed: Bed, tmp_path: Path, fate: str) -> None:
    """The next server goes on to wait for readiness, and stops what is not ready in time: 124."""
    bed.serve()
    check = "/bin/sh -c 'echo $$ >check; exec sleep 1000'"  # which hangs while the server goes
    options = ["--ready", f"command:{check}", "--ready-timeout", "3s", "--cwd", str(tmp_path), *PATIENT]
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    application = manager.until_launched()
    check_pid = int(until_written(tmp_path / "check"))
    renew(bed, fate)
    assert manager.wait() == 124
    assert manager.result["reason"] == "not-ready"
    until_gone(application, check_pid, int(until_written(tmp_path / "check")))


@pytest.mark.parametrize("fate", FATES)
def test_stop_command_under_the_next_server(bed: Bed, tmp_path: Path, fate: str) -> None:
    """A server that goes while a stop command runs does not leave the application half stopped."""
    bed.serve()
    stop = "/bin/sh -c 'echo >>stops; sleep 1; echo >go; sleep 1'"
    script = "until [ -e go ]; do sleep 0.05; done; exit 9"
    options = ["--stop-command", stop, "--stop-timeout", "30s", "--cwd", str(tmp_path), *PATIENT]
    manager = bed.start("/bin/sh", "-c", script, options=options)
    application = manager.until_launched()
    manager.process.terminate()
    until((tmp_path / "stops").exists, "the stop command")
    renew(bed, fate)
    assert manager.wait() in {9, 143}
    assert "stopped on request" in manager.last_line
    assert not alive(application)


def test_anything_at_any_time(bed: Bed, tmp_path: Path) -> None:
    """A little of everything by chance, for ten applications: at most one instance each, and the codes are right."""
    chance = random.Random(3)  # noqa: S311 - the same every time
    bed.serve()
    books = [Book(tmp_path / f"book-{number}") for number in range(10)]
    ids = [str(uuid.uuid4()) for _ in books]
    managers = []
    for number, (book, run_id) in enumerate(zip(books, ids, strict=True)):
        book.folder.mkdir()
        options = [*book.options, *PATIENT, *OFTEN, "--run-id", run_id]
        managers.append(bed.start(*book.ends_with(number), name=f"app-{number}", options=options))
    for _ in range(25):
        number = chance.randrange(len(books))
        what = chance.choice(["manager", "manager", "crash", "restart", "upgrade", "pause"])
        if what == "manager":
            end(managers[number].process)
            options = [*books[number].options, *PATIENT, *OFTEN, "--run-id", ids[number]]
            managers[number] = bed.start(*books[number].ends_with(number), name=f"app-{number}", options=options)
        elif what == "pause":
            managers[number].process.send_signal(19)
            time.sleep(0.2)
            managers[number].process.send_signal(18)
        else:
            renew(bed, what)
    for book in books:
        book.let_end()
    assert [manager.wait() for manager in managers] == list(range(10))
    for book in books:
        book.check("start", "end")
