"""What a target says when what must hold does not, and what several targets ask for alike.

The invariant: a target raises for a defect of the package and for nothing else, so that whatever comes out of one is
a finding.
"""

from __future__ import annotations

import gc
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


class BreachError(AssertionError):
    """Something that must always hold does not."""


def require(holds: object, what: str, *shown: object) -> None:
    """Raise BreachError unless it `holds`, with what was `shown` of it."""
    if not holds:
        raise BreachError(": ".join([what, *(repr(item)[:300] for item in shown)]))


def require_plain(text: str) -> None:
    """Raise BreachError if a sentence would do more than stand in one line of a log or a terminal."""
    require(text.isprintable(), "what is told is not fit for a log line", text)


def held(thing: object) -> int:
    """Return about how many bytes `thing` keeps alive by itself, without what is the program's."""
    seen: set[int] = set()
    waiting: list[Any] = [thing]
    total = 0
    while waiting:
        item = waiting.pop()
        if id(item) in seen or isinstance(item, _SHARED):
            continue
        seen.add(id(item))
        total += len(item) if isinstance(item, (bytes, bytearray, str)) else 8
        waiting += gc.get_referents(item)
    return total
