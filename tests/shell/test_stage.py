"""The stage: what was moved out of a pipe is there for the next server, and where it cannot be moved it is read."""

from __future__ import annotations

import logging
import os
import resource
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core.messages import Stream
from cmapp.guest import stage as module
from cmapp.guest.stage import PART, Stage, Staged

if TYPE_CHECKING:
    from collections.abc import Iterator

RUN = "01234567-89ab-cdef-0123-456789abcdef"


class Pipe:
    """A pipe as an application writes to it; `take` reads from it by way of the stage."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe2(os.O_NONBLOCK)
        self.total = 0

    def take(self, staged: Staged, text: bytes = b"", most: int = 1000) -> bytes:
        """Write, and take what is there."""
        os.write(self.writing, text)
        data = staged.take(self.reading, self.total, most)
        self.total += len(data)
        return data

    def close(self) -> None:
        """Close both ends."""
        os.close(self.reading)
        if self.writing >= 0:
            os.close(self.writing)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Return a pipe."""
    pipe = Pipe()
    yield pipe
    pipe.close()


def new(folder: Path) -> Stage:
    """Return the stage of a new server."""
    return Stage(str(folder), wanted=True)


def of(stage: Stage) -> Staged:
    """Return what is staged of a stream."""
    return stage.staged(RUN, Stream.STDOUT)


def files(stage: Stage) -> list[Path]:
    """Return the files of a state folder's stage."""
    return sorted(Path(stage.folder).glob(f"{stage.prefix}*"))


def test_next_server_finds_it(tmp_path: Path, pipe: Pipe) -> None:
    """What was taken is there for the next server at its offset, until it is released."""
    staged = of(new(tmp_path))
    assert [pipe.take(staged, text) for text in (b"abc", b"de")] == [b"abc", b"de"]
    second = new(tmp_path)
    assert list(second.found) == [(RUN, Stream.STDOUT)]
    found = of(second)
    assert not list(second.found)
    assert list(found.contents()) == [(0, b"abcde")]
    assert second.held == 5
    assert pipe.take(found, b"fg") == b"fg"
    assert list(of(new(tmp_path)).contents()) == [(0, b"abcdefg")]
    assert not found.release()
    assert second.held == 0
    assert not new(tmp_path).found


def test_nobody_else_gets_at_it(tmp_path: Path, pipe: Pipe) -> None:
    """What an application wrote is for the server alone."""
    stage = new(tmp_path)
    staged = of(stage)
    pipe.take(staged, b"secret")
    assert stat.S_IMODE(Path(stage.folder).stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in files(stage)] == [0o600]
    staged.release()


def test_nothing_to_take(tmp_path: Path, pipe: Pipe) -> None:
    """A pipe in which nothing is, or nothing will be, leaves no file."""
    stage = new(tmp_path)
    staged = of(stage)
    with pytest.raises(BlockingIOError):
        pipe.take(staged)
    os.close(pipe.writing)
    pipe.writing = -1
    assert staged.take(pipe.reading, 0, 10) == b""
    assert (files(stage), stage.held, stage.usable) == ([], 0, True)


def test_more_than_is_asked_for(tmp_path: Path, pipe: Pipe) -> None:
    """No more is taken than was asked for; the rest stays in the pipe."""
    staged = of(new(tmp_path))
    assert [pipe.take(staged, text, 4) for text in (b"abcdef", b"g")] == [b"abcd", b"efg"]
    staged.release()


def test_files_go_as_they_are_spooled(tmp_path: Path, pipe: Pipe) -> None:
    """A flood is staged in files that go one by one; a file goes when nothing of it is needed."""
    stage = new(tmp_path)
    staged = of(stage)
    piece = bytes(range(256)) * 128
    while pipe.total < 3 * PART + 10:
        assert pipe.take(staged, piece, len(piece)) == piece
    assert len(files(stage)) == 4
    assert staged.release((PART + 1, PART + 2), (3 * PART, 3 * PART + 1))
    assert [path.name.rpartition(".")[2] for path in files(stage)] == [str(PART), str(3 * PART)]
    assert stage.held == sum(path.stat().st_size for path in files(stage))
    assert staged.release((PART - 1, PART), (3 * PART, 3 * PART)) is False
    assert (files(stage), stage.held) == ([], 0)
    assert pipe.take(staged, b"on") == b"on"
    assert list(staged.contents()) == [(pipe.total - 2, b"on")]
    staged.release()


def test_hole(tmp_path: Path, pipe: Pipe) -> None:
    """What was read in another way meanwhile is a hole, never a shift."""
    stage = new(tmp_path)
    staged = of(stage)
    pipe.take(staged, b"abc")
    pipe.total += 100
    pipe.take(staged, b"def")
    assert list(of(new(tmp_path)).contents()) == [(0, b"abc"), (103, b"def")]
    staged.release()


