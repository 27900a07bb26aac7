"""The table of bounds in docs/architecture.md tells what the code does: each row names what sets it."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

import cmapp
from cmapp.core.options import options_of
from cmapp.guest import settings as guest
from cmapp.host import settings as host

PAGE = (Path(__file__).parents[2] / "docs" / "architecture.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \| [^|]+ \|$", PAGE.partition("\n## Bounds\n")[2], re.MULTILINE)[
    1:
]
CONSTANTS = [(what, most, *named) for what, most, by in ROWS for named in re.findall(r"`(\w+/\w+)\.py` `(\w+)`", by)]
OPTIONS = [(what, most, name) for what, most, by in ROWS for name in re.findall(r"`--([a-z-]+)`", by)]


PACKAGE = Path(cmapp.__file__).parent


@pytest.mark.parametrize(("what", "most", "module", "name"), CONSTANTS, ids=[f"{row[2]}-{row[3]}" for row in CONSTANTS])
def test_constants_are_as_told(what: str, most: str, module: str, name: str) -> None:
    """A bound that is a constant has the value that the table gives."""
    value = getattr(importlib.import_module(f"cmapp.{module.replace('/', '.')}"), name)
    assert f"{value:g}" in numbers(most), what


@pytest.mark.parametrize(("what", "most", "name"), OPTIONS, ids=[row[2] for row in OPTIONS])
def test_options_are_as_told(what: str, most: str, name: str) -> None:
    """A bound that can be set has the default that the table gives, if it gives one."""
    field = name.replace("-", "_")
    kinds = [kind for kind in (guest.Settings, host.Settings) if field in options_of(kind)]
    assert kinds, what
    defaults = {f"{kind.fields()[field].default:g}" for kind in kinds}
    assert not numbers(most) or defaults & numbers(most), what


def test_every_row_says_what_sets_it() -> None:
    """A row that names neither a constant nor an option is one of the few that follow from something else."""
    named = {row[0] for row in (*CONSTANTS, *OPTIONS)}
    assert {what for what, _, _ in ROWS} - named == {"launches that wait for a name", "silence of a manager"}


def test_every_limit_is_in_the_table() -> None:
    """What the code calls a limit is told: a constant whose name ends so."""
    called = {
        (str(path.relative_to(PACKAGE).with_suffix("")), target.id)
        for path in PACKAGE.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and re.fullmatch(r"([A-Z]+_)*LIMIT", target.id)
    }
    assert called <= {(module, name) for _, _, module, name in CONSTANTS}


def numbers(text: str) -> set[str]:
    """Return the numbers in a text, as `:g` writes them."""
    return {f"{float(number):g}" for number in re.findall(r"\d+(?:\.\d+)?", text)}
