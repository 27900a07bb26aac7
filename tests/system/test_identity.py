"""Whose run it is: run ids that outlive managers, what is done about another run of a name, takeover, and leaving."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import PATIENT, renew, until_back
from tests.system.processes import alive, end, until, until_gone

if TYPE_CHECKING:
    from tests.system.bed import Bed, Manager
    from tests.system.books import Book

OFTEN = ("--poll-interval", "200ms")  # so that a manager is soon known to be there
LEAVING = {
    "SIGUSR1": (signal.SIGUSR1, []),
    "TERM": (signal.SIGTERM, ["--detach-on-signal", "TERM"]),
    "INT": (signal.SIGINT, ["--detach-on-signal", "INT"]),
    "HUP": (signal.SIGHUP, ["--detach-on-signal", "HUP"]),
}


def start(bed: Bed, book: Book, *options: str, rest: str = "exec sleep 1000") -> Manager:
    """Start a manager of the one application that keeps the book."""
    return bed.start(*book.command(rest), name="one", options=[*book.options, *OFTEN, *options])


# ---- run ids ---------------------------------------------------------------------------------------------------


def test_run_id_across_managers(bed: Bed, book: Book) -> None:
    """Killed managers that come again with their run id find their run each time, and one start is in the book."""
    bed.serve()
    options = [*PATIENT, "--run-id", str(uuid.uuid4())]
    first = start(bed, book, *options)
    application = first.until_launched()
    for _ in range(5):
        end(first.process)
        first = start(bed, book, *options)
        assert first.until_launched() == application
        assert "found running as pid" in first.log
    first.process.terminate()
    assert first.wait() == 143
    book.check("start")


def test_run_id_of_a_run_that_is_over(bed: Bed, book: Book) -> None:
    """A run id is launched once: whoever comes with it later is told how that run ended, also after a restart."""
    server = bed.serve()
    options = ["--run-id", str(uuid.uuid4())]
    assert start(bed, book, *options, rest="exit 43").wait() == 43
    for _ in range(2):
        again = start(bed, book, *options)
        assert again.wait() == 43
        assert again.result["cause"] == "exited"
        server.until_kept(options[-1])
        server.crash()
    book.check("start")
    assert start(bed, book, rest="exit 44").wait() == 44
    book.check("start", "start")


def test_run_id_of_another_manager_that_is_there(bed: Bed, book: Book) -> None:
    """A second manager with the same run id is refused while the first is there, and has its run when that is gone."""
    bed.serve()
    options = [*PATIENT, "--run-id", str(uuid.uuid4())]
    first = start(bed, book, *options)
    application = first.until_launched()
    second = start(bed, book, *options)
    assert second.wait() == 122
    assert second.result["refusal"] == "name-taken"
    end(first.process)
    third = start(bed, book, *options)
    assert third.until_launched() == application
    book.check("start")


def test_run_id_that_is_none(bed: Bed, book: Book) -> None:
    """What is no UUID is not taken for a run id."""
    manager = start(bed, book, "--run-id", "one")
    assert manager.wait() == 125
    assert "run_id" in manager.stderr or "run-id" in manager.stderr


# ---- another run of the name -----------------------------------------------------------------------------------


def test_replace_is_the_default(bed: Bed, book: Book) -> None:
    """The run of a manager that is gone is stopped, whole, and then the new one is launched."""
    server = bed.serve()
    first = start(bed, book, *PATIENT)
    application = first.until_launched()
    book.check("start")
    end(first.process)
    second = start(bed, book)
    assert second.until_launched() != application
    assert not alive(application)
    book.check("start", "start")
    until(lambda: "stopped because another run took its place" in server.log, "the end of the first in the log")
    told = bed.run("/bin/true", name="one", options=["--run-id", first.run_id])
    assert (told.wait(), told.result["reason"]) == (143, "replaced")


def test_attach(bed: Bed, book: Book) -> None:
    """With --on-existing attach the run of a manager that is gone is watched on, under its own run id."""
    bed.serve()
    first = start(bed, book, *PATIENT)
    application = first.until_launched()
    end(first.process)
    second = start(bed, book, "--on-existing", "attach")
    assert second.until_launched() == application
    os.kill(application, signal.SIGUSR2)
    assert second.wait() == 128 + signal.SIGUSR2
    assert second.result["run_id"] == first.run_id
    book.check("start")


def test_attach_without_a_run(bed: Bed, book: Book) -> None:
    """With --on-existing attach and nothing to attach to, the command is launched."""
    manager = start(bed, book, "--on-existing", "attach", rest="exit 43")
    assert manager.wait() == 43
    book.check("start")


def test_refuse(bed: Bed, book: Book) -> None:
    """With --on-existing refuse the run of a manager that is gone is left as it is: 122."""
    bed.serve()
    first = start(bed, book, *PATIENT)
    application = first.until_launched()
    end(first.process)
    second = start(bed, book, "--on-existing", "refuse")
    assert second.wait() == 122
    assert second.result["refusal"] == "name-taken"
    assert alive(application)
    book.check("start")


@pytest.mark.parametrize("how", ["replace", "attach", "refuse"])
def test_manager_that_answers_is_not_pushed_aside(bed: Bed, book: Book, how: str) -> None:
    """Whatever a newcomer wants of an existing run: while its manager is there and answers, the newcomer gets 122."""
    first = start(bed, book)
    application = first.until_launched()
    second = start(bed, book, "--on-existing", how)
    assert second.wait() == 122
    assert "already watched by manager" in second.last_line
    assert "lost the link" not in first.log
    first.process.terminate()
    assert first.wait() == 143
    assert not alive(application)
    book.check("start")


def test_takeover_that_replaces(bed: Bed, book: Book) -> None:
    """With --takeover the run of a manager that answers is stopped, and its manager told; then the new one is there."""
    first = start(bed, book)
    application = first.until_launched()
    book.check("start")
    second = start(bed, book, "--takeover")
    assert second.until_launched() != application
    assert first.wait() == 143
    assert "stopped because another run took its place" in first.last_line
    assert first.result["reason"] == "replaced"
    book.check("start", "start")


def test_takeover_that_attaches(bed: Bed, book: Book) -> None:
    """With --takeover and attach the other manager goes with 122, and its run stays, and is ours."""
    first = start(bed, book, *PATIENT)
    application = first.until_launched()
    second = start(bed, book, "--takeover", "--on-existing", "attach")
    assert second.until_launched() == application
    assert first.wait() == 122
    assert alive(application)
    os.kill(application, signal.SIGUSR2)
    assert second.wait() == 128 + signal.SIGUSR2
    book.check("start")


# ---- leaving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", LEAVING)
def test_detached_and_attached_by_another(bed: Bed, book: Book, way: str) -> None:
    """A manager that is told to leave exits with 0 and leaves its run without a time limit; another takes it up."""
    bed.serve()
    number, options = LEAVING[way]
    first = start(bed, book, "--orphan-timeout", "100ms", *options)
    application = first.until_launched()
    first.process.send_signal(number)
    assert first.wait() == 0
    assert first.result["cause"] == "detached"
    assert "was left running" in first.last_line
    renew(bed, "crash")
    second = start(bed, book, "--on-existing", "attach", *PATIENT)
    assert second.until_launched() == application
    os.kill(application, signal.SIGKILL)
    assert second.wait() == 137
    assert second.result["run_id"] == first.run_id
    book.check("start")


def test_detached_by_a_signal_that_asks_for_a_stop_otherwise(bed: Bed, book: Book) -> None:
    """Only the signal that was named leaves: another that asks for a stop is a stop."""
    manager = start(bed, book, "--detach-on-signal", "HUP")
    application = manager.until_launched()
    manager.process.terminate()
    assert manager.wait() == 143
    assert not alive(application)


def test_detached_while_the_link_is_lost(bed: Bed, book: Book) -> None:
    """A manager that is told to leave while there is no server leaves as soon as there is one."""
    server = bed.serve()
    manager = start(bed, book, *PATIENT)
    application = manager.until_launched()
    server.kill()
    manager.until_log("lost the link")
    manager.process.send_signal(signal.SIGUSR1)
    manager.until_log("asked to leave it by SIGUSR1: .*, as soon as it is back")
    server.restart()
    assert manager.wait() == 0
    assert manager.result["cause"] == "detached"
    assert alive(application)
    again = start(bed, book, "--on-existing", "attach")
    assert again.until_launched() == application
    again.process.terminate()
    assert again.wait() == 143
    book.check("start")


def test_detached_before_the_launch(bed: Bed) -> None:
    """There is nothing to leave before the launch: 125."""
    manager = bed.start("/bin/true", guest="127.0.0.1:9", options=["--connect-timeout", "60"])
    manager.until_log("not reached yet")
    manager.process.send_signal(signal.SIGUSR1)
    assert manager.wait(20) == 125


def test_orphan_that_a_restarted_server_stops(bed: Bed, book: Book) -> None:
    """The orphan timeout is kept by the next server too, when both manager and server were killed."""
    server = bed.serve()
    manager = start(bed, book, "--orphan-timeout", "2s")
    application = manager.until_launched()
    end(manager.process)
    server.crash()
    until_gone(application)
    told = bed.run("/bin/true", name="one", options=["--run-id", manager.run_id])
    assert told.wait() in {143, 121}
    assert told.result["reason"] == "manager-lost"
    book.check("start")


def test_manager_in_time_for_its_orphan(bed: Bed, book: Book) -> None:
    """A manager that was stopped and continued, within the orphan timeout, has its run as if nothing had been."""
    server = bed.serve()
    manager = start(bed, book, "--poll-timeout", "200ms", *PATIENT)
    application = manager.until_launched()
    manager.process.send_signal(signal.SIGSTOP)
    until(lambda: "its manager is lost: it is stopped if none comes" in server.log, "the loss of the manager")
    manager.process.send_signal(signal.SIGCONT)
    until_back(manager, application)
    manager.process.terminate()
    assert manager.wait() == 143
    book.check("start")
