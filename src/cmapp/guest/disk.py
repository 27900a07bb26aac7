"""The server's file work: done in order by one thread, so that a disk that is slow holds up nobody but itself.

The loop hands over what is to be done and is told later what became of it, always on the loop. A launch waits for
its file, so such work goes before all that waits: after a thousand ends at once nobody waits for a thousand syncs.
The invariant: what one piece of work began is over before the next begins, and the loop waits for none of them. A
disk may hang for good: the thread is a daemon, and even at the end it is waited for only so long.
"""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from cmapp.errors import place_of

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Any

log = logging.getLogger(__name__)

QUEUE_LIMIT = 8 * 1024 * 1024  # bytes that may wait, of the work that gives its size
PATIENCE = 5.0  # seconds that a piece of work may take before it is complained of

T = TypeVar("T")
if TYPE_CHECKING:
    _Piece = tuple[Callable[[], Any], Callable[[Any], object] | None, int]


class Disk:
    """The thread that does file work, and the way back to the loop; it starts with the first piece of work."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell what became of work on `loop`; everything but the work itself belongs to the loop's thread."""
        self.loop = loop
        self._changed = threading.Condition()
        self._queues: tuple[deque[_Piece], deque[_Piece]] = (deque(), deque())  # the first one goes first
        self._over: deque[tuple[Callable[[Any], object] | None, Any, int]] = deque()
        self._count = 0  # pieces whose end was not told yet
        self._bytes = 0
        self._since: float | None = None  # when the piece at hand was begun
        self._thread: threading.Thread | None = None
        self._called = False
        self._closed = False
        self._watch: asyncio.TimerHandle | None = None
        self._complained = False

    def do(
        self,
        work: Callable[[], T],
        done: Callable[[T | OSError], object] | None = None,
        *,
        size: int = 0,
        first: bool = False,
    ) -> bool:
        """Do `work` in its turn and call `done` on the loop with what it returned, or the OSError that it raised.

        Work that gives its `size` in bytes is refused, by returning False, when too much of such work waits; all
        work is once the disk is closed. What is to be done `first` goes before all that is not.
        """
        if self._closed or (size and self._bytes + size > QUEUE_LIMIT):
            return False
        self._count += 1
        self._bytes += size
        with self._changed:
            self._queues[not first].append((work, done, size))
            self._changed.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="disk", daemon=True)
            self._thread.start()
        if self._watch is None:
            self._watch = self.loop.call_later(PATIENCE, self._look)
        return True

    @property
    def waiting(self) -> float:
        """How many seconds the piece of work at hand has taken so far; 0 if there is none."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def flush(self, timeout: float) -> bool:
        """Wait until all work is done and told, also what it gave rise to; return whether it was in `timeout` seconds.

        This is the one call that holds the loop: for a server that is about to leave.
        """
        deadline = time.monotonic() + timeout
        while self._count:
            with self._changed:
                if not self._changed.wait_for(lambda: self._over, deadline - time.monotonic()):
                    return False
            self._tell()
        return True

    def close(self) -> None:
        """Take no more work; what was taken is still done, if the process lives on for it."""
        self._closed = True
        with self._changed:
            self._changed.notify_all()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None

    def _tell(self) -> None:
        """Tell what is over; on the loop."""
        with self._changed:
            self._called = False
        try:
            for _ in range(len(self._over)):
                done, result, size = self._over.popleft()
                self._count -= 1
                self._bytes -= size
                if done is not None:
                    done(result)
        finally:
            if self._over:
                self.loop.call_soon(self._tell)

    def _look(self) -> None:
        """Complain of work that takes too long, and say when it is over; on the loop."""
        self._watch = None
        late = self.waiting
        if late >= PATIENCE and not self._complained:
            self._complained = True
            log.error("the disk has not answered for %.0f s: what is to be written waits in memory until it does", late)
        elif late < PATIENCE and self._complained:
            self._complained = False
            log.warning("the disk answers again")
        if self._count and not self._closed:
            self._watch = self.loop.call_later(PATIENCE, self._look)

    # ---- the thread's side ---------------------------------------------------------------------------------

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
        while True:
            with self._changed:
                while not any(self._queues):
                    if self._closed:
                        return
                    self._changed.wait()
                work, done, size = (self._queues[0] or self._queues[1]).popleft()
            self._since = time.monotonic()
            result = _result(work)
            self._since = None
            with self._changed:
                self._over.append((done, result, size))
                call, self._called = not self._called, True
                self._changed.notify_all()
            if call:
                self._call_loop()

    def _call_loop(self) -> None:
        try:
            self.loop.call_soon_threadsafe(self._tell)
        except RuntimeError:
            pass  # the loop is closed: nobody wants to know any more


def _result(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except OSError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a defect of ours must not end the thread that all files depend on
        log.error("internal error in file work at %s: %r", place_of(error), error)
        return OSError(f"internal error: {error!r}")
