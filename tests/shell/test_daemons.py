"""Applications whose main process is not what was launched, and processes that leave: followed, and gone at a stop."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled, Unknown
from cmapp.core.rules import Kind, StopRules
from tests.shell.served import alive, children, members, somebody_else, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

PYTHON = (sys.executable, "-I", "-S", "-c")
# Ends by SIGUSR1 with a code of its own, and by SIGTERM with 0.
STAYS = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGUSR1])

def stay(code):
    os.write(1, b"up %d\\n" % os.getpid())
    os._exit(code if signal.sigwait([signal.SIGTERM, signal.SIGUSR1]) == signal.SIGUSR1 else 0)

def write(path):
    with open(path + ".new", "w") as file:
        file.write("%d\\n" % os.getpid())
    os.rename(path + ".new", path)
"""
DAEMON = f"""{STAYS}
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
if len(sys.argv) > 1:
    write(sys.argv[1])
stay(23)
"""
NOTIFIES = f"""{STAYS}
import socket

def tell(*words):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.sendto("\\n".join(words).encode(), "\\0" + os.environ["NOTIFY_SOCKET"][1:])
"""


@pytest.fixture(params=["auto", "none"])
def server(serve: Callable[..., Served], request: pytest.FixtureRequest) -> Served:
    """Return a server with, and one without cgroups."""
    return serve("--cgroup", request.param)


def daemon(caller: Caller, *argv: str, **fields: object) -> int:
    """Launch a daemon, wait until it is ready, and return the process that it left."""
    caller.launch(*PYTHON, DAEMON, *argv, output=True, kind=Kind.FORKING, **fields)
    caller.await_(m.Ready)
    pid = caller.report().pid
    assert pid
    assert caller.wrote(b"\n") == b"up %d\n" % pid
    return pid


@pytest.mark.parametrize("with_file", [True, False])
def test_daemon_is_followed(server: Served, call: Callable[..., Caller], tmp_path: Path, *, with_file: bool) -> None:
    """The process that a daemon leaves behind is watched, by its pid file or without one, and its code told."""
    caller = call(server)
    path = str(tmp_path / "pid")
    pid = daemon(caller, *[path] * with_file, pid_file=path if with_file else "")
    report = caller.report()
    assert (report.state, report.ready, report.processes) == (m.Phase.RUNNING, True, 1)
    os.kill(pid, signal.SIGUSR1)
    assert caller.ended().outcome == Exited(23)


def test_daemon_is_killed(server: Served, call: Callable[..., Caller]) -> None:
    """The signal that ends a daemon is told as it was."""
    caller = call(server)
    os.kill(daemon(caller), signal.SIGKILL)
    assert caller.ended().outcome == Signaled(9)


def test_daemon_is_stopped(server: Served, call: Callable[..., Caller]) -> None:
    """A stop of a daemon reaches the process that stayed, though it has a session of its own."""
    caller = call(server)
    pid = daemon(caller)
    receipt = caller.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Exited(0), Reason.ASKED, False)
    assert not alive(pid)


