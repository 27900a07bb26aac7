"""`--on-end` and sd_notify: whoever has to act on an end hears of it at once, and hears of nothing else."""

from __future__ import annotations

import os
import re
import signal
import socket
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.processes import until, until_written

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.bed import Bed

ROUNDS = 20
NOTICED = 0.020  # seconds, the median from a kill to the start of the command
TALE = (
    "/bin/sh -c 'env >>{0}/env; ls -l /proc/self/fd >>{0}/fds; [ -s {0}/result ] || echo no result >>{0}/early;"
    " echo done >>{0}/told'"
)


def tale(folder: Path) -> list[str]:
    """Return options that have a command write down what it was given, and how often."""
    return ["--on-end", TALE.format(folder), "--result", str(folder / "result")]


@pytest.mark.parametrize(
    ("script", "cause", "code"), [("exit 0", "exited", 0), ("exit 3", "exited", 3), ("kill -9 $$", "signaled", 137)]
)
def test_an_end_is_told_once(bed: Bed, tmp_path: Path, script: str, cause: str, code: int) -> None:
    """The command knows what ended and how, finds the result written, and has nothing else of ours."""
    manager = bed.run("/bin/sh", "-c", script, options=tale(tmp_path))
    assert until_written(tmp_path / "told") == "done\n"
    env = dict(line.partition("=")[::2] for line in (tmp_path / "env").read_text().splitlines())
    assert env.pop("CMAPP_RUN_ID") == manager.run_id
    assert {key: value for key, value in env.items() if key not in ("PWD", "SHLVL", "_", "OLDPWD")} == {
        "CMAPP_NAME": manager.name,
        "CMAPP_CAUSE": cause,
        "CMAPP_EXIT_CODE": str(code),
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C",
    }
    assert not (tmp_path / "early").exists()
    targets = re.findall(r" (\d+) -> (\S+)", (tmp_path / "fds").read_text())
    assert {int(number) for number, target in targets if not target.startswith("/proc/")} == {0, 1, 2}


def test_an_unreachable_guest_is_told(bed: Bed, tmp_path: Path) -> None:
    """That is an end of the watch, if not of the application."""
    bed.run("/bin/true", options=[*tale(tmp_path), "--connect-timeout", "200ms"], guest="127.0.0.1:1")
    until_written(tmp_path / "told")
    assert "CMAPP_CAUSE=unreachable" in (tmp_path / "env").read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_what_was_asked_for_is_not_told(bed: Bed, tmp_path: Path, number: signal.Signals) -> None:
    """Who has asked for the end knows of it."""
    manager = bed.start("/bin/sleep", "1000", options=tale(tmp_path))
    bed.look_after(manager.until_launched())
    manager.process.send_signal(number)
    manager.wait()
    time.sleep(0.2)  # a command would have been started before that
    assert not (tmp_path / "told").exists()


def test_the_command_is_not_waited_for(bed: Bed, tmp_path: Path) -> None:
    """A command that hangs holds nobody up, and one that is not there is told of."""
    begin = time.monotonic()
    slow = bed.run("/bin/true", options=["--on-end", f"/bin/sh -c 'echo $$ >{tmp_path}/pid; exec sleep 60'"])
    assert time.monotonic() - begin < 10
    bed.look_after(int(until_written(tmp_path / "pid")))
    assert slow.process.returncode == 0
    missing = bed.run("/bin/true", options=["--on-end", "/no/such/command"])
    assert "/no/such/command cannot be started at its end: No such file" in missing.log
    wrong = bed.run("/bin/true", options=["--on-end", "relative"])
    assert (wrong.process.returncode, "relative is no absolute path" in wrong.stderr) == (125, True)


def test_a_kill_is_told_at_once(bed: Bed, tmp_path: Path) -> None:
    """Half of twenty kills have the command running within 20 ms."""
    took = []
    for number in range(ROUNDS):
        stamp = tmp_path / str(number)
        manager = bed.start("/bin/sleep", "1000", options=["--on-end", f"/bin/sh -c 'exec date +%s.%N >{stamp}'"])
        application = manager.until_launched()
        killed = time.time()
        os.kill(application, signal.SIGKILL)
        took.append(float(until_written(stamp)) - killed)
        manager.wait()
    print(f"kill to --on-end: median {statistics.median(took) * 1000:.1f} ms, most {max(took) * 1000:.1f} ms")
    assert statistics.median(took) < NOTICED


