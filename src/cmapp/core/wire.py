"""Bytes to messages and back: one JSON object a line, UTF-8, at most 64 KiB with its newline.

The codec knows nothing of order or roles. The invariant: whatever bytes come in, in whatever pieces, what
comes out is messages or one RemoteProtocolError, and no more than a line is ever kept.
"""

from __future__ import annotations

import binascii
import enum
import json

from cmapp.core.checks import SHOWN, build
from cmapp.core.messages import Message, Unrecognized
from cmapp.core.record import Record
from cmapp.core.text import printable
from cmapp.errors import LocalProtocolError, RemoteProtocolError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, NoReturn

LINE_LIMIT = 64 * 1024


def encode(message: Message) -> bytes:
    """Return the line that says `message`; raises LocalProtocolError if it is longer than a line may be."""
    line = _write(plain(message)).encode() + b"\n"
    if len(line) > LINE_LIMIT:
        raise LocalProtocolError(
            f"a {message.word} of {len(line)} bytes is longer than the {LINE_LIMIT} that a line may have"
        )
    return line


class Decoder:
    """Turns what arrives into messages of `kinds`, by their words; after an error it must not be fed again."""

    __slots__ = ("_kinds", "_rest")

    def __init__(self, kinds: Mapping[str, type[Message]]) -> None:
        self._kinds = kinds
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Message | Unrecognized]:
        """Yield the messages that `data` completes; raises RemoteProtocolError at a bad line, after those before it."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield self._message(line)
        if len(self._rest) >= LINE_LIMIT:
            self._rest = b""
            raise _too_long()

    @property
    def pending(self) -> bool:
        """Whether the last line is still incomplete."""
        return bool(self._rest)

    def _message(self, line: bytes) -> Message | Unrecognized:
        if len(line) >= LINE_LIMIT:
            raise _too_long()
        keys = _read(line)
        word = keys.get("type")
        if not isinstance(word, str):
            raise RemoteProtocolError("a line without a type")
        kind = self._kinds.get(word)
        try:
            message: Message | Unrecognized
            message = Unrecognized(printable(word[:SHOWN]), keys.get("id")) if kind is None else build(kind, keys)
        except ValueError as error:
            raise RemoteProtocolError(f"a bad {printable(word[:SHOWN])}: {printable(str(error))}") from None
        return message


def _too_long() -> RemoteProtocolError:
    return RemoteProtocolError(f"a line of more than {LINE_LIMIT} bytes")


def _read(line: bytes) -> dict[str, Any]:
    try:
        keys = _parse(line.decode())
    except UnicodeDecodeError:
        raise RemoteProtocolError("a line that is not UTF-8") from None
    except RecursionError:
        raise RemoteProtocolError("a line that is nested too deeply") from None
    except ValueError as error:
        raise RemoteProtocolError(f"a line that is not JSON: {printable(str(error))}") from None
    if not isinstance(keys, dict):
        raise RemoteProtocolError("a line that is not a JSON object")
    return keys


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return keys


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


_parse = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).decode
_write = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False).encode


def plain(value: Any) -> Any:
    """Return what JSON can say of a record, a message or anything that stands in one."""
    if isinstance(value, Record):
        keys = {name: plain(item) for name, item in value.said()}
        return {"type": value.word, **keys} if value.word else keys
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, bytes):
        return binascii.b2a_base64(value, newline=False).decode()
    return value
