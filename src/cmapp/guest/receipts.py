"""The runs' files: what a server that is started anew must know of a run, and at its end the record of its outcome.

A run has one file of lines (core/ledger.py): in `runs` while anything of it lives, then in `receipts` until it may
be forgotten. What cannot be written now waits in memory, in its order, and is tried again.

The invariant: of each run's file at most one piece of work is on the disk's thread, and a line leaves memory only
when it is in the file.
"""

from __future__ import annotations

import errno
import logging
import os
from functools import partial
from typing import TYPE_CHECKING

from cmapp.core import checks
from cmapp.guest.runfile import FILE_LIMIT, FOLDERS, NEW, RECEIPTS, TORN, RunFile, attempt

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

    from cmapp.guest.disk import Disk

    Done = Callable[[OSError | None], None]
    _Read = tuple[RunFile, list[dict[str, Any]]]

log = logging.getLogger(__name__)

RETRY = 5.0  # seconds
WAITING_LIMIT = 1000  # lines of a run that wait, but for those that must be written
USED_LIMIT = FILE_LIMIT // 4  # bytes of lines in a file, but for those


class _Run:
    """What is still to be done to a run's file; the file itself is the disk's thread's while that is `busy`."""

    __slots__ = ("busy", "file", "forget", "lines", "settle", "taken")

    def __init__(self, file: RunFile) -> None:
        self.file = file
        self.lines: list[tuple[bytes, bool]] = []  # not written yet, and whether each must outlive a loss of power
        self.taken = 0  # how many of them are being written
        self.settle = False
        self.forget = False
        self.busy = False


