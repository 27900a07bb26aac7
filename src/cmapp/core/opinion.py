"""A second opinion on a guest that cannot be reached: what somebody else says of it, and what that is worth.

Whoever looks after the guest from outside, as libvirt does, can know what a link cannot tell: that it is paused, is
just moving, or was switched off. The invariant: what is not understood is `UNKNOWN`, which changes nothing; only a
plain `down` ends a wait, and only a guest that stands still makes it longer.
"""

from __future__ import annotations

import math

from cmapp.core.reading import Word
from cmapp.core.record import Record
from cmapp.core.text import printable

ANSWER_LIMIT = 4096  # bytes of an answer that are read
_SHOWN = 300  # characters of it that are told


_STANDING = (Word.PAUSED, Word.MIGRATING)


class Opinion(Record):
    """What was answered: its first word, and all of it for the log."""

    state: Word
    text: str

    @property
    def standing(self) -> bool:
        """Whether it says that the guest stands still, and may go on."""
        return self.state in _STANDING


def opinion_of(answer: bytes) -> Opinion:
    """Return what `answer`, the output of a command, says; its first word counts, in any case of letters."""
    text = printable(" ".join(answer.decode(errors="replace").split()))
    first = text.partition(" ")[0].rstrip(":,;.").lower()
    if first in (state.value for state in Word):
        return Opinion(Word(first), text[:_SHOWN])
    return Opinion(Word.UNKNOWN, f"unknown: the answer was {text[:_SHOWN]!r}" if text else "unknown: no answer")


class Doubt:
    """What was asked of others about a guest since it was out of reach, and what they said.

    `asking` tells that an answer is awaited; `opinion` is the last one; `overdue` that the wait would be over but for
    the answer. An answer to a question from before the guest was back is no opinion on it.
    """

    __slots__ = ("_outlived", "_until", "asking", "opinion", "overdue")

    def __init__(self) -> None:
        self.asking = False
        self.opinion: Opinion | None = None
        self.overdue = False
        self._outlived = False
        self._until = math.inf

    def settle(self) -> None:
        """Forget all: the guest was reached."""
        self.opinion, self.overdue, self._until = None, False, math.inf
        self._outlived = self.asking

    @property
    def _standing(self) -> bool:
        return self.opinion is not None and self.opinion.standing

    def open(self, now: float) -> bool:
        """Whether an answer has to be heard before the guest may be given up."""
        return self.asking or self.opinion is None or (self._standing and now < self._until)

    def hear(self, opinion: Opinion) -> bool:
        """Take the answer; return whether it counts."""
        self.asking, outlived, self._outlived = False, self._outlived, False
        if not outlived:
            self.opinion = opinion
        return not outlived

    def until(self, now: float, most: float) -> float:
        """Return until when a guest that stands still may do so: `most` seconds from when that was first said."""
        self._until = min(self._until, now + most) if self._standing else self._until
        return self._until if self._standing else now

    @property
    def down(self) -> bool:
        """Whether it was said that the guest is down."""
        return self.opinion is not None and self.opinion.state is Word.DOWN
