"""PKCS#12, the keystore format of Java since 9, and of everybody else.

`cryptography` opens and makes the files. What it cannot is told apart here from the parts that are in plain:
it returns one private key and is silent about others, and it loses which certificates are trusted. Java gives a
trusted certificate its alias as a name, a key's certificate the key's, and the issuers of that their subject. The
invariant: a file is opened only after what it may cost to do so was read from it.
"""

from __future__ import annotations

import re
import warnings
from functools import partial
from typing import TYPE_CHECKING

import cryptography
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import pkcs12

from cmapp.errors import SettingsError
from cmapp.keys.store import ENTRY_LIMIT, KeyEntry, Store, Trusted, UnreadableError, certificate_of
from cmapp.net.der import BMP_STRING, FIRST, INTEGER, OCTETS, SEQUENCE, SET, element, elements, inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

ITERATION_LIMIT = 10000000  # rounds of hashing, all of a file together; Java uses 10 thousand for each part

_DATA = bytes.fromhex("2A864886F70D010701")
_ENCRYPTED = bytes.fromhex("2A864886F70D010706")
_LOCKED_KEY = bytes.fromhex("2A864886F70D010C0A0102")  # pkcs8ShroudedKeyBag
_FRIENDLY_NAME = bytes.fromhex("2A864886F70D010914")
_SUBJECT = re.compile(r"([A-Z]+|[0-9]+(\.[0-9]+)+)=")  # Java writes an alias in lower case
_DEEPEST = 8  # levels of an algorithm's parameters
_LONGEST = 8  # bytes of a number in them
_NOT_DER = "is no whole PKCS#12 keystore in DER: copy it again, or convert it with keytool -importkeystore"
_WRONG = "cannot be opened: the store password is wrong, or the file was altered or cut"
_STRANGE = (
    "holds something that cannot be read, such as a DSA key: remove it with keytool -delete,"
    " and make keys with -keyalg RSA or EC"
)
_TOO_OLD = "cryptography {} cannot make PKCS#12 {}: use --format jks, or install a newer cryptography"


def read(data: bytes, password: str) -> Store:
    """Return what is in a keystore or truststore; raises UnreadableError. All its keys have its password."""
    try:
        locked = list(_locked_keys(data))
    except (ValueError, IndexError):
        raise UnreadableError(_NOT_DER) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what may not be read some day: it is judged by what can be today
            loaded = pkcs12.load_pkcs12(data, password.encode())
    except ValueError as error:
        raise UnreadableError(_WRONG if "Invalid password" in str(error) else _STRANGE) from None
    except Exception:  # noqa: BLE001 - what it raises for a hostile file differs by version
        raise UnreadableError(_STRANGE) from None
    every = [loaded.cert, *loaded.additional_certs] if loaded.cert else loaded.additional_certs
    if len(every) > ENTRY_LIMIT:
        raise UnreadableError(f"holds {len(every)} certificates, and more than {ENTRY_LIMIT} are not read")
    named = [_named(each) for each in every]
    keys = [_entry(alias, named, partial(_opened, sealed, password)) for alias, sealed in locked]
    if loaded.key and not keys:  # it stands in a part that only the library opens, or in plain
        keys = [_entry(named[0][0] if loaded.cert and named[0][0] else "1", named, partial(_as_it_is, loaded.key))]
    return Store(tuple(keys), tuple(_trusted(named, {key.alias for key in keys})))


def write_keystore(alias: str, key: PrivateKeyTypes, chain: list[x509.Certificate], password: str) -> bytes:
    """Return a keystore with one key and its chain, own certificate first; raises SettingsError."""
    lock = serialization.BestAvailableEncryption(password.encode())
    try:
        return pkcs12.serialize_key_and_certificates(alias.encode(), key, chain[0], chain[1:], lock)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise SettingsError(_TOO_OLD.format(cryptography.__version__, "of such a key")) from None


def write_truststore(trusted: Iterable[tuple[str, x509.Certificate]], password: str) -> bytes:
    """Return a truststore as Java reads it; raises SettingsError where `cryptography` is older than 45."""
    make = getattr(pkcs12, "serialize_java_truststore", None)
    if make is None:
        raise SettingsError(_TOO_OLD.format(cryptography.__version__, "truststores"))
    entries = [pkcs12.PKCS12Certificate(certificate, alias.encode()) for alias, certificate in trusted]
    made: bytes = make(entries, serialization.BestAvailableEncryption(password.encode()))
    return made


