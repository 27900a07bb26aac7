"""`cmapp keys import` and `cmapp keys export`: from Java's keystores to key folders, and back.

Responsible for arguments, files, passwords and for what is printed; what is taken is decided in `cmapp.keys.intake`.
The invariant: a password comes from a file or from a terminal, for a command line can be read by everybody.
"""

from __future__ import annotations

import getpass
import os
import stat
from typing import TYPE_CHECKING

import click
from cryptography.hazmat.primitives import hashes

from cmapp.cli.keyoptions import PATH, force_option, now
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.keys import jks, keystore, pem, pkcs12
from cmapp.keys.description import colons, common_name, ends
from cmapp.keys.files import write_files
from cmapp.keys.intake import choose_key, issuers, name_of, role_of, take
from cmapp.keys.store import FILE_LIMIT, UnreadableError
from cmapp.net.identity import Identity, Role, is_name
from cmapp.net.trust import AUTHORITY, CERTIFICATE, KEY, PEERS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cryptography import x509

    from cmapp.keys.intake import Intake
    from cmapp.keys.store import Store

PASSWORD_LIMIT = 1024  # characters

_LEAST_PASSWORD = 6  # characters, by keytool's rule
_FORMATS = {"pkcs12": ".p12", "jks": ".jks"}
_ALIAS = "cmapp"
_STRANGERS = {  # what else begins how
    bytes.fromhex("CECECECE"): "is a JCEKS keystore",
    b"-----BEGIN": "is in PEM format, as the files of a key folder are",
}
_STRANGE = "is no keystore that can be read"
_CONVERT = "convert it with keytool -importkeystore -deststoretype PKCS12"


