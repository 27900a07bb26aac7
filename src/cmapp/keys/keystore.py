"""Key folders: certificates, keys and revocation lists as files.

Responsible for the files of an authority (`ca.pem`, `ca-key.pem`, `crl.pem` once something was revoked, and what it
issued, as `guest/NAME/` and `host/NAME/`) and of whomever it vouches for (`cert.pem`, `key.pem`, `ca.pem`, `crl.pem`,
`peers/`). The invariant: what is read is whole and of its kind, or a SettingsError names the file; a certificate that
is replaced is kept in `replaced/`, so that all that was issued in a name can be revoked.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cmapp.errors import SettingsError
from cmapp.keys import pem
from cmapp.keys.authority import Credential
from cmapp.keys.description import list_ends
from cmapp.keys.files import read_file, write_files
from cmapp.keys.passphrase import locked
from cmapp.keys.revocation import merged
from cmapp.net.identity import Role
from cmapp.net.trust import AUTHORITY, CERTIFICATE, KEY, REVOKED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

    from cmapp.net.identity import Identity

    List = x509.CertificateRevocationList

AUTHORITY_KEY = "ca-key.pem"
LISTS = REVOKED
FOLDER = (KEY, CERTIFICATE, AUTHORITY)  # what makes a key folder
REQUEST = "request.pem"
NEXT_KEY = "new-key.pem"  # of a request, while key.pem is in use

_REPLACED = "replaced"


def write_authority(folder: Path, authority: Credential, *, force: bool, passphrase: bytes | None = None) -> None:
    """Keep an authority in `folder`, which is made when missing; raises SettingsError."""
    key = locked(authority.key, passphrase) if passphrase else key_pem(authority.key)
    files = {AUTHORITY_KEY: key, AUTHORITY: pem.written([authority.certificate])}
    write_files(folder, files, force=force, without=[LISTS])  # a list of another authority, if it replaces one


def read_authority(folder: Path, ask: Callable[[Path], bytes] | None = None) -> Credential:
    """Return the authority that is kept in `folder`; raises SettingsError if it is missing or unusable.

    If its key is behind a passphrase, `ask` is called with the key's path to get it.
    """
    certificates, path = read_certificates(folder / AUTHORITY), folder / AUTHORITY_KEY
    key = read_key(path, ask)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(f"{folder} holds an authority without an EC key: make one with 'cmapp keys init'")
    # Beside it ca.pem may hold others that are to be trusted as well.
    for certificate in certificates:
        if fits(key, certificate):
            return Credential(key, certificate)
    raise SettingsError(f"{path} is not the key of {folder / AUTHORITY}: restore both from one backup")


def write_credential(folder: Path, credential: Credential, authority: Credential, *, force: bool) -> None:
    """Keep what `authority` has issued in `folder`, as `--keys` takes it; raises SettingsError."""
    files = {KEY: key_pem(credential.key), CERTIFICATE: pem.written([credential.certificate])}
    write_files(folder, {**files, AUTHORITY: pem.written([authority.certificate])}, force=force)


def hand_out(  # noqa: PLR0913 - what a key folder is made of
    store: Path,
    identity: Identity,
    certificate: x509.Certificate,
    authority: Credential,
    *,
    key: PrivateKeyTypes | None,
    force: bool,
    renewal: bool = False,
) -> Path:
    """Put what was issued for `identity` into its folder below `store`, and return that folder.

    It gets what the authority's own folder trusts and has lists of; at a `renewal` it keeps what it trusts already.
    Without `key` the folder has none: it never left its machine. Raises SettingsError.
    """
    folder = issued_folder(store, identity)
    check_free(folder, FOLDER, force=force or renewal)
    trusted = [authority.certificate, *read_certificates(store / AUTHORITY)]
    lists = read_lists(store / LISTS, missing_ok=True)
    if renewal:
        trusted += read_certificates(folder / AUTHORITY)
        lists = merged(read_lists(folder / LISTS, missing_ok=True), lists)
    files = {CERTIFICATE: pem.written([certificate]), AUTHORITY: pem.written(dict.fromkeys(trusted))}
    if key is not None:
        files = {KEY: key_pem(key), **files}
    if lists:
        files[LISTS] = pem.written(lists)
    _keep_replaced(store, identity)
    stale = {KEY, LISTS} - files.keys() - ({KEY, LISTS} if renewal else set())
    write_files(folder, files, force=force or renewal, without=stale)
    return folder


def check_free(folder: Path, names: Iterable[str], *, force: bool) -> None:
    """Raise SettingsError if one of the files is there already, unless `force` says that it may be replaced."""
    there = [name for name in names if os.path.lexists(folder / name)]
    if there and not force:
        raise SettingsError(f"{folder / there[0]} is there already: use --force to replace it")


def check_list(store: Path, now: datetime) -> None:
    """Raise SettingsError if the authority's list has expired: nobody would be let in by who gets a copy."""
    path = store / LISTS
    for revoked in read_lists(path, missing_ok=True):
        until = list_ends(revoked)
        if until is not None and until < now:
            raise SettingsError(f"{path} has expired on {until:%Y-%m-%d}: sign it anew by 'cmapp keys revoke {store}'")


