"""Patterns as an administrator writes them: of names, and of the words of a command.

In a pattern `*` stands for any characters but `/`, `**` for any characters, `?` for one but `/`. The invariant: what
fits a wildcard never climbs out of it: a word with more `..` in it than the pattern has fits no pattern, and nor does
one that is longer than WORD_LIMIT. Matching follows all ways at once, so that no word makes it slow.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

WORD_LIMIT = 4096  # characters of a word that a wildcard may fit: as long as a path can be
REST = "..."  # as the last word of a command's pattern: any further words, or none
_ANY, _WITHIN, _ONE = object(), object(), object()


class _Written:
    """What is known by its text."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __eq__(self, other: object) -> bool:
        """Tell whether the other is the same pattern."""
        return isinstance(other, _Written) and (type(self), self.text) == (type(other), other.text)

    def __hash__(self) -> int:
        """Hash by the text."""
        return hash(self.text)

    def __repr__(self) -> str:
        """Show the text."""
        return f"{type(self).__name__}({self.text!r})"


class Pattern(_Written):
    """What one name or word must be like."""

    __slots__ = ("_parts",)

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._parts = _parts(text)

    @property
    def literal(self) -> bool:
        """Whether it fits its own text only."""
        return all(isinstance(part, str) for part in self._parts)

    def fits(self, word: str) -> bool:
        """Tell whether `word` is like this."""
        if self.literal:
            return word == self.text
        if len(word) > WORD_LIMIT or word.count("..") > self.text.count(".."):
            return False
        reached = self._skipped({0})
        for char in word:
            reached = self._skipped({after for at in reached if (after := self._step(at, char)) is not None})
            if not reached:
                return False
        return len(self._parts) in reached

    def _step(self, at: int, char: str) -> int | None:
        """Return where `char` leads from the part `at`, None if it does not fit there."""
        part = self._parts[at] if at < len(self._parts) else None
        if part is _ANY or (part is _WITHIN and char != "/"):
            return at
        return at + 1 if part == char or (part is _ONE and char != "/") else None

    def _skipped(self, places: set[int]) -> set[int]:
        """Return also the places that are reached by letting a wildcard stand for nothing more."""
        for at in list(places):
            while at < len(self._parts) and (self._parts[at] is _ANY or self._parts[at] is _WITHIN):
                at += 1  # noqa: PLW2901 - the way goes on from there
                places.add(at)
        return places


class CommandPattern(_Written):
    """What the words of a command must be like: as many as there are patterns, or more after a REST."""

    __slots__ = ("_open", "_words")

    def __init__(self, words: Sequence[str]) -> None:
        """Raise ValueError for no words at all."""
        if not words:
            raise ValueError("must have a word at least")
        self._open = words[-1] == REST
        self._words = [Pattern(word) for word in (words[:-1] if self._open else words)]
        shown = (word if word.isprintable() and word and " " not in word else repr(word) for word in words)
        super().__init__(" ".join(shown))

    def fits(self, argv: Sequence[str]) -> bool:
        """Tell whether `argv` is like this; no pattern fits a command without words."""
        enough = len(argv) >= len(self._words) if self._open else len(argv) == len(self._words)
        return bool(argv) and enough and all(map(Pattern.fits, self._words, argv))


def any_fits(patterns: Iterable[Pattern], word: str) -> bool:
    """Tell whether one of the patterns fits `word`."""
    return any(pattern.fits(word) for pattern in patterns)


def _parts(text: str) -> list[object]:
    parts: list[object] = []
    for char in text:
        if char != "*":
            parts.append(_ONE if char == "?" else char)
        elif parts and (parts[-1] is _WITHIN or parts[-1] is _ANY):
            parts[-1] = _ANY
        else:
            parts.append(_WITHIN)
    return parts
