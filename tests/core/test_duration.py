"""Durations are read as people write them, and shown so that people can compare them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core.duration import LONGEST, format_duration, parse_duration
from cmapp.errors import SettingsError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5", 5.0),
        ("5s", 5.0),
        ("5 s", 5.0),
        (" 5s ", 5.0),
        ("500ms", 0.5),
        ("2m", 120.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1.5", 1.5),
        ("0.05ms", 0.00005),
        (".5", 0.5),
        ("0", 0.0),
        ("3650d", LONGEST),
        (5, 5.0),
        (0.25, 0.25),
    ],
)
def test_reads(text: str | float, seconds: float) -> None:
    """A number has a unit, or means seconds."""
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-12)


WORDS = [
    "",
    " ",
    "s",
    ".",
    "five",
    "-5",
    "+5",
    "5 5",
    "1.2.3",
    "5x",
    "5S",
    "5ss",
    "1e3",
    "1m30s",
    "0x10",
    "nan",
]


@pytest.mark.parametrize(
    "text",
    [*WORDS, "inf", "\N{ARABIC-INDIC DIGIT FIVE}", float("nan"), -0.5, -1, True, None, [5]],
    ids=repr,
)
def test_refuses(text: str) -> None:
    """What is no duration is refused in one sentence that shows how to write one."""
    with pytest.raises(SettingsError) as refusal:
        parse_duration(text)
    assert str(refusal.value) == f"{text!r} is not a duration: write 5, 5s, 500ms, 2m or 1h"


TOO_LONG = ["3651d", "315360001", "9" * 400, float("inf")]


@pytest.mark.parametrize("text", TOO_LONG, ids=lambda text: str(text)[:9])
def test_refuses_what_no_clock_lives_to_see(text: str | float) -> None:
    """More than ten years is a mistake."""
    with pytest.raises(SettingsError, match=r"is too long a duration: at most 3650 days$"):
        parse_duration(text)


@given(st.floats(0, LONGEST))
def test_what_was_read_reads_the_same_again(seconds: float) -> None:
    """A setting is checked when it is read and again when it is kept; 0.05ms once failed the second time."""
    assert parse_duration(seconds) == seconds


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0 ms"),
        (0.0004, "0 ms"),
        (0.0125, "12 ms"),
        (0.5, "500 ms"),
        (1, "1 s"),
        (1.04, "1 s"),
        (15, "15 s"),
        (15.25, "15.2 s"),
        (119.9, "119.9 s"),
        (120, "2 min 0 s"),
        (125.4, "2 min 5 s"),
        (7199, "119 min 59 s"),
        (7199.6, "2 h 0 min"),
        (7200, "2 h 0 min"),
        (90061, "25 h 1 min"),
    ],
)
def test_shows(seconds: float, shown: str) -> None:
    """A duration is shown in the unit in which people would say it, rounded."""
    assert format_duration(seconds) == shown
