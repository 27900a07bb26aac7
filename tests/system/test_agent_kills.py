"""ocf:cmapp:application when managers and agents are killed, or act side by side."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

from tests.system.agents import (
    GENERIC,
    SUCCESS,
    Node,
)
from tests.system.processes import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.bed import Bed

    Make = Callable[..., Node]

STUBBORN = "/bin/sh -c 'trap \"\" TERM; echo $$ >>pids; while :; do sleep 0.05; done'"


# ---- a manager that is killed --------------------------------------------------------------------------------


def test_manager_killed(make: Make) -> None:
    """Another one takes its place at the next look; the application never notices."""
    node = make()
    application, run_id = node.started(), node.run_id
    node.kill_manager()
    assert node.act("monitor").code == SUCCESS
    until(lambda: "found running" in node.log.read_text(), "the run to be found")
    assert (node.application, node.run_id, alive(application)) == (application, run_id, True)
    assert "is gone without a word" in node.log.read_text()
    assert node.act("monitor").code == SUCCESS
    assert node.act("stop").code == SUCCESS
    assert not alive(application)


def test_manager_killed_and_the_application_ended(make: Make) -> None:
    """The end that nobody heard is told to the next manager, and is no second beginning."""
    node = make()
    application = node.started()
    node.kill_manager()
    os.kill(application, signal.SIGKILL)
    until(lambda: node.act("monitor").code == GENERIC, "the end to be told")
    assert "was killed by signal 9" in node.log.read_text()
    assert node.log.read_text().count("launched as pid") == 1


def test_stop_without_a_manager(make: Make) -> None:
    """A run whose manager was killed is stopped all the same."""
    node = make()
    application = node.started()
    node.kill_manager()
    assert node.act("stop").code == SUCCESS
    assert not alive(application)


def test_a_run_that_the_guest_does_not_know_any_more(make: Make, bed: Bed) -> None:
    """A manager in another's place launches nothing: an end that is unknown is a failure, and no fresh start."""
    server = bed.serve()
    node = make()
    application = node.started(orphan_timeout="1h")
    node.kill_manager()
    server.kill()
    os.kill(application, signal.SIGKILL)
    for receipt in (server.state / "receipts").iterdir():
        receipt.unlink()
    for run in (server.state / "runs").glob("*"):
        run.unlink()
    server.restart()
    until(lambda: node.act("monitor").code == GENERIC, "the unknown end")
    assert node.log.read_text().count("launched as pid") == 1
    assert node.act("stop").code == SUCCESS


# ---- agents that are killed, two at once ------------------------------------------------------------------------


def test_start_that_runs_out_of_time(make: Make) -> None:
    """The cluster kills an agent that takes too long: the manager that it has started is found by the stop."""
    node = make()
    start = node.start_action("start", ready="command:/bin/false", ready_timeout="1h")
    until(lambda: node.log.exists() and "launched as pid" in node.log.read_text(), "the launch")
    start.kill()
    start.communicate()
    application = node.application
    assert node.act("monitor").code == SUCCESS  # it is there, whatever it is worth
    assert node.act("stop").code == SUCCESS
    assert not alive(application)


def test_start_that_was_killed_is_gone_on_with(make: Make, tmp_path: Path) -> None:
    """Another start waits for the readiness of the same run, though it was not there when it was launched."""
    node = make()
    ready = f"command:/usr/bin/test -e {tmp_path}/serves"
    start = node.start_action("start", ready=ready)
    until(lambda: node.log.exists() and "launched as pid" in node.log.read_text(), "the launch")
    start.kill()
    start.communicate()
    application, run_id = node.application, node.run_id
    (tmp_path / "serves").touch()
    assert node.act("start", ready=ready).code == SUCCESS
    assert (node.application, node.run_id, alive(application)) == (application, run_id, True)


def test_an_agent_killed_before_it_could_note_the_pid(make: Make) -> None:
    """Who has the lock is found without it, and nobody else is signaled."""
    node = make()
    application, manager = node.started(), node.manager
    lock = node.folder / "lock"
    lock.write_text(lock.read_text().replace(str(manager), "0", 1))
    assert node.act("stop").code == SUCCESS
    assert not alive(application)


def test_a_stranger_with_the_noted_pid(make: Make) -> None:
    """A process that has not the lock is never signaled, whatever is written down."""
    node = make()
    application, manager = node.started(), node.manager
    stranger = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    try:
        lock = node.folder / "lock"
        lock.write_text(lock.read_text().replace(str(manager), str(stranger), 1))
        assert node.act("stop").code == SUCCESS
        assert not alive(application)
        assert alive(stranger)
    finally:
        os.kill(stranger, signal.SIGKILL)
        os.waitpid(stranger, 0)


def test_many_agents_at_once(make: Make) -> None:
    """Starts side by side launch it once; monitors that find the manager killed replace it once."""
    node = make()
    starts = [node.start_action("start") for _ in range(4)]
    assert [(start.communicate()[0], start.returncode) for start in starts] == [("", SUCCESS)] * 4
    assert node.log.read_text().count("launched as pid") == 1
    node.kill_manager()
    monitors = [node.start_action("monitor") for _ in range(4)]
    assert {(monitor.communicate()[0], monitor.returncode) for monitor in monitors} == {("", SUCCESS)}
    until(lambda: "found running" in node.log.read_text(), "the run to be found")
    assert node.log.read_text().count("found running") == 1
