"""Immutable values: what `dataclasses` would give us, without importing it.

Importing `dataclasses` costs about ten milliseconds in a process that is started once per application
(see docs/architecture.md), so values are declared the same way on a base class of our own. The fields are
the annotations, in order, those of the base classes first; type checkers see a frozen dataclass.

The invariant: two records are equal only if they are of the same type and all their fields are equal.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_options: object) -> Callable:
        """Stand in for what type checkers alone look at."""
        return lambda cls: cls


class Field:
    """How one field is checked: `check` takes what came and returns what is kept, or raises ValueError.

    What it returned it must accept again and return the same, for a record is checked whenever it is copied.
    `about` is for those who read the declaration, such as the option that sets the field.
    """

    __slots__ = ("about", "check", "default")

    def __init__(self, check: Callable[[Any], Any], default: Any, about: Any) -> None:
        self.check = check
        self.default = default
        self.about = about


REQUIRED: Any = object()


def field(check: Callable[[Any], Any], *, default: Any = REQUIRED, about: Any = None) -> Any:
    """Declare a field that is checked whenever a record is made; a default is taken as it is."""
    return Field(check, default, about)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Record:
    """An immutable value with named fields; raises TypeError for a wrong set of fields."""

    word: ClassVar[str] = ""
    """The record's "type" on the wire, where it is one of several that could stand there."""

    _fields: ClassVar[dict[str, Field | None]] = {}
    _defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        """Collect the fields that the class declares."""
        fields, defaults = dict(cls._fields), dict(cls._defaults)
        for name, kind in vars(cls).get("__annotations__", {}).items():
            if "ClassVar" in str(kind):
                continue
            value = cls.__dict__.get(name, REQUIRED)
            fields[name] = value if isinstance(value, Field) else None
            defaults[name] = value.default if isinstance(value, Field) else value
        cls._fields, cls._defaults = fields, defaults
        type.__setattr__(cls, "__match_args__", tuple(fields))

    if not TYPE_CHECKING:

        def __init__(self, *values: Any, **named: Any) -> None:
            placed = dict(zip(self._fields, values, strict=False))
            if len(values) > len(self._fields) or placed.keys() & named.keys():
                raise TypeError(f"{type(self).__name__} has too many values")
            named |= placed
            kept = self.__dict__
            for name, field in self._fields.items():
                value = named.pop(name) if name in named else self._defaults[name]
                if value is REQUIRED:
                    raise TypeError(f"{type(self).__name__} needs {name}")
                if field is not None and value is not field.default:
                    try:
                        value = field.check(value)
                    except ValueError as error:
                        raise ValueError(f"{name}: {error}") from None
                kept[name] = value
            if named:
                raise TypeError(f"{type(self).__name__} has no {', '.join(named)}")

        def __setattr__(self, name: str, value: object = None) -> None:
            """Refuse: a record never changes."""
            raise AttributeError(f"{type(self).__name__} cannot be changed")

        __delattr__ = __setattr__

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """Return the fields that were declared with a check, by name."""
        return {name: item for name, item in cls._fields.items() if item is not None}

    def said(self) -> list[tuple[str, Any]]:
        """Return the fields, and their values, that differ from their defaults."""
        return [(name, value) for name, value in self.__dict__.items() if value != self._defaults[name]]

    def replace(self, **changes: Any) -> Self:
        """Return a copy with these fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is of the same type with the same fields."""
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        """Hash by type and fields; one that holds a dict has no hash."""
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        """Show every field."""
        shown = ", ".join(f"{name}={value!r}" for name, value in self.__dict__.items())
        return f"{type(self).__name__}({shown})"
