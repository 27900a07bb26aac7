"""Where cmappmgr is started from: nothing in its environment, and nothing behind its standard descriptors."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.system.bed import Manager
from tests.system.commands import MANAGER, run

if TYPE_CHECKING:
    from tests.system.bed import Bed

CLOSED = ["<&-", ">&-", "2>&-", "<&- >&-", ">&- 2>&-", "<&- >&- 2>&-"]


def start_by_shell(bed: Bed, before: str, redirections: str, *options: str) -> Manager:
    """Start a manager by a shell that first does something and redirects its own descriptors."""
    folder = bed.folder / "shell"
    folder.mkdir()
    script = "trap 'exit 7' TERM; echo out; echo err >&2; echo >ready; while :; do sleep 0.05; done"
    command = bed.command(folder, "by-shell", ["/bin/sh", "-c", script], options=["--cwd", str(bed.folder), *options])
    shell = ["/bin/sh", "-c", f'{before} exec "$@" {redirections}', "sh", *command]
    return bed.adopt(Manager(folder, "by-shell", shell))


def stop(manager: Manager) -> int:
    """Wait until the application is there, have it stopped, and return the exit code."""
    manager.until_launched()
    manager.process.terminate()
    return manager.wait()


def test_no_environment(bed: Bed) -> None:
    """It works by its absolute path from an environment without anything, not even PATH, like a package service."""
    done = run(
        [
            "/usr/bin/env",
            "-i",
            MANAGER,
            "--no-syslog",
            "--keys",
            str(bed.keys.host),
            bed.server.guest,
            "--",
            "/bin/false",
        ]
    )
    assert done.returncode == 1


@pytest.mark.parametrize(
    "env",
    [{"LC_ALL": "C"}, {"LC_ALL": "tr_TR.UTF-8", "TZ": "Asia/Kolkata"}, {"PYTHONSTARTUP": "/nowhere", "TERM": "dumb"}],
    ids=["C", "elsewhere", "of-python"],
)
def test_any_environment(bed: Bed, env: dict[str, str]) -> None:
    """Locale and time zone change neither what is launched nor how the log looks."""
    manager = bed.run("/usr/bin/printf", "%s", "ıİ→", options=["--output", "stdout"], env=env)
    assert manager.wait() == 0
    assert manager.stdout.decode() == "ıİ→"


@pytest.mark.parametrize("redirections", CLOSED)
@pytest.mark.parametrize("output", ["none", "stdout"])
def test_closed_descriptors(bed: Bed, redirections: str, output: str) -> None:
    """With any of stdin, stdout and stderr closed, the exit code and the log are as ever, and nothing goes astray."""
    manager = start_by_shell(bed, "", redirections, "--output", output)
    assert stop(manager) in {7, 143}
    assert "asked to stop by SIGTERM" in manager.log
    assert all(" by-shell on 127.0.0.1: " in line for line in manager.log.splitlines())


def test_closed_standard_error_as_log(bed: Bed) -> None:
    """Without --log-file and without standard error there is no log, and the exit code is right all the same."""
    base = bed.command(bed.folder, "mute", ["/bin/sh", "-c", "exit 9"])
    at = base.index("--log-file")
    done = run(["/bin/sh", "-c", 'exec "$@" 2>&-', "sh", *base[:at], *base[at + 2 :]])
    assert (done.returncode, done.stdout, done.stderr) == (9, "", "")


def test_ignored_and_blocked_signals(bed: Bed) -> None:
    """Started with its signals ignored, as by nohup, it is stopped by SIGTERM all the same."""
    manager = start_by_shell(bed, "trap '' TERM INT HUP PIPE CHLD;", "")
    assert stop(manager) in {7, 143}


def test_broken_pipe(bed: Bed) -> None:
    """A standard error that nobody reads any more does not end it."""
    reading, writing = os.pipe()
    os.close(reading)
    manager = bed.start("/bin/sh", "-c", "exit 9", options=["--log-file", "/dev/null"], stderr=writing, stdout=writing)
    os.close(writing)
    assert manager.wait() == 9


def test_killed_in_the_middle_of_its_start(bed: Bed) -> None:
    """A stop at any moment of its start ends it without a word of a defect."""
    for delay in range(12):
        manager = bed.start("/bin/sleep", "1000")
        with suppress(subprocess.TimeoutExpired):
            manager.process.wait(delay / 100)
        manager.process.terminate()
        assert manager.wait() in {125, 143}
