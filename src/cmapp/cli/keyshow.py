"""`cmapp keys show`: says what is in a file, a certificate, a request or a revocation list.

Responsible for how it looks. The invariant: whatever stands in a file, nothing but printable text reaches the
terminal, and nothing is said of whether it can be trusted.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from cmapp.cli.keyoptions import PATH, now
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.keys import keystore, pem
from cmapp.keys.description import (
    common_name,
    describe,
    key_fingerprint,
    list_begins,
    list_ends,
    list_number,
    names,
    role_words,
)
from cmapp.keys.files import read_file
from cmapp.keys.strength import key_words
from cmapp.net.trust import AUTHORITY, CERTIFICATE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

    Rows = dict[str, str]

_KINDS = {"NEW CERTIFICATE REQUEST": pem.REQUEST, "TRUSTED CERTIFICATE": pem.CERTIFICATE}


@click.command("show")
@click.argument("files", metavar="FILE...", type=PATH, nargs=-1, required=True)
def show_keys(files: tuple[Path, ...]) -> None:
    """Say what is in each FILE: who a certificate or a request is for, in which role and until when; what is revoked.

    A FILE may be a key folder, which stands for its certificate, or an authority's.
    """
    for path in files:
        try:
            told = [_told(rows) for rows in _contents(path, now())]
        except ValueError as error:
            raise SettingsError(f"{path} holds a malformed certificate: {error}") from None
        click.echo(f"{path}:\n" + "\n\n".join(told))


def _contents(path: Path, at: datetime) -> Iterator[Rows]:
    if os.path.isdir(path):
        path /= next((name for name in (CERTIFICATE, keystore.REQUEST) if os.path.lexists(path / name)), AUTHORITY)
    text = read_file(path)
    there = {_KINDS.get(kind, kind) for kind in pem.kinds(text)}
    if pem.LIST in there:
        yield from (_list(each, at) for each in keystore.read_lists(path))
    if pem.REQUEST in there:
        yield _request(keystore.read_request(path))
    if pem.CERTIFICATE in there or not there & {pem.LIST, pem.REQUEST}:
        yield from (_certificate(each, at) for each in keystore.read_certificates(path))


def _certificate(certificate: x509.Certificate, at: datetime) -> Rows:
    about = describe(certificate)
    return {
        "who": about.who,
        "role": about.role,
        "names": ", ".join(about.names) or "none",
        "key": about.key,
        "issuer": about.issuer,
        "from": _time(about.since),
        "until": f"{_time(about.until)}, {_left(about.since, about.until, at)}",
        "SHA-256": about.fingerprint,
    }


def _request(request: x509.CertificateSigningRequest) -> Rows:
    return {
        "request": common_name(request.subject),
        "role": role_words(request),
        "names": ", ".join(names(request)) or "none",
        "key": key_words(request),
        "SHA-256": f"{key_fingerprint(request)} (of the key)",
    }


def _list(revoked: x509.CertificateRevocationList, at: datetime) -> Rows:
    since, until = list_begins(revoked), list_ends(revoked)
    return {
        "revoked": f"{len(revoked)} certificates" if len(revoked) != 1 else "1 certificate",
        "issuer": common_name(revoked.issuer),
        "number": str(list_number(revoked)),
        "from": _time(since),
        "until": f"{_time(until)}, {_left(since, until, at)}" if until else "it does not say",
        "serials": ", ".join(f"{entry.serial_number:x}" for entry in revoked) or "none",
    }


def _time(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M:%S} UTC"


def _left(since: datetime, until: datetime, at: datetime) -> str:
    left = (until - at) / timedelta(days=1)
    if left < 0:
        return f"EXPIRED {-left:.0f} days ago"
    return "NOT YET VALID" if at < since else f"{left:.0f} days left"


def _told(rows: Rows) -> str:
    return "\n".join(f"  {label:8}{printable(text)}" for label, text in rows.items())
