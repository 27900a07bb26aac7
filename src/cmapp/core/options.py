"""Settings that a person gives: declared once, as the fields of a record, each with the option that sets it.

The command line, the configuration file and the man page are all read off that one declaration. The option of
a field is its name with hyphens, its key in a file is its name. What stands on the command line wins over the
file, the file over the default.
"""

from __future__ import annotations

from cmapp.core.duration import parse_duration
from cmapp.core.record import Record
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_SHOWN = 200  # characters of a value that an error repeats
_LARGEST, _DIGITS = 10**9, 20  # of a whole number, and of its text


class Option(Record):
    """How a field is set: `metavar` None makes it a flag, `many` lets it be given several times.

    `shown` is the default in words, where the value itself does not say it; `in_file` tells whether a
    configuration file may set it too.
    """

    metavar: str | None
    help: str
    many: bool = False
    shown: str | None = None
    in_file: bool = True


def options_of(kind: type[Record]) -> dict[str, Option]:
    """Return the options of the settings `kind`, by field name, in the order in which they are declared."""
    return {name: field.about for name, field in kind.fields().items() if isinstance(field.about, Option)}


def settle(kind: type[Record], *sources: tuple[str, Mapping[str, Any]]) -> Any:
    """Return the settings of `kind` that `sources` give: (what to call it, values by field name), the last one wins.

    Raises SettingsError, with the source's name in it, for a key that is not there or a value that is not allowed. A
    check that raises SettingsError itself says all that there is to say.
    """
    fields = kind.fields()
    values: dict[str, Any] = {}
    for source, given in sources:
        for name, value in given.items():
            if name not in fields:
                raise SettingsError(f"{source}: there is no setting {name!r}; there are {', '.join(sorted(fields))}")
            try:
                values[name] = fields[name].check(value)
            except ValueError as error:
                raise SettingsError(f"{source}: {name} {error}, not {_shown(value)}") from None
            except SettingsError as error:
                raise SettingsError(f"{source}: {error}") from None
    return kind(**values)


def duration(value: Any) -> float:
    """Accept a duration as a person writes it: `5`, `5s`, `500ms`, `2m`."""
    try:
        return parse_duration(value)
    except SettingsError:
        raise ValueError("must be a duration such as 5s, 500ms or 2m") from None


def whole(value: Any) -> int:
    """Accept a whole number from 1, as a number or as its digits."""
    # Python refuses to read or to write a number of thousands of digits, so its size is looked at first.
    digits = value if isinstance(value, str) and len(value) <= _DIGITS else ""
    number = int(digits) if digits.isdecimal() else value
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= _LARGEST:
        raise ValueError("must be a whole number from 1")
    return number


def _shown(value: Any) -> str:
    """Return a value as it was written, as far as a sentence has room for it."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write numbers of thousands of digits
        text = "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
