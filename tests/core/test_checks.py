"""Each check lets through what it says, keeps it as it says, and bounds it."""

from __future__ import annotations

import enum
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import checks
from cmapp.core.record import Record, field

UUID = "01234567-89ab-cdef-0123-456789abcdef"


class Colour(enum.Enum):
    """Words to choose from."""

    RED = "red"
    BLUE = "blue"


class Circle(Record):
    """One of the records that may stand in a place."""

    word = "circle"
    radius: float = field(checks.seconds)


class Square(Record):
    """The other."""

    word = "square"
    side: float = field(checks.seconds)


shape = checks.tagged(Circle, Square)
circle = checks.record(Circle)
numbers = checks.many(checks.count, least=1)
digit = checks.within(0, 9)
EVERY_LIMIT = sorted(checks.LIMITS)  # a set's order is any, and a case needs one name

ACCEPTED = [
    (checks.text, "", ""),
    (checks.text, "ä\n\x1b\U0010ffff", "ä\n\x1b\U0010ffff"),
    (checks.text, "x" * checks.TEXT_LIMIT, "x" * checks.TEXT_LIMIT),
    (checks.name, "a", "a"),
    (checks.name, "_a.b-c@d+E9", "_a.b-c@d+E9"),
    (checks.name, "x" * 64, "x" * 64),
    (checks.uuid, UUID, UUID),
    (checks.count, 0, 0),
    (checks.count, 2**53, 2**53),
    (digit, 0, 0),
    (digit, 9, 9),
    (checks.seconds, 0, 0.0),
    (checks.seconds, 0.5, 0.5),
    (checks.seconds, 2**53, 2.0**53),
    (checks.flag, True, True),
    (checks.flag, False, False),
    (checks.optional(checks.count), None, None),
    (checks.optional(checks.count), 3, 3),
    (checks.many(checks.count), [], ()),
    (numbers, [1, 2], (1, 2)),
    (numbers, (1, 2), (1, 2)),
    (numbers, [1] * 4096, (1,) * 4096),
    (checks.environment, {}, {}),
    (checks.environment, {"A": "", "B C": "x=y"}, {"A": "", "B C": "x=y"}),
    (checks.limits, {}, {}),
    (checks.limits, {"nofile": [0, 2**53], "memory": (5, 5)}, {"nofile": (0, 2**53), "memory": (5, 5)}),
    (checks.limits, {"core": [0, -1], "stack": [-1, -1]}, {"core": (0, -1), "stack": (-1, -1)}),
    (checks.limits, {name: [1, 2] for name in EVERY_LIMIT}, dict.fromkeys(EVERY_LIMIT, (1, 2))),
    (checks.one_of(Colour), "red", Colour.RED),
    (checks.one_of(Colour), Colour.BLUE, Colour.BLUE),
    (checks.blob, "", b""),
    (checks.blob, "AP8=", b"\x00\xff"),
    (checks.blob, b"\x00\xff", b"\x00\xff"),
    (checks.blob, b"x" * checks.BLOB_LIMIT, b"x" * checks.BLOB_LIMIT),
    (circle, {"radius": 1, "colour": "red"}, Circle(1.0)),
    (circle, Circle(1.0), Circle(1.0)),
    (shape, {"type": "circle", "radius": 1}, Circle(1.0)),
    (shape, {"type": "square", "side": 1, "radius": "x"}, Square(1.0)),
    (shape, Square(1.0), Square(1.0)),
]

NO_LIMITS = (
    "must be an object with limits of as, core, cpu, data, fsize, locks, memlock, memory, msgqueue, nice, nofile, "
    "nproc, pids, rss, rtprio, sigpending, stack"
)
NOT_A_NUMBER = [float("nan"), float("inf")]

