"""A server of an ordinary user: it does all that a server does, for that user, and says what it cannot do."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmapp
from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Signaled
from cmapp.core.rules import Kind, OrphanRules
from tests.shell.served import CGROUPS, MAIN, STOPS, alive, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.caller import Caller
    from tests.shell.served import Served

ROOT = os.geteuid() == 0
USER = 65534 if ROOT else os.geteuid()
BECOME = ("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups") if ROOT else ()
LEAVES = OrphanRules(timeout=1000.0)
SAYS = "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
SAYS += "; s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:]); s.send(b'READY=1'); time.sleep(1000)"


def interpreter() -> str:
    """Return a Python that this user may execute, "" if there is none."""
    test = f"import os, sys; os.listdir({str(Path(cmapp.__file__).parents[1])!r})"
    test += "; sys.exit(sys.version_info < (3, 11) or not os.access(sys.executable, os.X_OK))"
    for python in filter(shutil.which, (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3")):
        if subprocess.run([*BECOME, python, "-I", "-c", test], capture_output=True, check=False).returncode == 0:
            return python
    return ""


PYTHON = interpreter()
pytestmark = pytest.mark.skipif(not PYTHON, reason="no Python here that an ordinary user may execute")
COMMAND = (*BECOME, PYTHON, "-c", f"import sys; sys.path.insert(0, {str(Path(cmapp.__file__).parents[1])!r}); {MAIN}")


@pytest.fixture
def own(key_folders: Path, tmp_path: Path) -> Path:
    """Return a folder of the user's, with the guest's keys in it."""
    for outer in (tmp_path, *tmp_path.parents[:-2]):
        outer.chmod(outer.stat().st_mode | 0o711)
    folder = tmp_path / "own"
    shutil.copytree(key_folders / "guest", folder / "keys")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER if ROOT else -1)
    return folder


@pytest.fixture
def start(serve: Callable[..., Served], own: Path) -> Callable[..., Served]:
    """Return a function that starts a server as that user."""

    def start(*options: str, **how: object) -> Served:
        how = {"keys": own / "keys", "command": COMMAND, "conf": "", "cwd": own, **how}
        return serve("--state-dir", str(own / "state"), *options, **how)

    return start


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """Return a cgroup that was given to the user, with one below it for the server."""
    if not ROOT:
        pytest.skip("needs root, to give a cgroup to somebody")
    folder = CGROUPS / f"cmapp-own-{os.getpid()}"
    (folder / "server").mkdir(parents=True)
    for path in (folder, folder / "server"):
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(path / name, USER, USER)
    yield folder
    until(lambda: not (folder / "server/cgroup.procs").read_text(), "the server has left its cgroup")
    (folder / "server").rmdir()
    folder.rmdir()


def test_it_serves(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Applications run as its user, with their exit codes and output, and no power at all; the log says so."""
    server = start("--run-as", "*")
    caller = call(server)
    ended = caller.run("sh", "-c", "id -u; grep CapEff /proc/self/status; exit 7")
    assert ended.outcome == Exited(7)
    assert ended.stdout.split() == [str(USER).encode(), b"CapEff:", b"0" * 16]
    assert call(server).run("true", user=str(USER)).outcome == Exited(0)
    server.logged(r"the server is run by user \w+, not by root: applications run as that user only")


def test_another_user_is_refused_with_words(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A launch as somebody else is refused, and the refusal says why."""
    server = start("--run-as", "*")
    for user in ("root", "daemon"):
        refusal = call(server).refused("true", user=user)
        assert refusal.code == "not-permitted"
        assert f"the server may not run it as user {user}: it is not run by root" in refusal.text


def test_it_stops_all_of_a_tree(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Those too that have left their session, with or without a cgroup."""
    server = start()
    caller = call(server)
    caller.launch("sh", "-c", "setsid sh -c 'setsid sleep 1000 & echo $!'; sleep 1000", output=True)
    left = int(caller.wrote(b"\n"))
    until(lambda: Path(f"/proc/{left}/comm").read_text() == "sleep\n", "it is what it is to be")
    assert caller.stop().outcome == Signaled(signal.SIGTERM)
    until(lambda: not alive(left), "nothing of it is left")


@pytest.mark.parametrize("how", ["crash", "upgrade"])
def test_it_may_come_and_go(start: Callable[..., Served], call: Callable[..., Caller], how: str) -> None:
    """A crash and an upgrade leave applications as for root: found, heard, and ended with their own code."""
    server = start()
    first = call(server)
    script = "trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.01; done"
    first.launch("sh", "-c", script, output=True, orphan=LEAVES)
    first.wrote(b"up\n")
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    if how == "crash":
        server.kill()
        server.start(hand=True)
    else:
        server.upgrade()
    second = call(server)
    second.resume(first)
    ended = second.stop()
    assert (ended.outcome, ended.stdout) == (Exited(4), b"up\nbye\n")


def test_it_hears_applications(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """An application that says that it is ready is heard, and a daemon is found by its pid file."""
    server = start()
    caller = call(server)
    caller.launch("/usr/bin/python3", "-c", SAYS, kind=Kind.NOTIFY)
    caller.await_(m.Ready)
    caller = call(server)
    caller.launch(
        "sh",
        "-c",
        'setsid sleep 1000 & echo $! >"$0"',
        f"{server.state.parent}/pid",
        kind=Kind.FORKING,
        pid_file=f"{server.state.parent}/pid",
    )
    caller.await_(m.Ready)
    assert caller.report().pid == int((server.state.parent / "pid").read_text())


def test_its_files_are_its_own(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """All of its state folder is the user's and closed to others."""
    server = start()
    call(server).launch("sleep", "1000")
    for path in (server.state, *server.state.rglob("*")):
        status = path.lstat()
        assert status.st_uid == USER
        assert stat.S_IMODE(status.st_mode) & 0o077 == 0


def test_its_memory_is_closed_to_its_own_user(start: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """An application of the same user cannot read the server's memory or environment, but its own."""
    server = start()
    script = (
        f"cat /proc/self/environ >/dev/null && ! cat /proc/{server.pid}/environ && ! head -c1 /proc/{server.pid}/mem"
    )
    ended = call(server).run("sh", "-c", script)
    assert ended.outcome == Exited(0)
    assert ended.stderr.count(b"Permission denied") == 2


def test_it_uses_a_cgroup_that_it_was_given(
    start: Callable[..., Served], call: Callable[..., Caller], cgroup: Path
) -> None:
    """With a cgroup of its own, as systemd delegates one, trees are told by it, and can be killed at one stroke."""
    enter = ("sh", "-c", 'echo $$ >"$0/server/cgroup.procs" && exec "$@"', str(cgroup))
    server = start("--cgroup", str(cgroup), command=(*enter, *COMMAND), conf=STOPS)
    server.logged("each application has a cgroup of its own")
    caller = call(server)
    caller.launch("sh", "-c", "setsid sleep 1000 & echo $!; sleep 1000", output=True)
    left = int(caller.wrote(b"\n"))
    assert f"/run-{caller.run_id}" in Path(f"/proc/{left}/cgroup").read_text()
    assert caller.stop(kill=True).outcome == Signaled(9)
    until(lambda: not alive(left), "nothing of it is left")
    caller.close()
    server.stop()
