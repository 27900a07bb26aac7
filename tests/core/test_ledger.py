"""The lines of a run's file: whatever a disk does to them, what comes out is what went in, up to the damage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import messages as m
from cmapp.core import wire
from cmapp.core.ledger import FORMAT, LINE_LIMIT, LedgerError, decode, encode_line, whole

if TYPE_CHECKING:
    from collections.abc import Callable

HEADER = {"format": FORMAT, "boot": "b"}
ENTRIES: list[dict[str, Any]] = [HEADER, {"launch": {"argv": ["a b", "ü\n"]}}, {}, {"exited": 3, "at": 1.5}]
LINES = [encode_line(entry) for entry in ENTRIES]
CONTENT = b"".join(LINES)
ROOM = b" " * 40
RUN = "01234567-89ab-cdef-0123-456789abcdef"


def line(text: bytes) -> bytes:
    """Return a line whose checksum is right, whatever it holds."""
    return b"%08x %s\n" % (crc32(text), text)


def lines_within(size: int) -> int:
    """Return how many of the lines are whole in the first `size` bytes."""
    return sum(len(b"".join(LINES[: n + 1])) <= size for n in range(len(LINES)))


@pytest.mark.parametrize("room", [b"", b" ", ROOM, b"\n\n  \n", b" " * (2 * LINE_LIMIT + 1)])
def test_room_is_no_line(room: bytes) -> None:
    """Blanks behind the lines are neither an entry nor damage."""
    assert decode(CONTENT + room) == (ENTRIES, False)
    assert whole(CONTENT + room) == len(CONTENT)


def test_nothing() -> None:
    """A file in which nothing was ever written holds nothing."""
    assert decode(b"") == decode(ROOM) == ([], False)


@given(
    st.lists(st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans() | st.lists(st.text())))
)
def test_round_trip(entries: list[dict[str, Any]]) -> None:
    """Whatever JSON can say comes back."""
    said = [HEADER, *entries]
    assert decode(b"".join(map(encode_line, said))) == (said, False)


def test_what_no_utf8_can_say() -> None:
    """A lone surrogate, as Python makes of a strange file name, comes back too."""
    said = {**HEADER, "text": "\udcff"}
    assert decode(encode_line(said)) == ([said], False)


@pytest.mark.parametrize("room", [b"", ROOM])
def test_cut_off_anywhere(room: bytes) -> None:
    """A file that was cut off gives the lines before the cut, and says so if it went through one."""
    content = CONTENT + room
    for size in range(len(content)):
        count = lines_within(size)
        end = len(b"".join(LINES[:count]))
        assert decode(content[:size]) == (ENTRIES[:count], size > end and size < len(CONTENT))
        assert whole(content[:size]) == end


@pytest.mark.parametrize("damage", [lambda rest: b" " * len(rest), lambda rest: bytes(len(rest)), lambda _: ROOM])
def test_end_that_was_never_written(damage: Callable[[bytes], bytes]) -> None:
    """A file whose end is blank or zero gives the lines before it."""
    for size in range(len(CONTENT)):
        content = CONTENT[:size] + damage(CONTENT[size:]) + ROOM
        count = lines_within(size)
        entries, torn = decode(content)
        assert entries == ENTRIES[:count]
        blank = not content[size:].strip(b" ") and size == whole(content)
        assert torn is not blank


@pytest.mark.parametrize("garbage", [b" ", b"\n", b"\0", b"\xff", b"0", b"a", b"{", b'"'])
def test_garbage_anywhere(garbage: bytes) -> None:
    """A wrong byte anywhere costs the lines from there on, at most: none is altered, and the loss is said."""
    for place in range(len(CONTENT)):
        content = CONTENT[:place] + garbage + CONTENT[place + 1 :]
        if content == CONTENT:
            continue
        entries, torn = decode(content + ROOM)
        assert torn
        assert entries == ENTRIES[: lines_within(place)]


def test_line_that_was_blanked() -> None:
    """A line that is blank now is missed, and those behind it are used."""
    content = LINES[0] + b" " * len(LINES[1]) + LINES[2] + LINES[3]
    assert decode(content) == ([ENTRIES[0], ENTRIES[2], ENTRIES[3]], True)
    assert whole(content) == len(content)
    content = LINES[0] + b" " * (len(LINES[1]) - 1) + b"\n" + LINES[2]
    assert decode(content) == ([ENTRIES[0], ENTRIES[2]], True)
    assert decode(b" " + CONTENT) == (ENTRIES, True)


@given(st.binary(), st.integers(0, len(LINES)))
def test_any_bytes(data: bytes, count: int) -> None:
    """No bytes behind whole lines are taken for more of them."""
    entries, torn = decode(b"".join(LINES[:count]) + data)
    assert entries == ENTRIES[:count]
    assert torn is bool(data.strip(b" \n"))


@pytest.mark.parametrize("text", [b"[]", b"1", b"{", b"\xff", b'{"a":' + b"[" * 100_000])
def test_checksum_of_what_is_no_entry(text: bytes) -> None:
    """A right checksum does not make an entry."""
    assert decode(LINES[0] + line(text) + LINES[1]) == ([HEADER], True)


@pytest.mark.parametrize("header", [{}, {"format": 0}, {"format": True}, {"format": "1"}, {"format": None}, {"a": 1}])
def test_file_without_a_format(header: dict[str, Any]) -> None:
    """A file that does not say what it is, is not read."""
    with pytest.raises(LedgerError, match="does not name its format"):
        decode(encode_line(header) + CONTENT)


def test_file_of_a_newer_version() -> None:
    """A file from a newer version is not guessed at, and the error says what it is."""
    content = encode_line({"format": FORMAT + 1}) + b"whatever it may hold"
    for read in (decode, whole):
        with pytest.raises(LedgerError, match=f"newer cmappserver: its format is {FORMAT + 1}, and {FORMAT} is known"):
            read(content)


def test_limit_of_a_line() -> None:
    """A line has a limit, and what is at it comes back."""
    over = len(line(json.dumps({**HEADER, "a": "x" * LINE_LIMIT}, separators=(",", ":")).encode())) - LINE_LIMIT
    longest = {**HEADER, "a": "x" * (LINE_LIMIT - over)}
    assert len(encode_line(longest)) == LINE_LIMIT
    assert decode(encode_line(longest) + CONTENT) == ([longest, *ENTRIES], False)
    with pytest.raises(LedgerError, match="longer than"):
        encode_line({**longest, "b": ""})
    assert decode(line(json.dumps({**HEADER, "a": "x" * LINE_LIMIT}).encode())) == ([], True)


@pytest.mark.parametrize("char", ["x", "\x7f", "ü", "\N{PILE OF POO}", "\\"])
def test_any_launch_fits_a_line(char: str) -> None:
    """Whatever launch the protocol can carry, a line can hold."""
    size = 30_000 // len(json.dumps(char, ensure_ascii=False).encode()[1:-1])
    launch = m.Launch(1, "web", RUN, ("/bin/web", char * size, char * size))
    assert len(wire.encode(launch)) > 60_000
    entry = {**HEADER, "launch": wire.plain(launch)}
    assert decode(encode_line(entry)) == ([entry], False)
