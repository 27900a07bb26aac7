"""Which of many inputs are worth keeping: few that together reach most lines that any of them reaches.

A line counts with the one before it, so both ways of a branch do. The invariant: an input that finds something is not
kept, for what is committed finds nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType
    from typing import Any

    Step = tuple[str, int, int]

PACKAGE = "/cmapp/"


def best(target: Callable[[bytes], None], inputs: Iterable[bytes], most: int) -> list[bytes]:
    """Return at most so many of the inputs, each of which reaches more than any other beside those before it."""
    reached = {data: _steps(target, data) for data in sorted(inputs, key=lambda data: (len(data), data))}
    known: set[Step] = set()
    kept: list[bytes] = []
    while len(kept) < most and reached:
        data = max(reached, key=lambda data: len(reached[data] - known))
        if not reached[data] - known:
            break
        known |= reached.pop(data)
        kept.append(data)
    return kept


def _steps(target: Callable[[bytes], None], data: bytes) -> set[Step]:
    """Return the steps that the target takes in the package, none if it finds something."""
    steps: set[Step] = set()
    before: dict[FrameType, int] = {}

    def local(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            steps.add((frame.f_code.co_filename, before.get(frame, 0), frame.f_lineno))
            before[frame] = frame.f_lineno
        return local

    def entered(frame: FrameType, *_: Any) -> Any:
        return local if PACKAGE in frame.f_code.co_filename else None

    outer = sys.gettrace()
    sys.settrace(entered)
    try:
        target(data)
    except Exception:  # noqa: BLE001 - anything that comes out is a finding
        return set()
    finally:
        sys.settrace(outer)
        before.clear()
    return steps
