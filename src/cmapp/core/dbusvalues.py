"""Values of D-Bus as bytes and back, each where its type has to begin.

The invariant: what was read is within its message and its array, and what fills a gap is 0; anything else, and what
cannot be written, is a ValueError.
"""

from __future__ import annotations

import struct

from cmapp.core.dbustypes import SIGNATURE_LENGTH, Variant, complete, is_path, split_signature

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

DEPTH = 64  # of arrays, structs and variants in each other
_NUMBERS = {  # of a type: (format, size and alignment)
    "y": ("B", 1),
    "n": ("h", 2),
    "q": ("H", 2),
    "i": ("i", 4),
    "u": ("I", 4),
    "h": ("I", 4),  # the index of a descriptor: none are passed here
    "x": ("q", 8),
    "t": ("Q", 8),
    "d": ("d", 8),
}
_ALIGNMENT = {**{kind: size for kind, (_, size) in _NUMBERS.items()}, "b": 4, "s": 4, "o": 4, "a": 4, "(": 8, "{": 8}


class Writer:
    """Values as bytes, one after the other, each where its type has to begin."""

    __slots__ = ("_order", "out")

    def __init__(self, order: str) -> None:
        self._order = order
        self.out = bytearray()

    def pad(self, size: int) -> None:
        """Fill up to where a value of that alignment may begin."""
        self.out += bytes(-len(self.out) % size)

    def put(self, kind: str, value: Any, depth: int = 0) -> None:
        """Add a value of the complete type `kind`."""
        if depth > DEPTH:
            raise ValueError("is nested too deeply")
        first = kind[0]
        if first in _NUMBERS:
            letter, size = _NUMBERS[first]
            self.pad(size)
            self.out += struct.pack(self._order + letter, value)
        elif first == "b":
            self.put("u", int(value is True if isinstance(value, bool) else wrong(value)))
        elif first in "sog":
            self._put_text(first, value)
        elif first == "v":
            self._put_text("g", complete(value.signature))
            self.put(value.signature, value.value, depth + 1)
        elif first == "a":
            self._put_array(kind[1:], value, depth)
        else:
            self._put_struct(kind, value, depth)

    def _put_text(self, kind: str, value: Any) -> None:
        data = value.encode() if isinstance(value, str) else wrong(value)
        if b"\0" in data or (kind == "o" and not is_path(value)) or (kind == "g" and len(data) > SIGNATURE_LENGTH):
            raise ValueError(f"{value[:40]!r} is none of type {kind}")
        if kind == "g":
            split_signature(value)
            self.out.append(len(data))
        else:
            self.put("u", len(data))
        self.out += data + b"\0"

    def _put_array(self, kind: str, value: Any, depth: int) -> None:
        self.pad(4)
        place = len(self.out)
        self.out += bytes(4)
        self.pad(_ALIGNMENT.get(kind[0], 1))
        begin = len(self.out)
        if kind == "y":
            self.out += value
        elif kind[0] == "{":
            key, item = split_signature(kind[1:-1])
            for name, one in value.items():
                self.pad(8)
                self.put(key, name, depth + 1)
                self.put(item, one, depth + 1)
        else:
            for one in value:
                self.put(kind, one, depth + 1)
        self.out[place : place + 4] = struct.pack(f"{self._order}I", len(self.out) - begin)

    def _put_struct(self, kind: str, value: Any, depth: int) -> None:
        self.pad(8)
        for one, item in zip(split_signature(kind[1:-1]), value, strict=True):
            self.put(one, item, depth + 1)


class Reader:
    """Values from bytes, each where its type has to begin; raises ValueError."""

    __slots__ = ("_data", "_order", "at")

    def __init__(self, data: bytes, order: str, at: int) -> None:
        self._data = data
        self._order = order
        self.at = at

    def take(self, kind: str, depth: int = 0) -> Any:
        """Return a value of the complete type `kind`."""
        if depth > DEPTH:
            raise ValueError("it is nested too deeply")
        first = kind[0]
        if first in _NUMBERS:
            letter, size = _NUMBERS[first]
            self.pad(size)
            return struct.unpack(self._order + letter, self._bytes(size))[0]
        if first == "b":
            value = self.take("u")
            return value == 1 if value < 2 else wrong(value)  # noqa: PLR2004 - false and true
        if first in "sog":
            return self._text(first)
        if first == "v":
            signature = complete(self._text("g"))
            return Variant(signature, self.take(signature, depth + 1))
        if first == "a":
            return self._array(kind[1:], depth)
        self.pad(8)
        return tuple(self.take(one, depth + 1) for one in split_signature(kind[1:-1]))

    def finish(self) -> None:
        """Check that nothing is left."""
        if self.at != len(self._data):
            raise ValueError("it is longer than its signature says")

    def _text(self, kind: str) -> str:
        size = self._bytes(1)[0] if kind == "g" else self.take("u")
        data = self._bytes(size + 1)
        text = data[:-1].decode()
        if data[-1] or "\0" in text or (kind == "o" and not is_path(text)):
            raise ValueError(f"{text[:40]!r} is none of type {kind}")
        if kind == "g":
            split_signature(text)
        return text

    def _array(self, kind: str, depth: int) -> Any:
        size = self.take("u")
        self.pad(_ALIGNMENT.get(kind[0], 1))
        end = self.at + size
        if end > len(self._data):
            raise ValueError("an array ends after the message")
        if kind == "y":
            return self._bytes(size)
        if kind[0] == "{":
            key, item = split_signature(kind[1:-1])
            pairs: dict[Any, Any] = {}
            while self.at < end:
                self.pad(8)
                name = self.take(key, depth + 1)
                pairs[name] = self.take(item, depth + 1)
            found: Any = pairs
        else:
            found = []
            while self.at < end:
                found.append(self.take(kind, depth + 1))
        if self.at != end:
            raise ValueError("an array ends in the middle of a value")
        return found

    def pad(self, size: int) -> None:
        """Pass over what fills a gap."""
        if any(self._bytes(-self.at % size)):
            raise ValueError("what fills a gap is not 0")

    def _bytes(self, size: int) -> bytes:
        data = self._data[self.at : self.at + size]
        if len(data) < size:
            raise ValueError("it ends too early")
        self.at += size
        return data


def wrong(value: Any) -> Any:
    """Raise ValueError for a value of another type than it has to be."""
    raise ValueError(f"{str(value)[:40]!r} is of another type")
