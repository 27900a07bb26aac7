"""What an application is asked and what it says: readiness, health, watchdog, stop commands, limits; 124 and why."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import alive, until_gone, until_written
from tests.system.serving import free_port

if TYPE_CHECKING:
    from tests.system.bed import Bed, Manager

# One that other users may execute, if there is one.
PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin") or f"{Path(sys.base_prefix) / 'bin' / 'python3'}"
# An application that says what is written to it, line by line, by sd_notify; a line `exit` ends it.
SAYS = """
import os, socket, sys, time
where = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect("\\0" + where[1:] if where[0] == "@" else where)
    for words in sys.argv[1:]:
        if words.startswith("sleep "):
            time.sleep(float(words[6:]))
        else:
            notify.send(words.encode())
time.sleep(1000)
"""
LISTENS = """
import http.server, os, sys, time
while not os.path.exists("go"):
    time.sleep(0.02)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
OFTEN = ("--health-interval", "100ms", "--health-timeout", "5s", "--health-retries", "2")


def says(bed: Bed, *words: str, options: tuple[str, ...] = ()) -> Manager:
    """Start an application that says these words."""
    return bed.start(PYTHON, "-I", "-S", "-c", SAYS, *words, options=["--stop-timeout", "5s", *options])


def check_unhealthy(manager: Manager, reason: str, *words: str) -> None:
    """Check that a manager exits with 124, for this reason, in these words, and that nothing is left."""
    application = manager.until_launched()
    assert manager.wait() == 124
    assert manager.result["cause"] == "unhealthy"
    assert manager.result["reason"] == reason
    for word in words:
        assert word in manager.last_line
    assert manager.last_line.endswith("exit code 124 means that the server stopped it for that")
    assert not alive(application)


# ---- readiness -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["tcp:{port}", "tcp:127.0.0.1:{port}", "http:{port}/", "command:test -e up"])
def test_ready(bed: Bed, tmp_path: Path, spec: str) -> None:
    """An application is ready when its port, its page or a command says so, and not before."""
    port = free_port()
    argv = [PYTHON, "-I", "-c", LISTENS, str(port)]
    if spec.startswith("command"):
        argv = ["/bin/sh", "-c", "until [ -e go ]; do sleep 0.02; done; echo >up; exec sleep 1000"]
    options = ["--cwd", str(tmp_path), "--ready", spec.format(port=port), "--env", f"PATH={os.defpath}"]
    manager = bed.start(*argv, options=[*options, "--verbose", "--poll-interval", "100ms"])
    manager.until_launched()
    manager.until_log(r"readying, pid \d+")
    assert "is ready" not in manager.log
    (tmp_path / "go").touch()
    manager.until_log("is ready, .* after its launch")
    manager.until_log(r"running, pid \d+")
    manager.process.terminate()
    assert manager.wait() == 143
    assert manager.result["launched"] < manager.result["ready"] < manager.result["concluded"]


def test_ready_by_notification(bed: Bed) -> None:
    """With --type notify an application is ready when it says so, and what it says of itself is told."""
    manager = says(bed, "STATUS=warming up", "sleep 0.3", "READY=1\nSTATUS=serving", options=("--type", "notify"))
    manager.until_log("is ready, .* after its launch")
    manager.process.terminate()
    assert manager.wait() == 143


def test_status_of_its_own(bed: Bed) -> None:
    """What an application says of itself is told in the log and by `cmapp status`."""
    manager = says(bed, "READY=1\nSTATUS=7 of 9 shards", options=("--type", "notify", "--poll-interval", "100ms"))
    manager.until_log("says of itself: 7 of 9 shards")
    assert "7 of 9 shards" in bed.cmapp("status")


LEAVES = """
import os, socket, subprocess
child = subprocess.Popen(["/bin/sleep", "1000"], stdin=subprocess.DEVNULL, start_new_session=True)
where = os.environ["NOTIFY_SOCKET"]
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
    notify.connect("\\0" + where[1:] if where[0] == "@" else where)
    notify.send(f"MAINPID={child.pid}\\nREADY=1".encode())
with open("main", "w") as file:
    print(child.pid, file=file)
input = open("go").read()
os._exit(0)
"""


