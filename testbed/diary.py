"""One diary of all that is written to the same log on every node, with the time at which each line came.

The package logs have whole seconds and a file for each node; what a story measures and tells later needs finer times
and one order. The invariant: a line stands here once, under the node that wrote it, no earlier than it was written
and at most `PAUSE` later, if the machine keeps up.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PAUSE = 0.005  # seconds


class Line(NamedTuple):
    """A line: when it came by time.monotonic(), who wrote it, and what it says."""

    at: float
    who: str
    text: str


class Diary:
    """Follows logs until it is closed. Each may come to be later."""

    def __init__(self, logs: Mapping[str, Path]) -> None:
        """`logs` are files by who writes them."""
        self._logs = logs
        self._read = dict.fromkeys(logs, 0)
        self._lines: list[Line] = []
        self._closed = threading.Event()
        self._follower = threading.Thread(target=self._follow, name="diary", daemon=True)
        self._follower.start()

    @property
    def lines(self) -> list[Line]:
        """All lines so far, oldest first."""
        return list(self._lines)

    def note(self, text: str) -> None:
        """Add a line of the story's own."""
        self._lines.append(Line(time.monotonic(), "", text))

    def since(self, at: float, *words: str, who: str = "") -> list[Line]:
        """Return the lines from then on that have one of these words in them, by one writer or by any."""
        found = [line for line in self._lines if line.at >= at and line.who and who in ("", line.who)]
        return [line for line in found if any(word in line.text for word in words)]

    def written(self) -> str:
        """Return it as text: seconds from its first line, who, what."""
        begun = self._lines[0].at if self._lines else 0.0
        return "".join(f"{line.at - begun:9.3f}  {line.who or '--':4}{line.text}\n" for line in self._lines)

    def close(self) -> None:
        """Read what is there, and follow no more."""
        self._closed.set()
        self._follower.join()

    def _follow(self) -> None:
        while not self._closed.wait(PAUSE):
            self._look()
        self._look()

    def _look(self) -> None:
        for who, path in self._logs.items():
            if not path.exists() or path.stat().st_size <= self._read[who]:
                continue
            with path.open("rb") as file:
                file.seek(self._read[who])
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]  # the rest of a line is still to come
            self._read[who] += len(whole)
            at = time.monotonic()
            self._lines += [Line(at, who, text) for text in whole.decode(errors="replace").splitlines()]