def _locked_keys(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the alias of each private key, and the key as it is encrypted; raises ValueError, UnreadableError."""
    _version, (_, content), *mac = inside(data, SEQUENCE)
    rounds = sum(_numbers(element(SEQUENCE, *(element(*part) for part in mac))))
    bags: list[tuple[int, bytes]] = []
    (_, kind), (_, holder) = elements(content)
    if kind != _DATA:
        raise ValueError("it is signed by a key, not by a password")
    for _, part in inside(_octets(holder), SEQUENCE):
        (_, sort), (_, holder_of_part) = elements(part)
        if sort == _DATA:
            bags += inside(_octets(holder_of_part), SEQUENCE)
        elif sort == _ENCRYPTED:
            (_, encrypted) = inside(holder_of_part, SEQUENCE)[1]
            rounds += sum(_numbers(elements(encrypted)[1][1]))
    keys: list[tuple[str, bytes]] = []
    for _, bag in bags:
        (_, sort), (tag, value), *attributes = elements(bag)
        if sort == _LOCKED_KEY and tag == FIRST:
            rounds += sum(_numbers(inside(value, SEQUENCE)[0][1]))
            keys.append((_friendly_name(attributes) or str(len(keys) + 1), value))
    if rounds > ITERATION_LIMIT:
        raise UnreadableError(f"takes {rounds} rounds of hashing to open, and more than {ITERATION_LIMIT} are not done")
    if len(keys) > ENTRY_LIMIT:
        raise UnreadableError(f"holds {len(keys)} keys, and more than {ENTRY_LIMIT} are not read")
    yield from keys


def _entry(alias: str, named: list[tuple[str, x509.Certificate]], unlock: Callable[[str], PrivateKeyTypes]) -> KeyEntry:
    """Return a key with all certificates there are, its own first, should two certify it."""
    ordered = sorted(named, key=lambda each: each[0] != alias)
    return KeyEntry(alias, tuple(certificate for _, certificate in ordered), unlock)


def _as_it_is(key: PrivateKeyTypes, _password: str) -> PrivateKeyTypes:
    return key


def _octets(holder: bytes) -> bytes:
    match elements(holder):
        case [(tag, content)] if tag == OCTETS:
            return content
    raise ValueError("not one string of octets")


def _numbers(data: bytes, depth: int = 0) -> Iterator[int]:
    """Yield all whole numbers in the parameters of an algorithm: how often it hashes is among them."""
    if depth == _DEEPEST:
        raise ValueError("parameters within parameters")
    for tag, content in elements(data):
        if tag == INTEGER:
            yield abs(int.from_bytes(content, signed=True)) if len(content) <= _LONGEST else ITERATION_LIMIT + 1
        elif tag in {SEQUENCE, SET, FIRST}:
            yield from _numbers(content, depth + 1)


def _friendly_name(attributes: list[tuple[int, bytes]]) -> str:
    for _, attribute in [each for tag, content in attributes if tag == SET for each in elements(content)]:
        (_, name), (_, values) = elements(attribute)
        if name == _FRIENDLY_NAME:
            for tag, value in elements(values):
                if tag == BMP_STRING:
                    return value.decode("utf-16-be", "replace")
    return ""


def _opened(sealed: bytes, password: str, _key_password: str) -> PrivateKeyTypes:
    try:
        return serialization.load_der_private_key(sealed, password.encode())
    except ValueError:
        raise UnreadableError("holds a key that has another password than it, which nobody can read") from None
    except Exception:  # noqa: BLE001 - what it raises for a hostile key differs by version
        raise UnreadableError(_STRANGE) from None


def _named(entry: pkcs12.PKCS12Certificate) -> tuple[str, x509.Certificate]:
    name = (entry.friendly_name or b"").decode("utf-8", "replace")
    der = entry.certificate.public_bytes(serialization.Encoding.DER)
    return name, certificate_of(der, name or "a certificate without a name")


def _trusted(named: list[tuple[str, x509.Certificate]], aliases: set[str]) -> Iterator[Trusted]:
    """Yield the certificates that are nobody's here; without a single key, those without a name too."""
    for name, certificate in named:
        if name not in aliases and not _SUBJECT.match(name) and (name or not aliases):
            yield Trusted(name or certificate.subject.rfc4514_string(), certificate)