@pytest.mark.parametrize("fate", ["none", *FATES])
def test_main_process_of_its_own(bed: Bed, tmp_path: Path, fate: str) -> None:
    """With --type notify an application may name another process as its main one, and leave."""
    bed.serve()
    os.mkfifo(tmp_path / "go")
    options = ["--type", "notify", "--cwd", str(tmp_path), "--poll-interval", "100ms", "--verbose", *PATIENT]
    manager = bed.start(PYTHON, "-I", "-S", "-c", LEAVES, options=options)
    command = manager.until_launched()
    main = int(until_written(tmp_path / "main"))
    manager.until_log(rf"running, pid {main}, ")
    (tmp_path / "go").write_text("go")
    until_gone(command)
    if fate != "none":
        renew(bed, fate)
        until_back(manager, main)
    manager.until_log(rf"running, pid {main}, ", len(manager.log))
    os.kill(main, 9)
    assert manager.wait() == 137


@pytest.mark.skipif(os.getuid() != 0, reason="only root may launch as another user")
def test_ready_by_another_user(bed: Bed) -> None:
    """An application of another user reaches the notification socket, and no other file of the state folder."""
    folder = Path(tempfile.mkdtemp(prefix="cmapp-state-"))
    folder.chmod(0o711)
    try:
        bed.serve("--state-dir", str(folder / "state"))
        manager = says(bed, "READY=1", options=("--type", "notify", "--user", "nobody"))
        manager.until_log("is ready, .* after its launch")
        script = f"cat {folder}/state/runs/{manager.run_id}; ls {folder}/state {folder}/state/runs"
        other = bed.run("/bin/sh", "-c", script, options=["--user", "nobody", "--output", "stdout"])
        assert (other.wait(), other.stdout) == (2, b"")
        manager.process.terminate()
        assert manager.wait() == 143
    finally:
        shutil.rmtree(folder)


def test_never_ready(bed: Bed, tmp_path: Path) -> None:
    """One that is not ready in time is stopped: 124, and the log says what the last try met."""
    options = ["--ready", f"tcp:{free_port()}", "--ready-timeout", "700ms", "--cwd", str(tmp_path)]
    begin = time.monotonic()
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    check_unhealthy(manager, "not-ready", "did not become ready")
    assert 0.7 <= time.monotonic() - begin < 20


def test_never_ready_by_notification(bed: Bed) -> None:
    """One that never says READY=1 is stopped: 124, and the log says so."""
    manager = bed.start("/bin/sleep", "1000", options=["--type", "notify", "--ready-timeout", "500ms"])
    check_unhealthy(manager, "not-ready", "it did not say READY=1")


def test_ended_before_it_was_ready(bed: Bed) -> None:
    """One that ends before it is ready has ended: its own code, not 124."""
    manager = bed.run("/bin/sh", "-c", "exit 43", options=["--ready", f"tcp:{free_port()}"])
    assert manager.wait() == 43


# ---- health ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fate", ["none", *FATES])
def test_unhealthy(bed: Bed, tmp_path: Path, fate: str) -> None:
    """As many failed checks as --health-retries stop the application: 124 with the last word of the check."""
    bed.serve()
    check = "/bin/sh -c 'test ! -e sick || { echo too sick to go on; exit 1; }'"
    options = ["--health-command", check, *OFTEN, "--cwd", str(tmp_path), "--poll-interval", "100ms", *PATIENT]
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    application = manager.until_launched()
    if fate != "none":
        renew(bed, fate)
        until_back(manager, application)
    (tmp_path / "sick").touch()
    check_unhealthy(manager, "unhealthy", "stopped because it was unhealthy", "too sick to go on")


def test_one_failed_check_is_not_the_end(bed: Bed, tmp_path: Path) -> None:
    """A check that fails once, or less often than --health-retries, changes nothing."""
    check = "/bin/sh -c 'echo >>checks; test -e well || exit 1'"
    options = ["--health-command", check, "--health-interval", "50ms", "--health-retries", "1000"]
    options += ["--cwd", str(tmp_path), "--poll-interval", "100ms"]
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    manager.until_log("WARNING: its health: ")
    (tmp_path / "well").touch()
    manager.until_log("is healthy again")
    manager.process.terminate()
    assert manager.wait() == 143


def test_check_that_hangs(bed: Bed, tmp_path: Path) -> None:
    """A check that takes longer than --health-timeout is killed, and has failed."""
    check = "/bin/sh -c 'echo $$ >check; exec sleep 1000'"
    options = ["--health-command", check, "--health-interval", "100ms", "--health-timeout", "300ms"]
    options += ["--health-retries", "1", "--cwd", str(tmp_path)]
    manager = bed.start("/bin/sh", "-c", "exec sleep 1000", options=options)
    check_unhealthy(manager, "unhealthy")
    until_gone(int(until_written(tmp_path / "check")))


