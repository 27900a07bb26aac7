"""What `./run fuzz` found in the core, each defect by its name."""

from __future__ import annotations

from binascii import crc32
from typing import Any

import pytest

from cmapp.core import ledger
from cmapp.core.charge import Facts
from cmapp.core.duration import parse_duration
from cmapp.core.options import Option, duration, settle, whole
from cmapp.core.record import Record, field
from cmapp.errors import SettingsError
from tests.core.charge_stories import ends_by_itself

DIGITS = 6000  # more than Python writes of a number
HUGE = 16**DIGITS


class Some(Record):
    """Settings with a number and a duration."""

    number: int = field(whole, default=1, about=Option("N", "a number"))
    pause: float = field(duration, default=1.0, about=Option("DURATION", "a pause"))


@pytest.mark.parametrize("name", ["number", "pause"])
def test_number_of_thousands_of_digits(name: str) -> None:
    """A number that Python cannot write, as TOML's 0xfff... makes one, was an error without a sentence."""
    with pytest.raises(SettingsError, match=rf"^the file: {name} must be a .*, not a number of thousands of digits$"):
        settle(Some, ("the file", {name: HUGE}))
    with pytest.raises(SettingsError, match=r"^a duration may be 3650 days at most$"):
        parse_duration(HUGE)


def test_an_error_repeats_the_beginning_of_a_value() -> None:
    """What was given was repeated as a whole, however long."""
    with pytest.raises(SettingsError) as caught:
        settle(Some, ("the file", {"number": "x" * 100_000}))
    assert str(caught.value).endswith("xxx...")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pid", "7"),
        ("pid", 2**23),
        ("pid", None),
        ("start", -1),
        ("started", None),
        ("started", 10**400),
        ("wall", 2**53),
        ("ended", "now"),
        ("orphaned", []),
        ("acknowledged", "x"),
        ("manager", 7),
        ("boot_id", {}),
        ("where", "a\0b"),
        ("stopping", "for fun"),
        ("stopping", []),
        ("detail", 7),
        ("detail", "a\0b"),
        ("outcome", {"type": "exited"}),
        ("outcome", None),
        ("receipt", 1),
    ],
)
def test_senseless_facts_are_told_at_once(key: str, value: Any) -> None:
    """A run's file whose values make no sense was found out while it was taken over, and no server started any more."""
    entries = [*ends_by_itself().files[1], {key: value}]
    with pytest.raises(ValueError, match=f"^{key}: "):
        Facts(entries, settled=False)


def test_receipt_of_another_run_is_no_fact() -> None:
    """A receipt of one run in the file of another was believed."""
    entries = list(ends_by_itself().files[1])
    receipt = next(entry["receipt"] for entry in entries if "receipt" in entry)
    other = receipt["run_id"].replace("0", "1")
    with pytest.raises(ValueError, match=r"^receipt: is that of another run$"):
        Facts([*entries, {"receipt": {**receipt, "run_id": other}}], settled=False)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_a_number_that_is_none_is_damage(number: str) -> None:
    """A line with what JSON has no number for was read, and could not be written again."""
    good = ledger.encode_line({"format": 1})
    text = f'{{"x":{number}}}'.encode()
    line = b"%08x %s\n" % (crc32(text), text)
    assert ledger.decode(good + line) == ([{"format": 1}], True)