def _pins(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        name, equals, alias = value.partition("=")
        if not is_name(name) or (equals and not alias):
            raise click.UsageError(f"{value!r} is not NAME=ALIAS, such as vm1=vm1cert")
        pairs.append((name, alias or name))
    return tuple(pairs)


@click.command("import")
@click.argument("source", metavar="KEYSTORE", type=PATH)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option("--alias", metavar="ALIAS", help="Which private key of KEYSTORE (default the only one).")
@click.option("--truststore", metavar="FILE", type=PATH, help="Whom to trust (default what KEYSTORE trusts).")
@click.option(
    "--pin-guest", "guests", metavar="NAME=ALIAS", multiple=True, callback=_pins,
    help="This trusted self-signed certificate is the guest NAME's; may be repeated.",
)  # fmt: skip
@click.option(
    "--pin-host", "hosts", metavar="NAME=ALIAS", multiple=True, callback=_pins,
    help="This trusted self-signed certificate is the host NAME's; may be repeated.",
)  # fmt: skip
@click.option(
    "--storepass-file",
    "store_file",
    metavar="FILE",
    type=PATH,
    help="Its first line is KEYSTORE's password (default ask).",
)
@click.option("--keypass-file", "key_file", metavar="FILE", type=PATH, help="Likewise the key's (default KEYSTORE's).")
@click.option(
    "--trustpass-file", "trust_file", metavar="FILE", type=PATH, help="Likewise the truststore's (default KEYSTORE's)."
)
@force_option("Replace a key folder that is there, and whom it trusts.")
def import_keystore(  # noqa: PLR0913, PLR0917 - click passes each argument and option by name
    source: Path,
    folder: Path,
    alias: str | None,
    truststore: Path | None,
    guests: tuple[tuple[str, str], ...],
    hosts: tuple[tuple[str, str], ...],
    store_file: Path | None,
    key_file: Path | None,
    trust_file: Path | None,
    *,
    force: bool,
) -> None:
    """Make the key folder DIR from KEYSTORE, which is PKCS#12 or JKS as keytool makes them.

    It trusts the authorities that the truststore trusts, and the peers that are pinned.
    """
    password = _password(store_file, f"password of {source}")
    store = _read(source, password)
    trust = store
    if truststore:
        trust = _read(truststore, _password(trust_file, "") if trust_file else password)
    pins = [(Identity(Role.GUEST, name), of) for name, of in guests]
    pins += [(Identity(Role.HOST, name), of) for name, of in hosts]
    try:
        entry = choose_key(store, alias)
        key_password = _password(key_file, "") if key_file else password
        intake = take(entry, key_password, trust.trusted, pins, now())
    except UnreadableError as error:
        raise SettingsError(f"{source} {error}") from None
    except SettingsError as error:
        raise SettingsError(f"cannot import {source}: {error}") from None
    files = _files(intake)
    stale = [name for name in _trust_in(folder) if name not in files]
    if stale and not force:
        raise SettingsError(f"{folder / stale[0]} would be trusted too: use --force to remove it, or another folder")
    write_files(folder, files, force=force, without=stale)
    _tell(source, folder, intake)


@click.command("export")
@click.argument("keys", metavar="KEYS", type=PATH)
@click.argument("folder", metavar="DIR", type=PATH)
@click.option(
    "--format", "form", metavar="FORMAT", type=click.Choice(list(_FORMATS)), default="pkcs12",
    help="pkcs12, or jks for Java before 8u301 (default pkcs12).",
)  # fmt: skip
@click.option("--alias", metavar="ALIAS", default=_ALIAS, help=f"What the key is called (default {_ALIAS}).")
@click.option(
    "--storepass-file",
    "store_file",
    metavar="FILE",
    type=PATH,
    help="Its first line becomes the password (default ask).",
)
@click.option(
    "--keypass-file", "key_file", metavar="FILE", type=PATH, help="Likewise the key's, with jks (default the same)."
)
@force_option("Replace keystores that are there.")
def export_keystore(  # noqa: PLR0913, PLR0917 - click passes each argument and option by name
    keys: Path, folder: Path, form: str, alias: str, store_file: Path | None, key_file: Path | None, *, force: bool
) -> None:
    """Make a keystore and a truststore in DIR from the key folder KEYS, for programs in Java."""
    if not alias.isascii() or not alias.isprintable() or not alias:
        raise click.UsageError(f"{alias!r} cannot be an alias: use printable ASCII characters")
    if key_file and form != "jks":
        raise click.UsageError("--keypass-file is for --format jks: in PKCS#12 a key has the keystore's password")
    chain = keystore.read_certificates(keys / CERTIFICATE)
    key = keystore.read_key(keys / KEY)
    if not keystore.fits(key, chain[0]):
        raise SettingsError(f"{keys / KEY} is not the key of {keys / CERTIFICATE}: copy the folder again")
    trusted = list(_trusted(keys))
    if not trusted:
        raise SettingsError(f"{keys} trusts nobody: it has neither {AUTHORITY} nor {PEERS}")
    candidates = [*chain[1:], *(certificate for _, certificate in trusted)]
    chain = [chain[0], *issuers(chain[0], candidates, root=True)]
    password = _new_password(store_file, "password for the keystore and the truststore")
    if form == "jks":
        key_password = _new_password(key_file, "") if key_file else password
        at = now().timestamp()
        made = jks.write(password, now=at, key=(alias.lower(), key, chain, key_password))
        trust = jks.write(password, now=at, trusted=trusted)
    else:
        made = pkcs12.write_keystore(alias.lower(), key, chain, password)
        trust = pkcs12.write_truststore(trusted, password)
    names = [f"{name}{_FORMATS[form]}" for name in ("keystore", "truststore")]
    write_files(folder, dict(zip(names, (made, trust), strict=True)), force=force, private=names)
    who = role_of(chain[0]) or printable(name_of(chain[0]))
    click.echo(f"made {folder / names[0]}: the key of {who} as {alias.lower()}, until {ends(chain[0]):%Y-%m-%d}")
    click.echo(f"made {folder / names[1]}: {', '.join(name for name, _ in trusted)}")


def _read(path: Path, password: str) -> Store:
    data = _contents(path)
    try:
        if data.startswith(jks.MAGIC):
            return jks.read(data, password)
        if data[:1] == b"\x30":
            return pkcs12.read(data, password)
    except UnreadableError as error:
        raise SettingsError(f"{path} {error}") from None
    what = next((words for start, words in _STRANGERS.items() if data.startswith(start)), _STRANGE)
    raise SettingsError(f"{path} {what}: {_CONVERT}")


def _contents(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > FILE_LIMIT:
        raise SettingsError(f"{path} has more than {FILE_LIMIT} bytes: no keystore that is of use has as many")
    return data


def _password(path: Path | None, what: str) -> str:
    """Return the first line of a file, or what is typed at the terminal, as `what`."""
    if path is None:
        return _typed(what)
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(PASSWORD_LIMIT + 1).removesuffix("\n").removesuffix("\r")
            about = os.fstat(file.fileno())
    except UnicodeDecodeError:
        raise SettingsError(f"the first line of {path} is not text in UTF-8: it has to be a password") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    if not 0 < len(line) <= PASSWORD_LIMIT:
        raise SettingsError(f"the first line of {path} is no password: it has to have 1 to {PASSWORD_LIMIT} characters")
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise SettingsError(f"{path} is open to others than its owner, and holds a password: chmod 600 {path}")
    return line


def _typed(what: str) -> str:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise SettingsError(f"there is no terminal to ask for the {what} on: use --storepass-file") from None
    try:
        return getpass.getpass(f"The {what}: ")
    except (EOFError, KeyboardInterrupt):
        raise click.Abort from None


def _new_password(path: Path | None, what: str) -> str:
    password = _password(path, what)
    if path is None and _typed("same again") != password:
        raise SettingsError("the two passwords differ: nothing was made, try again")
    if len(password) < _LEAST_PASSWORD or not password.isascii() or not password.isprintable():
        # Java versions differ in how they read others.
        raise SettingsError(f"a password for Java has to have {_LEAST_PASSWORD} printable ASCII characters or more")
    return password


def _files(intake: Intake) -> dict[str, bytes]:
    """Return what becomes a key folder, by name; the key first, for whoever puts that in place owns the folder."""
    files = {KEY: keystore.key_pem(intake.key), CERTIFICATE: pem.written(intake.chain)}
    if intake.authorities:
        files[AUTHORITY] = pem.written(each.certificate for each in intake.authorities)
    return files | {_pin_file(identity): pem.written(pinned) for identity, pinned in intake.pins.items()}


def _trust_in(folder: Path) -> list[str]:
    """Return the names of the files by which a folder trusts anybody."""
    names = [AUTHORITY, *(_pin_file(identity) for identity, _ in _pinned(folder))]
    return [name for name in names if os.path.lexists(folder / name)]


def _pin_file(identity: Identity) -> str:
    return f"{PEERS}/{identity.role.value}/{identity.name}.pem"


def _pinned(folder: Path) -> Iterator[tuple[Identity, Path]]:
    """Yield the peers that a key folder pins."""
    for role in Role:
        for path in sorted((folder / PEERS / role.value).glob("*.pem")):
            yield Identity(role, path.stem), path


def _trusted(keys: Path) -> Iterator[tuple[str, x509.Certificate]]:
    """Yield an alias and a certificate for each authority and each peer that a key folder trusts."""
    if os.path.lexists(keys / AUTHORITY):
        for number, certificate in enumerate(keystore.read_certificates(keys / AUTHORITY), 1):
            yield f"authority-{number}", certificate
    seen = set()
    for identity, path in _pinned(keys):
        alias = f"{identity.role.value}-{identity.name}".lower()
        if alias in seen or not is_name(identity.name):
            raise SettingsError(f"{path} cannot be {alias} in Java, where case does not count: rename it")
        for number, certificate in enumerate(keystore.read_certificates(path), 1):
            yield alias if number == 1 else f"{alias}-{number}", certificate
        seen.add(alias)


def _tell(source: Path, folder: Path, intake: Intake) -> None:
    own = intake.chain[0]
    who = f"{intake.role}" if intake.role else printable(name_of(own))
    click.echo(f"made {folder} for {who}, from {intake.alias} in {source}, valid until {ends(own):%Y-%m-%d}")
    for each in intake.authorities:
        click.echo(
            f"trusts the authority {printable(common_name(each.certificate.subject))}, {_print_of(each.certificate)}"
        )
    for identity, certificates in intake.pins.items():
        for pinned in certificates:
            click.echo(f"trusts {identity}: {printable(name_of(pinned))}, {_print_of(pinned)}")
    for alias, why in intake.left_out:
        click.echo(printable(f"left out {alias}: it {why}"))
    if intake.role is None:
        click.echo(f"its certificate bears no role URI: it is of use only where {folder / CERTIFICATE} is pinned")


def _print_of(certificate: x509.Certificate) -> str:
    return f"SHA-256 {colons(certificate.fingerprint(hashes.SHA256()))}"
