"""Small modules that say what they are for, and tests that meet the built wheel."""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path

import pytest

import cmapp

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "attack", "bench", "chaos", "demo", "docs", "fuzz", "simulate", "testbed")
MODULES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
ONE_SITTING = 330  # lines

modules = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))


@modules
def test_module_is_read_in_one_sitting(path: Path) -> None:
    """A module that grows past one sitting becomes two."""
    assert len(path.read_text().splitlines()) < ONE_SITTING


@modules
def test_module_says_what_it_is_for(path: Path) -> None:
    """A module's header tells its theory."""
    assert ast.get_docstring(ast.parse(path.read_text()))


@modules
def test_module_has_a_name(path: Path) -> None:
    """What belongs nowhere is not put into a drawer for odds and ends."""
    assert path.stem.strip("_") not in {"utils", "util", "helpers", "helper", "common", "misc"}


def test_the_wheel_is_tested() -> None:
    """What the tests import is the installed wheel, made from the sources that are here."""
    installed = Path(cmapp.__file__).parent
    sources = ROOT / "src" / "cmapp"
    assert installed.parent == Path(sysconfig.get_path("purelib"))
    assert {path.relative_to(installed): path.read_bytes() for path in installed.rglob("*.py")} == {
        path.relative_to(sources): path.read_bytes() for path in sources.rglob("*.py")
    }
