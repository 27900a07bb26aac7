"""What cmappmgr leaves for later readers: the package log and the result, also where there is no room for them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.bed import Bed

MONTHS = "Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec"
LINE = re.compile(
    rf"(?:{MONTHS}) (?: [1-9]|[12]\d|3[01]) [0-2]\d:[0-5]\d:[0-5]\d - "
    r'Node "(?P<node>[^"]+)": cmappmgr\[(?P<pid>\d+)\] (?P<name>\S+) on (?P<guest>\S+): (?P<text>.+)'
)
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_line_format(bed: Bed) -> None:
    """Every line of the package log is a line of a package log."""
    manager = bed.run("/bin/sh", "-c", "echo hello; exit 3", options=["--verbose", "--output", "log"])
    lines = [LINE.fullmatch(line) for line in manager.log.splitlines()]
    assert len(lines) >= 4
    for line in lines:
        assert line is not None
        assert line["node"] == socket.gethostname()
        assert int(line["pid"]) == manager.process.pid
        assert (line["name"], line["guest"]) == (manager.name, "127.0.0.1")


def test_first_and_last_line(bed: Bed) -> None:
    """The first line says what is watched and the bound, the last what ended, how, when, and the exit code."""
    options = ["--poll-interval", "1500ms", "--poll-timeout", "2m"]
    manager = bed.run("/bin/sh", "-c", "sleep 0.1; exit 3", options=options)
    first = manager.log.splitlines()[0]
    assert "watching /bin/sh -c sleep 0.1; exit 3 at 127.0.0.1:" in first
    assert "a hung guest within 2 min 2 s (polled every 1.5 s, 2 min 0 s to answer)" in first
    last = re.search(
        r"ERROR: exited with code 3 after (\d+) ms; exit code 3 is the application's own$", manager.last_line
    )
    assert last is not None
    assert 100 <= int(last[1]) < 5000


def test_success_is_no_error(bed: Bed) -> None:
    """An application that ends by itself with 0 leaves no ERROR in the log."""
    assert "ERROR" not in bed.run("/bin/true").log


def test_polls_are_told_when_asked_for(bed: Bed) -> None:
    """With --verbose each report is told: state, pid, uptime, processor time, memory and processes of the tree."""
    options = ["--verbose", "--poll-interval", "50ms"]
    manager = bed.start("/bin/sh", "-c", "sleep 1000 & while :; do :; done", options=options)
    pid = manager.until_launched()
    manager.until_log(
        rf"running, pid {pid}, up [\d.]+ m?s, (?!0\.0)\d\.\d\d s of processor time, \d{{3,}} KiB in 2 processes"
    )
    os.kill(pid, signal.SIGKILL)
    assert manager.wait() == 137


def test_log_is_appended_to(bed: Bed, tmp_path: Path) -> None:
    """Managers that share a package log each write whole lines, and none overwrites another's."""
    log = tmp_path / "shared.log"
    log.write_text("before\n")
    options = ["--log-file", str(log), "--output", "log"]
    managers = bed.run_all([("/bin/sh", "-c", "seq 1 200")] * 8, options=options)
    before, *lines = log.read_text().splitlines()
    assert before == "before"
    found = [LINE.fullmatch(line) for line in lines]
    assert all(found)
    for manager in managers:
        assert manager.wait() == 0
        texts = [line["text"] for line in found if line and int(line["pid"]) == manager.process.pid]
        assert [text for text in texts if "stdout" in text] == [f"stdout: {number}" for number in range(1, 201)]


RESULTS: dict[str, tuple[list[str], list[str], dict[str, Any]]] = {
    "exited": (["/bin/sh", "-c", "exit 3"], [], {"exit_code": 3, "code": 3, "reason": "itself", "forced": False}),
    "signaled": (["/bin/sh", "-c", "kill -9 $$"], [], {"exit_code": 137, "signal": 9, "core_dumped": False}),
    "not-started": (["/nowhere"], [], {"exit_code": 127}),
    "unreachable": (["/bin/true"], ["--address", "127.0.0.1:9", "--connect-timeout", "1ms"], {"exit_code": 123}),
    "refused": (["/bin/true"], ["--keys", "{guest}"], {"exit_code": 122, "refusal": "trust"}),
}


