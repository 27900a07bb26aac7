"""The server becomes another version of itself: process, children, port and runs stay, or nothing changes at all."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason
from cmapp.core.rules import StopRules
from tests.shell.restart_bed import (
    DEAF,
    LEAVES,
    restart,
    upgrade,
    waits,
)
from tests.shell.served import COMMAND, MAIN, SOON, alive, children, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

pytestmark = pytest.mark.usefixtures("no_subreaper")

# ---- the upgrade -------------------------------------------------------------------------------------------------


def test_upgrade_stays_the_same_process(serve: Callable[..., Served], call: Callable[..., Caller], gate: Path) -> None:
    """An upgrade keeps the process, its children, its port, and no descriptor more, however often it is done."""
    server = serve(conf=LEAVES)
    caller = call(server)
    pid = waits(caller, gate)
    port, counts = server.port, []
    for _ in range(5):
        server.upgrade()
        assert (server.port, server.process.poll(), pid in children(server.pid)) == (port, None, True)
        assert caller.bye() == "the server becomes another version, and is back at once"
        before, caller = caller, call(server)
        assert caller.resume(before).pid == pid
        caller.report()
        counts.append(server.descriptors)
    assert counts[0] == counts[-1], counts
    gate.write_text("1\n")
    assert caller.ended().outcome == Exited(1)
    server.free()


def test_upgrade_never_refuses_a_connection(serve: Callable[..., Served]) -> None:
    """Who connects while the server becomes another version waits a moment, and is not turned away."""
    server = serve()
    server.signal(signal.SIGUSR2)
    while "becoming the installed version" not in server.log or server.log.count("listening on") < 2:
        socket.create_connection(("127.0.0.1", server.port), SOON).close()
    assert server.notice().startswith("RELOADING=1")
    assert server.notice() == "READY=1"


def test_upgrade_by_the_command(serve: Callable[..., Served], call: Callable[..., Caller], gate: Path) -> None:
    """`cmappserver --upgrade` asks the server that runs with these settings, and says whom."""
    server = serve(conf=LEAVES)
    first = call(server)
    pid = waits(first, gate)
    options = ["--config", str(server.conf), "--state-dir", str(server.state), "--upgrade"]
    said = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=SOON, check=True)
    assert said.stdout.startswith(f"process {server.pid} was asked to become the installed version")
    assert server.notice().startswith("RELOADING=1")
    assert server.notice() == "READY=1"
    second = call(server)
    assert second.resume(first).pid == pid
    gate.write_text("2\n")
    assert second.ended().outcome == Exited(2)


def test_upgrade_of_nobody(serve: Callable[..., Served]) -> None:
    """Where no server runs there is nobody to ask, and nobody is signalled: not who has the number now."""
    server = serve(conf=LEAVES)
    options = ["--config", str(server.conf), "--state-dir", str(server.state), "--upgrade"]
    server.leave()
    (server.state / "lock").write_text(f"{os.getpid()} {stat(os.getpid())[19]}\n")
    said = subprocess.run([*COMMAND, *options], capture_output=True, text=True, timeout=SOON, check=False)
    assert (said.returncode, said.stderr) == (
        2,
        f"cmappserver: no cmappserver runs with the state folder {server.state}\n",
    )


@pytest.mark.parametrize(
    "broken",
    ["this is no Python", "raise SystemExit(3)", "import sys; print('the keys are of another age'); sys.exit(2)"],
)
def test_broken_version(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, gate: Path, broken: str
) -> None:
    """A version that does not start is not become: nobody is disturbed, and the next one that does start is."""
    program = tmp_path / "program"
    program.write_text(MAIN)
    server = serve(command=(sys.executable, str(program)), conf=LEAVES)
    caller = call(server)
    pid = waits(caller, gate)
    program.write_text(broken)
    server.signal(signal.SIGUSR2)
    line = server.logged("ERROR: not upgraded, everything stays as it was: the installed version says: (.*)")[1]
    assert "another age" in line if "another age" in broken else line
    assert caller.report().pid == pid
    program.write_text("import sys; print('INFO: newly made', file=sys.stderr); " + MAIN)
    server.upgrade()
    server.logged("newly made")
    second = call(server)
    assert second.resume(caller).pid == pid
    gate.write_text("6\n")
    assert second.ended().outcome == Exited(6)


def test_program_that_vanishes(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """Where the program itself is gone the server stays what it is."""
    (tmp_path / "venv").mkdir()
    program = tmp_path / "venv" / "program"
    program.write_text(MAIN)
    server = serve(command=(sys.executable, str(program)))
    shutil.rmtree(tmp_path / "venv")
    server.signal(signal.SIGUSR2)
    server.logged("ERROR: not upgraded")
    assert call(server).run("true").outcome == Exited(0)


def test_upgrade_does_not_let_newcomers_in(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Who waits to see whether a manager answers gets nothing by the server's own going: that manager is there."""
    for way in (upgrade, restart):
        server = serve(conf=LEAVES)
        first, second = call(server), call(server)
        pid = first.launch("sleep", "1000")
        second.try_to_launch("true", name=first.name)
        assert second.report().state is m.Phase.WAITING
        way(server, first, second)
        again = call(server)
        assert again.resume(first).pid == pid
        assert alive(pid)


@pytest.mark.parametrize("moment", [0, 1, 3])
def test_upgrade_while_it_is_started(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, moment: int
) -> None:
    """An upgrade in the midst of launches loses none and starts none twice."""
    server, book = serve(conf=LEAVES), tmp_path / "book"
    command = ("sh", "-c", 'echo $$ >> "$0"; exec sleep 1000', str(book))
    before = [call(server) for _ in range(6)]
    for caller in before[:moment]:
        caller.try_to_launch(*command)
    server.signal(signal.SIGUSR2)
    for caller in before[moment:]:
        caller.try_to_launch(*command)
    assert server.notice().startswith("RELOADING=1")
    assert server.notice() == "READY=1"
    for caller in before:
        again = call(server)
        again.try_to_launch(*command, name=caller.name, run_id=caller.run_id)
        assert again.await_(m.Launched).run_id == caller.run_id
    until(lambda: len(book.read_text().split()) >= len(before), "all run")
    assert len(book.read_text().split()) == len(before)


def test_second_request_to_upgrade(serve: Callable[..., Served]) -> None:
    """However often an upgrade is asked for at once, it is done, and the server is what it was."""
    server = serve()
    for _ in range(20):
        server.signal(signal.SIGUSR2)
    assert server.notice().startswith("RELOADING=1")
    assert server.notice() == "READY=1"


# ---- the end -----------------------------------------------------------------------------------------------------


def test_sigterm_leaves_and_sigquit_stops(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """SIGTERM leaves what runs to the next server, SIGQUIT stops it, and a SIGTERM after that does not change it."""
    server = serve(conf=LEAVES)
    first = call(server)
    pid = first.launch(*DEAF, output=True, stop=StopRules(timeout=0.5))
    first.wrote(b"up")
    server.signal(signal.SIGTERM)
    assert first.bye() == "the server is stopped"
    first.close()
    assert server.wait() == 0
    assert server.notice() == "STOPPING=1"
    assert alive(pid)
    server.start()
    second = call(server)
    second.resume(first)
    server.signal(signal.SIGQUIT)
    assert server.notice() == "STOPPING=1"
    server.signal(signal.SIGTERM)
    receipt = second.await_(m.Exited).receipt
    assert (receipt.reason, receipt.forced) == (Reason.SERVER_STOPPED, True)
    second.close()
    assert server.wait() == 0
    assert not alive(pid)
