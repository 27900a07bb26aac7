"""ocf:cmapp:application, as installed: a life, and what a start says that cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.shell.small_disk import SmallDisk
from tests.system.agents import (
    CONFIGURED,
    GENERIC,
    INSTALLED,
    NOT_RUNNING,
    PERM,
    SUCCESS,
    UNIMPLEMENTED,
    Node,
)
from tests.system.processes import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.bed import Bed

    Make = Callable[..., Node]

STUBBORN = "/bin/sh -c 'trap \"\" TERM; echo $$ >>pids; while :; do sleep 0.05; done'"


# ---- a life ------------------------------------------------------------------------------------------------


def test_start_monitor_stop(make: Make) -> None:
    """Each says what is so, and each again says the same."""
    node = make()
    assert node.act("monitor").code == NOT_RUNNING
    assert node.act("stop").code == SUCCESS
    application = node.started()
    assert alive(application)
    assert [node.act(action).code for action in ("monitor", "start", "monitor")] == [SUCCESS] * 3
    assert node.application == application
    assert node.act("stop").code == SUCCESS
    assert not alive(application)
    assert [node.act(action).code for action in ("monitor", "stop")] == [NOT_RUNNING, SUCCESS]


def test_start_waits_until_it_is_ready(make: Make, tmp_path: Path) -> None:
    """Launched is not enough where readiness is asked for."""
    node = make()
    start = node.start_action("start", ready=f"command:/usr/bin/test -e {tmp_path}/serves")
    until(lambda: node.log.exists() and "launched as pid" in node.log.read_text(), "the launch")
    with pytest.raises(subprocess.TimeoutExpired):
        start.wait(0.5)
    (tmp_path / "serves").touch()
    assert start.wait(20) == SUCCESS
    start.communicate()
    assert "is ready" in node.log.read_text()


@pytest.mark.parametrize("asks", [False, True], ids=["launched is ready", "it says when"])
def test_what_the_guest_defines(make: Make, bed: Bed, tmp_path: Path, asks: bool) -> None:  # noqa: FBT001
    """Whether there is anything to wait for is the guest's to say, and is known at once."""
    config = tmp_path / "server.toml"
    ready = f'ready = "command:/usr/bin/test -e {tmp_path}/serves"\n' if asks else ""
    config.write_text(f'[application.defined]\ncommand = ["/bin/sleep", "1000"]\n{ready}')
    bed.serve("--config", str(config))
    node = make(name="defined")
    del node.given["command"]
    start = node.start_action("start", poll_interval="60s")
    if asks:
        with pytest.raises(subprocess.TimeoutExpired):
            start.wait(0.5)
        (tmp_path / "serves").touch()
    assert (start.communicate(timeout=20)[0], start.returncode) == ("", SUCCESS)
    assert node.act("stop").code == SUCCESS


def test_one_that_never_becomes_ready(make: Make) -> None:
    """It is a failed start, with the reason in one line; the stop after it finds nothing."""
    node = make()
    said = node.act("start", ready="command:/bin/false", ready_timeout="500ms")
    assert said.code == GENERIC
    assert "did not become ready" in said.reason
    assert node.act("stop").code == SUCCESS


@pytest.mark.parametrize(("script", "code"), [("exit 0", NOT_RUNNING), ("exit 3", GENERIC), ("kill -9 $$", GENERIC)])
def test_an_end_by_itself(make: Make, tmp_path: Path, script: str, code: int) -> None:
    """A code of 0 is an end, another one and a signal are failures; the stop after it has nothing to do."""
    node = make(f"/bin/sh -c 'until [ -e {tmp_path}/go ]; do sleep 0.02; done; {script}'")
    node.started()
    (tmp_path / "go").touch()
    node.until_told()
    said = node.act("monitor")
    assert said.code == code
    assert ("exit" in said.reason) or ("killed by signal 9" in said.reason)
    assert node.act("stop").code == SUCCESS
    assert node.act("monitor").code == NOT_RUNNING


def test_an_end_before_it_was_ready(make: Make) -> None:
    """An exit with 0 is no success of a start."""
    node = make("/bin/true")
    said = node.act("start", ready="command:/bin/false")
    assert (said.code, "exited with code 0" in said.reason) == (GENERIC, True)


def test_stopped_because_it_was_unhealthy(make: Make) -> None:
    """What exits with 124 is a failure that may be tried again."""
    node = make()
    health = {"health_command": "/bin/false", "health_interval": "50ms", "health_retries": "1"}
    node.started(**health)
    node.until_told()
    said = node.act("monitor")
    assert (said.code, "unhealthy" in said.reason) == (GENERIC, True)
    assert node.act("stop").code == SUCCESS


# ---- what cannot be -----------------------------------------------------------------------------------------


def test_refused_by_policy(bed: Bed, make: Make, tmp_path: Path) -> None:
    """Another host may be allowed to: it is tried elsewhere, and not here."""
    config = tmp_path / "server.toml"
    config.write_text('[[allow]]\nmanagers = ["nobody"]\n')
    bed.serve("--config", str(config), run_as=())
    said = make().act("start")
    assert (said.code, "(policy)" in said.reason) == (PERM, True)


