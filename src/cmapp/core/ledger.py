"""The lines of a run's file: what the server must still know of a run when it was itself started anew.

A line is the checksum of one JSON object in eight hexadecimal digits, a space, the object, a newline. The first
object names the format of the others: `{"format": 1, ...}`; that line stays readable to every version. What may
stand between and behind the lines is blank: room that was reserved before it was needed.

The invariant: whatever bytes a disk gives back, each entry that comes out is one that went in, in the order in
which they went in; and what is missing before the last of them, or after it, is said to be.
"""

from __future__ import annotations

import json
import math
from binascii import crc32

from cmapp.errors import CmappError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FORMAT = 1
LINE_LIMIT = 256 * 1024  # bytes with the newline: a launch of the longest line in the protocol, and more
BLANKS = b" \n"
_DIGITS = 8  # of the checksum

_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


class LedgerError(CmappError):
    """What the bytes hold is whole, but not for this version to read; or a line is too long to be written."""


class Content(tuple["list[dict[str, Any]]", bool]):
    """What was read: the entries, and whether anything that had been written is missing."""

    __slots__ = ()

    @property
    def entries(self) -> list[dict[str, Any]]:
        """The first of the two."""
        return self[0]

    @property
    def torn(self) -> bool:
        """The second of the two."""
        return self[1]


def encode_line(entry: dict[str, Any]) -> bytes:
    """Return the line that holds `entry`; raises LedgerError if it is longer than a line may be."""
    text = _write(entry).encode("utf-8", "surrogatepass")
    line = b"%08x %s\n" % (crc32(text), text)
    if len(line) > LINE_LIMIT:
        raise LedgerError(f"an entry of {len(line)} bytes is longer than the {LINE_LIMIT} that a line may have")
    return line


def decode(content: bytes) -> Content:
    """Return the entries of a file up to the first damage, and whether anything that had been written is missing.

    Raises LedgerError for a format that is not ours.
    """
    return scan(content)[0]


def whole(content: bytes) -> int:
    """Return where in `content` the next line belongs: after the last that is whole."""
    return scan(content)[1]


def scan(content: bytes) -> tuple[Content, int]:
    """Return what `decode` and `whole` do, at one reading."""
    entries: list[dict[str, Any]] = []
    gap = False
    start = end = 0
    while start < len(content):
        stop = content.find(b"\n", start, start + LINE_LIMIT)
        line = content[start : stop if stop >= 0 else start + LINE_LIMIT]
        if not line.strip(BLANKS):
            start += len(line) + (stop >= 0)
            continue
        gap = gap or start > end or line[:1] in BLANKS  # a line stood where it is blank now
        entry = _entry(line.lstrip(BLANKS)) if stop >= 0 else None
        if entry is None:
            return Content((entries, True)), end
        if not entries:
            _check(entry)
        entries.append(entry)
        start = end = stop + 1
    return Content((entries, gap)), end


def _entry(line: bytes) -> dict[str, Any] | None:
    """Return what a line holds, or None if it is not whole."""
    text = line[_DIGITS + 1 :]
    if line[: _DIGITS + 1] != b"%08x " % crc32(text):
        return None
    try:
        entry = _read(text.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, dict) else None


def _number(digits: str) -> float:
    """Return a number, or raise ValueError for one that could not be written: none of ours is one."""
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is not a number")
    return number


def _check(header: dict[str, Any]) -> None:
    version = header.get("format")
    if type(version) is not int or version < 1:
        raise LedgerError("its first line does not name its format")
    if version > FORMAT:
        raise LedgerError(f"it was written by a newer cmappserver: its format is {version}, and {FORMAT} is known here")


_read = json.JSONDecoder(parse_float=_number, parse_constant=_number).decode