def test_daemon_outlives_servers(server: Served, call: Callable[..., Caller]) -> None:
    """A daemon is known again after a crash and after an upgrade, by the process that stayed."""
    first = call(server)
    pid = daemon(first)
    server.upgrade()
    second = call(server)
    assert second.resume(first).pid == pid
    until(lambda: b'"ready":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    server.kill()
    server.start()
    third = call(server)
    assert third.resume(second).pid == pid
    third.await_(m.Ready)  # which it may have missed
    assert third.report().state is m.Phase.RUNNING
    os.kill(pid, signal.SIGTERM)
    assert third.ended().outcome == Exited(0)


@pytest.mark.parametrize("way", ["kill", "upgrade"])
def test_daemon_is_stopped_by_a_later_server(server: Served, call: Callable[..., Caller], way: str) -> None:
    """A stop reaches the process that stayed also if it was adopted, and leads no group or session of its own."""
    first = call(server)
    pid = daemon(first, stop=StopRules(timeout=5.0))
    until(lambda: b'"ready":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    if way == "upgrade":
        server.upgrade()
    else:
        server.kill()
        server.start()
    second = call(server)
    second.resume(first)
    second.await_(m.Ready)  # which it may have missed
    receipt = second.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Exited(0), Reason.ASKED, False)
    assert not alive(pid)


def test_server_crashes_while_it_comes_up(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """A daemon whose server crashed before it was found is found later, or is not known to be well and ended."""
    path, first = tmp_path / "pid", call(server)
    first.launch(*PYTHON, DAEMON, output=True, kind=Kind.FORKING, pid_file=str(path))
    pid = int(first.wrote(b"\n").split()[1])
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    until(lambda: members(first.run_id) == [pid], "what was launched has ended")
    server.kill()
    server.start()
    path.write_text(f"{pid}\n")
    second = call(server)
    second.resume(first)
    answer = second.hear()
    if isinstance(answer, m.Ready):
        assert second.report().pid == pid
        os.kill(pid, signal.SIGUSR1)
        assert second.ended().outcome == Exited(23)
    else:
        assert isinstance(answer, m.Exited)
        assert isinstance(answer.receipt.outcome, Unknown)
        until(lambda: not alive(pid), "nothing is left")


def test_daemon_that_does_not_come_up(server: Served, call: Callable[..., Caller]) -> None:
    """What the launched process of a daemon says by its exit code is told: it failed to start."""
    assert call(server).run("sh", "-c", "exit 3", kind=Kind.FORKING).outcome == Exited(3)
    assert isinstance(call(server).run("true", kind=Kind.FORKING).outcome, Unknown)
    assert call(server).run("sh", "-c", "kill -9 $$", kind=Kind.FORKING).outcome == Signaled(9)


def test_pid_file_that_lies(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """A pid file that names nobody, or somebody else, is not believed, and that one not touched."""
    path, caller = tmp_path / "pid", call(server)
    with somebody_else() as stranger:
        for lie in ("", "nonsense", "-1", "0", "1", str(stranger.pid), str(2**40)):
            path.write_text(lie)
            caller.launch(*PYTHON, DAEMON, output=True, kind=Kind.FORKING, pid_file=str(path))
            pid = int(caller.wrote(b"\n").split()[1])
            caller.out[m.Stream.STDOUT].clear()
            for _ in range(20):
                assert caller.report().state is m.Phase.READYING
            assert caller.stop(kill=True).receipt.reason is Reason.ASKED
            assert not alive(pid)
            caller = call(server)
        assert stranger.poll() is None


def test_pid_file_that_comes_later(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """A daemon is ready when its pid file is there, and not before, be an old one there or not."""
    path, caller = tmp_path / "pid", call(server)
    path.write_text("1\n")
    caller.launch(*PYTHON, DAEMON, output=True, kind=Kind.FORKING, pid_file=str(path))
    pid = int(caller.wrote(b"\n").split()[1])
    assert caller.report().state is m.Phase.READYING
    path.write_text(f"{pid}\n")
    caller.await_(m.Ready)
    assert (caller.report().pid, caller.report().state) == (pid, m.Phase.RUNNING)


def test_notify_ready(server: Served, call: Callable[..., Caller], tmp_path: Path) -> None:
    """An application of the kind `notify` is ready when it says so, and its status is reported."""
    os.mkfifo(tmp_path / "go")
    caller = call(server)
    script = f"{NOTIFIES}open(sys.argv[1]).read(); tell('STATUS=serving π', 'READY=1'); stay(5)"
    pid = caller.launch(*PYTHON, script, str(tmp_path / "go"), output=True, kind=Kind.NOTIFY)
    report = caller.report()
    assert (report.state, report.ready, report.pid) == (m.Phase.READYING, False, pid)
    (tmp_path / "go").write_text("\n")
    caller.await_(m.Ready)
    report = caller.report()
    assert (report.state, report.ready, report.status) == (m.Phase.RUNNING, True, "serving π")
    os.kill(pid, signal.SIGUSR1)
    assert caller.ended().outcome == Exited(5)


def test_notify_main_process(server: Served, call: Callable[..., Caller]) -> None:
    """An application may name another of its processes as the main one: the end of that is the end of the run."""
    caller = call(server)
    script = (
        f"{NOTIFIES}\nchild = os.fork()\nif child:\n    tell(f'MAINPID={{child}}', 'READY=1')\n"
        "    signal.sigwait([signal.SIGTERM])\n    os._exit(1)\nstay(31)"
    )
    leader = caller.launch(*PYTHON, script, output=True, kind=Kind.NOTIFY)
    caller.await_(m.Ready)
    pid = int(caller.wrote(b"\n").split()[1])
    caller.report_until(lambda report: report.pid == pid)
    os.kill(leader, signal.SIGTERM)
    until(lambda: not alive(leader), "what was launched has ended")
    assert caller.report().state is m.Phase.RUNNING
    os.kill(pid, signal.SIGUSR1)
    assert caller.ended().outcome == Exited(31)


def test_notify_of_a_stranger(server: Served, call: Callable[..., Caller]) -> None:
    """An application cannot name a process of others as its main one."""
    caller = call(server)
    with somebody_else() as stranger:
        script = f"{NOTIFIES}tell('MAINPID={stranger.pid}', 'READY=1'); stay(6)"
        pid = caller.launch(*PYTHON, script, output=True, kind=Kind.NOTIFY)
        caller.await_(m.Ready)
        assert caller.report().pid == pid
        caller.stop(kill=True)
        assert stranger.poll() is None


@pytest.mark.parametrize("how", ["stop", "kill", "end"])
def test_escaped_processes(server: Served, call: Callable[..., Caller], how: str) -> None:
    """Nothing outlives a stop: not what has a session of its own, not what nobody waits for, not what is deaf."""
    caller = call(server)
    escape = (
        "import os, signal, sys, time\n"
        "def leave(session):\n"
        "    if os.fork(): return\n"
        "    if session: os.setsid()\n"
        "    if os.fork(): os._exit(0)\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    while True: time.sleep(1000)\n"
        "leave(False); leave(True); leave(True); signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
        "os.write(1, b'%d\\n' % os.getpid()); signal.sigwait([signal.SIGUSR1]); os._exit(8)\n"
    )
    caller.launch(*PYTHON, escape, output=True, stop=StopRules(timeout=0.5))
    while caller.out[m.Stream.STDOUT].count(b"\n") < 4:
        caller.await_(m.Output)
    pids = [int(word) for word in caller.out[m.Stream.STDOUT].split()]
    until(lambda: caller.report().processes == 4, "those between are gone")
    assert sorted(members(caller.run_id)) == sorted(pids)
    if how == "end":
        os.kill(caller.report().pid or 0, signal.SIGUSR1)
        assert caller.ended().outcome == Exited(8)
        until(lambda: not [pid for pid in pids if alive(pid)], "what it left is gone")
    else:
        receipt = caller.stop(kill=how == "kill").receipt
        assert receipt.forced
        assert not [pid for pid in pids if alive(pid)]
    assert members(caller.run_id) == []
    server.free()


def test_zombies_of_strangers(server: Served, call: Callable[..., Caller]) -> None:
    """What an application leaves behind of itself while it runs is reaped when it ends."""
    caller = call(server)
    pid = caller.launch(
        "sh", "-c", "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; echo up; exec sleep 1000", output=True
    )
    caller.wrote(b"up")
    until(lambda: caller.report().processes == 1, "the others have ended")
    until(lambda: not [child for child in zombies(server.pid) if child != pid], "and are reaped")
    assert caller.stop().outcome == Signaled(15)


def zombies(pid: int) -> list[int]:
    """Return the children of a process that have ended and were not reaped."""
    return [child for child in children(pid) if stat(child)[:1] == ["Z"]]
