"""What a failed handshake, read or write means, in words: OpenSSL's errors are for those who know OpenSSL.

The invariant: `explain` has a sentence for every error of a TLS socket. It is a TrustError where trying again
cannot help, and a LinkError where it may.
"""

from __future__ import annotations

import errno
import ssl

from cmapp.core.text import printable
from cmapp.errors import CmappError, LinkError, TrustError

ALPN = "cmapp/1"
WRONG_PURPOSE = 26  # X509_V_ERR_INVALID_PURPOSE

_KEY_TOO_WEAK = "holds a key that is too weak: issue one with RSA of 2048 bits or more, EC of 256 or more, or Ed25519"
_HASH_TOO_WEAK = "is signed by way of a weak hash such as SHA-1: issue a new one with SHA-256"
# What OpenSSL says of our own certificate.
TOO_WEAK = {
    "EE_KEY_TOO_SMALL": _KEY_TOO_WEAK,
    "CA_KEY_TOO_SMALL": "has an authority whose key is too weak: make a new authority",
    "CA_MD_TOO_WEAK": _HASH_TOO_WEAK,
}

_NO_AUTHORITY = "is vouched for by a certificate that may not vouch for others: issue one by the authority"
_UNTRUSTED = "is not from our authority: compare ca.pem on both sides"
# What OpenSSL says of a peer's certificate, by X509_V_ERR_*: the end of "the certificate of vm1 ...".
_UNPROVEN = {
    2: _UNTRUSTED,
    3: "cannot be checked: crl.pem here has no revocation list of its authority, so add that list",
    7: _UNTRUSTED,
    8: "cannot be checked: the revocation list of its authority is signed by another, so copy a new crl.pem",
    9: "is not yet valid: check the clocks of both sides",
    10: "has expired (or its authority's has): issue a new one",
    11: "cannot be checked: the revocation list of its authority is not yet valid, so check the clock here",
    12: "cannot be checked: the revocation list of its authority has expired, so copy a new crl.pem",
    18: _UNTRUSTED,
    19: _UNTRUSTED,
    20: _UNTRUSTED,
    21: _UNTRUSTED,
    23: "has been revoked: issue a new one",
    24: _NO_AUTHORITY,
    25: "has more authorities above it than they allow: issue one nearer to the root",
    WRONG_PURPOSE: "is for the other role: a host's cannot serve and a guest's cannot connect",
    62: "is for another name: issue one for {peer}, or call the guest by the name that it bears",
    64: "is for another address: issue one with --san {peer}, or call the guest by the name that it bears",
    66: _KEY_TOO_WEAK,
    67: TOO_WEAK["CA_KEY_TOO_SMALL"],
    68: _HASH_TOO_WEAK,
    79: _NO_AUTHORITY,
}
# What an alert from the peer means: the end of "vm1 refused our certificate: ...". The keys are OpenSSL's
# words: its names for them carry historical prefixes, and Python 3.11 knows none for the newest.
_REFUSALS = {
    "access denied": "it denied us access; its log says why",
    "bad certificate": "it is not valid yet, too weak, or not for the name that was called; check all three",
    "certificate expired": "it has expired (or its authority has, or the revocation list there); issue a new one",
    "certificate required": "it got none; give this side a key folder with --keys",
    "certificate revoked": "it has been revoked; issue a new one",
    "certificate unknown": "it was not accepted; check its authority, its names and its role",
    "decrypt error": "a signature on the way to its authority is wrong; compare ca.pem and crl.pem on both sides",
    "unknown ca": "it does not trust the authority, or has no revocation list of it; compare ca.pem on both sides",
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
    if error.reason in TOO_WEAK:
        return TrustError(f"{peer} cannot be shown our certificate, which {TOO_WEAK[error.reason]}")
    words = openssl_words(error)
    alert = words.partition(" alert ")[2] or words.removeprefix("tlsv1 ")
    if alert in _REFUSALS:
        return TrustError(f"{peer} refused our certificate: {_REFUSALS[alert]}")
    disagreement = _DISAGREEMENTS.get(alert) or _DISAGREEMENTS.get(error.reason)
    if disagreement:
        return TrustError(disagreement.format(peer=peer))
    return LinkError(f"TLS with {peer} failed: {words}")


def openssl_words(error: OSError) -> str:
    """Return OpenSSL's own words, such as `ee key too small`, without the place in Python's source."""
    return str(error).rpartition("] ")[2].partition(" (_ssl.c")[0]