@pytest.mark.parametrize("cause", RESULTS)
def test_result(bed: Bed, cause: str) -> None:
    """The result names cause, code or signal, run id and times, whatever the cause."""
    argv, options, expected = RESULTS[cause]
    begin = time.time()
    manager = bed.run(*argv, options=[word.format(guest=bed.keys.guest) for word in options])
    result = manager.result
    assert result["cause"] == cause
    assert {key: result[key] for key in expected} == expected
    assert result["exit_code"] == manager.wait()
    assert (result["name"], result["guest"]) == (manager.name, "127.0.0.1")
    assert UUID.fullmatch(result["run_id"])
    assert result["run_id"] in manager.log
    assert result["text"] in manager.last_line
    times = [result[key] for key in ("begun", "started", "ended", "concluded") if key in result]
    assert begin - 1 < times[0] <= times[-1] < time.time() + 1
    if cause in {"exited", "signaled"}:
        assert times == sorted(times)
        assert result["lasted"] == pytest.approx(result["ended"] - result["started"], abs=0.01)


def test_result_is_never_an_old_one(bed: Bed, tmp_path: Path) -> None:
    """The result of an earlier run is gone as soon as the next has begun, and a manager that is killed leaves none."""
    path = tmp_path / "result.json"
    options = ["--result", str(path)]
    bed.run("/bin/sh", "-c", "exit 3", options=options)
    assert json.loads(path.read_text())["code"] == 3
    manager = bed.start("/bin/sleep", "1000", options=options)
    manager.until_launched()
    assert not path.exists()
    manager.process.kill()
    manager.wait()
    assert list(tmp_path.glob("result.json*")) == []


# ---- no room --------------------------------------------------------------------------------------------------


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a file system of its own without a free byte."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=8", "none", folder], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        subprocess.run(["dd", "if=/dev/zero", f"of={folder}/ballast"], check=False, capture_output=True)
        assert os.statvfs(folder).f_bavail == 0
        yield folder
    finally:
        # What still has a file open there, because the test failed, must not leave the mount behind.
        subprocess.run(["umount", "--lazy", folder], check=True)


def test_full_disk(full_disk: Path, bed: Bed) -> None:
    """Where there is no room for log and result, the exit code is right all the same, and standard error tells."""
    options = ["--log-file", str(full_disk / "log"), "--result", str(full_disk / "result"), "--output", "log"]
    manager = bed.run("/bin/sh", "-c", "seq 1 1000; exit 9", options=options)
    assert manager.wait() == 9
    assert f"the package log cannot be written to {full_disk}/log: No space left on device" in manager.stderr
    assert sorted(path.name for path in full_disk.iterdir()) == ["ballast", "log"]


def test_disk_that_has_room_again(full_disk: Path, bed: Bed) -> None:
    """When there is room again, the log goes on, and the result is written."""
    log = full_disk / "log"
    options = ["--log-file", str(log), "--result", str(full_disk / "result")]
    manager = bed.start("/bin/sh", "-c", "trap 'exit 9' TERM; echo; while :; do sleep 0.05; done", options=options)
    until(lambda: "No space left" in manager.stderr, "a word of the full disk")
    pid = bed.server.pid_of(manager.name)
    (full_disk / "ballast").unlink()
    os.kill(pid, signal.SIGKILL)
    assert manager.wait() == 137
    assert "was killed by signal 9" in log.read_text()
    assert json.loads((full_disk / "result").read_text())["signal"] == 9


def test_log_device_that_is_full(bed: Bed) -> None:
    """A package log that never takes a byte costs no exit code and holds nothing up."""
    begin = time.monotonic()
    manager = bed.run("/bin/sh", "-c", "exit 9", options=["--log-file", "/dev/full"])
    assert manager.wait() == 9
    assert time.monotonic() - begin < 10
    assert manager.stderr.count("cannot be written to /dev/full") == 1


def test_log_pipe_that_nobody_reads(bed: Bed, tmp_path: Path) -> None:
    """A package log that is a named pipe without a reader is told of, and nothing waits for it."""
    os.mkfifo(tmp_path / "pipe")
    manager = bed.run("/bin/sh", "-c", "exit 9", options=["--log-file", str(tmp_path / "pipe")])
    assert manager.wait(10) == 125
    assert "the package log" in manager.stderr
