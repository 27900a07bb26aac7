"""One run's file: lines, and behind them room that was written when the file was made.

The room is what lets the outcome be written when the disk is full: an ordinary line takes none of it, but makes the
file longer; an urgent one may use it up. All of this is done on the disk's thread, but for what a starting server
reads. The invariant: `used` grows only after lines were written, so writing that failed begins again at its place.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from cmapp.core.ledger import FORMAT, LedgerError, encode_line, scan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

log = logging.getLogger(__name__)

ROOM = 4096  # bytes kept free behind the lines, for those that must be written whatever happens
FILE_LIMIT = 64 * 1024 * 1024  # bytes of a file that are read
FOLDERS = RUNS, RECEIPTS = "runs", "receipts"
NEW, TORN = ".new", ".torn"  # ends of the names of files that are not finished yet, and that hold nothing whole
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFile:
    """The file of `run_id` under the folder `where`; every method raises OSError, and can then be called again."""

    __slots__ = ("ended", "room_end", "run_id", "used", "where")

    def __init__(self, where: str, run_id: str, *, ended: bool = False) -> None:
        self.where = where
        self.run_id = run_id
        self.ended = ended  # whether it is among the receipts
        self.used = 0  # bytes of lines
        self.room_end = 0  # up to where the file is blank behind them

    @property
    def path(self) -> str:
        """Where the file is."""
        return self._in(RECEIPTS if self.ended else RUNS)

    def create(self, content: bytes, *, replace: bool) -> None:
        """Make the file, whole or not at all; one that is there is an error unless it is to be replaced."""
        if replace:
            self.remove()
        elif any(os.path.lexists(self._in(folder)) for folder in FOLDERS):
            raise FileExistsError(errno.EEXIST, "the run has a file already")
        _make_folder(self.path)
        self._replace(content)

    def rewrite(self, content: bytes) -> None:
        """Put `content` in the place of all lines, in a way that outlives a loss of power, or leave it as it is."""
        self._replace(content, sync=True)

    def write(self, lines: Sequence[tuple[bytes, bool]]) -> int:
        """Write lines, each with whether it is urgent; return how many were given up for those that are."""
        urgent = any(sync for _, sync in lines)
        descriptor = self._reopen() if urgent else _open(self.path)
        try:
            given_up = self._append(descriptor, lines, urgent=urgent)
            if urgent:
                os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self.used += sum(len(line) for line, sync in lines if sync or not given_up)
        self.room_end = max(self.room_end, self.used)
        return given_up

    def settle(self) -> None:
        """Move the file to the receipts, in a way that outlives a loss of power."""
        target = self._in(RECEIPTS)
        if not self.ended:
            _make_folder(target)
            os.rename(self._in(RUNS), target)
            self.ended = True
        _sync_folder(target)

    def remove(self) -> None:
        """Remove the file, wherever it is."""
        for folder in FOLDERS:
            _unlink(self._in(folder))

    def read(self) -> list[dict[str, Any]] | None:
        """Return the entries of the file, or None if it has none that can be used, which is told in the log.

        What is damaged is cut off, and a file in which nothing is whole is put aside.
        """
        try:
            content = _load(self.path)
            (entries, torn), used = scan(content)
        except LedgerError as error:
            log.error("%s is left alone: %s", self.path, error)
            return None
        except OSError as error:
            log.error("%s cannot be read: %s", self.path, error.strerror)
            return None
        self.used, self.room_end = used, len(content)
        if torn or not entries:
            self.room_end = self.used
            if not entries:
                log.error("%s is damaged, nothing of it is whole: how that run ended is not known", self.path)
                attempt(os.rename, self.path, self.path + TORN)
                return None
            log.error("%s is damaged: the first %d lines of it are whole, and used", self.path, len(entries))
            attempt(os.truncate, self.path, self.used)
        return entries

    def _replace(self, content: bytes, *, sync: bool = False) -> None:
        new = self.path + NEW
        try:
            _unlink(new)  # what was never finished
            descriptor = _open(new, os.O_CREAT | os.O_EXCL)
            try:
                _write_at(descriptor, content + b" " * ROOM, 0)
                if sync:
                    os.fdatasync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(new, self.path)
        except OSError:
            _unlink(new)
            raise
        self.used = len(content)
        self.room_end = self.used + ROOM

    def _append(self, descriptor: int, lines: Sequence[tuple[bytes, bool]], *, urgent: bool) -> int:
        given_up = 0
        data = b"".join(line for line, _ in lines)
        try:
            self._reserve(descriptor, self.used + len(data) + ROOM)
        except OSError as error:
            if not urgent or error.errno not in _NO_ROOM:
                raise
            if self.used + len(data) > self.room_end:
                data = b"".join(line for line, sync in lines if sync)
                given_up = sum(not sync for _, sync in lines)
        _write_at(descriptor, data, self.used)
        return given_up

    def _reserve(self, descriptor: int, end: int) -> None:
        if end > self.room_end:
            _write_at(descriptor, b" " * (end - self.room_end), self.room_end)
            self.room_end = end

    def _reopen(self) -> int:
        """Open the file for what must be written; if somebody removed it, begin it anew."""
        try:
            return _open(self.path)
        except FileNotFoundError:
            log.error("%s is not there any more: it is made anew with what is still to be written", self.path)
        _make_folder(self.path)
        descriptor = _open(self.path, os.O_CREAT | os.O_EXCL)
        header = encode_line({"format": FORMAT})
        try:
            _write_at(descriptor, header, 0)
        except OSError:
            os.close(descriptor)
            _unlink(self.path)
            raise
        self.used = self.room_end = len(header)
        return descriptor

    def _in(self, folder: str) -> str:
        return os.path.join(self.where, folder, self.run_id)


def attempt(call: Callable[..., None], *values: str | int) -> None:
    """Call what puts files in order; if it cannot be done, that is told in the log and the server goes on."""
    try:
        call(*values)
    except OSError as error:
        log.error("%s cannot be put in order: %s", values[0], error.strerror)


def who_else(status: os.stat_result) -> str:
    """Return whose it is but ours or root's, or that it has names elsewhere; "" for what is ours alone."""
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {status.st_uid}"
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return f"has {status.st_nlink - 1} other names (hard links)"
    return ""


def _make_folder(path: str) -> None:
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # as wanted


def _open(path: str, flags: int = 0) -> int:
    return os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)


def _load(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        if other := who_else(status):
            raise OSError(errno.EPERM, f"it {other}, and is left alone")
        return os.read(descriptor, min(status.st_size, FILE_LIMIT))
    finally:
        os.close(descriptor)


def _write_at(descriptor: int, data: bytes, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)


def _sync_folder(path: str) -> None:
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
