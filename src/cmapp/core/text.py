"""Text from outside, made fit for a log line: nobody forges a line by a newline in a name."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return `text` with everything that a terminal or a log would act on written out, such as `\n` or `\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")
