"""Real servers of root with as little of its powers as they need: all that they do still works, and nothing leaks."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Signaled
from cmapp.core.rules import Kind, OrphanRules, StopRules
from cmapp.guest.privilege import NUMBERS
from tests.shell.served import STOPS, alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

OTHER, NUMBER = "nobody", 65534
FREE = 'run_as = ["*"]\n'
CONFINED = f'run_as = ["{OTHER}", "daemon"]\n'
STATUS = ("cat", "/proc/self/status")
KEPT = ("kill", "sys_ptrace", "dac_read_search", "sys_resource")
SWITCHING = ("setuid", "setgid", "chown")
LEAVES = OrphanRules(timeout=1000.0)


def mask(*names: str) -> int:
    """Return capabilities as a mask."""
    return sum(1 << NUMBERS[name] for name in names)


def sets(text: str) -> dict[str, int]:
    """Return the capabilities that a /proc/PID/status tells of, by Cap...'s rest."""
    lines = (line.partition(":") for line in text.splitlines() if line.startswith("Cap"))
    return {name.removeprefix("Cap"): int(value, 16) for name, _, value in lines}


def threads(pid: int) -> list[dict[str, int]]:
    """Return the capabilities of each thread of a process."""
    return [sets((task / "status").read_text()) for task in Path(f"/proc/{pid}/task").iterdir()]


OURS = sets(Path("/proc/self/status").read_text())
EXTRA = mask("dac_override")  # where the cgroup of the tests is a closed one


@pytest.fixture(params=["auto", "none"])
def cgroup(request: pytest.FixtureRequest) -> str:
    """Return how trees are told."""
    return str(request.param)


@pytest.fixture(params=[FREE, CONFINED], ids=["free", "confined"])
def server(serve: Callable[..., Served], request: pytest.FixtureRequest, cgroup: str) -> Served:
    """Return a server where applications may run as anybody, or never as root; it leaves them when it goes."""
    return serve("--cgroup", cgroup, conf=request.param)


def test_the_server_keeps_what_it_needs(server: Served, call: Callable[..., Caller], cgroup: str) -> None:
    """No thread of it has more than is needed, those that came later neither; the log tells which and what for."""
    call(server).run("true", user=OTHER)  # by now there is a thread for the disk
    confined = CONFINED in server.conf.read_text()
    most = mask(*KEPT, *(SWITCHING if confined else ())) | (EXTRA if cgroup == "auto" else 0)
    found = threads(server.pid)
    assert len(found) > 1
    for each in found:
        assert each["Eff"] == each["Prm"]
        assert each["Eff"] & ~EXTRA == most & OURS["Prm"] & ~EXTRA
        assert each["Eff"] & ~most == 0
        assert each["Bnd"] == (each["Eff"] if confined else OURS["Bnd"])
        assert each["Amb"] == each["Inh"] == (each["Eff"] if confined else 0)
    server.logged(r"of root's powers the server (itself )?keeps kill \(to signal")


def test_applications_of_others_have_nothing(server: Served, call: Callable[..., Caller]) -> None:
    """An application of another user has no power, and none to inherit, wherever it comes from."""
    found = sets(call(server).run(*STATUS, user=OTHER).stdout.decode())
    assert (found["Eff"], found["Prm"], found["Inh"], found["Amb"]) == (0, 0, 0, 0)
    assert found["Bnd"] == (threads(server.pid)[0]["Eff"] if CONFINED in server.conf.read_text() else OURS["Bnd"])


def test_applications_of_root_have_all(serve: Callable[..., Served], call: Callable[..., Caller], cgroup: str) -> None:
    """Where root may run, its applications have all that root has, though the server has not."""
    server = serve("--cgroup", cgroup, conf=STOPS + FREE)
    for user in ("root", None):
        assert sets(call(server).run(*STATUS, user=user).stdout.decode()) == OURS


def test_who_becomes_root_below_a_confined_server(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """A program that has root's setuid bit gets no power there; elsewhere it gets all."""
    program = tmp_path / "setuid-cat"
    shutil.copy("/bin/cat", program)
    program.chmod(0o4755)
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o711)
    before = call(serve(conf=STOPS + FREE)).run(str(program), "/proc/self/status", user=OTHER).stdout.decode()
    if sets(before)["Eff"] != OURS["Bnd"]:
        pytest.skip("setuid programs get nothing in this folder anyway")
    text = call(serve(conf=STOPS + CONFINED)).run(str(program), "/proc/self/status", user=OTHER).stdout.decode()
    assert "Uid:\t65534\t0\t0\t0\n" in text
    assert (sets(text)["Eff"], sets(text)["Prm"]) == (0, 0)


