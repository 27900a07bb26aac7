"""The manual of guest packages has every key with its default, and its example and those of the pages are valid."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cmapp.cluster.package import Head, Rules, Vm
from cmapp.cluster.reading import NEEDED, examine
from cmapp.core.options import options_of
from cmapp.host.settings import Settings

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "man" / "cmapp-package.5").read_text()
OWN = [
    (key, option.shown, kind.fields()[key].default)
    for kind in (Head, Vm, Rules)
    for key, option in options_of(kind).items()
]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXAMPLES = [
    (page.name, text) for page in PAGES for text in re.findall(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)
]
WHOLE = [(name, text) for name, text in EXAMPLES if re.search(r"^\[vm\]", text, re.MULTILINE) and "guest =" in text]


def plain(text: str) -> str:
    """Return the text of a manual without its markup."""
    lines = [re.sub(r"^\.(Cm|Li|Sy|Ar|Pa|Nm|Xr|Ev|Em) ", "", line) for line in text.splitlines()]
    return " ".join(" ".join(lines).split())


@pytest.mark.parametrize(("key", "shown", "default"), OWN, ids=[key for key, _, _ in OWN])
def test_a_key_is_described_with_its_default(key: str, shown: str | None, default: object) -> None:
    """Who reads the manual knows what happens without the key."""
    _, found, rest = PAGE.partition(f"\n.It Cm {key}\n")
    assert found
    about = plain(re.split(r"\n\.(?:It|El|Ss)", rest)[0])
    wanted = "It must be given" if key in NEEDED else shown or f"default {default}"
    assert wanted in about


@pytest.mark.parametrize("key", [key for key, option in options_of(Settings).items() if option.in_file])
def test_settings_of_managers_are_named(key: str) -> None:
    """Every key that cmappmgr's own file may have is named, and no other."""
    assert re.search(rf"(?m)^\.Cm (.* )?{key}( |$)", PAGE)


def test_nothing_else_is_described() -> None:
    """What is described as a key is one."""
    told = re.findall(r"^\.It Cm (\w+)$", PAGE, re.MULTILINE)
    assert sorted(told) == sorted(key for key, _, _ in OWN)


def test_the_example_is_valid() -> None:
    """What the manual shows can be copied."""
    first, second = (
        text.replace("\\(dq", '"')
        for text in re.findall(r"\.Bd -literal -offset indent\n(.*?)\.Ed", PAGE, re.DOTALL)[:2]
    )
    assert examine("example", first)[1] == []
    machine = re.search(r"\[vm\]\n(?:.+\n)+", first)
    assert machine
    assert examine("example", first.replace(machine[0], second))[1] == []


@pytest.mark.parametrize(("page", "text"), WHOLE, ids=[name for name, _ in WHOLE])
def test_examples_in_the_pages_are_valid(page: str, text: str) -> None:
    """A whole package in the documentation is one that can be checked and loaded."""
    assert examine(page, text)[1] == []
