"""The lines of a TOML document: of each table and key that tomllib returns, and of nothing else."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmapp.cluster.lines import find_lines, line_of_error

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

DOCUMENT = '''\
# a comment = [
name = "erp"  # "
hosts = [
    "n1",  # ]
    'n2',
]

[service.db]
command = """
[not.a.table]
x = "1" ""\\"
"""
env = {A = "1", "b.c" = "2"}
[service."we b"]
user.name = 'its' # no
[[rule]]
n = 1
[rule.sub]
m = 2
[[rule]]
n = 3
'''
FOUND = {
    "name": 2,
    "hosts": 3,
    "hosts/0": 3,
    "service": 8,
    "service/db": 8,
    "service/db/command": 9,
    "service/db/env": 13,
    "service/db/env/b.c": 13,
    "service/we b": 14,
    "service/we b/user/name": 15,
    "rule": 16,
    "rule/0/n": 17,
    "rule/0/sub": 18,
    "rule/0/sub/m": 19,
    "rule/1": 20,
    "rule/1/n": 21,
}


def paths(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the keys of all that tomllib returned."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*above, str(key))
        yield from paths(value, (*above, str(key)))


@pytest.mark.parametrize(("where", "line"), FOUND.items(), ids=FOUND)
def test_a_key_has_its_line(where: str, line: int) -> None:
    """A key has the line on which it begins, whatever strings, comments and brackets say."""
    assert find_lines(DOCUMENT)[tuple(where.split("/"))] == line


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_ends_of_lines(end: str) -> None:
    """Lines are counted alike however they end, the last one too if nothing ends it."""
    text = end.join(["a = 1", "", "b = '''", "x", "'''", "c = 2"])
    assert find_lines(text) == {("a",): 1, ("b",): 3, ("c",): 6}


@pytest.mark.parametrize(
    ("text", "line"),
    [("a = 1\nb = \n", 2), ("a = 1\na = 2\n", 2), ("[a]\nx = 1\n[a]\n", 3), ('x = 1\ny = """\n\n', 3), ("['\r\x85", 1)],
)
def test_an_error_has_its_line(text: str, line: int) -> None:
    """What tomllib complains of has a line; what is missing at the end, the last one."""
    with pytest.raises(tomllib.TOMLDecodeError) as caught:
        tomllib.loads(text)
    assert line_of_error(caught.value, text) == line


@pytest.mark.parametrize(
    "value", ['"""a"""" # "[', '"""a""""" # "[', "'''a'''' # '[", "'''a''''' # '[", '"\\"" # "[', "'\\' # '["]
)
def test_a_statement_ends_where_it_ends(value: str) -> None:
    """Quotes before those that close a string are its own, and what follows it in a comment is nothing."""
    assert find_lines(f"a = {value}\nb = 1") == {("a",): 1, ("b",): 2}


# ---- documents that nobody wrote ---------------------------------------------------------------------------------

BARE = st.text("ab1_-", min_size=1, max_size=3)
ODD = st.text(" .#\"'[]={}\\\t", max_size=4)
KEYS = BARE | ODD.map(lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"')
TRICKY = st.sampled_from(
    [
        "1",
        "true",
        "'#'",
        '"]"',
        '"\\""',
        "'''\n[x]\n'''",
        '"""\na = 1\n"""',
        '""""quoted" """',
        '"""two""""',
        '"""more"""""',
        "'''it''s'''",
        "''''x'''''",
        '"""\\"""" ',
        '"""a\\\n  b"""',
        "1979-05-27T07:32:00Z",
        "''",
        '""',
    ]
)


def _nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    gap = st.sampled_from([" ", "\n", " # ]\n", "\n\n"])
    arrays = st.tuples(st.lists(inner, max_size=3), gap).map(
        lambda made: "[" + f",{made[1]}".join(made[0]) + made[1] + "]"
    )
    tables = st.dictionaries(BARE, inner, max_size=2).map(
        lambda made: "{" + ", ".join(f"{key} = {value}" for key, value in made.items()) + "}"
    )
    return arrays | tables


VALUES = st.recursive(TRICKY, _nested, max_leaves=5)
SPACES = st.sampled_from(["", " ", "\t"])
STATEMENTS = (
    st.tuples(
        SPACES,
        st.lists(KEYS, min_size=1, max_size=2),
        VALUES,
        st.sampled_from(["", " # x = [", "\t#'''", ' # "[', " # '["]),
    ).map(lambda made: f"{made[0]}{'.'.join(made[1])} = {made[2]}{made[3]}")
    | st.lists(KEYS, min_size=1, max_size=3).map(lambda keys: f"[{'.'.join(keys)}]")
    | st.lists(KEYS, min_size=1, max_size=3).map(lambda keys: f"[[ {' . '.join(keys)} ]] # [")
    | st.sampled_from(["", "  ", "# [x]", '#"""'])
)


@settings(max_examples=300)
@given(st.lists(STATEMENTS, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_it_agrees_with_tomllib(statements: list[str], end: str, ended: bool) -> None:  # noqa: FBT001 - hypothesis's
    """Whatever a document is made of: what tomllib returns has a line, on which its statement begins; nothing else."""
    kept: list[str] = []
    begins: list[int] = []
    for statement in statements:  # those that fit to what is there
        try:
            tomllib.loads("\n".join([*kept, statement]))
        except tomllib.TOMLDecodeError:
            continue
        begins.append(sum(each.count("\n") + 1 for each in kept) + 1)
        kept.append(statement)
    text = "\n".join(kept).replace("\n", end) + (end if ended else "")
    found = find_lines(text)
    assert set(found) == set(paths(tomllib.loads(text)))
    assert set(found.values()) <= set(begins)
    for keys, line in found.items():  # it is what the statement on that line adds
        count = begins.index(line)
        before, after = (set(paths(tomllib.loads("\n".join(kept[:number])))) for number in (count, count + 1))
        assert keys in after - before
