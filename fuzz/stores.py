"""Targets: key material as files bring it: DER, PEM, Java keystores, and whole key folders.

What `cryptography` reads of a certificate is held against what we read of it ourselves. The invariant: whatever the
bytes are, something that fits comes out, or a SettingsError in one line.
"""

from __future__ import annotations

import functools
import math
import shutil
import ssl
import time
import warnings
from typing import TYPE_CHECKING

from cryptography import x509 as reference

from cmapp.errors import SettingsError
from cmapp.keys import jks, pem, pkcs12
from cmapp.net import der, x509
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys, require_own_role
from cmapp.net.tls import client_context, server_context
from fuzz import papers
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

PASSWORD = "password"  # noqa: S105 - of what is made here
DEAD_LINE = 5.0  # seconds that reading one small keystore may take
_SECOND = 1.0


def changed(template: bytes, draw: Draw) -> bytes:
    """Return `template` with bytes replaced, taken away or put in between."""
    for _ in range(draw.below(6)):
        at, how = draw.below(min(len(template) + 1, 1 << 16)), draw.below(4)
        new = draw.take(draw.byte() % 24)
        behind = at + (0 if how == 1 else draw.byte() if how == 2 else len(new))  # noqa: PLR2004 - one of four
        template = template[:at] + (b"" if how == 2 else new) + template[behind:]  # noqa: PLR2004 - the same
    return template


# ---- statements ------------------------------------------------------------------------------------------------


def statement(data: bytes) -> None:
    """Read a certificate, a revocation list or any bytes: what is read is what others read too."""
    draw = Draw(data)
    listing = draw.chance(3)
    template = papers.revocations() if listing else papers.leaf(draw.pick(("host", "guest")))
    content = expand(draw.rest()) if draw.chance(8) else changed(template, draw)
    try:
        told = (x509.revocations if listing else x509.certificate)(content)
    except ValueError as error:
        require_plain(str(error))
        return
    require_plain(told.who)
    require(not math.isnan(told.until) and math.isfinite(told.since), "no times", told)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            since, until = _reference(content, listing=listing)
        except Exception:  # noqa: BLE001 - the reference refuses more than we must
            return
    require(abs(told.since - since) < _SECOND, "another beginning than others read", told.since, since)
    require(told.until == until or abs(told.until - until) < _SECOND, "another end than others read", told.until, until)


def _reference(content: bytes, *, listing: bool) -> tuple[float, float]:
    if not listing:
        read = reference.load_der_x509_certificate(content)
        return read.not_valid_before_utc.timestamp(), read.not_valid_after_utc.timestamp()
    found = reference.load_der_x509_crl(content)
    following = found.next_update_utc
    return found.last_update_utc.timestamp(), math.inf if following is None else following.timestamp()


def asn1(data: bytes) -> None:
    """Take any bytes for DER: what is found in them is in them, whole."""
    content = expand(data)
    try:
        found = der.elements(content)
    except ValueError as error:
        require_plain(str(error))
        return
    require(sum(len(part) for _, part in found) + 2 * len(found) <= len(content), "more than there is", found)
    again = b"".join(der.element(tag, part) for tag, part in found)
    require(der.elements(again) == found, "not written as it is read", content)


# ---- keystores -------------------------------------------------------------------------------------------------


@functools.cache
def _stores() -> tuple[tuple[Callable[[bytes, str], Any], bytes], ...]:
    """Return good keystores and truststores, with what reads each."""
    made = papers.papers()
    key, own, authority = made.keys["guest"], made.leaves["guest"], made.authority
    chain: list[Any] = [own, authority]
    return (
        (jks.read, jks.write(PASSWORD, now=1.0, key=("vm1", key, chain, PASSWORD))),
        (jks.read, jks.write(PASSWORD, now=1.0, trusted=[("ca", authority), ("n1", made.leaves["host"])])),
        (pkcs12.read, pkcs12.write_keystore("vm1", key, chain, PASSWORD)),
        (pkcs12.read, pkcs12.write_truststore([("ca", authority)], PASSWORD)),
    )


def keystore(data: bytes) -> None:
    """Open a Java keystore that somebody has changed, with a right digest where that can be made."""
    draw = Draw(data)
    read, template = draw.pick(_stores())
    content = changed(template, draw)
    if read is jks.read and not draw.chance(4):  # or nothing behind the digest would ever be reached
        content = content[:-20] + jks._digest(PASSWORD, content[:-20])  # noqa: SLF001 - nobody else makes it
    begun = time.process_time()
    try:
        found = read(content, PASSWORD)
        for entry in found.keys:
            entry.unlock(PASSWORD)
    except SettingsError as error:
        require(str(error), "no reason")
    require(time.process_time() - begun < DEAD_LINE, "a keystore that takes too long to open")


def texts(data: bytes) -> None:
    """Read PEM of every kind from a text in which anything may stand."""
    draw = Draw(data)
    made = papers.papers()
    template = pem.written([made.authority, made.leaves["host"], made.revocations])
    content = expand(changed(template, draw) + draw.rest())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for read in (pem.certificates, pem.requests, pem.lists):
            try:
                read(content)
            except ValueError:
                continue
    require(all(kind.isprintable() for kind in pem.kinds(content)), "a kind that is no word", content)
    try:
        x509.blocks(content, x509.CERTIFICATE)
    except ValueError as error:
        require_plain(str(error))


# ---- key folders -----------------------------------------------------------------------------------------------


def folder(data: bytes) -> None:
    """Start from a key folder in which any file holds anything: it can be used, or a sentence says why not."""
    draw = Draw(data)
    role = draw.pick(("host", "guest"))
    keys = papers.scratch() / "folder"
    shutil.rmtree(keys, ignore_errors=True)
    shutil.copytree(papers.key_folder(role), keys)
    if draw.chance(3):
        (keys / "crl.pem").write_text(_armoured(papers.revocations(), "X509 CRL"))
    for _ in range(1 + draw.below(2)):
        _spoil(keys, role, draw)
    for problem in check_keys(str(keys), Role(role)):
        require_plain(problem)
    try:
        (server_context if role == "guest" else client_context)(str(keys))
        require_own_role(str(keys), Role(role))
    except SettingsError as error:
        require_plain(str(error))


def _spoil(keys: Path, role: str, draw: Draw) -> None:
    name = draw.pick(("cert.pem", "ca.pem", "key.pem", "crl.pem", "peers/host", "peers/guest"))
    ders = [papers.leaf("host"), papers.leaf("guest"), papers.authority()]
    content = _armoured(changed(draw.pick(ders), draw), "CERTIFICATE").encode()
    if name == "crl.pem":
        content = _armoured(changed(papers.revocations(), draw), "X509 CRL").encode()
    if name == "key.pem" or draw.chance(8):
        content = changed(papers.key_pem(role), draw)
    path = keys / name
    if name.startswith("peers"):
        path.mkdir(parents=True, exist_ok=True)
        path = path / draw.pick(("n1.pem", "vm1.pem", "x y.pem", "\x1b[2J.pem", ".pem"))
    path.write_bytes(content if not draw.chance(8) else draw.rest())


def _armoured(content: bytes, label: str) -> str:
    return ssl.DER_cert_to_PEM_cert(content).replace("CERTIFICATE", label)
