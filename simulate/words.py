"""Records in words that fit a line: what is as always is left out."""

from __future__ import annotations

import enum
from typing import Any

from cmapp.core.record import Record

RUN_ID = "00000000-0000-4000-8000-"  # what all run ids of the world begin with
UNSAID = {"argv", "versions", "started", "ended", "lasted"}


def words(said: Any) -> str:
    """Return what a record says, without what it says by default."""
    if isinstance(said, enum.Enum):
        return str(said.value)
    if not isinstance(said, Record):
        return str(said)
    parts = ", ".join(f"{name} {words(item)}" for name, item in said.said() if name not in UNSAID)
    what = said.word or type(said).__name__
    return f"{what} ({parts})" if parts else what


def short(text: str) -> str:
    """Return a line with run ids by their numbers."""
    parts = text.split(RUN_ID)
    return parts[0] + "".join(f"{int(part[:12])}{part[12:]}" for part in parts[1:])
