"""Log lines that strangers can cause as many of as they like: the first few of each kind, then how many more.

The invariant: of one kind there are no more than `MOST` lines in `WINDOW` seconds, none is left out without being
counted, and what is remembered is bounded by `KINDS`.
"""

from __future__ import annotations

import logging
import time

log = logging.getLogger(__name__)

MOST = 10  # lines of one kind in a window
WINDOW = 10.0  # seconds
KINDS = 1000  # kinds that are counted apart; those beyond are one


class _Kind:
    __slots__ = ("left_out", "level", "lines", "since")

    def __init__(self, since: float) -> None:
        self.since = since
        self.lines = self.left_out = 0
        self.level = logging.INFO


class Complaints:
    """Lets through what is not too much; `sum_up` is to be called about once a second."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def log(self, kind: str, level: int, text: str, *words: object, most: int = MOST) -> None:
        """Log `text` with its `words`, as logging does, unless there were `most` of that kind already."""
        if not log.isEnabledFor(level):
            return
        now = time.monotonic()
        if kind not in self._kinds and len(self._kinds) >= KINDS:
            kind = "of other kinds"
        counted = self._kinds.setdefault(kind, _Kind(now))
        if now - counted.since >= WINDOW:
            self._tell(kind, counted)
            counted = self._kinds[kind] = _Kind(now)
        if counted.lines < most:
            counted.lines += 1
            log.log(level, text, *words)
        else:
            counted.left_out += 1
            counted.level = max(counted.level, level)

    def sum_up(self, *, at_last: bool = False) -> None:
        """Tell how many lines were left out in the windows that are over, or in all `at_last`, and forget those."""
        now = time.monotonic()
        for kind, counted in list(self._kinds.items()):
            if at_last or now - counted.since >= WINDOW:
                del self._kinds[kind]
                self._tell(kind, counted)

    def _tell(self, kind: str, counted: _Kind) -> None:
        if counted.left_out:
            log.log(counted.level, "%s: and %s more such lines in %g s", kind, f"{counted.left_out:,}", WINDOW)
