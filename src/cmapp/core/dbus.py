"""D-Bus, protocol version 1, as bytes: messages to bytes and back, without a socket.

What systemd's manager says and takes is what is needed, but every type is known. Values are Python's own: `ay` is
bytes, an array a list, a struct a tuple, a dictionary a dict, a variant a `Variant` with its signature. The
invariant: what was read is whole, of the types that its signature says and within the bounds below, or it is a
RemoteProtocolError; what could not be read back is never written, but is a LocalProtocolError.
"""

from __future__ import annotations

import enum
import struct

from cmapp.core.dbustypes import Variant, bare, split_signature
from cmapp.core.dbusvalues import Reader, Writer, wrong
from cmapp.core.record import Record
from cmapp.errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

__all__ = ["BusMessage", "Decoder", "Kind", "Variant", "bare", "encode"]

MESSAGE_LIMIT = 4 * 1024 * 1024  # bytes of one message: all properties of a unit are some 30 KiB
_VERSION = 1
_FIXED = 16  # bytes before the header's fields
_ORDERS = {ord("l"): "<", ord("B"): ">"}


class Kind(enum.IntEnum):
    """What a message is."""

    CALL = 1
    RETURN = 2
    ERROR = 3
    SIGNAL = 4


class BusMessage(Record):
    """A message: `body` are the values that `signature` tells the types of.

    `serial` numbers those of one sender, `reply_to` is the serial that a return or an error answers, 0 for others.
    """

    kind: Kind
    serial: int
    path: str = ""
    interface: str = ""
    member: str = ""
    error: str = ""
    reply_to: int = 0
    destination: str = ""
    sender: str = ""
    signature: str = ""
    body: tuple[Any, ...] = ()


_FIELDS = {  # the code of a header's field: (its name here, its type)
    1: ("path", "o"),
    2: ("interface", "s"),
    3: ("member", "s"),
    4: ("error", "s"),
    5: ("reply_to", "u"),
    6: ("destination", "s"),
    7: ("sender", "s"),
    8: ("signature", "g"),
}
_NEEDED = {
    Kind.CALL: ("path", "member"),
    Kind.RETURN: ("reply_to",),
    Kind.ERROR: ("error", "reply_to"),
    Kind.SIGNAL: ("path", "interface", "member"),
}


# ---- to bytes ----------------------------------------------------------------------------------------------


def encode(message: BusMessage, order: str = "l") -> bytes:
    """Return the message as it is written; raises LocalProtocolError for what cannot be.

    `order` is that of the bytes in a number: l, the least first, or B, the greatest.
    """
    body, header = Writer(_ORDERS[ord(order)]), Writer(_ORDERS[ord(order)])
    try:
        for kind, value in zip(split_signature(message.signature), message.body, strict=True):
            body.put(kind, value)
        fields = [
            (code, Variant(kind, getattr(message, name)))
            for code, (name, kind) in _FIELDS.items()
            if getattr(message, name)
        ]
        _check_header(message.kind, message.serial, vars(message))
        header.out += bytes((ord(order), message.kind, 0, _VERSION))
        header.put("u", len(body.out))
        header.put("u", message.serial)
        header.put("a(yv)", fields)
        header.pad(8)
    except (ValueError, TypeError, struct.error, OverflowError) as error:
        raise LocalProtocolError(f"cannot be said on a bus: {error}") from None
    if len(header.out) + len(body.out) > MESSAGE_LIMIT:
        raise LocalProtocolError(f"is longer than {MESSAGE_LIMIT} bytes")
    return bytes(header.out + body.out)


def _check_header(kind: Kind, serial: int, found: Mapping[str, Any]) -> None:
    lacking = [name for name in _NEEDED[kind] if not found.get(name)]
    if lacking or not serial:
        raise ValueError(f"a message without {lacking[0] if lacking else 'a serial'}")


# ---- from bytes --------------------------------------------------------------------------------------------


class Decoder:
    """Bytes as they come, and the messages that they make; of no use after an error."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive(self, data: bytes) -> Iterator[BusMessage]:
        """Yield the messages that are whole with `data`; raises RemoteProtocolError for what is none."""
        self._buffer += data
        while len(self._buffer) >= _FIXED:
            order, size, length = _measure(self._buffer)
            if len(self._buffer) < length:
                return
            with memoryview(self._buffer) as whole:
                message = _message(bytes(whole[:length]), order, size)
            del self._buffer[:length]
            yield message


def _measure(data: bytearray) -> tuple[str, int, int]:
    """Return the byte order of the message that begins, where its body begins, and how long it is."""
    order = _ORDERS.get(data[0])
    if order is None or data[3] != _VERSION:
        raise RemoteProtocolError("what came is no message of D-Bus, version 1")
    body, _, fields = struct.unpack(f"{order}III", data[4:_FIXED])
    size = _FIXED + fields + -fields % 8
    if size + body > MESSAGE_LIMIT:
        raise RemoteProtocolError(f"a message of more than {MESSAGE_LIMIT} bytes came on the bus")
    return order, size, size + body


def _message(data: bytes, order: str, size: int) -> BusMessage:
    try:
        (serial,) = struct.unpack(f"{order}I", data[8:12])
        found: dict[str, Any] = {}
        header = Reader(data[:size], order, _FIXED - 4)
        for code, variant in header.take("a(yv)"):
            if code in _FIELDS:
                name, type_ = _FIELDS[code]
                found[name] = variant.value if variant.signature == type_ else wrong(variant.signature)
        header.pad(8)
        header.finish()
        kind = Kind(data[1])
        _check_header(kind, serial, found)
        reader = Reader(data[size:], order, 0)
        body = tuple(reader.take(one) for one in split_signature(found.get("signature", "")))
        reader.finish()
    except (ValueError, struct.error) as error:
        raise RemoteProtocolError(f"a message on the bus cannot be read: {error}") from None
    return BusMessage(kind, serial, body=body, **found)
