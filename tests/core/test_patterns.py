"""Patterns: what fits them, and that nothing climbs out of a wildcard or makes one slow."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cmapp.core.patterns import WORD_LIMIT, CommandPattern, Pattern

FITS = [
    ("", ""),
    ("vm1", "vm1"),
    ("vm?", "vm1"),
    ("*", ""),
    ("*", "a name"),
    ("vm*", "vm"),
    ("*.example.org", "vm1.example.org"),
    ("a*b*c", "abbbc"),
    ("/etc/*.conf", "/etc/x.conf"),
    ("/etc/**.conf", "/etc/x/y.conf"),
    ("**", "/any/where"),
    ("**a*b", "xa/yab"),
    ("--dir=*", "--dir=x"),
    ("/a/../b", "/a/../b"),
    ("../*", "../b"),
    ("[a]*", "[a]b"),
    ("a.c*", "a.c"),
    ("*\n*", "a\nb"),
]
FAILS = [
    ("", "x"),
    ("vm1", "vm2"),
    ("vm1", "vm11"),
    ("vm1", "VM1"),
    ("vm?", "vm"),
    ("vm?", "vm/"),
    ("*", "a/b"),
    ("/etc/*", "/etc/x/y"),
    ("/etc/*/x", "/etc/../x"),
    ("/etc/**", "/etc/../root/x"),
    ("/srv/**/x", "/srv/a/../../etc/x"),
    ("--dir=*", "--dir=.."),
    ("../*", "../.."),
    ("a.c*", "abc"),
    ("[ab]*", "a"),
    ("**", "x" * (WORD_LIMIT + 1)),
]


@pytest.mark.parametrize(("pattern", "word"), FITS)
def test_fits(pattern: str, word: str) -> None:
    """A word that is like the pattern fits it."""
    assert Pattern(pattern).fits(word)


@pytest.mark.parametrize(("pattern", "word"), FAILS)
def test_does_not_fit(pattern: str, word: str) -> None:
    """Another does not, least of all one that leaves the folder of the pattern."""
    assert not Pattern(pattern).fits(word)


def told_by_re(pattern: str) -> re.Pattern[str]:
    """Return the same pattern for another engine."""
    parts = re.split(r"(\*{2,}|\*|\?)", pattern)
    meaning = {"*": "[^/]*", "?": "[^/]"}
    return re.compile(
        "".join(".*" if part[:2] == "**" else meaning.get(part, re.escape(part)) for part in parts), re.DOTALL
    )


@given(st.text("ab/*?", max_size=8), st.text("ab/", max_size=10))
@example("*a**b", "aab/b")
def test_means_what_another_engine_says(pattern: str, word: str) -> None:
    """Whatever the pattern, a word fits if and only if it does by a regular expression."""
    assert Pattern(pattern).fits(word) is bool(told_by_re(pattern).fullmatch(word))


@given(st.text(max_size=20))
def test_a_literal_fits_itself_only(word: str) -> None:
    """Without a wildcard a pattern is the word itself."""
    pattern = Pattern(re.sub(r"[*?]", "x", word))
    assert pattern.literal
    assert pattern.fits(pattern.text)
    assert not pattern.fits(pattern.text + "x")


def test_no_word_makes_it_slow() -> None:
    """What makes a backtracking engine count for years is told at once, by the number of places that are looked at."""
    looked = 0

    class Counted(Pattern):
        __slots__ = ()

        def _step(self, at: int, char: str) -> int | None:
            nonlocal looked
            looked += 1
            return super()._step(at, char)

    assert not Counted("**a" * 20 + "b").fits("a" * WORD_LIMIT)
    assert looked <= WORD_LIMIT * 42


COMMANDS = [
    (["/bin/true"], ["/bin/true"], True),
    (["/bin/true"], ["/bin/true", "-x"], False),
    (["/bin/true"], [], False),
    (["..."], [], False),
    (["..."], ["x", "../y"], True),
    (["a", "..."], ["a"], True),
    (["a", "..."], ["a", "b", ".."], True),
    (["a", "..."], ["b"], False),
    (["a", "*"], ["a"], False),
    (["a", "*"], ["a", ""], True),
    (["...", "a"], ["x", "a"], False),
    (["a b"], ["a", "b"], False),
]


@pytest.mark.parametrize(("words", "argv", "fits"), COMMANDS)
def test_commands(words: list[str], argv: list[str], *, fits: bool) -> None:
    """A command fits word by word, and by nothing else."""
    assert CommandPattern(words).fits(argv) is fits


def test_a_pattern_without_words_is_refused() -> None:
    """It could mean anything."""
    with pytest.raises(ValueError, match="must have a word"):
        CommandPattern([])
