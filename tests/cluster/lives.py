"""An independent check that of no application two instances lived at once: by the books that they keep themselves.

An instance is alive from its first line to the last heartbeat of any of its processes, helpers that left the family
too. All guests of a bed share one monotonic clock, so instances on different hosts are compared by it. The invariant:
nothing of what cmapp or Pacemaker say of it counts here.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from chaos.evidence import read_book

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.story import Instance


def lives(book: Path) -> list[Instance]:
    """Return the instances that a book tells of, oldest first."""
    text = book.read_text() if book.exists() else ""
    return sorted(read_book("", book.stem, text), key=lambda one: one.started)


def overlaps(books: Path) -> list[str]:
    """Return which instances of the books in a folder lived at the same time, in words."""
    return [
        f"{book.stem}: {first.instance} lived until {first.last:.3f}, {second.instance} from {second.started:.3f}"
        for book in sorted(books.glob("*.book"))
        for first, second in pairwise(lives(book))
        if first.last >= second.started
    ]
