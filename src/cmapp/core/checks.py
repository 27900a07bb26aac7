"""What a field of a message may hold: each check takes a value and returns what is kept, or raises ValueError.

The same checks meet what a peer sent and what we are about to send, so that neither side can say what the
other must refuse. Every one bounds what it lets through.
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    import enum
    from collections.abc import Callable
    from typing import Any

    from cmapp.core.record import Record

LARGEST = 2**53  # what every JSON reader keeps exactly
TEXT_LIMIT = 32 * 1024
BLOB_LIMIT = 32 * 1024  # its base64 and the keys fit a line
SHOWN = 40  # characters of what came that an error repeats: it must fit a line that tells of it
LIST_LIMIT = 4096
NAME_LIMIT = 64
NAME_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@+")
UUID_PARTS = (8, 4, 4, 4, 12)
HEX = frozenset("0123456789abcdef")
_RLIMITS = "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio sigpending stack"
RLIMITS = frozenset(_RLIMITS.split())
LIMITS = RLIMITS | {"memory", "pids"}  # the last two are a cgroup's


def text(value: Any) -> str:
    """Accept any string that can be written as UTF-8 and handed to the kernel."""
    if not isinstance(value, str):
        raise ValueError("must be a string")  # noqa: TRY004 - a bad line, not a bad call
    if len(value) > TEXT_LIMIT:
        raise ValueError(f"is longer than {TEXT_LIMIT} characters")
    if "\0" in value or not _encodes(value):
        raise ValueError("has a NUL or a lone surrogate in it")
    return value


def name(value: Any) -> str:
    """Accept the name of an application: 1 to 64 of letters, digits and `._-@+`, not starting with `.` or `-`."""
    if not isinstance(value, str) or not 1 <= len(value) <= NAME_LIMIT:
        raise ValueError(f"must be a name of 1 to {NAME_LIMIT} characters")
    if not NAME_CHARS.issuperset(value) or value[0] in ".-":
        raise ValueError("must be made of letters, digits and ._-@+ and not start with . or -")
    return value


def uuid(value: Any) -> str:
    """Accept a UUID in lower case with its hyphens."""
    if not isinstance(value, str):
        raise ValueError("must be a UUID in lower case")  # noqa: TRY004 - a bad line, not a bad call
    parts = value.split("-")
    if tuple(map(len, parts)) != UUID_PARTS or not HEX.issuperset("".join(parts)):
        raise ValueError("must be a UUID in lower case")
    return value


def count(value: Any) -> int:
    """Accept a whole number from 0."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError("must be a whole number from 0")
    return value


def within(low: int, high: int) -> Callable[[Any], int]:
    """Accept a whole number from `low` to `high`."""

    def check(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def seconds(value: Any) -> float:
    """Accept a duration or a time in seconds, from 0."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= LARGEST:
        raise ValueError("must be a number of seconds from 0")
    return float(value)


def flag(value: Any) -> bool:
    """Accept true or false."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")  # noqa: TRY004 - a bad line, not a bad call
    return value


def optional(check: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Accept null too."""
    return lambda value: None if value is None else check(value)


def many(check: Callable[[Any], Any], *, least: int = 0) -> Callable[[Any], tuple[Any, ...]]:
    """Accept a list of what `check` accepts; kept as a tuple."""

    def check_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= LIST_LIMIT:
            raise ValueError(f"must be a list of {least} to {LIST_LIMIT}")
        return tuple(check(item) for item in value)

    return check_all


def environment(value: Any) -> dict[str, str]:
    """Accept an object of variable names and their values."""
    if not isinstance(value, dict) or len(value) > LIST_LIMIT:
        raise ValueError(f"must be an object of at most {LIST_LIMIT} variables")
    for key in value:
        if not text(key) or "=" in key:
            raise ValueError(f"{key[:SHOWN]!r} is not the name of a variable")
    return {key: text(item) for key, item in value.items()}


def limits(value: Any) -> dict[str, tuple[int, int]]:
    """Accept an object of resource limits: the name in lower case, and [soft, hard]; -1 is no limit."""
    if not isinstance(value, dict) or not value.keys() <= LIMITS:
        raise ValueError(f"must be an object with limits of {', '.join(sorted(LIMITS))}")
    return {key: _limit(item) for key, item in value.items()}


def one_of(words: type[enum.Enum]) -> Callable[[Any], Any]:
    """Accept one of an enum's words, kept as the enum's member."""

    def check(value: Any) -> Any:
        try:
            return words(value)
        except ValueError:
            raise ValueError(f"must be one of {', '.join(str(word.value) for word in words)}") from None

    return check


def blob(value: Any) -> bytes:
    """Accept bytes, or their base64."""
    try:
        data = value if isinstance(value, bytes) else binascii.a2b_base64(value, strict_mode=True)
    except (TypeError, ValueError):
        raise ValueError("must be base64") from None
    if len(data) > BLOB_LIMIT:
        raise ValueError(f"is longer than {BLOB_LIMIT} bytes")
    return data


def record(kind: type[Record]) -> Callable[[Any], Any]:
    """Accept an object with the fields of `kind`, kept as one; unknown keys are ignored."""

    def check(value: Any) -> Any:
        return value if isinstance(value, kind) else build(kind, value)

    return check


def tagged(*kinds: type[Record]) -> Callable[[Any], Any]:
    """Accept an object whose "type" is the word of one of `kinds`, kept as one."""
    words = {kind.word: kind for kind in kinds}

    def check(value: Any) -> Any:
        if isinstance(value, kinds):
            return value
        word = value.get("type") if isinstance(value, dict) else None
        kind = words.get(word) if isinstance(word, str) else None
        if kind is None:
            raise ValueError(f"must be an object with a type of {', '.join(words)}")
        return build(kind, value)

    return check


def build(kind: type[Record], value: Any) -> Any:
    """Make a record of `kind` from a JSON object, ignoring unknown keys; raises ValueError for what is none."""
    if not isinstance(value, dict):
        raise ValueError("must be an object")  # noqa: TRY004 - a bad line, not a bad call
    try:
        return kind(**{key: value[key] for key in kind.fields() if key in value})
    except TypeError as error:
        raise ValueError(str(error)) from None


def _limit(value: Any) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)) or len(value) != len(("soft", "hard")):
        raise ValueError("must be limits of [soft, hard]")
    soft, hard = (item if isinstance(item, int) and item == -1 else count(item) for item in value)
    if hard != -1 and (soft == -1 or soft > hard):
        raise ValueError("must be limits whose soft one is not above the hard one")
    return soft, hard


def _encodes(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
