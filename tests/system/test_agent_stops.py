"""ocf:cmapp:application when the guest does not do as it is told, or does not answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.system.agents import (
    DEGRADED,
    GENERIC,
    SUCCESS,
    Node,
)
from tests.system.processes import alive, until, until_gone, until_written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.bed import Bed

    Make = Callable[..., Node]

STUBBORN = "/bin/sh -c 'trap \"\" TERM; echo $$ >>pids; while :; do sleep 0.05; done'"


# ---- stops that are not easy ----------------------------------------------------------------------------------


def test_stop_of_a_stubborn_application(make: Make, tmp_path: Path) -> None:
    """It is killed in the end, and the stop waits for that."""
    node = make(STUBBORN)
    application = node.started(cwd=str(tmp_path), stop_timeout="500ms")
    until_written(tmp_path / "pids")
    said = node.act("stop", cwd=str(tmp_path), stop_timeout="500ms")
    assert (said.code, alive(application)) == (SUCCESS, False)
    assert said.seconds >= 0.5


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "its manager was killed"])
def test_stop_with_the_server_gone(make: Make, bed: Bed, watched: bool) -> None:  # noqa: FBT001
    """Nobody can say that nothing is left: that is waited for, told, and no reason to fence a host."""
    server = bed.serve()
    node = make()
    application = bed.look_after(node.started())
    if not watched:
        node.kill_manager()
    server.kill()
    said = node.act("stop")
    assert said.code == SUCCESS
    assert 1.5 <= said.seconds < 15
    assert "nobody can say whether anything is left" in said.stderr
    assert "nobody can say whether anything is left" in node.log.read_text()
    assert alive(application)  # its server is not there to stop it


def test_stop_with_the_guest_down(make: Make, bed: Bed) -> None:
    """Who knows better ends the wait."""
    server = bed.serve()
    node = make()
    opinion = {"second_opinion": "/bin/echo down: it was switched off", "link_timeout": "60s"}
    bed.look_after(node.started(**opinion))
    node.kill_manager()
    server.kill()
    said = node.act("stop", **opinion)
    assert said.code == SUCCESS
    assert said.seconds < 10
    assert "switched off" in said.stderr


def test_stop_with_parameters_that_are_wrong_by_now(make: Make, bed: Bed) -> None:
    """Who slips with the pen does not have a host fenced; a manager that lives needs none of them."""
    node = make()
    application = node.started()
    assert node.act("stop", stop_timeout="soon").code == SUCCESS
    assert not alive(application)
    application = bed.look_after(node.started())
    node.kill_manager()
    said = node.act("stop", stop_timeout="soon")
    assert (said.code, "nobody can be asked" in said.stderr) == (SUCCESS, True)
    until_gone(application)  # its server has stopped what has no manager


def test_stop_while_the_guest_boots(make: Make) -> None:
    """A start that is called off before anything was launched has nothing to be stopped, and no time to wait."""
    node = make()
    closed = {"guest": "127.0.0.1:1", "connect_timeout": "60s", "link_timeout": "60s"}
    start = node.start_action("start", **closed)
    until(lambda: node.log.exists() and "not reached yet" in node.log.read_text(), "an attempt")
    start.kill()
    start.communicate()
    said = node.act("stop", **closed)
    assert (said.code, said.seconds < 5) == (SUCCESS, True)


# ---- a guest that is out of reach ------------------------------------------------------------------------------


def test_unreachable_is_no_failure(make: Make, bed: Bed) -> None:
    """The manager goes on trying, and finds the run when the server is back."""
    server = bed.serve()
    node = make()
    application = node.started(orphan_timeout="1h", link_timeout="200ms")
    server.kill()
    node.until_told()
    said = node.act("monitor", link_timeout="200ms", connect_timeout="60s")
    assert said.code == DEGRADED
    assert "cannot be reached" in said.stderr
    server.restart()
    until(lambda: "found running" in node.log.read_text(), "the way back")
    assert node.act("monitor").code == SUCCESS
    assert (node.application, alive(application)) == (application, True)


def test_unreachable_may_be_a_failure(make: Make, bed: Bed) -> None:
    """If the administrator wishes so."""
    server = bed.serve()
    node = make()
    given = {"link_timeout": "200ms", "on_unreachable": "fail"}
    bed.look_after(node.started(**given))
    server.kill()
    node.until_told()
    assert node.act("monitor", **given).code == GENERIC
    said = node.act("stop", **given)
    assert (said.code, said.seconds < 2) == (SUCCESS, True)  # the manager has waited already


def test_a_run_that_is_held(make: Make, bed: Bed) -> None:
    """What an administrator holds is watched on, and a monitor says that all is well."""
    server = bed.serve()
    node = make()
    application = node.started(link_timeout="200ms", orphan_timeout="1h", poll_interval="100ms")
    bed.cmapp("hold", node.given["name"])
    until(lambda: "is held" in node.log.read_text(), "the word of it", 20)
    server.kill()
    time.sleep(1.0)  # five times the link timeout
    assert node.act("monitor").code == SUCCESS
    server.restart()
    until(lambda: "back after" in node.log.read_text(), "the way back")
    bed.cmapp("resume", node.given["name"])
    assert node.act("stop").code == SUCCESS
    assert not alive(application)
