"""What a key folder takes from Java keystores, and what it must not take.

Responsible for the choice: which key, which certificates go with it, which authorities and which peers are trusted.
No file is touched here, and time enters as `now`. The invariant: nothing is taken that a peer would refuse, or that
could vouch for more than what it was taken for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cmapp.errors import SettingsError
from cmapp.keys import pins as pinning
from cmapp.keys.description import begins, ends, identity_of, is_authority
from cmapp.keys.keystore import fits
from cmapp.keys.strength import weakness
from cmapp.keys.trust import unfit_authority
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from cmapp.keys.store import KeyEntry, Store, Trusted


@dataclass(frozen=True, slots=True)
class Intake:
    """What becomes a key folder; `chain` begins with its own certificate, `left_out` has alias and reason."""

    alias: str
    key: PrivateKeyTypes
    chain: tuple[x509.Certificate, ...]
    role: Identity | None
    authorities: tuple[Trusted, ...]
    pins: Mapping[Identity, Sequence[x509.Certificate]]
    left_out: tuple[tuple[str, str], ...]


def choose_key(store: Store, alias: str | None) -> KeyEntry:
    """Return the only key of a store, or the one called `alias`; raises SettingsError."""
    if alias is None and len(store.keys) == 1:
        return store.keys[0]
    named = [key for key in store.keys if alias is not None and key.alias.lower() == alias.lower()]
    if named:
        return named[0]
    if not store.keys:
        raise SettingsError("it holds no private key: is it a truststore?")
    there = ", ".join(key.alias for key in store.keys)
    what = f"it holds no private key called {alias}" if alias else f"it holds {len(store.keys)} private keys"
    raise SettingsError(f"{what}: choose one with --alias ({there})")


def take(
    entry: KeyEntry, password: str, trusted: Sequence[Trusted], pins: Sequence[tuple[Identity, str]], now: datetime
) -> Intake:
    """Return what becomes a key folder: `pins` says by alias which trusted certificate is which peer's.

    Raises SettingsError for what cannot be used. An authority that cannot be is left out, with the reason.
    """
    key = entry.unlock(password)
    own = _own(entry, key)
    role = role_of(own)
    peers = {identity.role for identity, _ in pins}
    # Whoever pins guests is a host; with pins of neither, or of both, it may be either.
    roles = [Identity(each, entry.alias) for each in Role if peers != {each}]
    reasons = [pinning.unfit(own, identity, now) for identity in ([role] if role else roles)]
    if all(reasons):
        raise SettingsError(f"the certificate of {entry.alias} {reasons[0]}")
    by_alias = {each.alias.lower(): each.certificate for each in trusted}
    pinned: dict[Identity, list[x509.Certificate]] = {}
    for who, alias in pins:
        pinned.setdefault(who, []).append(_pinned(who, by_alias.get(alias.lower()), alias, now))
    taken = {alias.lower() for _, alias in pins}
    authorities, left_out = _authorities([each for each in trusted if each.alias.lower() not in taken], now)
    if not authorities and not pinned:
        told = "".join(f"; {alias} {why}" for alias, why in left_out)
        raise SettingsError(f"nobody would be trusted: name a --truststore, or pin a peer{told}")
    chain = [own, *issuers(own, entry.certificates)]
    for issuer in chain[1:]:
        if why := _unfit_issuer(issuer, now):
            raise SettingsError(f"{name_of(issuer)}, which issued the certificate of {entry.alias}, {why}")
    return Intake(entry.alias, key, tuple(chain), role, tuple(authorities), pinned, tuple(left_out))


def issuers(
    certificate: x509.Certificate, candidates: Iterable[x509.Certificate], *, root: bool = False
) -> list[x509.Certificate]:
    """Return who issued it, who issued that, and so on; the root, which each side has for itself, only if asked."""
    chain: list[x509.Certificate] = []
    waiting = list(dict.fromkeys(candidates))
    while certificate.issuer != certificate.subject:
        found = [each for each in waiting if each.subject == certificate.issuer and _issued(each, certificate)]
        if not found or (found[0].issuer == found[0].subject and not root):
            break
        certificate = found[0]
        waiting.remove(certificate)
        chain.append(certificate)
    return chain


def role_of(certificate: x509.Certificate) -> Identity | None:
    """Return whom the role URI of a certificate names, or None where it has not exactly one."""
    try:
        return identity_of(certificate)
    except SettingsError:
        return None


def name_of(certificate: x509.Certificate) -> str:
    """Return the subject of a certificate, for a sentence."""
    return certificate.subject.rfc4514_string() or "a certificate without a name"


def _own(entry: KeyEntry, key: PrivateKeyTypes) -> x509.Certificate:
    for certificate in entry.certificates:
        if fits(key, certificate):
            return certificate
    raise SettingsError(f"there is no certificate for the key {entry.alias}: see keytool -list -v")


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    verify = getattr(certificate, "verify_directly_issued_by", None)
    if verify is None:  # a cryptography before version 40: the name has to do
        return True
    try:
        verify(issuer)
    except Exception:  # noqa: BLE001 - a wrong signature, another kind of key, an unknown algorithm
        return False
    return True


def _authorities(trusted: Iterable[Trusted], now: datetime) -> tuple[list[Trusted], list[tuple[str, str]]]:
    """Return each authority once, and what is left out, as alias and reason."""
    found: dict[bytes, Trusted] = {}
    left_out = []
    for each in trusted:
        if why := _no_authority(each.certificate, now):
            left_out.append((each.alias, why))
        else:
            found.setdefault(each.certificate.fingerprint(hashes.SHA256()), each)
    return list(found.values()), left_out


def _no_authority(certificate: x509.Certificate, now: datetime) -> str | None:
    if certificate.version is x509.Version.v3 and not is_authority(certificate):
        return "is no authority's (CA:TRUE): pin it with --pin-guest or --pin-host if it is a peer's"
    return unfit_authority(certificate, now)


def _unfit_issuer(certificate: x509.Certificate, now: datetime) -> str | None:
    if not begins(certificate) <= now <= ends(certificate):
        return f"is valid from {begins(certificate):%Y-%m-%d} until {ends(certificate):%Y-%m-%d}: take its successor"
    return weakness(certificate)


def _pinned(identity: Identity, certificate: x509.Certificate | None, alias: str, now: datetime) -> x509.Certificate:
    if certificate is None:
        raise SettingsError(f"{alias}, to be pinned as {identity}, is no trusted certificate: see keytool -list")
    if why := pinning.unfit(certificate, identity, now):
        raise SettingsError(f"{alias}, to be pinned as {identity}, {why}")
    return certificate
