"""One map from an ending to an exit code, and every code in it told to the user."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cmapp
from cmapp.core.outcome import Own

PACKAGE = Path(cmapp.__file__).parent
ELSEWHERE = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "core" / "outcome.py"]
MANUAL = Path(__file__).parents[2] / "docs" / "man" / "cmappmgr.1"


@pytest.mark.parametrize("path", ELSEWHERE, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_codes_are_written_down_once(path: Path) -> None:
    """No other module spells out one of cmappmgr's codes, or adds 128 to a signal."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    numbers = {node.value for node in nodes if isinstance(node, ast.Constant) and type(node.value) is int}
    sums = [ast.unparse(node) for node in nodes if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add)]
    assert not numbers & (set(Own) - {Own.SIGNAL_BASE, Own.DETACHED})  # 128 and 0 mean much else
    assert not [text for text in sums if re.search(r"\b128\b", text)]


@pytest.mark.parametrize("own", Own)
def test_manual_names_every_code(own: Own) -> None:
    """A user finds each code under EXIT STATUS."""
    status = MANUAL.read_text().partition("EXIT STATUS")[2]
    assert re.search(rf"\b{own.value}\b", status)
