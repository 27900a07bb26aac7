"""A result is a pair: what we do beside what could be done, measured in the same run, and the goal for it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Samples = dict[str, list[float]]  # by the name of a kind
HEADINGS = ("name", "ours", "floor", "ratio", "goal", "reached", "n", "how")


@dataclass(frozen=True)
class Figure:
    """What was measured of every kind, and how one number is made of it."""

    name: str
    unit: str
    samples: Samples
    reduce: Callable[[list[float]], float]
    how: str
    n: int = 0  # of what was measured at once; else the samples tell

    def of(self, kind: str) -> float | None:
        """Return the number of that kind, None where it was not measured."""
        values = self.samples.get(kind)
        return self.reduce(values) if values else None


@dataclass(frozen=True)
class Row:
    """One line of the table. `goal` is the largest good ratio of `ours` to `floor`, `most` the largest good `ours`.

    Either is None where none is set. A value is None where it could not be measured; `how` then says what to install.
    """

    name: str
    unit: str
    ours: float | None
    floor: float | None
    goal: float | None
    n: int
    how: str
    most: float | None = None

    @property
    def ratio(self) -> float | None:
        """Ours in floors."""
        return self.ours / self.floor if self.ours is not None and self.floor else None

    @property
    def reached(self) -> bool | None:
        """Whether the ratio, or the value itself, is within the goal."""
        if self.most is not None and self.ours is not None:
            return self.ours <= self.most
        return None if self.ratio is None or self.goal is None else self.ratio <= self.goal

    def cells(self) -> tuple[str, ...]:
        """Return what stands in the table."""
        shown = (_figure(value, self.unit) for value in (self.ours, self.floor))
        ratio = "-" if self.ratio is None else f"{self.ratio:.2f}x"
        goal = "-" if self.goal is None else f"<={self.goal:g}x"
        goal = goal if self.most is None else f"<={self.most:g} {self.unit}"
        reached = {None: "-", True: "yes", False: "NO"}[self.reached]
        return (self.name, *shown, ratio, goal, reached, str(self.n), self.how)

    def plain(self) -> dict[str, Any]:
        """Return everything, for a file."""
        return {**asdict(self), "ratio": self.ratio, "reached": self.reached}


def failed(name: str, why: str) -> Row:
    """Return the line of a benchmark that could not be carried out."""
    return Row(name, "", None, None, None, 0, f"failed: {why}")


def draw(rows: list[Row]) -> str:
    """Return the table as text, numbers to the right."""
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    last = len(HEADINGS) - 1
    return "\n".join(
        "  ".join(
            cell if column == last else cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _figure(value: float | None, unit: str) -> str:
    if value is None:
        return "-"
    digits = max(0, 2 - int(math.log10(max(value, 1))))
    return f"{value:.{digits}f} {unit}"
