"""The types of D-Bus: what a signature says, and which values have one of their own.

The invariant: a signature that was accepted here can be walked without any further check.
"""

from __future__ import annotations

from cmapp.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BASIC = "ybnqiuxtdsogh"  # what may be the key of a dictionary
SIGNATURE_LENGTH = 255
NESTED = 32  # arrays in each other, and structs in each other
_PATH_CHARS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")
_known: dict[str, tuple[str, ...]] = {}  # signatures that were split: systemd has a few dozen
_KNOWN_MOST = 1000


class Variant(Record):
    """A value that brings its own type, which is one complete type."""

    signature: str
    value: Any


def bare(value: Any) -> Any:
    """Return the value without its variants."""
    if isinstance(value, Variant):
        return bare(value.value)
    if isinstance(value, dict):
        return {bare(key): bare(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(bare(item) for item in value)
    return value


def split_signature(signature: str) -> tuple[str, ...]:
    """Return the complete types of a signature, one after the other; raises ValueError for what is none."""
    found = _known.get(signature)
    if found is not None:
        return found
    if len(signature) > SIGNATURE_LENGTH:
        raise ValueError("a signature is too long")
    types, at = [], 0
    while at < len(signature):
        end = _end(signature, at, 0, 0)
        types.append(signature[at:end])
        at = end
    if len(_known) >= _KNOWN_MOST:
        _known.clear()
    _known[signature] = tuple(types)
    return _known[signature]


def complete(signature: str) -> str:
    """Return a signature that is one complete type; raises ValueError for any other."""
    if len(split_signature(signature)) != 1:
        raise ValueError(f"{signature[:40]!r} is not one type")
    return signature


def is_path(value: str) -> bool:
    """Tell whether the text is the path of an object."""
    if value == "/":
        return True
    head, *names = value.split("/")
    return not head and bool(names) and all(name and _PATH_CHARS.issuperset(name) for name in names)


def _end(signature: str, at: int, arrays: int, structs: int) -> int:
    """Return where the complete type that begins at `at` ends."""
    first = signature[at : at + 1]
    if first and first in f"{BASIC}v":
        return at + 1
    if arrays > NESTED or structs > NESTED:
        raise ValueError("a signature is nested too deeply")
    if first == "a" and signature[at + 1 : at + 2] == "{":
        return _end_of_pair(signature, at + 2, arrays, structs)
    if first == "a":
        return _end(signature, at + 1, arrays + 1, structs)
    if first != "(" or signature[at + 1 : at + 2] == ")":
        raise ValueError(f"{signature[:40]!r} is no signature")
    at += 1
    while signature[at : at + 1] != ")":
        at = _end(signature, at, arrays, structs + 1)
    return at + 1


def _end_of_pair(signature: str, at: int, arrays: int, structs: int) -> int:
    if signature[at : at + 1] not in set(BASIC):
        raise ValueError(f"{signature[:40]!r} has a dictionary whose key is not basic")
    end = _end(signature, at + 1, arrays + 1, structs + 1)
    if signature[end : end + 1] != "}":
        raise ValueError(f"{signature[:40]!r} has a dictionary that is no pair")
    return end + 1
