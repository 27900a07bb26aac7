"""A resource's process is found by the lock that it holds, whoever was killed at whatever moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmapp
from cmapp.agent.instance import LINE, Instance, wait_for
from cmapp.agent.ocf import AgentError
from tests.shell.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 20.0  # seconds
SOURCE = str(Path(cmapp.__file__).parents[1])
TURN = """
import sys
from cmapp.agent.instance import Instance
Instance(sys.argv[1], "db").take_turn()
print("mine", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    """Yield a resource whose turn is ours, and end its process."""
    made = Instance(str(tmp_path), "db")
    made.take_turn()
    yield made
    if (pidfd := made.signal(signal.SIGKILL)) is not None:
        assert wait_for(pidfd, SOON)
        os.close(pidfd)
    os.close(made._turn)


def begin(instance: Instance, *command: str) -> int:
    """Start its process."""
    return instance.begin(command or ("/bin/sleep", "60"), {"SAID": "this"}, "a", "b")


def ended(instance: Instance, pid: int) -> None:
    """Kill its process, and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not instance.lives


def test_it_lives_as_long_as_its_process(instance: Instance) -> None:
    """Nothing else is asked than the kernel."""
    assert (instance.lives, instance.told(), instance.holder()) == (False, None, None)
    pid = begin(instance)
    assert (instance.lives, instance.told()) == (True, ["a", "b"])
    ended(instance, pid)
    assert instance.told() == ["a", "b"]  # it is known what for it was, and that it is gone
    instance.forget()
    assert instance.told() is None


def test_asking_is_not_holding(instance: Instance) -> None:
    """Any number may look while one begins: to look takes no lock."""
    watchers = [Instance(instance.folder.rpartition("/")[0], "db") for _ in range(3)]
    assert not any(watcher.lives for watcher in watchers)
    pid = begin(instance)
    assert all(watcher.lives for watcher in watchers)
    ended(instance, pid)


def test_what_the_process_has(instance: Instance) -> None:
    """The lock, the three standard streams, a session and an environment of its own, and nothing else of ours."""
    leaked = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        pid = begin(instance, "/bin/sh", "-c", "env; readlink /proc/$$/fd/*; exec sleep 60")
        log = Path(instance.path("log"))
        deadline = time.monotonic() + SOON
        while "lock" not in log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        said = log.read_text().splitlines()
    finally:
        os.close(leaked)
    assert "SAID=this" in said
    assert not [line for line in said if line.startswith("HOME=")]
    files = [line for line in said if line.startswith("/") or ":[" in line]
    assert sorted(files) == sorted(["/dev/null", str(log), str(log), instance.path("lock")])
    assert os.getsid(pid) == pid
    ended(instance, pid)


def test_a_child_of_the_process_holds_nothing(instance: Instance) -> None:
    """What a manager starts is not taken for it: see host/child.py."""
    code = "import time; from cmapp.host.child import spawn; spawn(('/bin/sleep', '60')); time.sleep(60)"
    environ = {"PYTHONPATH": SOURCE}
    pid = instance.begin((sys.executable, "-c", code), environ, "a")
    deadline = time.monotonic() + SOON
    while not (children := Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    while Path(f"/proc/{children[0]}/comm").read_text() != "sleep\n":  # until then it is still the manager's image
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        ended(instance, pid)  # and it does not live, though its child does
        assert Path(f"/proc/{children[0]}").exists()
    finally:
        os.kill(int(children[0]), signal.SIGKILL)


def test_the_process_is_found_without_its_pid(instance: Instance) -> None:
    """An agent that was killed before it could note it leaves nobody behind."""
    pid = begin(instance)
    lock = Path(instance.path("lock"))
    lock.write_text(lock.read_text().replace(str(pid), "0", 1))
    pidfd = instance.signal(signal.SIGTERM)
    assert pidfd is not None
    assert wait_for(pidfd, SOON)
    os.close(pidfd)
    assert os.waitpid(pid, 0)[1] == signal.SIGTERM


def test_nobody_else_is_signaled(instance: Instance) -> None:
    """A pid that is noted is not enough: its process must have the lock open."""
    pid = begin(instance)
    ended(instance, pid)
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        lock = Path(instance.path("lock"))
        lock.write_text(lock.read_text().replace(str(pid), str(stranger.pid), 1))
        assert instance.signal(signal.SIGKILL) is None
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_what_another_boot_has_left(instance: Instance) -> None:
    """A folder that outlived a reboot says nothing."""
    lock = Path(instance.path("lock"))
    lock.write_text(f"1 {'0' * 8}-0000-0000-0000-{'0' * 12} run\n")
    assert instance.told() is None
    lock.write_text("")
    assert instance.told() is None


def test_one_agent_at_a_time(instance: Instance) -> None:
    """A second one waits until the first has ended, however that ends."""
    other = subprocess.Popen(
        [sys.executable, "-c", TURN, instance.folder.rpartition("/")[0]],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdin is not None
    assert other.stdout is not None
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.3)
        pid = begin(instance)  # whose process does not inherit the turn
        os.close(instance._turn)
        instance._turn = os.dup(0)
        assert other.stdout.readline() == "mine\n"
        ended(instance, pid)
    finally:
        other.kill()
        other.communicate()


@pytest.mark.parametrize("name", ["a/b", "", "../x"])
def test_a_name_that_is_no_folder(tmp_path: Path, name: str) -> None:
    """Nothing is made outside of the folder."""
    with pytest.raises(AgentError):
        Instance(str(tmp_path), name)


def test_a_full_disk(tmp_path: Path) -> None:
    """What cannot be noted is not begun; what was begun can be noted anew, stopped and forgotten."""
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = SmallDisk(folder, 64 * 1024)
    instance = Instance(str(disk.path), "db")
    try:
        instance.take_turn()
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            begin(instance)
        assert (instance.lives, instance.holder()) == (False, None)
        disk.free()
        pid = begin(instance)
        disk.fill()
        instance.note("another", "run")
        assert instance.told() == ["another", "run"]
        assert instance.lives
        ended(instance, pid)
        again = instance.begin(("/bin/sleep", "60"), {}, "once", "more")
        assert (instance.told(), instance.lives) == (["once", "more"], True)
        ended(instance, again)
        instance.forget()
    finally:
        os.close(instance._turn)
        disk.close()


def test_words_have_room(instance: Instance) -> None:
    """A line is written over in place, so it has one length."""
    pid = begin(instance)
    assert Path(instance.path("lock")).stat().st_size == LINE
    ended(instance, pid)


@pytest.mark.parametrize("runs", [True, False])
def test_a_monitor_is_cheap(instance: Instance, runs: bool) -> None:  # noqa: FBT001
    """It loads nothing of networks, keys, settings or JSON, whether it finds it running or finds nothing."""
    pid = begin(instance) if runs else 0
    code = "import os; from cmapp.agent.application import main; os._exit(main('monitor', os.environ))"
    environ = {"PYTHONPATH": SOURCE, "HA_RSCTMP": instance.folder.rpartition("/")[0], "OCF_RESOURCE_INSTANCE": "db"}
    command = [sys.executable, "-X", "importtime", "-c", code]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == (0 if runs else 7)
    assert "cmapp.agent.application" in loaded
    assert not loaded & {"ssl", "json", "socket", "re", "subprocess", "typing", "cmapp.host.settings", "cmapp.core"}
    if pid:
        ended(instance, pid)
