"""Bytes that mean choices, so that a fuzzer of bytes can also make values, messages and orders of events.

The invariant: every sequence of bytes can be drawn from, whatever is asked for and however short it is; when they run
out, each choice is the first one. What is drawn depends on nothing else, so a finding can be played again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    T = TypeVar("T")

RUN = b"\xfe"  # begins a run of one byte: it stands in no UTF-8, so it is free for this
RUN_LENGTH = 3  # bytes behind it: how many, in two, and of what
STREAM_LIMIT = 300_000  # bytes that runs may make of a few: more than any line may have
DEPTH = 4  # of values in values
WIDTH = 4  # values in one value

_NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 15, 64, 255, 0o777, 2**31, 2**53, 2**53 + 1, 2**63, -(2**63), 10**30, 2**20_000),
    *(0.0, 0.5, -0.5, 1e-9, 1e300, float("inf"), float("-inf"), float("nan")),
)
_TEXTS = (
    *("", "web", "a" * 64, "a" * 65, "..", "-", ".x", "a/b", "/", "//", "~", "*", "%", "0", "15", "TERM", "tcp:80"),
    *("\n", "\r\n", "\x1b[2J", "a\0b", "\ud800", "\u202e", "\xa0", "\u0663", "\u2028", "\xe9", "01234567" * 4096),
    *("01234567-89ab-cdef-0123-456789abcdef", "01234567-89AB-cdef-0123-456789abcdef", "itself", "exited", "keep"),
    *("a" * 32_769, "a" * 50_000, "eA==", "5s", "500ms", "nofile", "infinity", "NaN", "host1", "/bin/web"),
)


class Draw:
    """What is left of some bytes to choose by."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self._at >= len(self._data)

    def byte(self) -> int:
        """Return the next byte as a number, 0 if there is none."""
        if self.done:
            return 0
        self._at += 1
        return self._data[self._at - 1]

    def below(self, limit: int) -> int:
        """Return a number from 0 to less than `limit`, which is at most 65536."""
        number = self.byte() if limit <= 1 << 8 else self.byte() << 8 | self.byte()
        return number % limit

    def pick(self, choices: Sequence[T]) -> T:
        """Return one of `choices`."""
        return choices[self.below(len(choices))]

    def chance(self, one_in: int) -> bool:
        """Return True once in so often, and not when nothing is left."""
        return self.below(one_in) == 1

    def take(self, count: int) -> bytes:
        """Return the next bytes, at most `count`."""
        begin, self._at = self._at, min(len(self._data), self._at + count)
        return self._data[begin : self._at]

    def chunk(self) -> bytes:
        """Return some bytes, behind one that says how many."""
        return self.take(self.byte())

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data))

    def text(self) -> str:
        """Return a text, often one that has proved to be awkward."""
        choice = self.byte()
        if choice < len(_TEXTS):
            return _TEXTS[choice]
        return self.take(choice - len(_TEXTS)).decode("utf-8", "surrogateescape" if choice % 2 else "replace")

    def value(self, depth: int = DEPTH) -> Any:
        """Return a value as JSON or TOML could hold, and some that only Python does."""
        kind = self.below(12)
        if kind in (1, 2, 3):
            return self.text()
        if kind in (4, 5):
            return self.pick(_NUMBERS)
        if kind == 6:  # noqa: PLR2004 - one kind of many
            return self.chunk()
        if kind in (7, 8) and depth:
            return [self.value(depth - 1) for _ in range(self.below(WIDTH))]
        if kind in (9, 10) and depth:
            return {self.text(): self.value(depth - 1) for _ in range(self.below(WIDTH))}
        return self.pick((None, True, False))


def expand(data: bytes) -> bytes:
    """Return `data` with its runs written out: few bytes reach the longest line so."""
    first, *others = data.split(RUN)
    stream = bytearray(first)
    for other in others:
        if len(other) >= RUN_LENGTH and len(stream) < STREAM_LIMIT:
            stream += other[2:RUN_LENGTH] * (other[0] << 8 | other[1])
        stream += other[RUN_LENGTH:]
    return bytes(stream)
