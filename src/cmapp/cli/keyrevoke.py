"""`cmapp keys revoke`: certificates that count no more.

Responsible for arguments and for what is printed. The invariant: a revocation is on the disk, in the list of the
authority, before anything is said of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cmapp.cli.keyoptions import asker, days_option, folder_argument, now, passphrase_option
from cmapp.errors import SettingsError
from cmapp.keys import keystore, pem
from cmapp.keys.description import ends, identity_of, list_ends
from cmapp.keys.files import sole_writer, write_files
from cmapp.keys.revocation import has_issued, is_list_of, is_revoked, make_list
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from cryptography import x509

    from cmapp.keys.authority import Credential

    List = x509.CertificateRevocationList

_ROLES = {role.value for role in Role}


@click.command("revoke")
@folder_argument
@click.argument("what", metavar="[guest|host NAME | FILE...]", nargs=-1)
@days_option(None, "How many days the list is valid (default: as long as the authority).")
@passphrase_option
def revoke_keys(folder: Path, what: tuple[str, ...], days: int | None, passphrase_file: Path | None) -> None:
    """Put certificates on the authority's revocation list, DIR/crl.pem.

    They are all that were issued in DIR for the guest or the host NAME, or those in FILEs. With neither, the list is
    only signed anew: before it expires, or to have an empty one.
    """
    at, path = now(), folder / keystore.LISTS
    named = _named(folder, what)
    with sole_writer(folder):
        authority = keystore.read_authority(folder, asker(passphrase_file))
        former = _own_list(folder, authority)
        fresh = dict.fromkeys(_not_yet(named, authority, former, at))
        if what and not fresh:
            click.echo(f"{path} is as it was")
            return
        revoked = make_list(authority, former, fresh, days=days, now=at)
        write_files(folder, {keystore.LISTS: pem.written([revoked])}, force=True)
        copies = keystore.spread_list(folder, revoked)
    for certificate in fresh:
        click.echo(f"revoked {_called(certificate)}")
    click.echo(f"{path} is valid until {list_ends(revoked):%Y-%m-%d}, and revokes {len(revoked)} in all")
    if days is not None:
        click.echo(f"replace it by then, with 'cmapp keys revoke {folder}': once it has expired nobody is let in")
    if copies:
        click.echo(f"it is in the key folders below {folder}, too, {len(copies)} of them")
    click.echo(f"copy it as {keystore.LISTS} into the key folder of every guest and host: until then they know nothing")


def _named(folder: Path, what: tuple[str, ...]) -> list[tuple[x509.Certificate, Path | None]]:
    """Return the certificates that are to be revoked, each with the file that was named for it, if one was."""
    if not what or what[0] not in _ROLES:
        return [(keystore.read_certificate(path), path) for path in map(Path, what)]
    if len(what) != 2:  # noqa: PLR2004 - a role and a name
        raise click.UsageError(f"after {what[0]} comes one NAME (a file that is called so is ./{what[0]})")
    identity = Identity(Role(what[0]), what[1])
    if found := keystore.read_issued(folder, identity):
        return [(certificate, None) for certificate in found]
    where = keystore.issued_folder(folder, identity)
    raise SettingsError(f"there is no certificate of {identity} in {where}: name a file that holds it")


def _not_yet(
    named: list[tuple[x509.Certificate, Path | None]], authority: Credential, former: List | None, at: datetime
) -> Iterator[x509.Certificate]:
    """Yield what has to be put on the list; raises SettingsError for a certificate of another authority."""
    lists = [former] if former else []
    for certificate, path in named:
        if not has_issued(authority, certificate):
            # Among those that are kept, one is of an authority that was replaced by this one.
            if path is not None:
                raise SettingsError(f"{path} is not of this authority: only the one that issued it can revoke it")
        elif is_revoked(certificate, lists):
            click.echo(f"{_called(certificate)}, is revoked already")
        elif path is None and at > ends(certificate):
            click.echo(f"{_called(certificate)}, has expired")
        else:
            yield certificate


def _own_list(folder: Path, authority: Credential) -> List | None:
    path = folder / keystore.LISTS
    lists = keystore.read_lists(path, missing_ok=True)
    own = [each for each in lists if is_list_of(authority.certificate, each)]
    if lists and not own:
        raise SettingsError(f"{path} is not signed by the authority in {folder}: restore both from one backup")
    return own[0] if own else None


def _called(certificate: x509.Certificate) -> str:
    try:
        who = str(identity_of(certificate))
    except (SettingsError, ValueError):
        who = certificate.subject.rfc4514_string() or "a certificate without a name"
    return f"{who}, serial number {certificate.serial_number:x}"
