"""Java's keystores as bytes: what was written is read, and no bytes do more than be refused in a sentence."""

from __future__ import annotations

import hashlib
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from cmapp.errors import SettingsError
from cmapp.keys import jks, pkcs12
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.intake import take
from cmapp.keys.store import ENTRY_LIMIT, Store, UnreadableError
from cmapp.net.der import ELEMENTS_LIMIT, INTEGER, OCTETS, SEQUENCE, element, elements, inside
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    Read = Callable[[bytes, str], Store]

NOW = datetime.now(UTC)
PASSWORD, OTHER = "changeit", "another password"
AUTHORITY = make_authority("the authority", days=9, now=NOW)
HOST = issue(AUTHORITY, Identity(Role.HOST, "n1"), days=9, now=NOW)
CHAIN = [HOST.certificate, AUTHORITY.certificate]
TRUSTED = [("first", AUTHORITY.certificate), ("second", HOST.certificate)]
JKS_KEY = jks.write(PASSWORD, now=1.5, key=("n1", HOST.key, CHAIN, OTHER), trusted=TRUSTED)
JKS_TRUST = jks.write(PASSWORD, now=1.5, trusted=TRUSTED)
PKCS12_KEY = pkcs12.write_keystore("n1", HOST.key, CHAIN, PASSWORD)
PKCS12_TRUST = pkcs12.write_truststore(TRUSTED, PASSWORD)
FILES = [(jks.read, JKS_KEY), (jks.read, JKS_TRUST), (pkcs12.read, PKCS12_KEY), (pkcs12.read, PKCS12_TRUST)]
NAMES = ["jks-key", "jks-trust", "pkcs12-key", "pkcs12-trust"]

files = pytest.mark.parametrize(("read", "data"), FILES, ids=NAMES)


def plain(key: PrivateKeyTypes) -> bytes:
    """Return a private key so that two can be compared."""
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def is_harmless(read: Read, data: bytes) -> None:
    """Read `data`, and take a key folder from it; nothing comes of it but success or a sentence."""
    with suppress(SettingsError):
        store = read(data, PASSWORD)
        for key in store.keys:
            for pins in ([], [(Identity(Role.GUEST, "vm1"), "second")]):
                with suppress(SettingsError):
                    take(key, OTHER, store.trusted, pins, NOW)