@pytest.mark.parametrize("kill", [False, True])
def test_another_users_application_is_stopped(server: Served, call: Callable[..., Caller], *, kill: bool) -> None:
    """Signals reach processes of another user, those too that have left their session."""
    caller = call(server)
    script = "setsid sleep 1000 & trap 'exit 3' TERM; echo $!; while :; do sleep 0.01; done"
    caller.launch("sh", "-c", script, user=OTHER, output=True)
    left = int(caller.wrote(b"\n"))
    assert caller.stop(kill=kill).outcome == (Signaled(9) if kill else Exited(3))
    until(lambda: not alive(left), "nothing of it is left")


def test_another_users_application_is_found_again(server: Served, call: Callable[..., Caller]) -> None:
    """After a crash the next server watches it, hears it, reads its output and stops it with all that it started."""
    first = call(server)
    script = "setsid sleep 1000 & trap 'echo bye; exit 4' TERM; echo $!; while :; do sleep 0.01; done"
    first.launch("sh", "-c", script, user=OTHER, output=True, orphan=LEAVES)
    left = int(first.wrote(b"\n"))
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    server.kill()
    server.start(hand=True)
    second = call(server)
    second.resume(first)
    ended = second.stop()
    assert ended.stdout.endswith(b"bye\n")
    assert ended.outcome == Exited(4)
    until(lambda: not alive(left), "nothing of it is left")


def test_an_upgrade_keeps_as_little(server: Served, call: Callable[..., Caller]) -> None:
    """What the server becomes has the same powers as before, and starts, finds and stops applications with them."""
    before = call(server)
    before.launch("sleep", "1000", user=OTHER, output=True, orphan=LEAVES)
    powers = threads(server.pid)[0]
    server.upgrade()
    assert threads(server.pid)[0] == powers
    after = call(server)
    after.resume(before)
    assert after.stop().outcome == Signaled(signal.SIGTERM)
    assert call(server).run("id", "-un", user=OTHER).stdout == f"{OTHER}\n".encode()


def test_a_pid_file_in_a_closed_folder_is_read(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """A daemon of another user is found by its pid file, in a folder that is open to that user only."""
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o700)
    os.chown(folder, NUMBER, NUMBER)
    for outer in tmp_path.parents[:-2]:
        outer.chmod(outer.stat().st_mode | 0o711)
    tmp_path.chmod(0o711)
    caller = call(server)
    script = f"setsid sleep 1000 & echo $! >{folder}/pid"
    caller.launch("sh", "-c", script, user=OTHER, kind=Kind.FORKING, pid_file=f"{folder}/pid")
    caller.await_(m.Ready)
    assert caller.report().pid == int((folder / "pid").read_text())
    assert caller.stop().outcome == Signaled(signal.SIGTERM)


def test_another_users_application_is_heard(server: Served, call: Callable[..., Caller]) -> None:
    """The kernel tells who sent a notification, and whose it is can be told of other users' processes."""
    caller = call(server)
    text = "import os, socket, time; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
    text += "; s.connect('\\0' + os.environ['NOTIFY_SOCKET'][1:]); s.send(b'READY=1\\nSTATUS=well'); time.sleep(1000)"
    caller.launch("/usr/bin/python3", "-c", text, user=OTHER, kind=Kind.NOTIFY)
    caller.await_(m.Ready)
    assert caller.stop(kill=True).outcome == Signaled(9)


def test_the_stop_command_runs_as_the_user(server: Served, call: Callable[..., Caller]) -> None:
    """What runs beside an application has its user, and no power either."""
    caller = call(server)
    command = ("sh", "-c", "grep CapInh /proc/self/status >&2; id -un >&2; kill $MAINPID")
    caller.launch("sleep", "1000", user=OTHER, stop=StopRules(command=command))
    assert caller.stop().outcome == Signaled(signal.SIGTERM)


def test_a_confined_server_stays_so(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Neither a reload nor an upgrade lets root run where it was not to: that is refused with words, and logged."""
    server = serve(conf=STOPS + CONFINED)
    server.conf.write_text(STOPS + FREE)
    server.signal(signal.SIGHUP)
    server.logged("reloaded")
    refusal = call(server).refused("id", user="root")
    assert refusal.code == "not-permitted"
    assert "until it is started anew" in refusal.text
    assert server.notice().startswith("RELOADING")
    assert server.notice() == "READY=1"
    server.upgrade()
    server.logged("ERROR: applications may run as root by the settings of now")
    assert call(server).refused("id", user="root").code == "not-permitted"
    assert call(server).run("id", "-u", user=OTHER).stdout == b"65534\n"