# ---- sd_notify ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=["path", "abstract"])
def listener(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[socket.socket]:
    """Yield a socket as of a service manager, at a path or of an abstract name."""
    address = str(tmp_path / "notify") if request.param == "path" else f"\0cmapp-notify-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.bind(address)
        yield sock


def told_to(listener: socket.socket) -> list[str]:
    """Return what has been said so far, a line each."""
    said: list[str] = []
    while True:
        try:
            said += listener.recv(4096).decode().split("\n")
        except BlockingIOError:
            return said


def until_told(listener: socket.socket, word: str) -> list[str]:
    """Wait until `word` is said, and return all that was."""
    said: list[str] = []

    def heard() -> bool:
        said.extend(told_to(listener))
        return word in said

    until(heard, f"{word} among {said}")
    return said


def address_of(listener: socket.socket) -> str:
    """Return what stands in $NOTIFY_SOCKET."""
    name = listener.getsockname()
    return "@" + name[1:].decode() if isinstance(name, bytes) else str(name)


def test_readiness_is_passed_on(bed: Bed, tmp_path: Path, listener: socket.socket) -> None:
    """READY=1 comes when the application is ready and not before; STOPPING=1 at the end."""
    options = ["--ready", f"command:/usr/bin/test -e {tmp_path}/serves"]
    manager = bed.start("/bin/sleep", "1000", options=options, env={"NOTIFY_SOCKET": address_of(listener)})
    manager.until_launched()
    said = until_told(listener, f"X_CMAPP_RUN_ID={manager.run_id}")
    assert "READY=1" not in said
    assert "X_CMAPP_ATTACHED=0" in said
    (tmp_path / "serves").touch()
    until_told(listener, "READY=1")
    manager.process.terminate()
    manager.wait()
    assert [line for line in told_to(listener) if not line.startswith("STATUS=")] == ["STOPPING=1"]


def test_launched_is_ready_where_nothing_else_was_asked(bed: Bed, listener: socket.socket) -> None:
    """A second manager of the run is told so too."""
    env = {"NOTIFY_SOCKET": address_of(listener)}
    first = bed.start("/bin/sleep", "1000", env=env)
    said = until_told(listener, "READY=1")
    assert f"STATUS=running as pid {first.until_launched()}" in said
    first.process.send_signal(signal.SIGUSR1)
    first.wait()
    told_to(listener)
    bed.start("/bin/sleep", "1000", name=first.name, options=["--on-existing", "attach"], env=env)
    assert "X_CMAPP_ATTACHED=1" in until_told(listener, "READY=1")


@pytest.mark.parametrize("address", ["/nonexistent/socket", "@nobody", "x" * 200, "@", "/"])
def test_nobody_listens(bed: Bed, address: str) -> None:
    """A socket that is gone, or was none, is no failure."""
    manager = bed.run("/bin/sh", "-c", "exit 4", env={"NOTIFY_SOCKET": address})
    assert (manager.process.returncode, manager.stderr) == (4, "")


# ---- --resume ------------------------------------------------------------------------------------------------------


def test_resume_returns_and_launches_nothing(bed: Bed) -> None:
    """A run that is there is watched; one that the guest does not know is an unknown end."""
    first = bed.start("/bin/sleep", "1000")
    application = first.until_launched()
    first.process.kill()
    again = bed.start("/bin/sleep", "1000", name=first.name, options=["--run-id", first.run_id, "--resume"])
    assert again.until_launched() == application
    again.process.terminate()
    assert again.wait() == 143
    stranger = bed.run("/bin/true", options=["--run-id", "3f2c0f5e-0b1c-4e57-9d1a-0d5a3c1b2e4f", "--resume"])
    assert stranger.process.returncode == 121
    assert "launched as" not in stranger.log
    alone = bed.run("/bin/true", options=["--resume"])
    assert (alone.process.returncode, "--run-id" in alone.stderr) == (125, True)
