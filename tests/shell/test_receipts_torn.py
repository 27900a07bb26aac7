"""The files of runs as servers that were killed and disks that lost their power may leave them."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core.ledger import FORMAT, encode_line
from cmapp.guest.runfile import ROOM
from tests.shell.files_bed import (
    ACKNOWLEDGED,
    BEGUN,
    ENDED,
    HEADER,
    LIMIT,
    READY,
    RUN,
    WHOLE,
    Server,
    entries,
    errors,
    names,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_file_that_somebody_removed(
    keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome of a run whose file somebody removed is written all the same."""
    server = keep()
    assert server.begin() is None
    (tmp_path / "runs" / RUN).unlink()
    (tmp_path / "runs").rmdir()
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    assert entries(tmp_path / "receipts" / RUN) == [HEADER, ENDED]
    assert "is not there any more" in errors(caplog)[0]


@pytest.mark.parametrize("damage", ["cut off", "blanked", "zeroed", "garbage"])
def test_torn_file(keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    """Of a file that is torn, at whichever byte, the lines before are used, and what follows is written behind them."""
    lines = [encode_line(entry) for entry in WHOLE]
    content = b"".join(lines)
    path = tmp_path / "receipts" / RUN
    path.parent.mkdir()
    for size in range(len(lines[0]), len(content)):
        rest = {"cut off": b"", "blanked": b" ", "zeroed": b"\0", "garbage": b"\xa5"}[damage]
        path.write_bytes(content[:size] + rest * (len(content) - size + ROOM))
        caplog.clear()
        server = keep()
        count = sum(len(b"".join(lines[: n + 1])) <= size for n in range(len(lines)))
        assert server.found == {RUN: WHOLE[:count]}
        at_line = size == len(b"".join(lines[:count]))
        assert len(errors(caplog)) == (not at_line or damage in ("zeroed", "garbage"))
        server.receipts.add(RUN, encode_line(ACKNOWLEDGED))
        assert server.disk.flush(LIMIT)
        assert entries(path) == [*WHOLE[:count], ACKNOWLEDGED]
        server.close()


@pytest.mark.parametrize("content", [b"", b" " * ROOM, bytes(100), b"garbage\n", BEGUN[5:]])
def test_file_in_which_nothing_is_whole(
    keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    """A file in which nothing is whole is put aside, said to be, and in nobody's way."""
    path = tmp_path / "runs" / RUN
    path.parent.mkdir()
    path.write_bytes(content)
    server = keep()
    assert server.loaded == []
    assert "is damaged" in errors(caplog)[0]
    assert path.with_name(f"{RUN}.torn").read_bytes() == content
    assert server.begin() is None
    server.close()
    caplog.clear()
    assert keep().found == {RUN: WHOLE[:2]}
    assert errors(caplog) == []


@pytest.mark.parametrize("folder", ["runs", "receipts"])
def test_file_of_a_newer_version(
    keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    """A file of a newer version is left as it is, said to be, and its run cannot be begun over it."""
    path = tmp_path / folder / RUN
    path.parent.mkdir()
    content = encode_line({"format": FORMAT + 1}) + b"something new"
    path.write_bytes(content)
    server = keep()
    assert server.loaded == []
    assert "is left alone: it was written by a newer cmappserver" in errors(caplog)[0]
    error = server.begin()
    assert error is not None
    assert error.errno == errno.EEXIST
    server.receipts.end(RUN, encode_line(ENDED))
    server.receipts.forget(RUN)
    assert server.disk.flush(LIMIT)
    assert path.read_bytes() == content


def test_strange_things_in_the_folders(
    keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What is no file of ours is left alone and hangs nobody up; what was never finished is removed."""
    ids = [f"{number:08x}{RUN[8:]}" for number in range(3)]
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / ids[0]).mkdir()
    os.mkfifo(runs / ids[1])
    (runs / ids[2]).symlink_to("/etc/passwd")
    os.mkfifo(runs / f"{RUN}.stdout")
    (runs / "README").write_text("hello")
    (runs / f"{RUN}.new").write_bytes(BEGUN[:-3])
    assert keep().loaded == []
    assert names(runs) == sorted([*ids, f"{RUN}.stdout", "README"])
    assert len(errors(caplog)) == 3


def test_both_folders_hold_it(keep: Callable[..., Server], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a run with a file in both folders, as a disk that lost its power may give back, the fuller one is used."""
    full, short = b"".join(map(encode_line, WHOLE)), BEGUN
    for runs, receipts, stays in ((short, full, "receipts"), (full, short, "runs"), (full, full, "receipts")):
        caplog.clear()
        for folder, content in (("runs", runs), ("receipts", receipts)):
            (tmp_path / folder).mkdir(exist_ok=True)
            (tmp_path / folder / RUN).write_bytes(content + b" " * ROOM)
        server = keep()
        assert server.found == {RUN: WHOLE}
        assert [folder for folder in ("runs", "receipts") if names(tmp_path / folder)] == [stays]
        assert "has two files" in caplog.text
        server.receipts.end(RUN)
        server.receipts.add(RUN, encode_line(ACKNOWLEDGED))
        assert server.disk.flush(LIMIT)
        assert entries(tmp_path / "receipts" / RUN) == [*WHOLE, ACKNOWLEDGED]
        server.close()


def test_killed_between_writing_and_moving(keep: Callable[..., Server], tmp_path: Path) -> None:
    """A file that has its last line, but was not moved any more, is found, and moved by saying so."""
    server = keep()
    assert server.begin() is None
    server.receipts.add(RUN, encode_line(READY))
    server.receipts.add(RUN, encode_line(ENDED), sync=True)
    assert server.disk.flush(LIMIT)
    server.close()
    server = keep()
    assert server.found == {RUN: WHOLE}
    server.receipts.end(RUN)
    assert server.disk.flush(LIMIT)
    assert entries(tmp_path / "receipts" / RUN) == WHOLE


KILLED = """
import asyncio, sys
from functools import partial
from cmapp.core.ledger import FORMAT, encode_line
from cmapp.guest.disk import Disk
from cmapp.guest.receipts import Receipts

loop = asyncio.new_event_loop()
disk = Disk(loop)
receipts = Receipts(disk, sys.argv[1])

def begun(number, run_id, error):
    assert error is None, error
    print("begun", run_id, flush=True)
    receipts.add(run_id, encode_line({"ready": True}))
    receipts.end(run_id, encode_line({"exited": 3}))
    disk.do(lambda: None, lambda _: go(number + 1))

def go(number):
    run_id = f"{number:08x}" + "-89ab-cdef-0123-456789abcdef"
    content = encode_line({"format": FORMAT}) + encode_line({"launch": "web"})
    receipts.begin(run_id, content, partial(begun, number, run_id))

go(0)
loop.run_forever()
"""


def test_killed_at_any_moment(keep: Callable[..., Server], tmp_path: Path) -> None:
    """A server that is killed in the middle leaves each run that began with a whole file: a beginning of its lines."""
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        with subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            begun = [process.stdout.readline().split()[1].decode() for _ in range(10)]
            time.sleep(number * 0.003)
            process.send_signal(signal.SIGKILL)
            begun += [line.split()[1].decode() for line in process.stdout.readlines() if line.endswith(b"\n")]
        found = keep(folder).found
        assert set(begun) <= set(found)
        assert all(said == WHOLE[: len(said)] and len(said) >= 2 for said in found.values())
        assert len([said for said in found.values() if said != WHOLE]) <= 2
        assert not [name for name in names(folder / "runs") if name.endswith((".new", ".torn"))]
