"""What can be said of a virtual machine: one word, what exactly it is, and a reason in words.

Whoever looks at a machine, libvirt or a command of the user's, says it like this, on lines of a pipe. The invariant:
`unknown` is what nobody could tell, and nothing that could not be read becomes any other word.
"""

from __future__ import annotations

import enum

from cmapp.core.record import Record
from cmapp.core.text import printable

REASON_LENGTH = 300  # characters that are kept of a reason
_TABS = 3  # before the reason of a line


class Word(enum.Enum):
    """How a machine is on this host; `elsewhere` is not here, and may well run on another."""

    RUNNING = "running"
    PAUSED = "paused"
    MIGRATING = "migrating"
    DOWN = "down"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


# What exactly: of a machine that is paused, those that nobody has done on purpose; of one that is down, why.
TROUBLES = frozenset(("io-error", "watchdog", "postcopy-failed", "api-error"))
PANICKED = "panicked"
ENDING = "ending"  # its guest has ended, its QEMU not yet
ENDINGS = frozenset(("shutdown", "destroyed", "crashed", "failed", "saved", "migrated"))


KINDS = ("state", "event")  # a look at the machine, and the very end of it as it happened


class Reading(Record):
    """One look at a machine; `detail` is one of libvirt's reasons, "" where there is none to tell."""

    how: Word
    detail: str = ""
    reason: str = ""

    def line(self, kind: str = "state") -> str:
        """Return the reading as one line of a pipe."""
        return "\t".join((kind, self.how.value, self.detail, printable(self.reason)))

    @property
    def sentence(self) -> str:
        """The reading for people: the word, and the reason."""
        return f"{self.how.value}: {printable(self.reason)}" if self.reason else self.how.value


def read(line: str) -> Reading:
    """Return what a line of ours says; UNKNOWN for what is none."""
    kind, *rest = line.split("\t", _TABS)
    if kind not in KINDS or len(rest) != _TABS:
        return Reading(Word.UNKNOWN, "", f"it said {line[:REASON_LENGTH]!r}")
    return Reading(_word(rest[0]), rest[1], rest[2][:REASON_LENGTH])


# A state command that says none of the words is judged by its exit code, as for LSB's status: 3 is not running.
CODES = {0: Word.RUNNING, 3: Word.DOWN}


def read_command(output: str, code: int | None) -> Reading:
    """Return what a command of the user's says of the machine: its first word, or by its exit code, None if killed."""
    first, _, rest = output.strip().partition(" ")
    first, _, more = first.partition("\n")
    word = _word(first.strip().rstrip(":"))
    reason = " ".join((more or rest).split())[:REASON_LENGTH]
    if word is not Word.UNKNOWN:
        return Reading(word, "", reason)
    if first.strip().rstrip(":") == Word.UNKNOWN.value:
        return Reading(Word.UNKNOWN, "", reason or "the state command says so")
    said = f", and said {output.strip()[:REASON_LENGTH]!r}" if output.strip() else ""
    if code in CODES:
        return Reading(CODES[code], "", f"the state command exited with {code}{said}")
    how = "was killed" if code is None else f"exited with {code}"
    return Reading(Word.UNKNOWN, "", f"the state command {how}{said}")


def _word(text: str) -> Word:
    return next((word for word in Word if word.value == text), Word.UNKNOWN)
