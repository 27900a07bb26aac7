"""Mutual TLS: who may speak to whom, and why not.

A key folder holds `cert.pem`, `key.pem` and `ca.pem`. Both sides show a certificate of that authority; its
extended key usage lets OpenSSL refuse a guest that connects and a host that listens, and its one role URI,
`cmapp://host/NAME` or `cmapp://guest/NAME`, names the peer. The invariant: only what `ca.pem` vouches for is
trusted, never the system's authorities, and a peer has an identity only after `peer_identity` returned it.
"""

from __future__ import annotations

import errno
import os
import re
import ssl
import time
from enum import Enum

from cmapp.core.record import Record
from cmapp.core.text import printable
from cmapp.errors import CmappError, LinkError, SettingsError, TrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ALPN = "cmapp/1"
CERTIFICATE, KEY, AUTHORITY = "cert.pem", "key.pem", "ca.pem"
NAME_LIMIT = 64  # X.509's limit for a common name

_BEGIN = b"-----BEGIN CERTIFICATE-----"
_CONTENTS = {CERTIFICATE: _BEGIN, KEY: b"PRIVATE KEY-----", AUTHORITY: _BEGIN}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name
_WRONG_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE

# What OpenSSL says of a peer's certificate, by X509_V_ERR_*: the end of "the certificate of vm1 ...".
_UNTRUSTED = "is not from our authority: compare ca.pem on both sides"
_UNPROVEN = {
    2: _UNTRUSTED,
    7: _UNTRUSTED,
    9: "is not yet valid: check the clocks of both sides",
    10: "has expired (or its authority's has): issue a new one",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    _WRONG_PURPOSE: "is for the other role: a host's cannot serve and a guest's cannot connect",
    62: "is for another name: issue one for {peer}, or call the guest by the name that it bears",
    64: "is for another address: issue one with --san {peer}, or call the guest by the name that it bears",
}
# What an alert from the peer means: the end of "vm1 refused our certificate: ...". The keys are OpenSSL's
# words: its names for them carry historical prefixes, and Python 3.11 knows none for the newest.
_REFUSALS = {
    "access denied": "it denied us access; its log says why",
    "bad certificate": "it is not valid yet, or not for the name that was called; check both",
    "certificate expired": "it has expired (or its authority's has); issue a new one",
    "certificate required": "it got none; give this side a key folder with --keys",
    "certificate revoked": "it has been revoked; issue a new one",
    "certificate unknown": "it was not accepted; check its authority, its names and its role",
    "unknown ca": "it does not trust the authority; compare ca.pem on both sides",
    "unsupported certificate": "it is for the other role; give this side its own key folder",
}
# What a peer that is gone looks like; wrapping a socket that was reset before can raise ENOTCONN as well.
_CLOSINGS = (ssl.SSLZeroReturnError, ssl.SSLEOFError, BrokenPipeError, ConnectionResetError)
_EOF = "UNEXPECTED_EOF_WHILE_READING"  # of a plain SSLError: SSLEOFError's name in Debian's Python
_NOTHING_IN_COMMON = "{peer} and we have no kind of TLS in common: compare versions and certificates"
_NO_VERSION = "{peer} speaks no TLS version that we allow: allow TLS 1.2 on both sides, or on neither"
_PLAIN = "{peer} does not speak TLS: check the port, and what listens or calls there"
# What the two sides could not agree on, by alert, or by the reason that OpenSSL gives here.
_DISAGREEMENTS = {
    "handshake failure": _NOTHING_IN_COMMON,
    "insufficient security": "{peer} finds our TLS too weak: compare versions and settings",
    "no application protocol": f"{{peer}} does not speak {ALPN}: is it cmapp that listens there?",
    "protocol version": _NO_VERSION,
    "unrecognized name": "{peer} does not go by that name: check the name and the port",
    "NO_SHARED_CIPHER": _NOTHING_IN_COMMON,
    "UNSUPPORTED_PROTOCOL": _NO_VERSION,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "{peer} showed no certificate: give it a key folder with --keys",
    "HTTP_REQUEST": _PLAIN,
    "HTTPS_PROXY_REQUEST": _PLAIN,
    "RECORD_LAYER_FAILURE": _PLAIN,
    "WRONG_VERSION_NUMBER": _PLAIN,
}


class Role(Enum):
    """What a certificate entitles to: a host's is a manager's, a guest's is a server's."""

    HOST = "host"
    GUEST = "guest"


class Identity(Record):
    """Who a peer has proved to be."""

    role: Role
    name: str

    def __str__(self) -> str:
        """Write the identity for a sentence: `guest vm1`."""
        return f"{self.role.value} {self.name}"


