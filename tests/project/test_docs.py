"""The documentation agrees with the code and with itself."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


def test_drawn_parts_are_current() -> None:
    """What is drawn from code is what the code draws today; `./run docs` makes it so."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the project leads to a file that is there."""
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if ":" not in link and not (page.parent / link).exists()]


def test_there_is_a_readme() -> None:
    """The README is among the pages whose links are followed."""
    assert ROOT / "README.md" in PAGES
