"""Key folders: certificates and keys as files.

Responsible for the files of an authority (`ca.pem`, `ca-key.pem`) and of whomever it vouches for (`cert.pem`,
`key.pem`, `ca.pem`). The invariant: a file is there whole or not at all, a private key is readable by its
owner only from its first instant, and nothing is overwritten unless `force` says so.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cmapp.errors import SettingsError
from cmapp.keys.authority import Credential
from cmapp.net.tls import AUTHORITY, CERTIFICATE, KEY

if TYPE_CHECKING:
    from pathlib import Path

AUTHORITY_KEY = "ca-key.pem"
_KEYS = (AUTHORITY_KEY, KEY)


def write_authority(folder: Path, authority: Credential, *, force: bool) -> None:
    """Keep an authority in `folder`, which is made when missing; raises SettingsError."""
    _write(folder, {AUTHORITY_KEY: _key_pem(authority), AUTHORITY: _pem(authority)}, force=force)


def read_authority(folder: Path) -> Credential:
    """Return the authority that is kept in `folder`; raises SettingsError if it is missing or unusable."""
    certificate, path = read_certificate(folder / AUTHORITY), folder / AUTHORITY_KEY
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
        public = certificate.public_key()
    except TypeError:
        raise SettingsError(f"{path} is encrypted: store it without a passphrase") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"{path} holds no private key to be used: restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(public, ec.EllipticCurvePublicKey):
        raise SettingsError(f"{folder} holds an authority without an EC key: make one with 'cmapp keys init'")
    if key.public_key().public_numbers() != public.public_numbers():
        raise SettingsError(f"{path} is not the key of {folder / AUTHORITY}: restore both from one backup")
    return Credential(key, certificate)


def write_credential(folder: Path, credential: Credential, authority: Credential, *, force: bool) -> None:
    """Keep what `authority` has issued in `folder`, as `--keys` takes it; raises SettingsError."""
    files = {KEY: _key_pem(credential), CERTIFICATE: _pem(credential), AUTHORITY: _pem(authority)}
    _write(folder, files, force=force)


def read_certificate(path: Path) -> x509.Certificate:
    """Return the first certificate in a PEM file, or that of a folder; raises SettingsError."""
    if os.path.isdir(path):  # unlike Path.is_dir it does not fail where nothing may be read
        path /= CERTIFICATE if os.path.lexists(path / CERTIFICATE) else AUTHORITY
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError:
        raise SettingsError(f"{path} holds no certificate in PEM format: name a cert.pem") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except PermissionError:
        raise SettingsError(f"cannot read {path}: you may not; run cmapp as its owner") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; was it made by 'cmapp keys'?") from None


def _write(folder: Path, files: dict[str, bytes], *, force: bool) -> None:
    """Write all files of a folder, the private key first: whoever puts the key in place owns the folder."""
    there = [name for name in files if os.path.lexists(folder / name)]
    if there and not force:
        raise SettingsError(f"{folder / there[0]} is there already: use --force to replace it")
    path, staged = folder, {}
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name, content in files.items():
            path = folder / name
            staged[path] = folder / f".{name}.{secrets.token_hex(4)}"
            _create(staged[path], content, 0o600 if name in _KEYS else 0o644)
        for path, new in staged.items():
            if path.name in _KEYS and not force:
                path.hardlink_to(new)  # unlike a rename it fails if another cmapp was faster
            else:
                new.replace(path)
        _sync(folder)
    except OSError as error:
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None
    finally:
        for new in staged.values():
            with suppress(OSError):
                new.unlink()


def _create(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _pem(credential: Credential) -> bytes:
    return credential.certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(credential: Credential) -> bytes:
    return credential.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
