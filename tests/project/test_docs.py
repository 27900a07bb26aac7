"""The documentation agrees with the code and with itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import cmapp

PACKAGE = Path(cmapp.__file__).parent
ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_drawn_parts_are_current() -> None:
    """What is drawn from code is what the code draws today; `./run docs` makes it so."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_house_has_every_module() -> None:
    """The plan of the house in docs/architecture.md names each module, in its room, and no other."""
    plan = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    rooms = re.split(r"^ {2}(\w+)/ ", plan.partition("\ntests/")[0], flags=re.MULTILINE)
    told = {
        (room, name)
        for room, text in zip(rooms[1::2], rooms[2::2], strict=True)
        for name in re.findall(r"\w+\.py", text)
    }
    there = {(path.parent.name, path.name) for path in PACKAGE.glob("*/*.py") if path.name != "__init__.py"}
    assert told == there


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project leads to a file that is there."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if ":" not in link and not (page.parent / link).exists()]


def test_there_is_a_readme() -> None:
    """The README is among the pages whose links are followed."""
    assert ROOT / "README.md" in PAGES