def is_name(text: str) -> bool:
    """Tell whether `text` may name a host or a guest: nothing that a path, a URI or a wildcard would read."""
    return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


def role_uri(identity: Identity) -> str:
    """Return the URI that a certificate bears for this identity."""
    return f"cmapp://{identity.role.value}/{identity.name}"


def server_context(keys: str, *, allow_tls12: bool = False) -> ssl.SSLContext:
    """Return the guest's context from the folder `keys`; raises SettingsError naming the file at fault."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, keys, allow_tls12=allow_tls12)
    context.num_tickets = 0  # a ticket would outlive the certificate check that it stands for
    return context


def client_context(keys: str, *, allow_tls12: bool = False) -> ssl.SSLContext:
    """Return the manager's context from the folder `keys`; raises SettingsError as for the server.

    Wrap the socket with `server_hostname` set to the guest's name or IP address: OpenSSL compares it.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, keys, allow_tls12=allow_tls12)
    context.hostname_checks_common_name = False
    return context


def peer_identity(tls: ssl.SSLSocket | ssl.SSLObject) -> Identity:
    """Return who the peer is, after the handshake; raises TrustError if it does not tell."""
    if tls.selected_alpn_protocol() != ALPN:
        # OpenSSL and JSSE both complete a handshake in which the two sides share no protocol.
        raise TrustError(f"the peer speaks TLS but not {ALPN}: is it cmapp that listens there?")
    return _identity(tls.getpeercert() or {})


def require_role(identity: Identity, role: Role) -> None:
    """Raise TrustError unless `identity` has this role."""
    if identity.role is not role:
        raise TrustError(f"the peer is {identity}, but must be a {role.value}: check which keys it was given")


def explain(error: OSError, *, peer: str) -> CmappError:
    """Return what a failed handshake, read or write means: a TrustError, or a LinkError to try again after.

    In TLS 1.3 a manager that is refused sees its handshake succeed, and learns of it by its first read.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        meaning = _UNPROVEN.get(error.verify_code, f"is not acceptable: {printable(error.verify_message)}")
        return TrustError(f"the certificate of {peer} {meaning.format(peer=peer)}")
    if isinstance(error, _CLOSINGS) or error.errno == errno.ENOTCONN or getattr(error, "reason", "") == _EOF:
        return LinkError(f"{peer} closed the connection; it or the network between may have gone down")
    if isinstance(error, TimeoutError):
        return LinkError(f"{peer} did not answer in time; it may be down, hung or behind a firewall")
    if not isinstance(error, ssl.SSLError):
        return LinkError(f"the connection to {peer} failed: {error.strerror or error}")
    words = _openssl_words(error)
    alert = words.partition(" alert ")[2] or words.removeprefix("tlsv1 ")
    if alert in _REFUSALS:
        return TrustError(f"{peer} refused our certificate: {_REFUSALS[alert]}")
    disagreement = _DISAGREEMENTS.get(alert) or _DISAGREEMENTS.get(error.reason)
    if disagreement:
        return TrustError(disagreement.format(peer=peer))
    return LinkError(f"TLS with {peer} failed: {words}")


def check_keys(keys: str, role: Role) -> list[str]:
    """Return what is wrong with a key folder for `role`, a sentence each; empty if it can be used now."""
    problems = [problem for name in _CONTENTS if (problem := _content_problem(keys, name))]
    if problems:
        return problems
    key = f"{keys}/{KEY}"
    if os.stat(key).st_mode & 0o077:
        problems.append(f"{key} is open to others than its owner: chmod 600 {key}")
    try:
        return problems + _certificate_problems(keys, role, any_time=False)
    except SettingsError as error:
        return [*problems, str(error)]


def require_own_role(keys: str, role: Role) -> None:
    """Raise SettingsError unless the folder's certificate is one for `role`, be it valid now or not."""
    if problems := _certificate_problems(keys, role, any_time=True):
        raise SettingsError(problems[0])


def days_left(keys: str, role: Role) -> float:
    """Return the days until the folder's certificate expires, negative if it has; raises SettingsError."""
    try:
        return (_end(_shown(keys, role, any_time=True)) - time.time()) / 86400
    except ssl.SSLCertVerificationError as error:
        raise SettingsError(f"{keys}/{CERTIFICATE} cannot be used: {error.verify_message}") from None


