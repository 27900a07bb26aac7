"""The files of runs on a disk that is full or read-only, now and then or for good."""

from __future__ import annotations

import errno
import logging
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core.ledger import encode_line
from cmapp.guest import receipts as module
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
from tests.shell.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def small(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a disk of 256 KiB."""
    disk = SmallDisk(tmp_path, 256 * 1024)
    yield disk
    disk.close()


def test_full_disk_refuses_a_launch(keep: Callable[..., Server], small: SmallDisk) -> None:
    """On a full disk no run begins, and nothing is left of the attempt."""
    server = keep(small.path)
    small.fill()
    error = server.begin()
    assert error is not None
    assert error.errno == errno.ENOSPC
    assert names(small.path / "runs") == []
    small.free()
    assert server.begin() is None


def test_full_disk_takes_the_receipt(
    keep: Callable[..., Server], small: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome of a run is written though the disk is full, for its room was kept; other lines may have to wait."""
    server = keep(small.path)
    assert server.begin() is None
    small.fill()
    for number in range(200):  # far more than the room
        server.receipts.add(RUN, encode_line({"noise": number, "text": "x" * 50}))
    assert server.disk.flush(LIMIT)
    assert server.receipts.behind == 1
    waiting = errors(caplog)
    assert len(waiting) == 1
    assert "No space left on device" in waiting[0]
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    assert server.receipts.behind == 0
    said = entries(small.path / "receipts" / RUN)
    assert said[:2] == WHOLE[:2]
    assert said[-1] == ENDED
    assert "given up for its outcome" in errors(caplog)[-1]
    small.free()
    server.receipts.add(RUN, encode_line(ACKNOWLEDGED))
    assert server.disk.flush(LIMIT)
    server.close()
    assert keep(small.path).found[RUN] == [*said, ACKNOWLEDGED]


def test_full_disk_that_gets_room(
    keep: Callable[..., Server],
    small: SmallDisk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What had to wait is written in its order as soon as there is room, by itself, and both are told once."""
    monkeypatch.setattr(module, "RETRY", 0.05)
    caplog.set_level(logging.WARNING)
    server = keep(small.path)
    assert server.begin() is None
    small.fill()
    noise = [{"noise": number, "text": "x" * 50} for number in range(200)]
    for line in map(encode_line, noise):
        server.receipts.add(RUN, line)
    timer = time.monotonic() + 0.3
    server.until(lambda: time.monotonic() > timer)
    assert len(errors(caplog)) == 1
    small.free()
    server.until(lambda: server.receipts.behind == 0)
    assert entries(small.path / "runs" / RUN) == [*WHOLE[:2], *noise]
    assert caplog.records[-1].message.endswith("can be written again")
    assert len(caplog.records) == 2


def test_disk_that_becomes_read_only(
    keep: Callable[..., Server],
    small: SmallDisk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a read-only disk no run begins, outcomes wait in memory, what is forgotten stays; all is made good later."""
    monkeypatch.setattr(module, "RETRY", 0.05)
    server = keep(small.path)
    runs = [f"{number:08x}{RUN[8:]}" for number in range(20)]
    for run_id in runs:
        assert server.begin(run_id) is None
    server.finish(runs[0])
    small.protect()
    error = server.begin()
    assert error is not None
    assert error.errno == errno.EROFS
    for run_id in runs[1:]:
        server.finish(run_id)
    server.receipts.forget(runs[0])
    assert server.disk.flush(LIMIT)
    assert server.receipts.behind == len(runs)
    assert len(errors(caplog)) == 1
    assert "Read-only file system" in errors(caplog)[0]
    small.unprotect()
    server.until(lambda: server.receipts.behind == 0)
    server.close()
    assert keep(small.path).found == dict.fromkeys(runs[1:], WHOLE)


def test_disk_that_is_read_only_from_the_start(
    keep: Callable[..., Server], small: SmallDisk, caplog: pytest.LogCaptureFixture
) -> None:
    """A server on a read-only disk starts, reads what is there, and says what it cannot do."""
    server = keep(small.path)
    assert server.begin() is None
    server.close()
    (small.path / "receipts").rmdir()
    small.protect()
    server = keep(small.path)
    assert server.found == {RUN: WHOLE[:2]}
    assert "receipts cannot be used: Read-only file system" in errors(caplog)[0]
    assert server.begin(RUN.replace("0", "f")) is not None


def test_error_is_told_anew_when_its_cause_changes(
    keep: Callable[..., Server],
    small: SmallDisk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """First full, then read-only: both causes are told, each once."""
    monkeypatch.setattr(module, "RETRY", 0.05)
    server = keep(small.path)
    assert server.begin() is None
    small.fill()
    for number in range(100):
        server.receipts.add(RUN, encode_line({"noise": number, "text": "x" * 50}))
    server.until(lambda: len(errors(caplog)) == 1)
    small.protect()
    server.until(lambda: len(errors(caplog)) == 2)
    timer = time.monotonic() + 0.2
    server.until(lambda: time.monotonic() > timer)
    assert ["No space" in text for text in errors(caplog)] == [True, False]


def test_file_that_cannot_be_made_shorter(keep: Callable[..., Server], small: SmallDisk) -> None:
    """When there is no room for a second file, the first stays, and takes what comes."""
    server = keep(small.path)
    assert server.begin() is None
    small.fill()
    assert server.receipts.rewrite(RUN, BEGUN)
    server.finish()
    assert entries(small.path / "receipts" / RUN) == WHOLE
    assert names(small.path / "runs") == []


def test_too_much_to_wait(
    keep: Callable[..., Server],
    small: SmallDisk,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """When more waits than can, the oldest lines are given up, but none that must be written; it is told."""
    monkeypatch.setattr(module, "WAITING_LIMIT", 10)
    server = keep(small.path)
    assert server.begin() is None
    small.protect()
    server.receipts.add(RUN, encode_line(READY), sync=True)
    for number in range(50):
        server.receipts.add(RUN, encode_line({"noise": number}))
        assert server.disk.flush(LIMIT)
    small.unprotect()
    server.receipts.end(RUN, encode_line(ENDED))
    assert server.disk.flush(LIMIT)
    noise = [{"noise": number} for number in range(41, 50)]
    assert entries(small.path / "receipts" / RUN) == [*WHOLE[:3], *noise, ENDED]
    assert "the oldest are given up" in errors(caplog)[1]
