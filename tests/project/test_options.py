"""Every option of every command stands in the installed man page, with its default; what pages name is an option."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPTS = Path(sysconfig.get_path("scripts"))
MANUALS = Path(sysconfig.get_path("data")) / "share" / "man"
ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in ("migration", "operations", "reliability"))]
SECTIONS = {"cmapp": 1, "cmappmgr": 1, "cmappserver": 8}
WIDE = "1000"  # columns, so that nothing is broken across lines


@functools.cache
def said(*command: str | Path) -> str:
    """Run a command and return its standard output, without overstriking."""
    done = subprocess.run(command, env={**os.environ, "COLUMNS": WIDE}, stdout=subprocess.PIPE, text=True, check=True)
    return re.sub(".\b", "", done.stdout)


def helps(*command: str | Path) -> Iterator[str]:
    """Yield what `--help` says of a command and of all commands below it."""
    text = said(*command, "--help")
    yield text
    for below in re.findall(r"^  (\w+) ", text.partition("\nCommands:\n")[2], re.MULTILINE):
        yield from helps(*command, below)


def options(text: str) -> Iterator[tuple[list[str], str]]:
    """Yield each described option, in all its spellings, with its description in one line."""
    for block in re.split(r"^ +(?=-)", text, flags=re.MULTILINE)[1:]:
        entry, _, rest = block.partition("\n\n")
        names, _, about = entry.partition("  " if "  " in entry.partition("\n")[0] else "\n")
        yield re.findall(r"--[a-z][a-z-]*", names), " ".join(f"{about} {rest}".split())


@pytest.mark.skipif(not shutil.which("mandoc"), reason="needs mandoc")
@pytest.mark.parametrize(("command", "section"), SECTIONS.items())
def test_options_are_in_the_manual(command: str, section: int) -> None:
    """A user who reads the manual finds what `--help` offers, and what happens without it."""
    manual = said("mandoc", "-T", "ascii", "-O", f"width={WIDE}", MANUALS / f"man{section}" / f"{command}.{section}")
    told = list(options(manual))
    missing = []
    for text in helps(SCRIPTS / command):
        for names, about in options(text):
            default = re.search(r"[(\[]default:? ([^;)\]]+)", about)
            wanted = f"default {default[1]}" if default else ""
            if not any(set(names) <= set(there) and wanted in what for there, what in told):
                missing.append(f"{' '.join(names)} {wanted}")
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_options_that_there_are(page: Path) -> None:
    """What is quoted as an option is one of some command's."""
    there = {
        name
        for command in SECTIONS
        for text in helps(SCRIPTS / command)
        for names, _ in options(text)
        for name in names
    }
    told = set(re.findall(r"`(--[a-z][a-z-]*)", page.read_text()))
    assert told
    assert told <= there