def test_keys_of_strangers(make: Make, bed: Bed, tmp_path: Path) -> None:
    """A guest that does not trust us is a matter of permission."""
    from tests.system.keys import Keys  # noqa: PLC0415 - strangers are made here only

    node = make(keys=Keys(tmp_path / "strangers").host)
    said = node.act("start")
    assert said.code == PERM, said.reason
    assert node.act("stop").code == SUCCESS
    assert bed.server.process.poll() is None


@pytest.mark.parametrize(
    ("given", "code", "word"),
    [
        ({"keys": "/nonexistent"}, INSTALLED, "cert.pem"),
        ({"config": "/nonexistent"}, INSTALLED, "/nonexistent"),
        ({"guest": ""}, CONFIGURED, "guest"),
        ({"stop_timeout": "soon"}, CONFIGURED, "stop_timeout"),
        ({"on_unreachable": "guest"}, CONFIGURED, "guest_resource"),
        ({"on_unreachable": "pray"}, CONFIGURED, "on_unreachable"),
        ({"output": "stdout"}, CONFIGURED, "log_file"),
        ({"run_id": "1"}, CONFIGURED, "run_id"),
        ({"syslog": "perhaps"}, CONFIGURED, "syslog"),
        ({"command": "/no/such/program"}, CONFIGURED, "was not started"),
        ({"user": "nobody-of-that-name"}, CONFIGURED, "was not started"),
        ({"guest": "127.0.0.1:1", "connect_timeout": "300ms"}, GENERIC, "cannot be reached"),
    ],
    ids=str,
)
def test_a_start_that_cannot_be(make: Make, given: dict[str, str], code: int, word: str) -> None:
    """The code says what the cluster may try instead, the reason says what is wrong; a probe and a stop go well."""
    node = make()
    said = node.act("start", **given)
    assert (said.code, word in said.reason) == (code, True), said.stderr
    assert len(said.reason.splitlines()) == 1
    assert node.act("stop", **given).code == SUCCESS
    assert node.act("monitor", **given).code == NOT_RUNNING


def test_a_host_without_the_program(make: Make, tmp_path: Path) -> None:
    """It may run elsewhere; and a probe here says that it does not run."""
    node = make()
    hidden = f"import sys; sys.executable = '{tmp_path}/python'; sys.argv[0] = '{tmp_path}/x'\n"
    hidden += f"import sysconfig; sysconfig.get_path = lambda name: '{tmp_path}'\n"
    run = "import os; from cmapp.agent.application import main; os._exit(main(%r, os.environ))"
    codes = [
        os.waitstatus_to_exitcode(
            os.waitpid(
                os.posix_spawn(sys.executable, [sys.executable, "-c", hidden + run % action], node.environment()), 0
            )[1]
        )
        for action in ("start", "monitor", "stop")
    ]
    assert codes == [INSTALLED, NOT_RUNNING, SUCCESS]


def test_a_parameter_that_is_none(make: Make) -> None:
    """validate-all finds a slip of the pen, which would not do what it is there for."""
    node = make()
    said = node.act("validate-all", stop_timeuot="5s")
    assert (said.code, "stop_timeuot" in said.reason) == (CONFIGURED, True)
    assert node.act("validate-all").code == SUCCESS


def test_keys_that_are_not_in_order(make: Make, bed: Bed, tmp_path: Path) -> None:
    """validate-all looks at them as cmappmgr would, and says what is wrong."""
    keys = tmp_path / "keys"
    shutil.copytree(bed.keys.host, keys)
    (keys / "key.pem").chmod(0o644)
    said = make(keys=keys).act("validate-all")
    assert (said.code, "chmod 600" in said.reason) == (INSTALLED, True)


@pytest.mark.parametrize("action", ["promote", "notify", "reload", ""])
def test_actions_that_there_are_not(make: Make, action: str) -> None:
    """They are said to be unimplemented, and how the agent is used."""
    said = make().act(action)
    assert (said.code, said.stderr.startswith("usage: ")) == (UNIMPLEMENTED, True)


def test_a_full_disk(make: Make, tmp_path: Path) -> None:
    """What cannot be kept is not begun, in one sentence; what runs can be looked at, and be stopped, all the same."""
    node = make()
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder, 128 * 1024)
    node.environ["HA_RSCTMP"] = str(disk.path)
    node.folder = disk.path / node.folder.name
    try:
        disk.fill()
        said = node.act("start")
        assert (said.code, "No space left on device" in said.reason) == (GENERIC, True)
        assert [node.act("monitor").code, node.act("stop").code] == [NOT_RUNNING, SUCCESS]
        disk.free()
        application = node.started()
        disk.fill()
        assert node.act("monitor").code == SUCCESS
        node.kill_manager()
        assert node.act("monitor").code == SUCCESS
        assert alive(application)
        assert node.act("stop").code == SUCCESS
        assert not alive(application)
    finally:
        node.close()
        disk.close()
