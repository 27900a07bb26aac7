"""What a certificate or a revocation list says of itself: who, and from when until when. Nothing is verified here.

Python's ssl shows a certificate after a handshake only, and a revocation list never; so the few fields are read
from the DER. The invariant: whatever the bytes are, a `Statement` is returned or ValueError is raised.
"""

from __future__ import annotations

import binascii
import math

from cmapp.core.record import Record
from cmapp.core.text import printable
from cmapp.net.der import BMP_STRING, FIRST, INTEGER, SEQUENCE, elements

CERTIFICATE, REVOCATIONS = "CERTIFICATE", "X509 CRL"  # what PEM calls them

_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_TIMES = {(_UTC_TIME, 13), (_GENERALIZED_TIME, 15)}  # with how many characters each is written
_CENTURY = 50  # years of two digits from here on are of the last century
_DAYS_BEFORE_1970 = 719468  # since the first of March of the year 0
_COMMON_NAME = bytes((0x55, 0x04, 0x03))


class Statement(Record):
    """Who it is about (of a list: whose it is), by whom, as DER; from when until when, in seconds since 1970."""

    subject: bytes
    issuer: bytes
    since: float
    until: float

    @property
    def who(self) -> str:
        """The name of the subject for a sentence: its common name, or the last part of what it has."""
        try:
            return _shown(self.subject)
        except ValueError:
            return "nobody"

    @property
    def lifetime(self) -> float:
        """For how many seconds it is good in all."""
        return self.until - self.since

    @property
    def self_signed(self) -> bool:
        """Whether it claims to have signed itself."""
        return self.subject == self.issuer


def blocks(pem: bytes, label: str) -> list[bytes]:
    """Return what the blocks of this label hold; raises ValueError if one is broken or cut off."""
    begin, end = (f"-----{word} {label}-----".encode() for word in ("BEGIN", "END"))
    found = []
    for rest in pem.split(begin)[1:]:
        block, ending, _ = rest.partition(end)
        if not ending:
            raise ValueError("it ends too soon")
        found.append(binascii.a2b_base64(block))
    return found


def certificate(der: bytes) -> Statement:
    """Return what a certificate says of itself; raises ValueError."""
    _serial, _algorithm, issuer, validity, subject, *_ = _fields(der, {FIRST})
    since, until = elements(validity[1])[:2]
    return Statement(subject[1], issuer[1], _seconds(since), _seconds(until))


def revocations(der: bytes) -> Statement:
    """Return what a revocation list says of itself; raises ValueError. One that names no end has none."""
    _algorithm, issuer, since, *rest = _fields(der, {INTEGER})
    ends = rest and rest[0][0] in (_UTC_TIME, _GENERALIZED_TIME)
    return Statement(issuer[1], issuer[1], _seconds(since), _seconds(rest[0]) if ends else math.inf)


def _fields(der: bytes, versions: set[int]) -> list[tuple[int, bytes]]:
    """Return the fields of what is signed, without the version that may stand before them."""
    try:
        ((tag, signed),) = elements(der)
        fields = elements(elements(signed)[0][1])
    except IndexError:
        raise ValueError("it is empty") from None
    if tag != SEQUENCE:
        raise ValueError("it is no sequence")
    if fields and fields[0][0] in versions:
        del fields[0]
    return fields


def _seconds(item: tuple[int, bytes]) -> float:
    """Return a time of X.509, which is in UTC, as seconds since 1970."""
    tag, text = item
    digits, zone = text[:-1], text[-1:]
    if (tag, len(text)) not in _TIMES or zone != b"Z" or not digits.isdigit():
        raise ValueError("it has no time where one belongs")
    *century, year, month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(0, len(digits), 2))
    if not 1 <= month <= 12:  # noqa: PLR2004 - months
        raise ValueError("it has a thirteenth month")
    year += 100 * (century[0] if century else 19 if year >= _CENTURY else 20)
    # Years that begin in March have the leap day at their end.
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)  # noqa: PLR2004 - February
    days = 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 1 - _DAYS_BEFORE_1970
    return days * 86400 + hour * 3600 + minute * 60 + second


def _shown(name: bytes) -> str:
    """Return the common name in a name, or its last part if it has none; any name will do for a sentence."""
    shown = "nobody"
    for _tag, part in elements(name):
        for _tag, pair in elements(part):
            (_tag, kind), (tag, text) = elements(pair)
            shown = text.decode("utf-16-be" if tag == BMP_STRING else "utf-8", "replace")
            if kind == _COMMON_NAME:
                return printable(shown)
    return printable(shown)
