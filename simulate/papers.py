"""The files of runs, as the server writes them: what cannot be written now is kept in memory and tried again.

The invariant: the lines of a file are written in the order in which they were asked for, each once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmapp.core.charge import Facts
from cmapp.core.ledger import LedgerError, decode, encode_line, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from actor import Actor
    from disk import Disk

    Work = tuple[Callable[[], None], dict[str, Any] | None]  # and the entry that is safe when it is done

RETRY = 5.0  # seconds
MOMENT = 0.001  # seconds from the disk's thread to the server's loop
SETTLED = "settled"  # stands for the folder that the file is moved to: a line of our own that only we read


class Papers:
    """The files of one life of the server."""

    def __init__(self, server: Actor, disk: Disk, safe: Callable[[str, dict[str, Any]], None]) -> None:
        """`safe` is told of each entry that was synced, with its run id."""
        self._server = server
        self._disk = disk
        self._safe = safe
        self._queues: dict[str, list[Work]] = {}
        self._never: set[str] = set()  # files that could not be begun

    def load(self) -> list[Facts]:
        """Return what the files say, as far as they can be read."""
        facts = []
        for name, file in self._disk.files.items():
            file.content = file.content[: whole(file.content)]  # where the next line belongs
            file.safe = min(file.safe, len(file.content))
            try:
                entries = decode(file.content).entries
                if entries:
                    facts.append(Facts(entries, settled=any(SETTLED in entry for entry in entries)))
            except (LedgerError, ValueError):
                self._never.add(name)  # it is left alone
        return facts

    def begin(self, run_id: str, entries: Iterable[dict[str, Any]], done: Callable[[OSError | None], None]) -> None:
        """Make the file of a run, and say whether that was possible."""
        content = b"".join(map(encode_line, entries))
        self._never.discard(run_id)
        # What was still to be done to a file of that name before is done with.
        queue: list[Work] = [(lambda: self._disk.begin(run_id, content), None)]
        self._queues[run_id] = queue

        def begun(error: OSError | None) -> None:
            if error is not None:
                self._never.add(run_id)
                del self._queues[run_id]
            done(error)
            if error is None:
                self._next(run_id, queue)

        self._disk.do(queue[0][0], lambda error: self._server.soon(MOMENT, begun, error))

    def add(self, run_id: str, entry: dict[str, Any], *, sync: bool) -> None:
        """Add an entry."""
        line = encode_line(entry)
        self._ask(run_id, lambda: self._disk.add(run_id, line, sync=sync), entry if sync else None)

    def settle(self, run_id: str) -> None:
        """Move the file to where only receipts are."""
        self.add(run_id, {SETTLED: True}, sync=True)

    def forget(self, run_id: str) -> None:
        """Remove the file."""
        self._ask(run_id, lambda: self._disk.remove(run_id), None)

    @property
    def waiting(self) -> bool:
        """Whether there is something that is not written yet."""
        return bool(self._queues)

    def _ask(self, run_id: str, work: Callable[[], None], synced: dict[str, Any] | None) -> None:
        if run_id in self._never or (run_id not in self._queues and run_id not in self._disk.files):
            return
        queue = self._queues.setdefault(run_id, [])
        queue.append((work, synced))
        if len(queue) == 1:
            self._go_on(run_id, queue)

    def _go_on(self, run_id: str, queue: list[Work]) -> None:
        if self._queues.get(run_id) is not queue:
            return
        work, synced = queue[0]

        def done(error: OSError | None) -> None:
            if self._queues.get(run_id) is not queue:
                return
            if error is not None:
                self._server.soon(RETRY, self._go_on, run_id, queue)
                return
            if synced is not None:
                self._safe(run_id, synced)
            self._next(run_id, queue)

        self._disk.do(work, lambda error: self._server.event(done, error))

    def _next(self, run_id: str, queue: list[Work]) -> None:
        del queue[0]
        if queue:
            self._go_on(run_id, queue)
        else:
            del self._queues[run_id]