@pytest.mark.parametrize(
    "key",
    [
        HOST.key,
        ec.generate_private_key(ec.SECP521R1()),
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["p256", "p521", "rsa", "ed25519"],
)
def test_a_key_is_read_as_it_was_written(key: PrivateKeyTypes) -> None:
    """Its own password opens it, whatever its kind; its alias, chain and the trusted ones are as they were."""
    store = jks.read(jks.write(PASSWORD, now=1.5, key=("n1", key, CHAIN, OTHER), trusted=TRUSTED), PASSWORD)
    (entry,) = store.keys
    assert (entry.alias, list(entry.certificates)) == ("n1", CHAIN)
    assert plain(entry.unlock(OTHER)) == plain(key)
    assert [(each.alias, each.certificate) for each in store.trusted] == TRUSTED


def test_a_key_of_pkcs12_is_read_as_it_was_written() -> None:
    """A key's own certificate comes first, and its issuer is not trusted for having issued it."""
    store = pkcs12.read(PKCS12_KEY, PASSWORD)
    (entry,) = store.keys
    assert (entry.alias, set(entry.certificates)) == ("n1", set(CHAIN))
    assert entry.certificates[0] == HOST.certificate
    assert plain(entry.unlock("")) == plain(HOST.key)
    assert not store.trusted


def test_a_truststore_of_pkcs12_is_read_as_it_was_written() -> None:
    """All that it holds is trusted, by its alias."""
    store = pkcs12.read(PKCS12_TRUST, PASSWORD)
    assert not store.keys
    assert [(each.alias, each.certificate) for each in store.trusted] == TRUSTED


@files
def test_a_wrong_password_opens_nothing(read: Read, data: bytes) -> None:
    """It cannot be told from an altered file, and the sentence says so."""
    with pytest.raises(UnreadableError, match=r"^cannot be opened: the store password is wrong, or the file was"):
        read(data, OTHER)


def test_a_wrong_key_password_opens_no_key() -> None:
    """The store opens, and the sentence says which option is missing."""
    (entry,) = jks.read(JKS_KEY, PASSWORD).keys
    with pytest.raises(UnreadableError, match=r"another password: give that with --keypass-file$"):
        entry.unlock(PASSWORD)


@files
def test_every_byte_counts(read: Read, data: bytes) -> None:
    """No byte can be changed unnoticed: of JKS by the digest, of PKCS#12 by its own."""
    step = 1 if read is jks.read else 13  # each of the latter costs the hashing
    for at in range(0, len(data), step):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        with pytest.raises(UnreadableError):
            read(changed, PASSWORD)


@files
def test_a_file_that_was_cut_is_refused(read: Read, data: bytes) -> None:
    """At whatever byte."""
    for length in range(0, len(data), 7):
        with pytest.raises(UnreadableError):
            read(data[:length], PASSWORD)


@given(body=st.binary(max_size=200))
def test_no_digested_bytes_are_trusted(body: bytes) -> None:
    """Whoever knows the password of a JKS keystore can put anything into it, and it does no harm."""
    is_harmless(jks.read, sealed(jks.MAGIC + body))


@given(at=st.integers(4, len(JKS_KEY) - 21), new=st.binary(min_size=1, max_size=8))
def test_no_altered_and_digested_bytes_are_trusted(at: int, new: bytes) -> None:
    """Likewise where it looks right at first: lengths, counts, certificates, keys."""
    body = JKS_KEY[:-20]
    is_harmless(jks.read, sealed(body[:at] + new + body[at + len(new) :]))


@settings(deadline=None)
@given(at=st.integers(0, len(PKCS12_KEY) - 1), new=st.binary(min_size=1, max_size=8), cut=st.booleans())
def test_no_altered_pkcs12_does_harm(at: int, new: bytes, cut: bool) -> None:  # noqa: FBT001 - hypothesis names it
    """What is looked at before the password is checked is looked at with care."""
    data = PKCS12_KEY[:at] + new + (b"" if cut else PKCS12_KEY[at + len(new) :])
    is_harmless(pkcs12.read, data)


@given(data=st.binary(max_size=100))
def test_no_bytes_do_harm(data: bytes) -> None:
    """Neither as one format, nor as the other, nor as DER."""
    is_harmless(jks.read, data)
    is_harmless(pkcs12.read, b"\x30" + data)
    try:
        found = elements(data)
    except ValueError:
        return
    assert sum(len(content) for _, content in found) <= len(data)


@given(contents=st.lists(st.binary(max_size=300), max_size=3))
def test_an_element_is_read_as_it_was_written(contents: list[bytes]) -> None:
    """Short and long lengths alike."""
    written = element(SEQUENCE, *(element(OCTETS, content) for content in contents))
    assert inside(written, SEQUENCE) == [(OCTETS, content) for content in contents]


@pytest.mark.parametrize(
    "data", ["30", "3005616263", "3080", "308500000000aa", "30840000", "3084ffffffff61", "30030405", "040161"]
)
def test_a_length_is_compared_with_what_is_there(data: str) -> None:
    """Missing, longer than the rest, indefinite, or of more bytes than any length needs; or another tag."""
    with pytest.raises(ValueError, match=r"element|too soon"):
        [elements(content) for _, content in inside(bytes.fromhex(data), SEQUENCE)]


def test_more_elements_than_the_limit_are_refused() -> None:
    """So many stand side by side in no keystore."""
    assert len(elements(bytes(2 * ELEMENTS_LIMIT))) == ELEMENTS_LIMIT
    with pytest.raises(ValueError, match="more than 10000 elements"):
        elements(bytes(2 * ELEMENTS_LIMIT + 2))


@pytest.mark.parametrize("rounds", [2**31 - 1, 2**63 - 1, -(2**40), 2**200])
def test_a_file_that_would_take_for_ever_is_refused(rounds: int) -> None:
    """What the hashing would cost is known before it is begun."""
    begun = time.monotonic()
    with pytest.raises(UnreadableError, match="rounds of hashing"):
        pkcs12.read(bomb(rounds), PASSWORD)
    assert time.monotonic() - begun < 1


def bomb(rounds: int) -> bytes:
    """Return a keystore whose integrity takes `rounds` rounds to check."""
    (_, version), (_, content), (_, mac) = inside(PKCS12_TRUST, SEQUENCE)
    digest, salt = elements(mac)[:2]
    head = element(INTEGER, version) + element(SEQUENCE, content)
    return element(
        SEQUENCE,
        head,
        element(
            SEQUENCE,
            element(*digest),
            element(*salt),
            element(INTEGER, rounds.to_bytes(rounds.bit_length() // 8 + 1, signed=True)),
        ),
    )


def sealed(body: bytes) -> bytes:
    """Return `body` with the digest that JKS wants."""
    return body + hashlib.sha1(PASSWORD.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()  # noqa: S324


def number(value: int) -> bytes:
    """Return a number as JKS has it."""
    return value.to_bytes(4)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (number(3) + number(0), "is a JKS keystore of version 3, which is not known"),
        (number(2) + number(ENTRY_LIMIT + 1), "says that it holds 1001 entries, and more than 1000 are not read"),
        (number(2) + number(2**32 - 1), "says that it holds 4294967295 entries, "),
        (number(2) + number(1), "is no whole JKS keystore: "),
        (number(2) + number(0) + b"x", "is no whole JKS keystore: "),
        (number(2) + number(1) + number(3) + b"\0\1a" + bytes(8), "holds an entry of the kind 3, which is not known"),
        (number(2) + number(1) + number(2) + b"\0\1a" + bytes(8) + b"\0\3PGP" + number(0), "of the kind 'PGP' as a: "),
        (number(2) + number(1) + number(2) + b"\0\1a" + bytes(8) + b"\0\5X.509" + number(2**31), "is no whole JKS "),
        (number(2) + number(1) + number(2) + b"\0\1a" + bytes(8) + b"\0\5X.509" + number(0), "is malformed, or "),
        (number(2) + number(1) + number(1) + b"\0\1a" + bytes(8) + number(0) + number(21), "holds 21 certificates, "),
    ],
)
def test_what_is_not_understood_is_refused_by_name(body: bytes, reason: str) -> None:
    """A sentence tells what is strange, and lengths are believed only as far as there is something."""
    with pytest.raises(UnreadableError) as refusal:
        jks.read(sealed(jks.MAGIC + body), PASSWORD)
    assert reason in str(refusal.value)


def test_many_entries_are_read() -> None:
    """As many as the limit says."""
    many = [(f"a{each}", AUTHORITY.certificate) for each in range(ENTRY_LIMIT)]
    assert len(jks.read(jks.write(PASSWORD, now=0, trusted=many), PASSWORD).trusted) == ENTRY_LIMIT


def test_more_certificates_than_the_limit_are_refused() -> None:
    """In PKCS#12, which does not say how many there are."""
    many = [HOST.certificate] + [AUTHORITY.certificate] * ENTRY_LIMIT
    with pytest.raises(UnreadableError, match=r"holds \d+ certificates, and more than 1000 are not read"):
        pkcs12.read(pkcs12.write_keystore("n1", HOST.key, many, PASSWORD), PASSWORD)
