"""`cmapp keys request`, `sign` and `accept`: a certificate for a key that never leaves its machine.

Responsible for arguments, for what is printed, and for the order of steps. The invariant: a key that is in use stays
in use until `accept` has a certificate that works with another.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric import ec

from cmapp.cli.keyoptions import (
    PATH,
    asker,
    days_option,
    folder_argument,
    force_option,
    keys_argument,
    name_argument,
    now,
    passphrase_option,
    role_argument,
    sans_option,
)
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.keys import authority as certificates
from cmapp.keys import keystore, pem
from cmapp.keys.description import describe, ends, identity_of, names
from cmapp.keys.files import sole_writer, write_files
from cmapp.keys.request import make_request, read_request
from cmapp.keys.revocation import merged
from cmapp.net.identity import Identity, Role
from cmapp.net.keyfolder import check_keys
from cmapp.net.trust import AUTHORITY, CERTIFICATE, KEY


@click.command("request")
@keys_argument
@role_argument
@name_argument
@sans_option
@click.option("--same-key", is_flag=True, help="Ask for the key.pem that is there; without it, a new key is made.")
@force_option("Replace a request that is there, and its key.")
def request_keys(  # noqa: PLR0913 - click passes each argument and option by name
    keys: Path, role: str, name: str, sans: tuple[str, ...], *, same_key: bool, force: bool
) -> None:
    """Make a private key in FOLDER, and FOLDER/request.pem, which asks an authority for its certificate.

    If the key.pem in FOLDER is in use, it stays so: the new one is new-key.pem until `cmapp keys accept`.
    """
    in_use = os.path.lexists(keys / KEY) and os.path.lexists(keys / CERTIFICATE)
    place = keystore.NEXT_KEY if in_use else KEY
    key = keystore.read_key(keys / KEY) if same_key else ec.generate_private_key(ec.SECP256R1())
    request = make_request(key, Identity(Role(role), name), sans)  # type: ignore[arg-type]
    files = {keystore.REQUEST: pem.written([request])}
    if not same_key:
        files = {place: keystore.key_pem(key), **files}
    write_files(keys, files, force=force or same_key)
    asked = read_request(request)
    click.echo(f"made {keys / keystore.REQUEST} for {asked.identity} ({', '.join(names(request))})")
    click.echo(f"its key, {keys / (KEY if same_key else place)}, stays here; SHA-256 of its public half:")
    click.echo(f"  {asked.fingerprint}")
    click.echo("have it signed: 'cmapp keys sign' on the authority's machine, or your company's own authority")


@click.command("sign")
@folder_argument
@click.argument("request", metavar="REQUEST", type=PATH)
@click.option(
    "--out",
    metavar="FILE",
    type=PATH,
    help="Where the certificate goes (default cert.pem beside REQUEST, unless that is in use).",
)
@click.option(
    "--as",
    "who",
    metavar="guest|host NAME",
    type=(click.Choice([role.value for role in Role]), str),
    help="Whom to name instead of whom and what the request names (default: as it asks).",
)
@sans_option
@days_option(
    certificates.ISSUED_DAYS,
    f"How many days it is valid, at most as long as the authority (default {certificates.ISSUED_DAYS}).",
)
@passphrase_option
@force_option("Replace a certificate of that name that is there.")
def sign_keys(  # noqa: PLR0913, PLR0917 - click passes each argument and option by name
    folder: Path,
    request: Path,
    out: Path | None,
    who: tuple[str, str] | None,
    sans: tuple[str, ...],
    days: int,
    passphrase_file: Path | None,
    *,
    force: bool,
) -> None:
    """Issue a certificate for the key of REQUEST, and keep a copy in DIR/guest/NAME or DIR/host/NAME.

    Of REQUEST, only the role and the names are taken, and its signature must prove that it has the key.
    """
    there = keystore.read_request(request)
    try:
        asked = read_request(there)
    except SettingsError as error:
        raise SettingsError(f"{request} {error}") from None
    identity = Identity(Role(who[0]), who[1]) if who else asked.identity
    if identity is None:
        raise SettingsError(f"{request} bears no role URI: say whom it is for with --as guest NAME or --as host NAME")
    wanted = [*sans, *(() if who else asked.names)]
    out, at = out or _beside(request), now()
    certificates.entitlements(identity, wanted)  # nobody types a passphrase to be told of a wrong name
    keystore.check_free(keystore.issued_folder(folder, identity), keystore.FOLDER, force=force)
    if out is not None:
        keystore.check_free(out.parent, [out.name], force=force)
    keystore.check_list(folder, at)
    authority = keystore.read_authority(folder, asker(passphrase_file))
    made = certificates.certify(authority, identity, asked.key, sans=wanted, days=days, now=at)
    target = keystore.hand_out(folder, identity, made, authority, key=None, force=force)
    if out is not None and out.absolute() != (target / CERTIFICATE).absolute():
        write_files(out.parent, {out.name: pem.written([made])}, force=force)
    where = out or target / CERTIFICATE
    click.echo(f"signed {where} for {identity} ({', '.join(names(made))}), valid until {ends(made):%Y-%m-%d}")
    if who and asked.names:
        click.echo(f"not taken from the request: {printable(', '.join(asked.names))}; name with --san what it needs")
    if ends(made) < at + timedelta(days=days) - timedelta(seconds=1):
        click.echo(f"not for {days} days: it ends with its authority")
    click.echo(f"the key is {asked.kind}; compare with whoever made it the SHA-256 of its public half:")
    click.echo(f"  {asked.fingerprint}")
    click.echo(f"copy {target} to the {identity.role.value} and give it to 'cmapp keys accept' there")


def _beside(request: Path) -> Path | None:
    """Return where the certificate goes without --out: not into a key folder that is in use."""
    folder = request if os.path.isdir(request) else request.parent
    in_use = os.path.lexists(folder / KEY) and os.path.lexists(folder / CERTIFICATE)
    return None if in_use else folder / CERTIFICATE


@click.command("accept")
@keys_argument
@click.argument("certificate", metavar="CERT", type=PATH)
@click.argument("authority", metavar="[CA]", type=PATH, required=False)
@click.option("--crl", metavar="FILE", type=PATH, help="Revocation lists to put beside it (default CERT/crl.pem).")
def accept_keys(keys: Path, certificate: Path, authority: Path | None, crl: Path | None) -> None:
    """Put the answer to a request into FOLDER: cert.pem and ca.pem, if they work with the key that is there.

    CERT is a file, which intermediates may follow, or a folder that `cmapp keys sign` made, with ca.pem in it. Without
    CA, the ca.pem that is there is kept. Authorities that FOLDER trusts already stay trusted.
    """
    if os.path.isdir(certificate):
        source = certificate
        authority = authority or source / AUTHORITY
        crl = crl or (source / keystore.LISTS if os.path.lexists(source / keystore.LISTS) else None)
        certificate = source / CERTIFICATE
    chain = keystore.read_certificates(certificate)
    try:
        identity = identity_of(chain[0])
    except SettingsError as error:
        raise SettingsError(f"{certificate} {error}: have it signed with the names that the request asks for") from None
    with sole_writer(keys):
        fitting = _fitting_key(keys, certificate)
        files = {CERTIFICATE: pem.written(chain), AUTHORITY: _trusted(keys, authority)}
        lists = keystore.read_lists(keys / keystore.LISTS, missing_ok=True)
        if lists := merged(lists, keystore.read_lists(crl) if crl else []):
            files[keystore.LISTS] = pem.written(lists)
        _try_out(keys, fitting, files, identity.role)
        if fitting != KEY:
            files = {KEY: keystore.key_pem(keystore.read_key(keys / fitting)), **files}
        write_files(keys, files, force=True, without={keystore.REQUEST, keystore.NEXT_KEY} - {KEY})
    about = describe(chain[0])
    click.echo(f"{keys} is ready for {identity} ({', '.join(about.names)}), valid until {about.until:%Y-%m-%d}")
    command = "cmappserver" if identity.role is Role.GUEST else "cmappmgr"
    click.echo(f"give it to {command} --keys; a daemon that uses it already takes it without a restart")


def _fitting_key(keys: Path, path: Path) -> str:
    certificate = keystore.read_certificate(path)
    there = [name for name in (keystore.NEXT_KEY, KEY) if os.path.lexists(keys / name)]
    if not there:
        raise SettingsError(f"there is no {keys / KEY}: make it with 'cmapp keys request', and have that signed")
    for name in there:
        if keystore.fits(keystore.read_key(keys / name), certificate):
            return name
    raise SettingsError(
        f"{path} is not for {' or '.join(str(keys / name) for name in there)}: it answers another request"
    )


def _trusted(keys: Path, authority: Path | None) -> bytes:
    """Return the ca.pem that FOLDER gets: the authorities of the answer, then those that it trusts already."""
    there = os.path.lexists(keys / AUTHORITY)
    if authority is None and not there:
        raise SettingsError(f"there is no {keys / AUTHORITY} yet: name the file with the authority's certificate, too")
    trusted = keystore.read_certificates(authority) if authority else []
    trusted += keystore.read_certificates(keys / AUTHORITY) if there else []
    return pem.written(dict.fromkeys(trusted))


def _try_out(keys: Path, fitting: str, files: dict[str, bytes], role: Role) -> None:
    """Raise SettingsError unless the folder would work: the check is the one that the daemons make."""
    trial = Path(tempfile.mkdtemp(prefix="cmapp-"))  # private, and not where a daemon would see it
    try:
        write_files(trial, files, force=False)
        (trial / KEY).symlink_to(keys.absolute() / fitting)
        problems = check_keys(str(trial), role)
    finally:
        shutil.rmtree(trial)
    if problems:
        raise SettingsError(problems[0].replace(str(trial), str(keys)))
