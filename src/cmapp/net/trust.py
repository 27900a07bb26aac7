"""Whom a key folder trusts: authorities, revocation lists, and certificates that are pinned.

An authority in `ca.pem` vouches for whoever bears its signature, unless `crl.pem` takes that back. A certificate in
`peers/host` or `peers/guest` is pinned: it is known as it is, by all its bytes, under the name of its file, and
whatever it says of itself but its dates counts for nothing. The invariant: a pinned certificate vouches for nothing
but itself, even where OpenSSL would take it for an authority.
"""

from __future__ import annotations

import os
import ssl

from cmapp.core.record import Record
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.net import x509
from cmapp.net.identity import Role, is_name
from cmapp.net.refusals import openssl_words

CERTIFICATE, KEY = "cert.pem", "key.pem"
AUTHORITY, REVOKED, PEERS, PIN = "ca.pem", "crl.pem", "peers", ".pem"
SOON = 30 * 86400.0  # seconds: who has to renew something needs about a month
PINS_LIMIT = 1000  # files of pinned certificates in one folder


TYPE_CHECKING = False
if TYPE_CHECKING:
    Stamp = tuple[float, str, *tuple[int | None, ...]]  # when it last changed, and what differs if it has


class Dated(Record):
    """What ends by itself: what it is called in a sentence, what it says, and what is to be done about it."""

    what: str
    says: x509.Statement
    remedy: str
    soon: float = SOON  # seconds before the end, from when on it is told


class Trust(Record):
    """Whom one context trusts: certificates as DER, with what they say or the name that they are pinned under."""

    keys: str
    role: Role
    authorities: dict[bytes, x509.Statement]
    lists: tuple[x509.Statement, ...]
    pins: dict[bytes, str]
    dated: tuple[Dated, ...]

    def load_into(self, context: ssl.SSLContext, *, pins: bool = True) -> None:
        """Have `context` trust it, with or without the pins; raises SettingsError for what OpenSSL does not take.

        With pins revocation is for the `Judge`: OpenSSL would want a list of each pinned certificate as well.
        """
        trusted = {**self.authorities, **(self.pins if pins else {})}
        path = f"{self.keys}/{AUTHORITY if self.authorities else PEERS}"
        try:
            context.load_verify_locations(cadata=b"".join(trusted))
            if pins and self.pins:
                context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
            elif self.lists:
                path = f"{self.keys}/{REVOKED}"
                context.load_verify_locations(path)
                context.verify_flags |= self._revocation
        except OSError as error:
            raise SettingsError(f"{path} cannot be used: {openssl_words(error)}; copy it again") from None
        if context.cert_store_stats()["x509"] != len(trusted):
            raise SettingsError(f"{path} changed while it was read")

    @property
    def _revocation(self) -> ssl.VerifyFlags:
        """Which lists have to be there: once every authority here has one, also those of the authorities between."""
        issuers = {told.subject for told in self.lists}
        whole = all(says.subject in issuers for says in self.authorities.values())
        return ssl.VERIFY_CRL_CHECK_CHAIN if whole else ssl.VERIFY_CRL_CHECK_LEAF


def read_trust(keys: str, role: Role, peer: str | None = None) -> Trust:
    """Return whom the folder `keys` trusts in `role`, the other end's; raises SettingsError.

    Whoever calls the guest `peer` trusts its pin alone, if there is one, and no other guest's.
    """
    pins = pins_of(keys, role)
    if role is Role.GUEST:
        pins = {der: pin for der, pin in pins.items() if pin[0].lower() == (peer or "").lower()}
    alone = pins and (role is Role.GUEST or not os.path.lexists(f"{keys}/{AUTHORITY}"))
    authorities = {} if alone else read(keys, AUTHORITY)
    lists = {} if alone or not os.path.lexists(f"{keys}/{REVOKED}") else read(keys, REVOKED)
    names = {der: name for der, (name, _says) in pins.items()}
    return Trust(keys, role, authorities, tuple(lists.values()), names, _dated(keys, role, pins, authorities, lists))


