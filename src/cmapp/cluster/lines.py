"""On which line of a TOML document what stands, for tomllib tells only values.

A document is cut into its statements (a header, or a key and its value), each of which is then read by tomllib
alone: so what a key is called and how it nests is tomllib's to say, and the cutting has to know no more of the language
than where strings, comments and brackets end. The invariant: for a document that tomllib reads, every table and every
key that it returns has a line, and nothing else has one.
"""

from __future__ import annotations

import re
import tomllib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

# The quotes that open a string, and what may stand in it up to those that close it. Up to two quotes of a string of
# several lines may stand before the three that close it.
_TOKEN = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!""))*"{3,5}'
    r"|'''(?:[^']|'(?!''))*'{3,5}"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|[][{}\n]",
    re.DOTALL,
)
_AT = re.compile(r"at line (\d+), column \d+")


def find_lines(text: str) -> dict[tuple[str, ...], int]:
    """Return the line, from 1, of every table and key in `text`, by its keys from the top, an element by its index.

    `text` is one that tomllib reads. A table has the line of its first header, or of what makes it.
    """
    lines: dict[tuple[str, ...], int] = {}
    counts: dict[tuple[str, ...], int] = {}
    here: tuple[str, ...] = ()
    for number, statement in _statements(text.replace("\r\n", "\n")):
        table = tomllib.loads(statement)
        if statement.lstrip(" \t").startswith("["):
            here = _enter(table, counts, lines, number)
        else:
            for keys in _keys(table, here):
                lines.setdefault(keys, number)
    return lines


def line_of_error(error: ValueError, text: str) -> int:
    """Return the line that an error of tomllib is about."""
    found = _AT.search(str(error))
    return int(found[1]) if found else text.removesuffix("\n").count("\n") + 1


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Yield each statement with the line on which it begins: it ends with a line outside of strings and brackets."""
    begin, depth = 0, 0
    number = 1
    for token in _TOKEN.finditer(text):
        if token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
        elif token[0] == "\n" and depth == 0:
            yield from _told(number, text[begin : token.end()])
            number += text.count("\n", begin, token.end())
            begin = token.end()
    yield from _told(number, text[begin:])


def _told(number: int, statement: str) -> Iterator[tuple[int, str]]:
    if statement.strip() and not statement.lstrip().startswith("#"):
        yield number, statement


def _enter(
    table: dict[str, Any], counts: dict[tuple[str, ...], int], lines: dict[tuple[str, ...], int], number: int
) -> tuple[str, ...]:
    """Return the keys of the table that a header opens, where an array of tables is at its last element."""
    keys: tuple[str, ...] = ()
    node: Any = table
    while isinstance(node, dict) and node:
        ((key, node),) = node.items()
        keys += (key,)
        lines.setdefault(keys, number)
        if isinstance(node, list):  # [[...]]: another element
            counts[keys] = counts.get(keys, -1) + 1
            keys += (str(counts[keys]),)
            lines[keys] = number
            return keys
        if keys in counts:
            keys += (str(counts[keys]),)
    return keys


def _keys(node: Any, above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the keys of all that a statement says, from the top."""
    items: Iterator[tuple[Any, Any]] | Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list):
        items = enumerate(node)
    for key, value in items:
        yield (*above, str(key))
        yield from _keys(value, (*above, str(key)))