def test_killed_before_the_first_byte(tmp_path: Path, pipe: Pipe) -> None:
    """An empty file, as a crash may leave it, is in nobody's way."""
    stage = new(tmp_path)
    Path(stage.folder, f"{stage.prefix}{RUN}.stdout.0").touch()
    staged = of(new(tmp_path))
    assert list(staged.contents()) == [(0, b"")]
    assert not staged.release()
    assert pipe.take(staged, b"abc") == b"abc"
    assert list(of(new(tmp_path)).contents()) == [(0, b"abc")]
    staged.release()


def test_two_state_folders(tmp_path: Path, pipe: Pipe) -> None:
    """What belongs to another state folder, be it a copy, is not looked at."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    staged = of(new(folders[0]))
    pipe.take(staged, b"abc")
    assert not new(folders[1]).found
    staged.release()


def test_bound(tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound it is only read, until something is released."""
    monkeypatch.setattr(module, "STAGE_LIMIT", 5)
    stage = new(tmp_path)
    staged = of(stage)
    assert [pipe.take(staged, text) for text in (b"abc", b"def", b"ghi")] == [b"abc", b"def", b"ghi"]
    assert stage.held == 6
    staged.release((5, 6))
    assert pipe.take(staged, b"jkl") == b"jkl"
    staged.release()
    assert pipe.take(staged, b"mno") == b"mno"
    assert list(staged.contents()) == [(12, b"mno")]
    staged.release()


def test_no_room(tmp_path: Path, pipe: Pipe, caplog: pytest.LogCaptureFixture) -> None:
    """Where no file can grow it is only read, which is told once; later it is staged again, which is told too."""
    stage = new(tmp_path)
    staged = of(stage)
    pipe.take(staged, b"abc")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, limits[1]))
    try:
        assert pipe.take(staged, b"defghi") == b"de"
        assert pipe.take(staged) == b"fghi"
        stage._resume = 0.0
        assert pipe.take(staged, b"j" * 10) == b"jjjjj"  # in a new file, behind the hole
        stage._resume = 0.0
        assert pipe.take(staged) == b"jjjjj"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [record.levelname for record in caplog.records].count("WARNING") >= 1
    assert "would be lost if this server crashed" in caplog.text
    assert "File too large" in caplog.text
    assert pipe.take(staged, b"k") == b"k"
    stage._resume = 0.0
    caplog.clear()
    assert pipe.take(staged, b"l") == b"l"
    assert "safe from a crash of this server again" in caplog.text
    assert list(staged.contents()) == [(0, b"abcde"), (9, b"jjjjj"), (20, b"l")]
    staged.release()


@pytest.mark.parametrize("what", ["no tmpfs", "a link", "open to all", "a file", "not there"])
def test_no_folder(
    tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    """Where no folder in memory is ours alone nothing is staged, which is told, and what is written is read."""
    path = Path(new(tmp_path).folder).parent / f"test-{os.getpid()}"
    if what == "no tmpfs":
        path = Path("/proc/cmappserver")
    elif what == "a link":
        path.symlink_to(tmp_path)
    elif what == "open to all":
        path.mkdir(0o755)
    elif what == "a file":
        path.touch(0o600)
    else:
        path = Path("/not/there")
    monkeypatch.setattr(module, "FOLDERS", (str(path),))
    try:
        stage = new(tmp_path)
        staged = of(stage)
        assert pipe.take(staged, b"abc") == b"abc"
        assert (stage.folder, stage.usable, list(staged.contents())) == ("", False, [])
    finally:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            path.rmdir()
    caplog.set_level(logging.WARNING)
    assert f"would be lost if this server crashed: {path}: " in caplog.text


def test_somebody_removed_the_folder(tmp_path: Path, pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose folder goes reads on, and stages in another that it makes."""
    folder = Path(new(tmp_path).folder).parent / f"test-{os.getpid()}"
    monkeypatch.setattr(module, "FOLDERS", (str(folder),))
    stage = new(tmp_path)
    folder.rmdir()
    staged = of(stage)
    assert pipe.take(staged, b"abc") == b"abc"
    assert not stage.usable
    stage._resume = 0.0
    assert pipe.take(staged, b"def") == b"def"
    assert list(staged.contents()) == [(3, b"def")]
    staged.release()
    folder.rmdir()


def test_not_wanted(tmp_path: Path, pipe: Pipe) -> None:
    """Without a spool nothing is staged."""
    stage = Stage(str(tmp_path), wanted=False)
    staged = of(stage)
    assert pipe.take(staged, b"abc") == b"abc"
    assert not list(staged.contents())
