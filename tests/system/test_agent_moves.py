"""ocf:cmapp:application from host to host, and before the cluster's own judge."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.agents import (
    AGENT,
    GENERIC,
    NOT_RUNNING,
    SUCCESS,
    Node,
)
from tests.system.processes import alive, until_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bed import Bed

    Make = Callable[..., Node]

STUBBORN = "/bin/sh -c 'trap \"\" TERM; echo $$ >>pids; while :; do sleep 0.05; done'"


# ---- moves ------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(make: Make, bed: Bed) -> tuple[Node, Node]:
    """Two hosts with the same resource, each with a key of its own."""
    keys = bed.keys.folder / "host" / "node2"
    if not keys.exists():
        bed.keys.issue("host", "node2")
    name = f"moved-{os.getpid()}-{time.monotonic_ns()}"
    return make(name=name), make(name=name, keys=keys)


def test_migration(pair: tuple[Node, Node]) -> None:
    """The application and its run are the same after it, and a stop on the old host leaves them alone."""
    old, new = pair
    application, run_id = old.started(), old.run_id
    assert old.act("migrate_to").code == SUCCESS
    assert old.act("monitor").code == NOT_RUNNING
    assert new.act("migrate_from").code == SUCCESS
    assert old.act("stop").code == SUCCESS
    assert (new.application, new.run_id, alive(application)) == (application, run_id, True)
    assert new.act("monitor").code == SUCCESS
    os.kill(application, signal.SIGKILL)
    new.until_told()
    assert "was killed by signal 9" in new.act("monitor").reason
    assert new.act("stop").code == SUCCESS


@pytest.mark.parametrize("watched", [True, False], ids=["watched", "its new manager was just killed"])
def test_migration_between_hosts_with_one_key(make: Make, watched: bool) -> None:  # noqa: FBT001
    """A host that can see what the other has, for the guest knows both as one, leaves it to the other all the same."""
    old = make(name=f"shared-{time.monotonic_ns()}")
    new = make(name=old.given["name"])
    application = old.started()
    assert old.act("migrate_to").code == SUCCESS
    time.sleep(0 if watched else 1.5)  # so that it is younger an orphan than it was left
    assert new.act("migrate_from").code == SUCCESS
    if not watched:
        new.kill_manager()
    assert old.act("stop").code == SUCCESS
    assert alive(application)
    assert new.act("stop").code == SUCCESS
    assert not alive(application)


def test_migration_of_what_has_ended_meanwhile(pair: tuple[Node, Node]) -> None:
    """Nothing is launched by a move: what is gone when it is to be watched is a failure."""
    old, new = pair
    application = old.started()
    assert old.act("migrate_to").code == SUCCESS
    os.kill(application, signal.SIGKILL)
    until_gone(application)
    said = new.act("migrate_from")
    assert (said.code, "did not run any more" in said.reason) == (GENERIC, True)
    assert not alive(new.application)
    assert [new.act("stop").code, old.act("stop").code] == [SUCCESS, SUCCESS]


def test_migration_that_is_called_off(pair: tuple[Node, Node]) -> None:
    """A run that was left to a host that never came is stopped by the stop where it was."""
    old, new = pair
    application = old.started()
    assert old.act("migrate_to").code == SUCCESS
    assert alive(application)
    assert new.act("stop").code == SUCCESS
    assert old.act("stop").code == SUCCESS
    assert not alive(application)


def test_migration_of_what_is_not_there(make: Make) -> None:
    """It is a failure, in a sentence."""
    said = make().act("migrate_to")
    assert (said.code, "nothing is watched here" in said.reason) == (GENERIC, True)


# ---- the mark for the guest's own resource ------------------------------------------------------------------------


def test_the_mark_of_a_failure(make: Make) -> None:
    """A stop of what has failed leaves it, a stop in health does not, a start takes it away."""
    node = make()
    mark = node.folder / "failed"
    application = node.started(guest_resource="vm")
    os.kill(application, signal.SIGKILL)
    node.until_told()
    assert node.act("stop", guest_resource="vm").code == SUCCESS
    assert mark.read_text() == "vm"
    node.started(guest_resource="vm")
    assert not mark.exists()
    assert node.act("stop", guest_resource="vm").code == SUCCESS
    assert not mark.exists()


# ---- by the cluster's own tool -----------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("ocf-tester") and shutil.which("xmllint")), reason="needs ocf-tester and xmllint")
def test_ocf_tester(make: Make, tmp_path: Path, open_folder: Path) -> None:
    """Debian's checker of agents finds nothing to complain of, by the path where Pacemaker would find ours."""
    folder = open_folder / "resource.d" / "cmapp"
    folder.mkdir(parents=True)
    (folder / "application").symlink_to(AGENT)
    if subprocess.run(
        ["su", "nobody", "-s", "/bin/sh", "-c", f"{AGENT} application meta-data"], check=False
    ).returncode:
        # Our Python is in root's home, as a test's may be: then that check is left out, by the tester itself.
        (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
        (tmp_path / "id").chmod(0o755)
    node = make()
    given = [word for key, text in node.given.items() for word in ("-o", f"{key}={text}")]
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["ocf-tester", "-v", "-n", node.environ["OCF_RESOURCE_INSTANCE"], *given, folder / "application"],
        env={**os.environ, "PATH": path, "OCF_ROOT": str(open_folder), "HA_RSCTMP": str(node.run)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "passed all tests" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
    assert "* rc=" not in done.stdout
    assert node.act("monitor").code == NOT_RUNNING


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that anybody may enter, as what is below /usr/lib/ocf."""
    with tempfile.TemporaryDirectory(prefix="cmapp-ocf-") as name:
        Path(name).chmod(0o755)
        yield Path(name)
