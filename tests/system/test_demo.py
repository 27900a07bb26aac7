"""`./run demo` tells its story as promised, and leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = Path(__file__).parents[2] / "demo" / "demo.py"
PROMISED = 30.0  # seconds


@pytest.fixture
def demo(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the demo, with a folder of its own for temporary files."""
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, DEMO], env=env, stdout=subprocess.PIPE, text=True) as running:
        yield running
        running.terminate()


def processes_in(folder: Path) -> list[str]:
    """Return the command lines of what runs in a folder, or below it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").resolve(strict=True).is_relative_to(folder):
                found.append(process.joinpath("cmdline").read_text())
        except OSError:
            continue  # it ended while we looked, or is not ours
    return found


def test_story(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    """A stranger sees a launch, an answer, two polls, a kill, 137, and the time that it took."""
    begun = time.monotonic()
    story, _ = demo.communicate(timeout=PROMISED)
    assert demo.returncode == 0, story
    assert time.monotonic() - begun < PROMISED
    assert re.findall(r"^(\d)\. ", story, re.MULTILINE) == list("12345678")
    (pid,) = re.findall(r"\$ kill -9 (\d+)", story)
    assert re.search(rf": launched as pid {pid}, ", story)
    assert "| 200: Hello from the guest.\n" in story
    assert len(re.findall(rf": running, pid {pid}, up ", story.partition("\n6. ")[0])) == 2
    assert re.search(r"ERROR: was killed by signal 9 \(KILL\) after .*; exit code 137 ", story)
    assert re.search(r"cmappmgr exited with 137, .* \d+\.\d ms after the kill", story)
    assert re.search(r"median .* is \d+\.\d ms", story)
    assert not list(tmp_path.iterdir())
    assert not processes_in(tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("when", ["2. ", "5. ", "7. "])
def test_interrupted(demo: subprocess.Popen[str], tmp_path: Path, number: signal.Signals, when: str) -> None:
    """One who has seen enough is not left with a server, a web server or keys."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith(when):
            break
    demo.send_signal(number)
    rest, _ = demo.communicate(timeout=PROMISED)
    assert demo.returncode == 128 + number, rest
    assert not list(tmp_path.iterdir())
    assert not processes_in(tmp_path)


def test_broken_promise(tmp_path: Path) -> None:
    """Where something is not as promised the demo says what, and fails."""
    python = tmp_path / "python3"
    python.symlink_to(sys.executable)
    code = f"import sys, runpy; sys.executable = {str(python)!r}; runpy.run_path({str(DEMO)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, timeout=PROMISED, check=False
    )
    assert done.returncode == 1
    assert "NOT AS PROMISED: there is no " in done.stdout