def issued_folder(store: Path, identity: Identity) -> Path:
    """Return where the authority in `store` keeps what it issued for `identity`."""
    return store / identity.role.value / identity.name


def read_issued(store: Path, identity: Identity) -> list[x509.Certificate]:
    """Return all certificates that are kept of `identity`, the newest first; empty if there is none."""
    found = [issued_folder(store, identity) / CERTIFICATE]
    found += sorted((store / _REPLACED / identity.role.value / identity.name).glob("*.pem"))
    return list(dict.fromkeys(read_certificate(path) for path in found if os.path.lexists(path)))


def spread_list(store: Path, revoked: List) -> list[Path]:
    """Put an authority's new list into the folders of all that it issued, and return those folders."""
    folders = sorted(path.parent for role in Role for path in (store / role.value).glob(f"*/{CERTIFICATE}"))
    for folder in folders:
        lists = merged(read_lists(folder / LISTS, missing_ok=True), [revoked])
        write_files(folder, {LISTS: pem.written(lists)}, force=True)
    return folders


def read_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM file, or that of a folder; raises SettingsError."""
    return read_certificates(path)[0]


def read_certificates(path: Path) -> list[x509.Certificate]:
    """Return the certificates in a PEM file, or of a folder, at least one; raises SettingsError."""
    path = _certificate_file(path)
    try:
        if found := pem.certificates(read_file(path)):
            return found
    except ValueError as error:
        raise SettingsError(f"{path} holds a malformed certificate ({error}): copy it again") from None
    raise SettingsError(f"{path} holds no certificate in PEM format: name a cert.pem")


def read_lists(path: Path, *, missing_ok: bool = False) -> list[List]:
    """Return the revocation lists in a PEM file, at least one unless it may be missing; raises SettingsError."""
    if missing_ok and not os.path.lexists(path):
        return []
    try:
        if found := pem.lists(read_file(path)):
            return found
    except ValueError as error:
        raise SettingsError(f"{path} holds a malformed revocation list ({error}): copy it again") from None
    raise SettingsError(f"{path} holds no revocation list in PEM format: copy it again")


def read_request(path: Path) -> x509.CertificateSigningRequest:
    """Return the signing request in a PEM file, or in a folder; raises SettingsError."""
    if os.path.isdir(path):
        path /= REQUEST
    try:
        if found := pem.requests(read_file(path)):
            return found[0]
    except ValueError as error:
        raise SettingsError(f"{path} holds a malformed signing request ({error}): make it again") from None
    raise SettingsError(f"{path} holds no signing request in PEM format: make it with 'cmapp keys request'")


def read_key(path: Path, ask: Callable[[Path], bytes] | None = None) -> PrivateKeyTypes:
    """Return the private key in a PEM file, behind a passphrase only if `ask` can be asked; raises SettingsError."""
    text = read_file(path)
    try:
        return serialization.load_pem_private_key(text, password=None)
    except TypeError:
        if ask is None:
            raise SettingsError(f"{path} is encrypted: store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{path} holds no private key to be used: restore it from a backup") from None
    try:
        return serialization.load_pem_private_key(text, password=ask(path))
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"that is not the passphrase of {path}: try again") from None


def fits(key: PrivateKeyTypes, certificate: x509.Certificate) -> bool:
    """Tell whether `key` is the one that `certificate` is for."""
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        return key.public_key().public_bytes(*form) == certificate.public_key().public_bytes(*form)
    except (UnsupportedAlgorithm, ValueError):
        return False


def key_pem(key: PrivateKeyTypes) -> bytes:
    """Return a private key as a key folder holds it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _keep_replaced(store: Path, identity: Identity) -> None:
    """Keep a copy of the certificate of `identity`, which is about to be replaced, so that it can be revoked."""
    path = issued_folder(store, identity) / CERTIFICATE
    if os.path.lexists(path):
        certificate = read_certificate(path)
        name = f"{_REPLACED}/{identity.role.value}/{identity.name}/{certificate.serial_number:x}.pem"
        write_files(store, {name: pem.written([certificate])}, force=True)


def _certificate_file(path: Path) -> Path:
    if os.path.isdir(path):  # unlike Path.is_dir it does not fail where nothing may be read
        path /= CERTIFICATE if os.path.lexists(path / CERTIFICATE) else AUTHORITY
    return path
