"""`cmapp keys renew` and `check`: keys that are in use stay good.

Responsible for arguments and for what is printed. The invariant: a certificate is renewed for exactly the
names and the role that it has.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cmapp.cli.keyoptions import (
    asker,
    days_option,
    folder_argument,
    keys_argument,
    name_argument,
    now,
    passphrase_option,
    role_argument,
)
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.keys import authority as certificates
from cmapp.keys import keystore
from cmapp.keys.description import ends, identity_of, sans
from cmapp.keys.examination import SOON, Examination
from cmapp.keys.revocation import has_issued, is_revoked
from cmapp.net.identity import Identity, Role
from cmapp.net.trust import CERTIFICATE, KEY

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cryptography import x509


_ROLES = {role.value for role in Role}


@click.command("renew")
@folder_argument
@role_argument
@name_argument
@days_option(
    certificates.ISSUED_DAYS,
    f"How many days it is valid, at most as long as the authority (default {certificates.ISSUED_DAYS}).",
)
@click.option("--same-key", is_flag=True, help="Keep the private key; without it, a new one is made.")
@passphrase_option
def renew_keys(  # noqa: PLR0913 - click passes each argument and option by name
    folder: Path, role: str, name: str, days: int, passphrase_file: Path | None, *, same_key: bool
) -> None:
    """Issue a new certificate like that in DIR/guest/NAME or DIR/host/NAME, for the same names.

    The old one stays valid until it expires, or is revoked.
    """
    identity, at = Identity(Role(role), name), now()
    target = keystore.issued_folder(folder, identity)
    old = keystore.read_certificate(target / CERTIFICATE)
    _check_renewable(folder, identity, old, same_key=same_key)
    keystore.check_list(folder, at)
    authority = keystore.read_authority(folder, asker(passphrase_file))
    if not has_issued(authority, old):
        raise SettingsError(f"{target / CERTIFICATE} is not of the authority in {folder}: issue one with --force")
    if same_key:
        new = certificates.certify(authority, identity, old.public_key(), sans=sans(old), days=days, now=at)
        keystore.hand_out(folder, identity, new, authority, key=None, force=True, renewal=True)
    else:
        made = certificates.issue(authority, identity, sans=sans(old), days=days, now=at)
        new = made.certificate
        keystore.hand_out(folder, identity, new, authority, key=made.key, force=True, renewal=True)
    click.echo(f"renewed {target}, valid until {ends(new):%Y-%m-%d}; the old one was until {ends(old):%Y-%m-%d}")
    if ends(new) < at + timedelta(days=days) - timedelta(seconds=1):
        click.echo(f"not for {days} days: it ends with its authority; make a new one with 'cmapp keys init'")
    what = CERTIFICATE if same_key else f"{KEY} and {CERTIFICATE}"
    click.echo(f"copy {what} into the key folder of {identity}: both daemons take them without a restart")


def _check_renewable(folder: Path, identity: Identity, old: x509.Certificate, *, same_key: bool) -> None:
    target = keystore.issued_folder(folder, identity)
    try:
        said = identity_of(old)
    except SettingsError as error:
        raise SettingsError(f"{target / CERTIFICATE} {error}: issue one with --force") from None
    if said != identity:
        raise SettingsError(f"{target / CERTIFICATE} is {said}'s, not {identity}'s: issue one with --force")
    if not same_key and not os.path.lexists(target / KEY):
        raise SettingsError(
            f"there is no {target / KEY}, for it never left the {identity.role.value}: renew with --same-key,"
            " or make a new request there with 'cmapp keys request'"
        )
    if same_key and is_revoked(old, keystore.read_lists(folder / keystore.LISTS, missing_ok=True)):
        raise SettingsError(f"{target / CERTIFICATE} was revoked, and its key with it: renew without --same-key")


@click.command("check")
@keys_argument
@click.argument("role", metavar="[guest|host]", type=click.Choice(sorted(_ROLES)), required=False)
@days_option(SOON, f"Call it a problem when something expires within so many days (default {SOON}).")
@click.pass_context
def check_keys(context: click.Context, keys: Path, role: str | None, days: int) -> None:
    """Say what is wrong with the key folder FOLDER, or for how long it is good; exit with 1 if something is.

    Without guest or host, it is checked for the role in its certificate.
    """
    found = Examination(keys, Role(role) if role else None, days=days, now=now())
    _echo(found.problems)
    if found.problems:
        context.exit(1)
    click.echo(f"{keys} is in order: {found.who}, {found.days_left} days left")


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))