REFUSED: list[tuple[Any, str, list[Any]]] = [
    (checks.text, "must be a string", [None, 5, b"x", ["x"], True]),
    (checks.text, "has a NUL or a lone surrogate in it", ["\0", "a\0b", "\ud800", "\udcff"]),
    (checks.text, "is longer than 32768 characters", ["x" * (checks.TEXT_LIMIT + 1)]),
    (checks.name, "must be a name of 1 to 64 characters", [None, 5, "", "x" * 65, ["a"]]),
    (
        checks.name,
        "must be made of letters, digits and ._-@+ and not start with . or -",
        [".a", "-a", "a b", "a/b", "..", "é", "a\n", "a\0", "a:b", "\N{ARABIC-INDIC DIGIT THREE}"],
    ),
    (checks.uuid, "must be a UUID in lower case", [None, 5, "", UUID[:-1], UUID + "0", list(UUID)]),
    (checks.uuid, "must be a UUID in lower case", [UUID.upper(), UUID.replace("a", "g"), "0" * 36, "-" * 36]),
    (checks.uuid, "must be a UUID in lower case", [UUID.replace("-", ""), UUID + "\n", f"{{{UUID}}}"]),
    (checks.count, "must be a whole number from 0", [None, -1, 2**53 + 1, 1.0, "1", True, False, [1]]),
    (digit, "must be a whole number from 0 to 9", [None, -1, 10, 5.0, "5", True]),
    (checks.seconds, "must be a number of seconds from 0", [None, -1, -0.1, 2**53 + 1, "1", True, False]),
    (checks.seconds, "must be a number of seconds from 0", [*NOT_A_NUMBER, 10**400]),
    (checks.flag, "must be true or false", [None, 0, 1, "true"]),
    (checks.optional(checks.count), "must be a whole number from 0", ["", False]),
    (numbers, "must be a list of 1 to 4096", [None, [], [1] * 4097, {"a": 1}, "12", 5]),
    (numbers, "must be a whole number from 0", [[1, None], [[]]]),
    (
        checks.environment,
        "must be an object of at most 4096 variables",
        [None, [], "A=B", {f"V{number}": "" for number in range(4097)}],
    ),
    (checks.environment, "'' is not the name of a variable", [{"": "x"}]),
    (checks.environment, "'A=B' is not the name of a variable", [{"A=B": "x"}]),
    (checks.environment, f"'{'=' * 40}' is not the name of a variable", [{"=" * 30_000: "x"}]),
    (checks.environment, "must be a string", [{5: "x"}, {"A": None}, {"A": ["x"]}]),
    (checks.environment, "has a NUL or a lone surrogate in it", [{"A": "\0"}, {"A\0": "x"}]),
    (checks.limits, NO_LIMITS, [None, [], "nofile", {"NOFILE": [1, 2]}, {"": [1, 2]}, {"files": [1, 2]}, {5: [1, 2]}]),
    (
        checks.limits,
        "must be limits of [soft, hard]",
        [{"nofile": value} for value in (None, 5, [], [5], [1, 2, 3], "12", {"soft": 1, "hard": 2})],
    ),
    (checks.limits, "must be limits whose soft one is not above the hard one", [{"cpu": [2, 1]}, {"cpu": [-1, 1]}]),
    (
        checks.limits,
        "must be a whole number from 0",
        [{"cpu": [1, value]} for value in (-2, 2**53 + 1, 1.0, -1.0, "1", None, True)],
    ),
    (checks.one_of(Colour), "must be one of red, blue", [None, "RED", "", [], {}, 0, True]),
    (checks.blob, "must be base64", [None, 5, "AP8", "AP8=\n", "A-_=", "é", [], "AP8=AP8="]),
    (checks.blob, "is longer than 32768 bytes", [b"x" * (checks.BLOB_LIMIT + 1), "A" * 4 * 10923]),
    (circle, "must be an object", [None, [], "x", 5, Square(1.0)]),
    (circle, "Circle needs radius", [{}, {"Radius": 1}]),
    (circle, "radius: must be a number of seconds from 0", [{"radius": "x"}, {"radius": None}]),
    (shape, "must be an object with a type of circle, square", [None, [], {}, {"type": "star"}]),
    (shape, "must be an object with a type of circle, square", [{"type": []}, {"type": {}}, {"type": None}]),
    (shape, "Circle needs radius", [{"type": "circle", "side": 1}]),
]


def named(value: object) -> str:
    """Return what a case is called."""
    return getattr(value, "__qualname__", repr(value)).replace(".<locals>", "")[:40]


@pytest.mark.parametrize(("check", "value", "kept"), ACCEPTED, ids=named)
def test_accepts(check: Any, value: Any, kept: Any) -> None:
    """What is allowed is kept, in the type that the record's field has."""
    assert check(value) == kept
    assert type(check(value)) is type(kept)


@pytest.mark.parametrize(("check", "value", "kept"), ACCEPTED, ids=named)
def test_accepts_what_it_kept(check: Any, value: Any, kept: Any) -> None:
    """What a check returned passes it again unchanged, because a copy of a record is checked too."""
    assert check(check(value)) == kept


@pytest.mark.parametrize(
    ("check", "value", "reason"),
    [(check, value, reason) for check, reason, values in REFUSED for value in values],
    ids=named,
)
def test_refuses(check: Any, value: Any, reason: str) -> None:
    """What is not allowed is a ValueError that says what would be, and nothing else, whatever the type."""
    with pytest.raises(ValueError, match=f"^{re.escape(reason)}$"):
        check(value)


KEYS = st.sampled_from(["type", "radius", "side"]) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=8,
)
EVERY = sorted({check for check, _, _ in ACCEPTED}, key=named)


@given(st.sampled_from(EVERY), JSON)
def test_nothing_but_a_value_error_comes_out(check: Any, value: Any) -> None:
    """Whatever JSON holds, a check keeps it or raises ValueError; a list as type once raised TypeError."""
    try:
        kept = check(value)
    except ValueError as error:
        assert len(str(error)) < 500  # noqa: PT017 - not raising is right too
    else:
        assert check(kept) == kept


def test_build_ignores_unknown_keys() -> None:
    """A newer peer may say more than we know."""
    assert checks.build(Circle, {"radius": 1, "type": "circle", "self": 0, "colour": None}) == Circle(1.0)


def test_caller_cannot_change_what_was_kept() -> None:
    """A list or an object that was checked is copied."""
    items, variables = [1], {"A": "B"}
    kept, environment = numbers(items), checks.environment(variables)
    items.append(2)
    variables.clear()
    assert (kept, environment) == ((1,), {"A": "B"})
