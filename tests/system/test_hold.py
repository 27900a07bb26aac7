"""Hold and resume by `cmapp`: the application runs, nothing acts on it, and status says so."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import renew, until_back
from tests.system.processes import alive, until, until_gone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

OFTEN = ("--health-interval", "100ms", "--health-timeout", "5s", "--health-retries", "2")
HELD = re.compile(r"^db +running +\d+ .* held ", re.MULTILINE)


def test_hold(bed: Bed, tmp_path: Path) -> None:
    """While it is held an application may be as unhealthy as it likes; after `cmapp resume` it is judged again."""
    bed.serve()
    options = ["--health-command", "/usr/bin/test -e well", *OFTEN, "--cwd", str(tmp_path), "--poll-interval", "100ms"]
    (tmp_path / "well").touch()
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", name="db", options=options)
    application = manager.until_launched()
    said = bed.cmapp("hold", "db")
    assert "db in 127.0.0.1" in said
    assert "is held" in said
    manager.until_log("is held: nothing acts on it")
    (tmp_path / "well").unlink()
    assert HELD.search(bed.cmapp("status"))
    time.sleep(1)  # in which ten checks would have failed
    assert alive(application)
    assert "is watched again" in bed.cmapp("resume", "db")
    assert (manager.wait(), manager.result["reason"]) == (124, "unhealthy")
    assert "is no longer held" in manager.log


@pytest.mark.parametrize("fate", ["none", "crash", "upgrade"])
def test_hold_of_an_orphan(bed: Bed, fate: str) -> None:
    """A run that is held is not stopped because its manager is gone, nor replaced; also by the next server."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", name="db", options=["--orphan-timeout", "300ms"])
    application = manager.until_launched()
    bed.cmapp("hold", "db")
    manager.process.kill()
    until(lambda: "it is kept until one comes" in server.log, "the loss of its manager")
    if fate != "none":
        renew(bed, fate)
    assert HELD.search(bed.cmapp("status"))
    refused = bed.run("/bin/true", name="db")
    assert (refused.wait(), refused.result["refusal"]) == (122, "name-taken")
    time.sleep(1)  # which is longer than its orphan timeout
    assert alive(application)
    bed.cmapp("resume", "db")
    until_gone(application)


def test_hold_keeps_the_manager_too(bed: Bed) -> None:
    """A manager that knows that its run is held does not give it up, however long the server is away."""
    server = bed.serve()
    options = ["--poll-interval", "100ms", "--link-timeout", "500ms"]
    manager = bed.start("/bin/sleep", "1000", name="db", options=options)
    application = manager.until_launched()
    bed.cmapp("hold", "db")
    manager.until_log("is held: nothing acts on it")
    server.kill()
    manager.until_log("lost the link: .*trying until it is back, as it is held")
    time.sleep(2)  # which is longer than its link timeout
    assert manager.process.poll() is None
    server.restart()
    until_back(manager, application)
    bed.cmapp("resume", "db")
    manager.until_log("is no longer held")
    server.kill()
    assert manager.wait() == 123


def test_hold_does_not_hide_the_end(bed: Bed) -> None:
    """A run that is held and ends is told at once, and an explicit stop is obeyed."""
    for name, stop in (("a", False), ("b", True)):
        manager = bed.start("/bin/sleep", "1000", name=name)
        application = manager.until_launched()
        bed.cmapp("hold", name)
        if stop:
            manager.process.terminate()
        else:
            os.kill(application, 15)
        assert manager.wait() == 143


def test_hold_of_nothing(bed: Bed) -> None:
    """What does not run cannot be held: one line, and 1."""
    bed.serve()
    done = bed.ask("hold", "nothing")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nothing" in done.stderr