def _context(protocol: int, keys: str, *, allow_tls12: bool) -> ssl.SSLContext:
    # ssl.create_default_context() would trust the system's authorities, and take 20 ms to load them.
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if allow_tls12 else ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which some Pythons set: a loss would look like an orderly end
    context.set_alpn_protocols([ALPN])
    for name in _CONTENTS:
        if problem := _content_problem(keys, name):
            raise SettingsError(problem)
    certificate, key, authority = (f"{keys}/{name}" for name in _CONTENTS)

    def refuse_passphrase() -> str:
        # Without a callback OpenSSL would ask on the terminal, and a daemon would hang.
        raise SettingsError(f"{key} is encrypted: store it without a passphrase, readable by its owner only")

    try:
        context.load_cert_chain(certificate, key, refuse_passphrase)
    except OSError as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{key} is not the key of {certificate}: copy the folder again") from None
        raise SettingsError(f"{certificate} with {key} cannot be used: {_openssl_words(error)}") from None
    try:
        context.load_verify_locations(authority)
    except OSError as error:
        raise SettingsError(f"{authority} cannot be used: {_openssl_words(error)}") from None
    return context


def _content_problem(keys: str, name: str) -> str | None:
    path = f"{keys}/{name}"
    try:
        with open(path, "rb") as file:
            if _CONTENTS[name] in file.read():
                return None
    except PermissionError:
        return f"cannot read {path}: this user may not; run as its owner, or give this user a folder of its own"
    except OSError as error:
        return f"cannot read {path}: {error.strerror}; --keys takes a folder that 'cmapp keys issue' made"
    return f"{path} holds no {'private key' if name == KEY else 'certificate'} in PEM format: copy it again"


def _openssl_words(error: OSError) -> str:
    """Return OpenSSL's own words, such as `ee key too small`, without the place in Python's source."""
    return str(error).rpartition("] ")[2].partition(" (_ssl.c")[0]


def _identity(certificate: dict[str, Any]) -> Identity:
    bearers = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    uris = [uri for uri in bearers if uri.lower().startswith("cmapp:")]
    if len(uris) != 1:
        count = f"{len(uris)} role URIs" if uris else "no role URI"
        raise TrustError(f"the peer's certificate bears {count}, not one: issue it with 'cmapp keys issue'")
    for role in Role:
        name = uris[0].removeprefix(f"cmapp://{role.value}/")
        if name != uris[0] and is_name(name):
            return Identity(role, name)
    raise TrustError(f"the peer's certificate bears {printable(uris[0])}, which names no host and no guest")


def _shown(keys: str, role: Role, *, any_time: bool) -> dict[str, Any]:
    """Return the folder's certificate as one sees it who trusts `ca.pem`; raises SSLCertVerificationError.

    Only a handshake makes the standard library read a certificate: so we do one in memory.
    """
    server, client = server_context(keys), client_context(keys)
    client.check_hostname = False
    own, peer = (server, client) if role is Role.GUEST else (client, server)
    own.verify_mode = ssl.CERT_NONE
    if any_time:
        peer.verify_flags |= _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    calling = client.wrap_bio(to_client, to_server)
    for side in (calling, serving, calling, serving):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return (calling if role is Role.GUEST else serving).getpeercert() or {}


def _certificate_problems(keys: str, role: Role, *, any_time: bool) -> list[str]:
    path, authority = f"{keys}/{CERTIFICATE}", f"{keys}/{AUTHORITY}"
    problems = []
    try:
        certificate = _shown(keys, role, any_time=True)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code != _WRONG_PURPOSE:
            return [f"{path} is not vouched for by {authority}: {error.verify_message}"]
        problems = [f"{path} may not be used by a {role.value} (extended key usage): issue a new one"]
        try:
            # Seen from the other side its role can be read, which says more than its purpose does.
            certificate = _shown(keys, Role.HOST if role is Role.GUEST else Role.GUEST, any_time=True)
        except ssl.SSLCertVerificationError:
            return problems
    try:
        identity = _identity(certificate)
        if identity.role is not role:
            problems = [f"{path} is for {identity}, but must be a {role.value}'s: use that key folder"]
    except TrustError as error:
        problems.append(str(error).replace("the peer's certificate", path))
    if not any_time:
        problems += _time_problems(path, certificate)
    if not problems and not any_time:
        try:
            _shown(keys, role, any_time=False)
        except ssl.SSLCertVerificationError as error:
            problems.append(f"{authority} cannot be used: {error.verify_message}")
    return problems


def _time_problems(path: str, certificate: dict[str, Any]) -> list[str]:
    if time.time() > _end(certificate):
        return [f"{path} has expired on {certificate['notAfter']}: issue a new one"]
    if time.time() < ssl.cert_time_to_seconds(certificate["notBefore"]):
        return [f"{path} is not valid before {certificate['notBefore']}: check the clock"]
    return []


def _end(certificate: dict[str, Any]) -> float:
    return ssl.cert_time_to_seconds(certificate["notAfter"])
