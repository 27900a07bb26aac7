"""`cmapp keys trust`, `distrust` and `pin`: whom a key folder believes.

Responsible for arguments and for what is printed. The invariant: nothing is taken into a key folder that would let
more peers in than it says, and the last authority is never removed.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click
from cryptography.hazmat.primitives import hashes

from cmapp.cli.keyoptions import PATH, force_option, keys_argument, name_argument, now, role_argument
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.keys import keystore, pem
from cmapp.keys.description import colons, common_name, describe
from cmapp.keys.files import sole_writer, write_files
from cmapp.keys.pins import unfit
from cmapp.keys.revocation import is_list_of, merged
from cmapp.keys.trust import find_authority, unfit_authority, vouches_for
from cmapp.net.identity import NAME_LIMIT, Identity, Role, is_name
from cmapp.net.trust import AUTHORITY, CERTIFICATE, PEERS

if TYPE_CHECKING:
    from pathlib import Path


@click.command("trust")
@keys_argument
@click.argument("authority", metavar="CA", type=PATH)
@click.option("--crl", metavar="FILE", type=PATH, help="Revocation lists of CA to add (default CA/crl.pem, if any).")
def trust_keys(keys: Path, authority: Path, crl: Path | None) -> None:
    """Let FOLDER trust the authorities in the file CA, or of the authority's folder CA, beside those that it trusts."""
    if os.path.isdir(authority):
        if crl is None and os.path.lexists(authority / keystore.LISTS):
            crl = authority / keystore.LISTS
        authority /= AUTHORITY
    new = keystore.read_certificates(authority)
    for certificate in new:
        if why := unfit_authority(certificate, now()):
            raise SettingsError(f"{authority} {why}")
    added_lists = keystore.read_lists(crl) if crl else []
    with sole_writer(keys):
        there = keystore.read_certificates(keys / AUTHORITY) if os.path.lexists(keys / AUTHORITY) else []
        trusted = list(dict.fromkeys([*there, *new]))
        files = {AUTHORITY: pem.written(trusted)}
        lists = merged(keystore.read_lists(keys / keystore.LISTS, missing_ok=True), added_lists)
        if lists:
            files[keystore.LISTS] = pem.written(lists)
        write_files(keys, files, force=True)
    for certificate in new:
        name = printable(common_name(certificate.subject))
        click.echo(f"{keys} {'trusts' if certificate not in there else 'trusted already'} {name}")
        if lists and not any(is_list_of(certificate, each) for each in lists):
            click.echo(
                f"but {keys / keystore.LISTS} has no list of it, so nobody of it is let in: make one with"
                f" 'cmapp keys revoke' in its own folder, and add it with --crl"
            )


@click.command("distrust")
@keys_argument
@click.argument("who", metavar="NAME_OR_FINGERPRINT")
@force_option("Remove it even if the certificate in FOLDER is of this authority.")
def distrust_keys(keys: Path, who: str, *, force: bool) -> None:
    """Remove one authority from the ca.pem in FOLDER, by its name or its SHA-256 fingerprint."""
    with sole_writer(keys):
        there = keystore.read_certificates(keys / AUTHORITY)
        gone = find_authority(there, who)
        left = [one for one in there if one != gone]
        name = common_name(gone.subject)
        if os.path.lexists(keys / keystore.AUTHORITY_KEY) and gone == there[0]:
            raise SettingsError(f"{name} is the authority that {keys} belongs to: it cannot be removed from there")
        if not left:
            raise SettingsError(f"{name} is the only authority that {keys} trusts: 'cmapp keys trust' another first")
        own = keystore.read_certificates(keys / CERTIFICATE) if os.path.lexists(keys / CERTIFICATE) else []
        if any(vouches_for(gone, certificate) for certificate in own) and not force:
            raise SettingsError(
                f"{keys / CERTIFICATE} is of {name}: put one of another authority there first, or use --force"
            )
        files = {AUTHORITY: pem.written(left)}
        lists = keystore.read_lists(keys / keystore.LISTS, missing_ok=True)
        # Without any list nothing would be checked: then the old one stays, and peers of the others are refused.
        if lists := [each for each in lists if not is_list_of(gone, each)]:
            files[keystore.LISTS] = pem.written(lists)
        write_files(keys, files, force=True)
    fingerprint = colons(gone.fingerprint(hashes.SHA256()))
    click.echo(f"{keys} no longer trusts {printable(name)} ({fingerprint})")
    click.echo(f"it still trusts {printable(', '.join(common_name(one.subject) for one in left))}")


@click.command("pin")
@keys_argument
@role_argument
@name_argument
@click.argument("certificate", metavar="CERT", type=PATH)
@click.option("--beside", is_flag=True, help="Keep what is pinned for that name beside it, until the peer has changed.")
@force_option("Replace what is pinned for that name.")
def pin_keys(  # noqa: PLR0913 - click passes each argument and option by name
    keys: Path, role: str, name: str, certificate: Path, *, beside: bool, force: bool
) -> None:
    """Let FOLDER take the peer that shows exactly the certificate in the file CERT for the guest or the host NAME."""
    identity = Identity(Role(role), name)
    if not is_name(name):
        raise SettingsError(
            f"{name!r} cannot name a {role}: use at most {NAME_LIMIT} letters, digits, dots, hyphens and"
            " underscores, a letter or digit first"
        )
    pinned = keystore.read_certificate(certificate)
    if why := unfit(pinned, identity, now()):
        raise SettingsError(f"{certificate} {why}")
    with sole_writer(keys):
        own = f"{PEERS}/{role}/{name}.pem"
        for path in sorted((keys / PEERS).glob("*/*.pem")):
            if path != keys / own and pinned in keystore.read_certificates(path):
                raise SettingsError(f"{certificate} is pinned already, as {path}: one certificate is one peer's")
        there = keystore.read_certificates(keys / own) if beside and os.path.lexists(keys / own) else []
        write_files(keys, {own: pem.written(dict.fromkeys([*there, pinned]))}, force=force or beside)
    about = describe(pinned)
    click.echo(f"{keys} takes who shows this certificate for {identity}, until {about.until:%Y-%m-%d}:")
    click.echo(f"  SHA-256 {about.fingerprint}")
