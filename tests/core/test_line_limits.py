"""How long a line may be, to the byte, and that nothing but messages and one kind of error comes of any bytes."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import messages as m
from cmapp.core.checks import TEXT_LIMIT
from cmapp.core.wire import LINE_LIMIT, Decoder, encode
from cmapp.errors import LocalProtocolError, RemoteProtocolError

KINDS = m.FROM_MANAGER | m.FROM_SERVER
RUN = "01234567-89ab-cdef-0123-456789abcdef"
TOO_LONG = "a line of more than 65536 bytes"


def said_of(stream: bytes) -> str:
    """Return the reason for which a fresh decoder refuses the stream."""
    with pytest.raises(RemoteProtocolError) as refusal:
        list(Decoder(KINDS).feed(stream))
    return str(refusal.value)


def line_of(size: int) -> bytes:
    """Return a line of that many bytes with its newline."""
    frame = b'{"type":"bye","x":""}\n'
    return frame.replace(b'""', b'"%s"' % (b"x" * (size - len(frame))))


def test_longest_line_is_taken() -> None:
    """A line of exactly 65536 bytes, with its newline, is taken, in one piece or in many."""
    line = line_of(65536)
    assert len(line) == 65536
    assert list(Decoder(KINDS).feed(line)) == [m.Bye()]
    decoder = Decoder(KINDS)
    assert [message for at in range(0, 65536, 1000) for message in decoder.feed(line[at : at + 1000])] == [m.Bye()]


def test_longer_line_is_refused() -> None:
    """One byte more is too much, and refused by its length although its end is there."""
    assert said_of(line_of(65537)) == TOO_LONG


def test_line_without_end_is_refused_at_the_right_byte() -> None:
    """65535 bytes may still become a line, one more cannot."""
    decoder = Decoder(KINDS)
    assert list(decoder.feed(b"x" * 65535)) == []
    assert decoder.pending
    with pytest.raises(RemoteProtocolError, match=f"^{TOO_LONG}$"):
        list(decoder.feed(b"x"))


@pytest.mark.parametrize("size", [1, 1460, 16384, 2**20], ids=str)
def test_endless_line_is_refused_as_soon_as_it_is_too_long(size: int) -> None:
    """A megabyte without a newline is refused with the piece that passes the limit, and nothing of it is kept."""
    decoder = Decoder(KINDS)
    rest = 65535 - 65535 % size if size > 1 else 65535
    list(decoder.feed(b"x" * rest))
    with pytest.raises(RemoteProtocolError, match=f"^{TOO_LONG}$"):
        list(decoder.feed(b"x" * size))
    assert not decoder.pending


def test_memory_is_bounded() -> None:
    """However much comes, no more than a line is kept."""
    decoder = Decoder(KINDS)
    stream = line_of(1000) * 1000
    tracemalloc.start()
    try:
        for at in range(0, len(stream), 16384):
            assert list(decoder.feed(stream[at : at + 16384]))
        kept, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < LINE_LIMIT
    assert most < 4 * LINE_LIMIT


def test_too_long_a_message_is_our_own_error() -> None:
    """A message that does not fit a line is refused before a byte of it is said."""
    launch = m.Launch(1, "web", RUN, ("x" * 30_000,) * 3)
    with pytest.raises(
        LocalProtocolError, match=r"^a launch of 901\d\d bytes is longer than the 65536 that a line may have$"
    ):
        encode(launch)


@pytest.mark.parametrize(("rest", "fits"), [(0, True), (1, False)], ids=["to the byte", "a byte more"])
def test_encoding_and_decoding_have_the_same_limit(rest: int, *, fits: bool) -> None:
    """What may be said is what is taken."""
    frame = len(encode(m.Refused("", "", id=0)))
    text = "x" * (LINE_LIMIT - TEXT_LIMIT - frame + rest)
    message = m.Refused("x" * TEXT_LIMIT, text, id=0)
    if fits:
        assert len(encode(message)) == LINE_LIMIT
        assert list(Decoder(KINDS).feed(encode(message))) == [message]
    else:
        with pytest.raises(LocalProtocolError):
            encode(message)


# ---- anything at all ---------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=6,
)
TYPED = st.sampled_from(sorted(KINDS)).flatmap(
    lambda word: st.fixed_dictionaries(
        {"type": st.just(word)}, optional=dict.fromkeys(KINDS[word].fields(), JSON | st.integers(0, 64))
    )
)
WRITTEN = (JSON | TYPED).map(lambda value: json.dumps(value).encode() + b"\n")


@given(st.lists(st.binary() | WRITTEN | st.just(b"\n")))
def test_arbitrary_bytes_raise_nothing_else(pieces: list[bytes]) -> None:
    """Whatever comes, it is messages or one RemoteProtocolError whose reason can be said."""
    decoder = Decoder(KINDS)
    try:
        for piece in pieces:
            for message in decoder.feed(piece):
                assert isinstance(message, (m.Message, m.Unrecognized))
    except RemoteProtocolError as error:
        assert encode(m.Bye(str(error)))  # noqa: PT017 - not raising is right too
