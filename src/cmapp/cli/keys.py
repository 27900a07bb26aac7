"""`cmapp keys`: makes an authority, issues key folders, and shows what is in files.

Responsible for arguments and for what is printed; what is in a certificate and in a folder is decided in `cmapp.keys`.
What happens to keys later stands in `keylife.py` and `keyrevoke.py`, requests in `keyrequests.py`, whom to trust in
`keytrust.py`, Java's keystores in `keystores.py`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cmapp.cli.keylife import check_keys, renew_keys
from cmapp.cli.keyoptions import (
    PATH,
    asker,
    days_option,
    folder_argument,
    force_option,
    name_argument,
    new_passphrase,
    now,
    passphrase_option,
    role_argument,
    sans_option,
)
from cmapp.cli.keyrequests import accept_keys, request_keys, sign_keys
from cmapp.cli.keyrevoke import revoke_keys
from cmapp.cli.keyshow import show_keys
from cmapp.cli.keystores import export_keystore, import_keystore
from cmapp.cli.keytrust import distrust_keys, pin_keys, trust_keys
from cmapp.core.text import printable
from cmapp.keys import authority as certificates
from cmapp.keys import keystore
from cmapp.keys.description import describe, names
from cmapp.net.identity import Identity, Role
from cmapp.net.trust import AUTHORITY

if TYPE_CHECKING:
    from pathlib import Path


@click.group("keys", no_args_is_help=False)
def keys_group() -> None:
    """Make an authority, issue key folders, and look after them as long as they live."""


for _command in (
    *(renew_keys, revoke_keys, check_keys),
    *(request_keys, sign_keys, accept_keys),
    *(trust_keys, distrust_keys, pin_keys),
    *(import_keystore, export_keystore, show_keys),
):
    keys_group.add_command(_command)


@keys_group.command("init")
@folder_argument
@click.option("--name", metavar="NAME", help="What the authority is called; without it, after its key.")
@days_option(
    certificates.AUTHORITY_DAYS,
    f"How many days the authority is valid (default {certificates.AUTHORITY_DAYS}).",
)
@click.option("--passphrase", is_flag=True, help="Put its key behind a passphrase, asked twice on the terminal.")
@click.option(
    "--passphrase-file",
    metavar="FILE",
    type=PATH,
    help="Put its key behind the passphrase in FILE's first line (default: no passphrase).",
)
@force_option("Replace the authority; whatever it issued becomes useless.")
def _init(  # noqa: PLR0913 - click passes each argument and option by name
    folder: Path, name: str | None, days: int, passphrase_file: Path | None, *, passphrase: bool, force: bool
) -> None:
    """Make an authority in DIR: ca.pem, and ca-key.pem to keep secret."""
    made = certificates.make_authority(name, days=days, now=now())
    keystore.check_free(folder, (keystore.AUTHORITY_KEY, AUTHORITY), force=force)
    secret = None
    if passphrase or passphrase_file:
        secret = new_passphrase(passphrase_file, folder / keystore.AUTHORITY_KEY)
    keystore.write_authority(folder, made, force=force, passphrase=secret)
    about = describe(made.certificate)
    click.echo(f"made the authority {printable(about.who)} in {folder}, valid until {about.until:%Y-%m-%d}")
    click.echo(f"keep {folder / keystore.AUTHORITY_KEY} secret: it never leaves this machine")


@keys_group.command("issue")
@folder_argument
@role_argument
@name_argument
@sans_option
@days_option(
    certificates.ISSUED_DAYS,
    f"How many days it is valid, at most as long as the authority (default {certificates.ISSUED_DAYS}).",
)
@passphrase_option
@force_option("Replace a key folder that is there.")
def _issue(  # noqa: PLR0913, PLR0917 - click passes each argument and option by name
    folder: Path, role: str, name: str, sans: tuple[str, ...], days: int, passphrase_file: Path | None, *, force: bool
) -> None:
    """Issue the key folder DIR/guest/NAME or DIR/host/NAME, which --keys takes.

    A guest's NAME is what cmappmgr calls it by: its host name or its IPv4 address.
    """
    identity, at = Identity(Role(role), name), now()
    certificates.entitlements(identity, sans)  # nobody types a passphrase to be told of a wrong name
    keystore.check_free(keystore.issued_folder(folder, identity), keystore.FOLDER, force=force)
    keystore.check_list(folder, at)
    authority = keystore.read_authority(folder, asker(passphrase_file))
    issued = certificates.issue(authority, identity, sans=sans, days=days, now=at)
    target = keystore.hand_out(folder, identity, issued.certificate, authority, key=issued.key, force=force)
    about = describe(issued.certificate)
    said = ", ".join(names(issued.certificate))
    click.echo(f"issued {target} for {identity} ({said}), valid until {about.until:%Y-%m-%d}")
    if about.until < at + timedelta(days=days) - timedelta(seconds=1):
        click.echo(f"not for {days} days: it ends with its authority")
    command = "cmappserver" if identity.role is Role.GUEST else "cmappmgr"
    click.echo(f"copy it to the {role} and give it to {command} --keys")