def test_watchdog(bed: Bed) -> None:
    """An application that is late with WATCHDOG=1 is stopped: 124, and one that is in time is not."""
    options = ("--watchdog-timeout", "2s")
    hangs = says(bed, "WATCHDOG=1", "sleep 0.1", "WATCHDOG=1", options=options)
    lives = says(bed, *["WATCHDOG=1", "sleep 0.2"] * 200, options=options)
    check_unhealthy(hangs, "hung", "stopped because its watchdog was not heard")
    assert lives.process.poll() is None


def test_watchdog_tells_its_time(bed: Bed) -> None:
    """The application finds in its environment how often it has to be heard."""
    options = ["--watchdog-timeout", "90s", "--output", "stdout"]
    manager = bed.run("/usr/bin/env", options=options)
    said = dict(line.split("=", 1) for line in manager.stdout.decode().splitlines())
    assert said["WATCHDOG_USEC"] == "90000000"
    assert said.keys() == {"WATCHDOG_USEC", "NOTIFY_SOCKET"}


# ---- stopping --------------------------------------------------------------------------------------------------


def test_stop_command(bed: Bed, tmp_path: Path) -> None:
    """The stop command is run before any signal, as the application would be, and may make it end by itself."""
    script = "trap 'echo signalled >>book' TERM; until [ -e go ]; do sleep 0.02; done; exit 9"
    stop = "/bin/sh -c 'echo $WORD >>book; >go; sleep 5'"
    options = ["--cwd", str(tmp_path), "--stop-command", stop, "--env", "WORD=w", "--stop-timeout", "30s"]
    manager = bed.start("/bin/sh", "-c", f"echo >ready; {script}", options=options)
    until_written(tmp_path / "ready")
    manager.process.terminate()
    assert manager.wait() == 9
    assert (tmp_path / "book").read_text().split()[:1] == ["w"]
    assert "stopped on request" in manager.last_line


def test_stop_command_that_fails(bed: Bed, tmp_path: Path) -> None:
    """When the stop command fails or is not there, the signal follows all the same."""
    for command in ("/bin/false", "/nowhere/at/all"):
        manager = bed.start("/bin/sleep", "1000", options=["--stop-command", command, "--cwd", str(tmp_path)])
        manager.until_launched()
        manager.process.terminate()
        assert manager.wait() == 143


# ---- limits ----------------------------------------------------------------------------------------------------


def test_limits(bed: Bed) -> None:
    """The application gets the limits that --limit names, soft and hard, and the others stay the server's."""
    options = ["--limit", "nofile=64:128", "--limit", "core=0", "--limit", "stack=1M:infinity", "--output", "stdout"]
    script = "ulimit -Sn; ulimit -Hn; ulimit -Sc; ulimit -Hc; ulimit -Ss; ulimit -Hs; ulimit -Sv"
    if resource.getrlimit(resource.RLIMIT_STACK)[1] != resource.RLIM_INFINITY:
        pytest.skip("the stack is limited here")
    manager = bed.run("/bin/sh", "-c", script, options=options)
    assert manager.stdout.decode().split() == ["64", "128", "0", "0", "1024", "unlimited", "unlimited"]


def test_limit_that_cannot_be_set(bed: Bed) -> None:
    """A limit that this guest cannot set is a refused launch: nothing runs without it."""
    bed.serve("--cgroup", "none")
    manager = bed.run("/bin/true", options=["--limit", "memory=64M"])
    assert manager.wait() == 122
    assert "limit" in manager.last_line
    assert manager.result["refusal"] == "unsupported"


def test_limit_of_memory(bed: Bed) -> None:
    """Whoever wants more memory than its limit is killed by the kernel, or refused where no controller does that."""
    bed.serve()
    script = "x = bytearray(200 << 20); print('all of it', flush=True)"
    manager = bed.run(PYTHON, "-I", "-S", "-c", script, options=["--limit", "memory=32M", "--output", "log"])
    assert manager.wait() in {122, 137}
    assert manager.wait() == 137 or "limit of memory cannot be set" in manager.last_line
    assert "stdout: all of it" not in manager.log
