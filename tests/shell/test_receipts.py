"""The files of runs: from the launch to the receipt, for one server and the next."""

from __future__ import annotations

import errno
import stat
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from cmapp.core.ledger import encode_line
from cmapp.guest import receipts as module
from cmapp.guest.runfile import ROOM
from tests.shell.files_bed import (
    ACKNOWLEDGED,
    BEGUN,
    ENDED,
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

    import pytest


def test_life_of_a_file(keep: Callable[..., Server], tmp_path: Path) -> None:
    """A file is in `runs` with room behind its lines, moves to `receipts` at the end, and goes when it is forgotten."""
    server = keep()
    assert server.loaded == []
    assert server.begin() is None
    path = tmp_path / "runs" / RUN
    assert path.read_bytes() == BEGUN + b" " * ROOM
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    server.receipts.add(RUN, encode_line(READY))
    assert server.disk.flush(LIMIT)
    assert entries(path) == WHOLE[:3]
    assert path.read_bytes().endswith(b"\n" + b" " * ROOM)
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    assert names(tmp_path / "runs") == []
    path = tmp_path / "receipts" / RUN
    assert entries(path) == WHOLE
    server.receipts.add(RUN, encode_line(ACKNOWLEDGED))
    assert server.disk.flush(LIMIT)
    assert entries(path) == [*WHOLE, ACKNOWLEDGED]
    server.receipts.forget(RUN)
    assert server.disk.flush(LIMIT)
    assert names(tmp_path / "receipts") == []
    for late in (server.receipts.add, server.receipts.end):
        late(RUN, encode_line(READY))
    server.receipts.forget(RUN)
    assert server.disk.flush(LIMIT)
    assert names(tmp_path / "runs") == names(tmp_path / "receipts") == []


def test_next_server_goes_on(keep: Callable[..., Server], tmp_path: Path) -> None:
    """The next server is given what there is and goes on behind it, in whichever folder that is."""
    first = keep()
    other = RUN.replace("0", "f")
    assert first.begin() is first.begin(other) is None
    first.finish(other)
    first.close()
    second = keep()
    assert second.found == {RUN: WHOLE[:2], other: WHOLE}
    second.receipts.add(other, encode_line(ACKNOWLEDGED))
    second.finish()
    second.close()
    third = keep()
    assert third.found == {RUN: WHOLE, other: [*WHOLE, ACKNOWLEDGED]}
    third.receipts.forget(RUN)
    third.receipts.forget(other)
    assert third.disk.flush(LIMIT)
    assert names(tmp_path / "receipts") == []


def test_calls_in_a_row(keep: Callable[..., Server], tmp_path: Path) -> None:
    """What is given while the disk is still at what came before is written in its order."""
    server = keep()
    server.receipts.begin(RUN, BEGUN, lambda _: None)
    for number in range(50):
        server.receipts.add(RUN, encode_line({"n": number}), sync=number % 7 == 0)
    server.receipts.end(RUN, encode_line(ENDED))
    server.receipts.add(RUN, encode_line(ACKNOWLEDGED))
    assert server.disk.flush(LIMIT)
    written = [*WHOLE[:2], *({"n": number} for number in range(50)), ENDED, ACKNOWLEDGED]
    assert entries(tmp_path / "receipts" / RUN) == written


def test_same_run_again(keep: Callable[..., Server], tmp_path: Path) -> None:
    """A run that has a file gets no other; once it is to be forgotten it may, even before that is done."""
    server = keep()
    assert server.begin() is None
    again = server.begin()
    assert again is not None
    assert again.errno == errno.EEXIST
    server.finish()
    server.receipts.forget(RUN)
    assert server.begin(content=BEGUN + encode_line({"second": True})) is None
    assert server.disk.flush(LIMIT)
    assert entries(tmp_path / "runs" / RUN) == [*WHOLE[:2], {"second": True}]
    assert names(tmp_path / "receipts") == []


def test_file_that_grows(keep: Callable[..., Server], tmp_path: Path) -> None:
    """A file can be made shorter while lines come, which are written behind; on a full disk it stays as it is."""
    server = keep()
    assert server.begin() is None
    assert not server.receipts.rewrite("unknown", BEGUN)
    server.receipts.add(RUN, encode_line(READY))
    assert not server.receipts.rewrite(RUN, BEGUN), "a line is being written"
    for number in range(100):
        server.receipts.add(RUN, encode_line({"noise": number}))
    assert server.disk.flush(LIMIT)
    assert server.receipts.size(RUN) > 1000
    assert server.receipts.rewrite(RUN, BEGUN + encode_line(READY))
    server.receipts.add(RUN, encode_line({"noise": 100}))
    assert server.disk.flush(LIMIT)
    assert entries(tmp_path / "runs" / RUN) == [*WHOLE[:3], {"noise": 100}]
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    assert server.receipts.rewrite(RUN, b"".join(map(encode_line, WHOLE)))
    assert server.disk.flush(LIMIT)
    server.close()
    assert keep().found == {RUN: WHOLE}


def test_file_that_is_too_large(
    keep: Callable[..., Server],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A file does not grow for ever, whatever is added; the outcome is written all the same."""
    monkeypatch.setattr(module, "USED_LIMIT", 1000)
    server = keep()
    assert server.begin() is None
    for number in range(200):
        server.receipts.add(RUN, encode_line({"noise": number}))
        assert server.disk.flush(LIMIT)
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    assert (tmp_path / "receipts" / RUN).stat().st_size < 2000 + ROOM
    assert entries(tmp_path / "receipts" / RUN)[-1] == ENDED
    assert len(errors(caplog)) == 1


def test_thousands(keep: Callable[..., Server], tmp_path: Path) -> None:
    """Thousands of receipts are kept and found again, and giving them to the disk does not hold the loop."""
    server = keep()
    runs = [f"{number:08x}{RUN[8:]}" for number in range(2000)]
    for run_id in runs:
        server.receipts.begin(run_id, BEGUN, lambda _: None)
    assert server.disk.flush(60)
    before = time.monotonic()
    for run_id in runs:
        server.receipts.add(run_id, encode_line(READY))
        server.receipts.end(run_id, encode_line(ENDED))
    assert time.monotonic() - before < 1
    assert server.disk.flush(60)
    assert len(names(tmp_path / "receipts")) == len(runs)
    server.close()
    server = keep()
    assert server.found == dict.fromkeys(runs, WHOLE)
    for run_id in runs:
        server.receipts.forget(run_id)
    assert server.disk.flush(60)
    assert names(tmp_path / "receipts") == []


def test_launch_after_many_ends(keep: Callable[..., Server]) -> None:
    """Who launches when many runs have just ended does not wait until all their receipts are synced."""
    server = keep()
    runs = [f"{number:08x}{RUN[8:]}" for number in range(500)]
    for run_id in runs:
        server.receipts.begin(run_id, BEGUN, lambda _: None)
    assert server.disk.flush(60)
    release = threading.Event()
    server.disk.do(partial(release.wait, LIMIT))
    for run_id in runs:
        server.receipts.end(run_id, encode_line(ENDED))
    late = RUN.replace("0", "f")
    server.receipts.begin(late, BEGUN, lambda _: None)
    release.set()
    assert server.disk.flush(60)
    ends = sorted((server.folder / "receipts" / run_id).stat().st_mtime_ns for run_id in runs)
    assert (server.folder / "runs" / late).stat().st_mtime_ns < ends[len(runs) // 2]


def test_disk_that_hangs(keep: Callable[..., Server], tmp_path: Path) -> None:
    """While the disk hangs, runs can end and be forgotten without waiting for it; it is all made good later."""
    server = keep()
    assert server.begin() is None
    release = threading.Event()
    server.disk.do(partial(release.wait, LIMIT))
    before = time.monotonic()
    server.receipts.add(RUN, encode_line(READY))
    server.receipts.end(RUN, encode_line(ENDED))
    assert time.monotonic() - before < 1
    assert not server.disk.flush(0.05)
    release.set()
    assert server.disk.flush(LIMIT)
    assert entries(tmp_path / "receipts" / RUN) == WHOLE
