"""Records are values: made whole or not at all, compared by what they hold, and never changed."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from cmapp.core import checks
from cmapp.core.record import Record, field


class Point(Record):
    """A record whose fields are not checked."""

    kinds: ClassVar[int] = 1
    x: int
    y: int = 0


class Place(Point):
    """A record that adds a checked field to those of its base."""

    name: str = field(checks.name, default="here", about="where it is")


class Twin(Record):
    """A record with the fields of another."""

    x: int
    y: int = 0


class Bag(Record):
    """A record that cannot be hashed."""

    held: dict[str, int]


# What type checkers refuse, and must be refused where they are not asked.
point: Any = Point
place: Any = Place


@pytest.mark.parametrize(
    "made",
    [point(1, 2), point(1, y=2), point(x=1, y=2), point(y=2, x=1)],
    ids=["placed", "mixed", "named", "turned"],
)
def test_fields_are_given_by_place_or_name(made: Point) -> None:
    """Values go to the fields in the order of their declaration, or by name."""
    assert (made.x, made.y) == (1, 2)


def test_base_class_fields_come_first() -> None:
    """A derived record has the fields of its base, then its own; what is common to all is no field."""
    assert Place.__match_args__ == ("x", "y", "name")
    assert (Place(1, 2, "there").name, Place(1).name) == ("there", "here")
    match Place(1, 2, "there"):
        case Place(x, y, name):
            assert (x, y, name) == (1, 2, "there")


@pytest.mark.parametrize(
    ("values", "named", "reason"),
    [
        ((), {}, "Point needs x"),
        ((1, 2, 3), {}, "Point has too many values"),
        ((1,), {"x": 2}, "Point has too many values"),
        ((1,), {"z": 2}, "Point has no z"),
    ],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_wrong_set_of_fields_is_refused(values: tuple[int, ...], named: dict[str, int], reason: str) -> None:
    """A record is not made of too few, too many or unknown values, and none is silently dropped."""
    with pytest.raises(TypeError) as error:
        point(*values, **named)
    assert str(error.value) == reason


def test_check_keeps_what_it_returns_and_names_the_field_it_refuses() -> None:
    """A checked field holds what its check returned, and its error says which field it was."""

    class Timed(Record):
        after: float = field(checks.seconds)

    assert type(Timed(5).after) is float
    with pytest.raises(ValueError, match=r"^after: must be a number of seconds from 0$"):
        Timed(-1)


def test_cannot_be_changed() -> None:
    """A record has no field that could be set, deleted or added."""
    made = point(1)
    with pytest.raises(AttributeError, match="Point cannot be changed"):
        made.x = 2
    with pytest.raises(AttributeError, match="Point cannot be changed"):
        del made.x
    with pytest.raises(AttributeError, match="Point cannot be changed"):
        made.z = 2
    assert made == Point(1)


def test_replace_makes_a_checked_copy() -> None:
    """A copy has the fields of the original but the changed ones, which are checked."""
    original = Place(1, 2)
    assert original.replace(y=3) == Place(1, 3)
    assert original == Place(1, 2)
    with pytest.raises(ValueError, match=r"^name: "):
        original.replace(name="no name")
    with pytest.raises(TypeError, match="Place has no z"):
        original.replace(z=1)


@pytest.mark.parametrize("other", [Point(1, 3), Point(2, 2), Twin(1, 2), Place(1, 2), (1, 2), None], ids=repr)
def test_equal_means_same_type_and_fields(other: object) -> None:
    """What differs in type or in any field is something else."""
    assert Point(1, 2) == Point(x=1, y=2)
    assert Point(1, 2) != other


def test_hash_goes_with_equality() -> None:
    """Equal records count as one in a set; one that holds a dict cannot be in a set."""
    assert len({Point(1, 2), Point(1, 2), Point(2, 1), Twin(1, 2)}) == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(Bag({}))


def test_said_is_what_differs_from_the_defaults() -> None:
    """What is said of a record leaves out the defaults, and keeps what has none."""
    assert Place(0, 0, "here").said() == [("x", 0)]
    assert Place(0, 1, "there").said() == [("x", 0), ("y", 1), ("name", "there")]


def test_fields_are_those_with_a_check() -> None:
    """Those who read a declaration find the checked fields, with what is said about them."""
    assert {name: item.about for name, item in Place.fields().items()} == {"name": "where it is"}


def test_shows_every_field() -> None:
    """A record in a traceback shows all that it holds."""
    assert repr(Place(1)) == "Place(x=1, y=0, name='here')"