class Receipts:
    """The files of all runs in `folder`, the state folder; all methods are called on the disk's loop."""

    def __init__(self, disk: Disk, folder: str) -> None:
        self.unusable: set[str] = set()
        self.spared: set[str] = set()
        self._disk = disk
        self._folder = folder
        self._runs: dict[str, _Run] = {}
        self._failing: set[str] = set()
        self._causes: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def behind(self) -> int:
        """Of how many runs the file could not be brought up to date so far."""
        return len(self._failing)

    def load(self) -> list[tuple[str, list[dict[str, Any]]]]:
        """Return the run id and entries of every file that can be used, by run id; at the server's start only.

        What cannot be read, is damaged, or is of a newer version is told in the log; of which runs nothing is known
        for that is in `unusable`; those `spared` have a file that was left alone.
        """
        found: dict[str, _Read] = {}
        for folder in FOLDERS:
            names, torn = _names(os.path.join(self._folder, folder))
            self.unusable |= torn
            for run_id in names:
                file = RunFile(self._folder, run_id, ended=folder == RECEIPTS)
                entries = file.read()
                if entries is None:
                    self.unusable.add(run_id)
                    if os.path.lexists(file.path):
                        self.leave_alone(run_id)
                else:
                    found[run_id] = _better(found.get(run_id), (file, entries))
        self.unusable -= found.keys()
        self._runs = {run_id: _Run(file) for run_id, (file, _) in sorted(found.items())}
        return [(run_id, found[run_id][1]) for run_id in self._runs]

    def leave_alone(self, run_id: str) -> None:
        """Take note that the file of a run cannot be used, though it was not put aside."""
        self.unusable.add(run_id)
        self.spared.add(run_id)

    def is_settled(self, run_id: str) -> bool:
        """Tell whether the run's file is among the receipts, so that nothing but its receipt was left."""
        run = self._runs.get(run_id)
        return run is not None and run.file.ended

    def begin(self, run_id: str, content: bytes, done: Done) -> None:
        """Make the file of a new run, with room for its outcome; if that fails, it is not tried again."""
        before = self._runs.get(run_id)
        if before is not None and not before.forget:
            self._disk.loop.call_soon(done, FileExistsError(errno.EEXIST, "the run has a file already"))
            return
        run = self._runs[run_id] = _Run(RunFile(self._folder, run_id))
        self._failing.discard(run_id)
        run.busy = True
        work = partial(run.file.create, content, replace=before is not None)
        # Not before the removal of the file that it replaces.
        if not self._disk.do(work, partial(self._created, run, done), first=before is None):
            self._disk.loop.call_soon(self._created, run, done, OSError(errno.ESHUTDOWN, "the server is leaving"))

    def add(self, run_id: str, line: bytes, *, sync: bool = False) -> None:
        """Write the next line; if `sync`, have it outlive a loss of power and let it use the room up.

        Other lines are bounded: of more than can wait, or than a file may hold, the oldest or the new one is lost.
        """
        run = self._runs.get(run_id)
        if run is None or run.forget:
            return
        if not sync and run.file.used > USED_LIMIT:
            self._complain(f"that of run {run_id} has {run.file.used} bytes, which is too much")
            return
        if len(run.lines) - run.taken >= WAITING_LIMIT:
            self._complain(f"more than {WAITING_LIMIT} lines wait for it, and the oldest are given up")
            for number in range(run.taken, len(run.lines)):
                if not run.lines[number][1]:
                    del run.lines[number]
                    break
        run.lines.append((line, sync))
        self._go(run)

    def size(self, run_id: str) -> int:
        """Return how many bytes of lines the file of a run has."""
        run = self._runs.get(run_id)
        return 0 if run is None else run.file.used

    def rewrite(self, run_id: str, content: bytes) -> bool:
        """Put `content` in the place of all lines of a run, to make its file shorter, if there is room for both.

        Nothing is done, and False returned, while lines wait: it is for whoever sees the file grow to ask again.
        """
        run = self._runs.get(run_id)
        if run is None or run.busy or run.forget or run.lines:
            return False
        run.busy = self._disk.do(partial(run.file.rewrite, content), partial(self._rewritten, run))
        return run.busy

    def end(self, run_id: str, line: bytes = b"") -> None:
        """Move the file to the receipts, after writing the run's last line if it was not added before."""
        run = self._runs.get(run_id)
        if run is not None and not run.forget:
            run.settle = True
            if line:
                run.lines.append((line, True))
            self._go(run)

    def forget(self, run_id: str) -> None:
        """Remove the file, wherever it is."""
        run = self._runs.get(run_id)
        if run is not None:
            run.forget = True
            self._go(run)

    def retry(self) -> None:
        """Try at once to write what could not be written."""
        for run_id in list(self._failing):
            self._go(self._runs[run_id])

    def _go(self, run: _Run) -> None:
        if run.busy:
            return
        work: Callable[[], int | None]
        done: Callable[[_Run, int], None]
        if run.forget:
            work, done = run.file.remove, self._removed
        elif run.lines:
            run.taken = len(run.lines)
            work, done = partial(run.file.write, tuple(run.lines)), self._written
        elif run.settle:
            work, done = run.file.settle, self._settled
        else:
            return
        run.busy = self._disk.do(work, partial(self._done, run, done))

    def _created(self, run: _Run, done: Done, error: OSError | None) -> None:
        run.busy = False
        if error is not None and self._runs.get(run.file.run_id) is run:
            del self._runs[run.file.run_id]
        done(error)
        if error is None:
            self._go(run)

    def _done(self, run: _Run, done: Callable[[_Run, int], None], result: int | OSError | None) -> None:
        run.busy = False
        taken, run.taken = run.taken, 0
        run_id = run.file.run_id
        if self._runs.get(run_id) is not run:
            return  # it was begun anew, which replaced what there was
        if isinstance(result, OSError):
            self._failed(run_id, result)
            return
        del run.lines[:taken]
        done(run, result or 0)
        self._go(run)
        if run_id in self._failing:
            self._failing.remove(run_id)
            if not self._failing:
                self._causes.clear()
                log.warning("the files of runs in %s can be written again", self._folder)

    def _written(self, run: _Run, given_up: int) -> None:
        if given_up:
            log.error("%d lines about run %s were given up for its outcome: no room", given_up, run.file.run_id)

    def _rewritten(self, run: _Run, error: OSError | None) -> None:
        run.busy = False
        if error is not None:
            log.info("the file of run %s stays as long as it is: %s", run.file.run_id, error.strerror)
        if self._runs.get(run.file.run_id) is run:
            self._go(run)

    def _settled(self, run: _Run, _: int) -> None:
        run.settle = False

    def _removed(self, run: _Run, _: int) -> None:
        run.forget = False
        del self._runs[run.file.run_id]

    def _failed(self, run_id: str, error: OSError) -> None:
        self._failing.add(run_id)
        self._complain(f"{error.strerror or error}: it is kept in memory and tried again every {RETRY:.0f} s")
        if self._timer is None:
            self._timer = self._disk.loop.call_later(RETRY, self._try_again)

    def _complain(self, cause: str) -> None:
        if cause not in self._causes:
            self._causes.add(cause)
            log.error("a run's file in %s cannot be written: %s", self._folder, cause)

    def _try_again(self) -> None:
        self._timer = None
        self.retry()


# ---- at the start --------------------------------------------------------------------------------------------


def _names(folder: str) -> tuple[list[str], set[str]]:
    """Return the run ids of the files in a folder, and of those put aside; what was never finished is removed."""
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        names = sorted(os.listdir(folder))
    except OSError as error:
        log.error("%s cannot be used: %s", folder, error.strerror)
        return [], set()
    found, aside = [], set()
    for name in names:
        if name.endswith(NEW):
            attempt(os.unlink, os.path.join(folder, name))
            continue
        try:
            run_id = checks.uuid(name.removesuffix(TORN))
        except ValueError:
            continue  # it is not ours
        if name.endswith(TORN):
            aside.add(run_id)
        else:
            found.append(run_id)
    return found, aside


def _better(one: _Read | None, other: _Read) -> _Read:
    """Return the one of two files of a run that holds more, and remove the other."""
    if one is None:
        return other
    better, worse = (one, other) if one[0].used > other[0].used else (other, one)
    log.warning("run %s has two files: the one that holds more is used", better[0].run_id)
    attempt(os.unlink, worse[0].path)
    return better