def _dated(
    keys: str,
    role: Role,
    pins: dict[bytes, tuple[str, x509.Statement]],
    authorities: dict[bytes, x509.Statement],
    lists: dict[bytes, x509.Statement],
) -> tuple[Dated, ...]:
    """Return what of all this will have to be renewed."""
    pinned, authority, listed = (
        f"the pinned certificate of {role.value}",
        f"in {keys}/{AUTHORITY}",
        f"in {keys}/{REVOKED}",
    )
    return (
        *(Dated(f"{pinned} {name}", says, "pin its new one beside it") for name, says in pins.values()),
        *(Dated(f"the authority {says.who} {authority}", says, "add its successor") for says in authorities.values()),
        # A list may live for a week by design: then only its last third is worth a word.
        *(
            Dated(f"the revocation list of {says.who} {listed}", says, "copy a new one", min(SOON, says.lifetime / 3))
            for says in lists.values()
        ),
    )


def stamps_of(keys: str, role: Role) -> list[Stamp]:
    """Return a stamp of each file that a context for peers in `role` is made from; raises SettingsError."""
    folder = f"{keys}/{PEERS}/{role.value}"
    paths = [f"{keys}/{name}" for name in (CERTIFICATE, KEY, AUTHORITY, REVOKED)]
    return [_stamp(path) for path in (*paths, *(f"{folder}/{name}" for name in _pin_files(folder)))]


def content(keys: str, name: str) -> bytes:
    """Return what is in a file of the folder; raises SettingsError."""
    path = f"{keys}/{name}"
    try:
        with open(path, "rb") as file:
            return file.read()
    except PermissionError:
        problem = "this user may not; run as its owner, or give this user a folder of its own"
    except OSError as error:
        problem = f"{error.strerror}; --keys takes a folder that 'cmapp keys issue' made"
    raise SettingsError(f"cannot read {path}: {problem}")


def own_statement(keys: str) -> x509.Statement:
    """Return what the folder's own certificate says; raises SettingsError."""
    return next(iter(read(keys, CERTIFICATE).values()))


def require_key(keys: str) -> None:
    """Raise SettingsError unless the folder has a private key."""
    if b"PRIVATE KEY-----" not in content(keys, KEY):
        raise SettingsError(f"{keys}/{KEY} holds no private key in PEM format: copy it again")


def read(keys: str, name: str) -> dict[bytes, x509.Statement]:
    """Return what is in a file of certificates, or of revocation lists, in its order; raises SettingsError."""
    pem, listing = content(keys, name), name == REVOKED
    label, kind = (x509.REVOCATIONS, "revocation list") if listing else (x509.CERTIFICATE, "certificate")
    read = x509.revocations if listing else x509.certificate
    if listing and x509.blocks(pem, x509.CERTIFICATE):
        raise SettingsError(f"{keys}/{name} holds a certificate too, which OpenSSL would trust: leave only the lists")
    try:
        found = {der: read(der) for der in x509.blocks(pem, label)}
    except ValueError as error:
        raise SettingsError(
            f"{keys}/{name} cannot be used: it holds a broken {kind} ({error}); copy it again"
        ) from None
    if not found:
        raise SettingsError(f"{keys}/{name} holds no {kind} in PEM format: copy it again")
    return found


def pins_of(keys: str, role: Role) -> dict[bytes, tuple[str, x509.Statement]]:
    """Return the certificates that the folder pins for peers of `role`, with their names; raises SettingsError."""
    found: dict[bytes, tuple[str, x509.Statement]] = {}
    for file in _pin_files(f"{keys}/{PEERS}/{role.value}"):
        path, name = f"{PEERS}/{role.value}/{file}", file.removesuffix(PIN)
        if not is_name(name):
            raise SettingsError(f"{keys}/{printable(path)}: {printable(name)!r} cannot name a {role.value}: rename it")
        for der, says in read(keys, path).items():
            other = found.setdefault(der, (name, says))[0]
            if other != name:
                raise SettingsError(f"{keys}/{path} holds the certificate of {other} too: remove one of the two")
    return found


def _pin_files(folder: str) -> list[str]:
    """Return the names of the files that pin certificates; raises SettingsError."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(PIN) and not name.startswith("."))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SettingsError(f"cannot read {folder}: {error.strerror}") from None
    if len(names) > PINS_LIMIT:
        raise SettingsError(f"{folder} holds more than {PINS_LIMIT} files: use an authority for so many")
    return names


def _stamp(path: str) -> Stamp:
    try:
        found = os.stat(path)
    except OSError as error:
        return 0.0, path, error.errno
    return found.st_ctime, path, found.st_ctime_ns, found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev
