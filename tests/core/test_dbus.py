"""D-Bus as bytes: one table of messages with their bytes, one of bytes that are none, and anything at all."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import dbus
from cmapp.core.dbus import BusMessage, Decoder, Kind, Variant, bare, encode
from cmapp.core.dbustypes import is_path, split_signature
from cmapp.errors import LocalProtocolError, RemoteProtocolError

CALL = BusMessage(Kind.CALL, 1, path="/", member="M")
# What is said, in which byte order, and its bytes.
CASES: list[tuple[BusMessage, str, str]] = [
    (
        CALL,
        "l",
        "6c010001 00000000 01000000 1a000000 01016f00 01000000 2f000000 00000000 03017300 01000000 4d00 000000000000",
    ),
    (
        BusMessage(Kind.RETURN, 7, reply_to=2, signature="u", body=(258,)),
        "B",
        "42020001 00000004 00000007 0000000f 05017500 00000002 08016700 01750000 00000102",
    ),
    (
        BusMessage(Kind.RETURN, 7, reply_to=2, signature="ba{sv}", body=(True, {"x": Variant("(yt)", (1, 2))})),
        "l",
        (
            "6c020001 28000000 07000000 14000000 05017500 02000000 08016700 0662617b 73767d00 00000000"
            "01000000 20000000 01000000 78000428 79742900 00000000 0100000000000000 0200000000000000"
        ),
    ),
]
GOOD = bytes.fromhex(CASES[0][2])
BODY = bytes.fromhex(CASES[1][2])


@pytest.mark.parametrize(("message", "order", "written"), CASES)
def test_bytes_are_as_the_specification_has_them(message: BusMessage, order: str, written: str) -> None:
    """What is written is what was worked out by hand, and is read back."""
    assert encode(message, order) == bytes.fromhex(written)
    assert list(Decoder().receive(bytes.fromhex(written))) == [message]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"x" + GOOD[1:], "no message of D-Bus"),
        (GOOD[:3] + b"\2" + GOOD[4:], "no message of D-Bus"),
        (GOOD[:1] + b"\0" + GOOD[2:], "0 is not a valid Kind"),
        (GOOD[:8] + bytes(4) + GOOD[12:], "without a serial"),
        (GOOD[:1] + b"\4" + GOOD[2:], "without interface"),
        (GOOD.replace(b"\1\1o", b"\1\1s"), "is of another type"),
        (GOOD.replace(b"/", b"x"), "none of type o"),
        (GOOD[:-1] + b"x", "what fills a gap"),
        (GOOD.replace(b"M\0", b"\xff\0"), "cannot be read"),
        (GOOD[:4] + b"\4" + GOOD[5:] + bytes(4), "longer than its signature"),
        (BODY.replace(b"\1u\0\0\0\0\1\2", b"\1b\0\0\0\0\1\2"), "is of another type"),
        (BODY.replace(b"\1u\0", b"\1v\0"), "cannot be read"),
        (BODY.replace(b"\1u\0", b"\1{\0"), "is no signature"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "more than"),
        (GOOD[:12] + b"\xff\xff\xff\xff" + GOOD[16:], "more than"),
    ],
)
def test_what_is_no_message_is_refused(data: bytes, why: str) -> None:
    """Bytes that nobody may say are told as what they are, and never as a message."""
    with pytest.raises(RemoteProtocolError, match=why):
        list(Decoder().receive(data))


@pytest.mark.parametrize(
    ("signature", "body", "why"),
    [
        ("s", ("\0",), "none of type s"),
        ("s", (1,), "of another type"),
        ("o", ("/a//b",), "none of type o"),
        ("u", (-1,), "said on a bus"),
        ("y", (256,), "said on a bus"),
        ("b", (1,), "of another type"),
        ("u", (), "said on a bus"),
        ("u", (1, 2), "said on a bus"),
        ("a{vs}", ({},), "key is not basic"),
        ("(i", ((1,),), "no signature"),
        ("v", (Variant("ss", "x"),), "not one type"),
        ("a" * 40 + "s", ([],), "nested too deeply"),
        ("ay", (bytes(dbus.MESSAGE_LIMIT),), "longer than"),
    ],
)
def test_what_cannot_be_read_back_is_not_written(signature: str, body: tuple[Any, ...], why: str) -> None:
    """A value that does not fit its type is a defect of ours, told before anything is sent."""
    with pytest.raises(LocalProtocolError, match=why):
        encode(BusMessage(Kind.CALL, 1, path="/", member="M", signature=signature, body=body))


def test_variants_may_not_be_nested_without_an_end() -> None:
    """Depth is bounded on either side."""
    value: Any = Variant("y", 1)
    for _ in range(dbus_depth() + 1):
        value = Variant("v", value)
    with pytest.raises(LocalProtocolError, match="nested too deeply"):
        encode(CALL.replace(signature="v", body=(value,)))
    deep = b"\1v\0" * 200 + b"\1y\0\1"
    head = encode(CALL.replace(signature="v", body=(Variant("y", 1),)))[:-4]
    data = head[:4] + len(deep).to_bytes(4, "little") + head[8:] + deep
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        list(Decoder().receive(data))


def dbus_depth() -> int:
    """Return how deep values may be nested."""
    from cmapp.core.dbusvalues import DEPTH  # noqa: PLC0415 - of no use elsewhere

    return DEPTH


def test_types_that_have_names() -> None:
    """Signatures fall apart into complete types, and paths are told from other text."""
    assert split_signature("a{sa(iv)}ayb") == ("a{sa(iv)}", "ay", "b")
    for wrong in ("a", "()", "(", ")", "{sv}", "a{s}", "a{sss}", "z", "a{svs", "é"):
        with pytest.raises(ValueError, match=r"signature|dictionary"):
            split_signature(wrong)
    assert [path for path in ("/", "/a/_1", "", "a", "/a/", "//", "/a-b") if is_path(path)] == ["/", "/a/_1"]
    assert bare({"a": Variant("av", [Variant("(sv)", ("x", Variant("u", 1)))])}) == {"a": [("x", 1)]}


# ---- anything at all ---------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
NAMES = TEXTS.filter(bool)
PATHS = st.lists(st.from_regex(r"[A-Za-z0-9_]{1,5}", fullmatch=True), max_size=3).map(
    lambda names: "/" + "/".join(names)
)
BASIC: dict[str, st.SearchStrategy[Any]] = {
    "y": st.integers(0, 2**8 - 1),
    "b": st.booleans(),
    "n": st.integers(-(2**15), 2**15 - 1),
    "q": st.integers(0, 2**16 - 1),
    "i": st.integers(-(2**31), 2**31 - 1),
    "u": st.integers(0, 2**32 - 1),
    "x": st.integers(-(2**63), 2**63 - 1),
    "t": st.integers(0, 2**64 - 1),
    "d": st.floats(allow_nan=False),
    "s": TEXTS,
    "o": PATHS,
    "g": st.sampled_from(["", "s", "a{sv}", "(yay)"]),
}
KEYS = st.sampled_from([kind for kind in BASIC if kind != "d"])
SIGNATURES = st.recursive(
    st.sampled_from([*BASIC, "v", "ay"]),
    lambda inner: st.one_of(
        inner.map(lambda one: f"a{one}"),
        st.lists(inner, min_size=1, max_size=3).map(lambda some: f"({''.join(some)})"),
        st.tuples(KEYS, inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}"),
    ),
    max_leaves=6,
)


def values(signature: str) -> st.SearchStrategy[Any]:
    """Return values of that complete type."""
    if signature in BASIC:
        return BASIC[signature]
    if signature == "v":
        return st.sampled_from([*BASIC, "as", "(ss)"]).flatmap(
            lambda one: st.builds(Variant, st.just(one), values(one))
        )
    if signature == "ay":
        return st.binary(max_size=20)
    if signature.startswith("a{"):
        key, item = split_signature(signature[2:-1])
        return st.dictionaries(values(key), values(item), max_size=3)
    if signature.startswith("a"):
        return st.lists(values(signature[1:]), max_size=3)
    return st.tuples(*map(values, split_signature(signature[1:-1])))


BODIES = st.lists(SIGNATURES, max_size=3).flatmap(
    lambda kinds: st.tuples(st.just("".join(kinds)), st.tuples(*map(values, kinds)))
)


MESSAGES = st.builds(
    lambda body, path, member, sender, serial: BusMessage(
        Kind.SIGNAL, serial, path, "a.b", member, sender=sender, signature=body[0], body=body[1]
    ),
    *(BODIES, PATHS, NAMES, NAMES, st.integers(1, 2**32 - 1)),
)


@given(MESSAGES, st.sampled_from("lB"), st.data())
def test_any_message_survives(message: BusMessage, order: str, data: st.DataObject) -> None:
    """Whatever can be made is read back unchanged, in either byte order and in whatever pieces it comes."""
    written = encode(message, order) * 2
    cut = data.draw(st.integers(0, len(written)))
    decoder = Decoder()
    assert [*decoder.receive(written[:cut]), *decoder.receive(written[cut:])] == [message] * 2


@given(st.binary(max_size=200), st.integers(0, 200), st.binary(max_size=4))
def test_any_bytes_are_messages_or_an_error(noise: bytes, place: int, other: bytes) -> None:
    """Whatever comes, it is read, waited for or refused, and nothing else is raised."""
    written = encode(CALL.replace(signature="a{sv}as", body=({"a": Variant("(uay)", (1, b"x"))}, ["b"])))
    for data in (noise, written[:place] + other + written[place + len(other) :]):
        try:
            for message in Decoder().receive(data):
                assert list(Decoder().receive(encode(message))) == [message]
        except RemoteProtocolError:
            pass
