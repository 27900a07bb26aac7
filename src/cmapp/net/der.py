"""Just enough of ASN.1's DER to look into certificates and keystores, and to put a key into one.

Responsible for elements and nothing that they mean. The invariant: a length is compared with what is there before
it is used, and everything that breaks the rules is a ValueError.
"""

from __future__ import annotations

INTEGER, OCTETS, NULL, OBJECT, BMP_STRING = 0x02, 0x04, 0x05, 0x06, 0x1E
SEQUENCE, SET, FIRST = 0x30, 0x31, 0xA0  # FIRST is [0], constructed

ELEMENTS_LIMIT = 10000  # elements side by side: nothing that is of use has as many

_LONG = 0x80  # a length of this and more says how many bytes the length has
_LONGEST = 4  # bytes of a length


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """Return the elements that stand one after another in `data`, each as its tag and its content."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        if len(found) == ELEMENTS_LIMIT:
            raise ValueError(f"more than {ELEMENTS_LIMIT} elements side by side")
        if at + 2 > len(data):
            raise ValueError("it ends too soon")
        tag, length, at = data[at], data[at + 1], at + 2
        if length >= _LONG:
            size = length - _LONG
            if not 0 < size <= _LONGEST or at + size > len(data):
                raise ValueError("it has an element whose length is not in DER")
            length, at = int.from_bytes(data[at : at + size]), at + size
        if length > len(data) - at:
            raise ValueError("it ends too soon")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def inside(data: bytes, tag: int) -> list[tuple[int, bytes]]:
    """Return what is inside the one element of which `data` consists, which must have `tag`."""
    match elements(data):
        case [(there, content)] if there == tag:
            return elements(content)
    raise ValueError(f"an element that is not of the tag {tag:#x}")


def element(tag: int, *contents: bytes) -> bytes:
    """Return an element of DER."""
    content = b"".join(contents)
    if len(content) < _LONG:
        return bytes((tag, len(content))) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8)
    return bytes((tag, _LONG + len(length))) + length + content
