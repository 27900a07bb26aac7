"""Text from outside, made fit for a log line: nobody forges a line by a newline in a name."""

from __future__ import annotations


def printable(text: str) -> str:
    r"""Return `text` with everything that a terminal or a log would act on written out, such as `\n` or `\x1b`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape", "backslashreplace").decode("ascii")


def fitted(text: str, most: int) -> bytes:
    """Return `text` made printable, in UTF-8, and at most `most` bytes of it: cut between characters, and so marked.

    Half a character at the end would make a line of a log something that its readers show as a blob, or not at all.
    """
    line = printable(text).encode()
    return line if len(line) <= most else line[: most - 3].decode(errors="ignore").encode() + b"..."
