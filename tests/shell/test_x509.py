"""What certificates and revocation lists say of themselves, read without a library, held against one that is known."""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from cmapp.net import x509
from tests.shell.certificates import NOW, Made, first_version, new_authority, new_key, new_leaf, new_list, plain

if TYPE_CHECKING:
    from collections.abc import Callable

DER = serialization.Encoding.DER
SAMPLES: dict[str, Callable[[], Made]] = {
    "a host": lambda: new_leaf(new_authority("company"), "host", "n1"),
    "RSA": lambda: plain("vm1", "RSA 2048"),
    "version 1": first_version,
    "Ed25519": lambda: new_authority("company", kind="Ed25519"),
    "the last century": lambda: plain(since=datetime(1999, 12, 31, 23, 59, 58, tzinfo=UTC) - NOW),
    "the next century": lambda: plain(until=datetime(2149, 2, 28, 1, 2, 3, tzinfo=UTC) - NOW),
    "a leap day": lambda: plain(until=datetime(2048, 2, 29, 12, 0, 1, tzinfo=UTC) - NOW),
    "the end of time": lambda: plain(until=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - NOW),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_a_certificate_is_read(name: str) -> None:
    """Names and times are those that another reader finds."""
    made: Made = SAMPLES[name]()
    says, found = x509.certificate(made.certificate.public_bytes(DER)), made.certificate
    assert says.since == found.not_valid_before_utc.timestamp()
    assert says.until == found.not_valid_after_utc.timestamp()
    assert found.subject.public_bytes().endswith(says.subject)
    assert found.issuer.public_bytes().endswith(says.issuer)
    assert says.self_signed is (found.subject == found.issuer)


def test_a_list_is_read() -> None:
    """It says whose it is and until when, however much is on it."""
    authority = new_authority("company")
    for revoked in ([], [plain()], [plain() for _ in range(300)]):
        [der] = x509.blocks(new_list(authority, revoked), x509.REVOCATIONS)
        says, found = x509.revocations(der), reference.load_der_x509_crl(der)
        assert found.next_update_utc is not None
        assert (says.since, says.until) == (found.last_update_utc.timestamp(), found.next_update_utc.timestamp())
        assert says.subject == x509.certificate(authority.certificate.public_bytes(DER)).subject
        assert says.who == "company"


def test_a_list_without_an_end_has_none() -> None:
    """RFC 5280 wants one, but OpenSSL takes a list without."""
    name = element(0x30)
    says = x509.revocations(element(0x30, element(0x30, element(0x30), name, element(0x17, b"261122000000Z"))))
    assert (says.until, says.who) == (math.inf, "nobody")


def element(tag: int, *parts: bytes) -> bytes:
    """Return a short element of DER."""
    content = b"".join(parts)
    return bytes([tag, len(content)]) + content


NAMES = {
    "common": ([(NameOID.COUNTRY_NAME, "DE"), (NameOID.COMMON_NAME, "Zürich")], "Zürich"),
    "common first": ([(NameOID.COMMON_NAME, "n1"), (NameOID.ORGANIZATION_NAME, "Example")], "n1"),
    "none": ([(NameOID.ORGANIZATION_NAME, "Example"), (NameOID.ORGANIZATIONAL_UNIT_NAME, "Root")], "Root"),
    "empty": ([], "nobody"),
    "hostile": ([(NameOID.COMMON_NAME, "n1\n\x1b[2J")], "n1\\n\\x1b[2J"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_is_shown(kind: str) -> None:
    """By its common name, fit for a log line."""
    parts, shown = NAMES[kind]
    name = reference.Name([reference.NameAttribute(oid, value) for oid, value in parts])
    key = new_key()
    builder = reference.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW + timedelta(days=1))
    assert x509.certificate(builder.sign(key, hashes.SHA256()).public_bytes(DER)).who == shown


def test_blocks_are_found_among_anything() -> None:
    """Text around them, and blocks of other kinds, are left alone; one that is cut off is not overlooked."""
    one, two = plain("a"), plain("b")
    text = b"notes\n" + one.pem + b"more\n" + new_list(new_authority("company")) + two.pem
    assert x509.blocks(text, x509.CERTIFICATE) == [made.certificate.public_bytes(DER) for made in (one, two)]
    assert x509.blocks(b"", x509.CERTIFICATE) == []
    for cut in (
        one.pem[:-30],
        one.pem + two.pem[:60],
        one.pem.replace(b"=", b"").replace(b"\n-----END", b"A\n-----END"),
    ):
        with pytest.raises(ValueError, match=r"."):
            list(map(x509.certificate, x509.blocks(cut, x509.CERTIFICATE)))


WHOLE = new_leaf(new_authority("company"), "host", "n1").certificate.public_bytes(DER)
LIST = x509.blocks(new_list(new_authority("company"), [plain()]), x509.REVOCATIONS)[0]


def check_refused_or_read(data: bytes) -> None:
    """See that nothing else comes of it."""
    for read in (x509.certificate, x509.revocations):
        with suppress(ValueError):
            assert read(data).who.isprintable()


@given(st.binary(max_size=200))
def test_no_bytes_are_too_much(data: bytes) -> None:
    """Whatever it is, it is read or refused."""
    check_refused_or_read(data)


@given(st.sampled_from([WHOLE, LIST]), st.integers(0, 5000), st.binary(max_size=6), st.integers(0, 6))
def test_no_change_is_too_much(whole: bytes, at: int, new: bytes, gone: int) -> None:
    """The same for what nearly is a certificate."""
    place = at % len(whole)
    check_refused_or_read(whole[:place] + new + whole[place + gone :])


@pytest.mark.parametrize("end", range(0, len(WHOLE), 7))
def test_half_a_certificate_is_none(end: int) -> None:
    """Wherever it is cut off."""
    with pytest.raises(ValueError, match=r"."):
        x509.certificate(WHOLE[:end])
