"""Mutual TLS: contexts made from a key folder, and who it is that was let in by one.

Both sides show a certificate. Its extended key usage lets OpenSSL refuse a guest that connects and a host that
listens; its one role URI, or the name that it is pinned under, names the peer. The invariant: only what the key
folder trusts is trusted, never the system's authorities, and a peer has an identity only after `peer_identity`
returned it.
"""

from __future__ import annotations

import ssl
import time

from cmapp.errors import SettingsError, TrustError
from cmapp.net import x509
from cmapp.net.identity import Identity, Role, named_by
from cmapp.net.refusals import ALPN, TOO_WEAK, explain, openssl_words
from cmapp.net.trust import CERTIFICATE, KEY, Trust, read, read_trust, require_key

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.net.judge import Judge

PROVEN_LIMIT = 10_000  # certificates that one context remembers to have seen vouched for

# No key that is kept for years decides over what is said today, and nothing weaker than 112 bits is trusted.
_CIPHERS, _LEVEL = "ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2", 2


class Context(ssl.SSLContext):
    """A context that knows whom it trusts, and why: connections that are resumed do not show that again."""

    trust: Trust
    judge: Judge | None
    proven: dict[bytes, None]


def server_context(keys: str, *, allow_tls12: bool = False) -> Context:
    """Return the guest's context from the folder `keys`; raises SettingsError naming the file at fault."""
    _require_own(keys)
    trust = read_trust(keys, Role.HOST)
    context = _serving(trust, allow_tls12=allow_tls12)
    if trust.pins and trust.lists:
        from cmapp.net.judge import Judge  # noqa: PLC0415 - few need it, and a manager never

        context.judge = Judge(_serving(trust, allow_tls12=True, pins=False))
    return context


def client_context(keys: str, *, peer: str | None = None, allow_tls12: bool = False) -> Context:
    """Return the manager's context from the folder `keys`; raises SettingsError as for the server.

    Wrap the socket with `server_hostname` set to the guest's name or IP address: OpenSSL compares it. If the guest
    `peer` is pinned there, nobody else is trusted to be it, and the names in its certificate count for nothing.
    """
    _require_own(keys)
    trust = read_trust(keys, Role.GUEST, peer)
    context = context_for(ssl.PROTOCOL_TLS_CLIENT, trust, allow_tls12=allow_tls12)
    context.hostname_checks_common_name = False
    context.check_hostname = not trust.pins
    return context


def peer_identity(tls: ssl.SSLSocket | ssl.SSLObject) -> Identity:
    """Return who the peer is, after the handshake; raises TrustError if it does not tell."""
    if tls.selected_alpn_protocol() != ALPN:
        # OpenSSL and JSSE both complete a handshake in which the two sides share no protocol.
        raise TrustError(f"the peer speaks TLS but not {ALPN}: is it cmapp that listens there?")
    context = tls.context
    if not isinstance(context, Context):
        raise TypeError("only a context of a key folder knows who a peer is")
    if tls.session_reused:
        _require_today(tls, context.trust)
    leaf = tls.getpeercert(binary_form=True) or b""
    if leaf in context.trust.pins:
        return Identity(context.trust.role, context.trust.pins[leaf])
    if context.trust.pins:
        _require_authority(tls, context, leaf)
    return named_by(shown_fields(tls))


def shown_fields(tls: ssl.SSLSocket | ssl.SSLObject) -> dict[str, Any]:
    """Return the peer's certificate as `getpeercert` shows it; raises TrustError if it cannot be read."""
    try:
        return tls.getpeercert() or {}
    except ValueError:  # of a name that is not UTF-8, as old authorities write them
        raise TrustError("the peer's certificate holds a name that is not in UTF-8: issue a new one") from None


def shown_certificate(tls: ssl.SSLSocket | ssl.SSLObject) -> x509.Statement:
    """Return what the certificate says that the peer showed; raises TrustError if it cannot be read."""
    try:
        return x509.certificate(tls.getpeercert(binary_form=True) or b"")
    except ValueError as error:
        raise TrustError(f"the peer's certificate cannot be read: {error}") from None


def verified_chain(tls: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """Return the certificates by which OpenSSL came to trust the peer, its own first; none if it was resumed."""
    if hasattr(tls, "get_verified_chain"):  # from Python 3.13 on
        return list(tls.get_verified_chain())
    chain = tls._sslobj.get_verified_chain()  # type: ignore[union-attr]  # noqa: SLF001 - the way before
    return [ssl.PEM_cert_to_DER_cert(shown.public_bytes()) for shown in chain or ()]


def _require_authority(tls: ssl.SSLSocket | ssl.SSLObject, context: Context, leaf: bytes) -> None:
    """Raise TrustError unless an authority vouches for the peer: OpenSSL would let a pinned certificate do so."""
    if tls.session_reused and leaf in context.proven:
        return
    chain = verified_chain(tls)
    if not chain or chain[-1] not in context.trust.authorities:
        raise TrustError("the peer's certificate is neither pinned here nor from our authority: compare both sides")
    if context.judge is not None:
        try:
            context.judge.require(chain)
        except ssl.SSLError as error:
            raise TrustError(str(explain(error, peer="the peer"))) from None
    if len(context.proven) >= PROVEN_LIMIT:
        context.proven.clear()
    context.proven[leaf] = None


def _require_today(tls: ssl.SSLSocket | ssl.SSLObject, trust: Trust) -> None:
    """Raise TrustError if something has expired since OpenSSL looked at it, in the connection that is resumed."""
    says, now = shown_certificate(tls), time.time()
    if now > says.until:
        raise TrustError("the peer's certificate has expired: issue a new one")
    ends = [told.until for told in trust.lists if told.subject == says.issuer]
    if ends and now > max(ends):
        raise TrustError("the revocation list of the peer's authority has expired: copy a new crl.pem")


def _serving(trust: Trust, *, allow_tls12: bool, pins: bool = True) -> Context:
    context = context_for(ssl.PROTOCOL_TLS_SERVER, trust, allow_tls12=allow_tls12, pins=pins)
    context.num_tickets = 0  # a ticket would outlive the certificate check that it stands for
    return context


def context_for(protocol: int, trust: Trust, *, allow_tls12: bool, pins: bool = True) -> Context:
    """Return a context of what `trust` and its folder hold, for either end; raises SettingsError."""
    # ssl.create_default_context() would trust the system's authorities, and take 20 ms to load them.
    context = Context(protocol)
    context.trust, context.judge, context.proven = trust, None, {}
    context.minimum_version = ssl.TLSVersion.TLSv1_2 if allow_tls12 else ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF  # which some Pythons set: a loss would look like an orderly end
    context.set_alpn_protocols([ALPN])
    if context.security_level <= _LEVEL:
        context.set_ciphers(_CIPHERS)
    _load_own(context, trust.keys)
    trust.load_into(context, pins=pins)
    return context


def _require_own(keys: str) -> None:
    """Raise SettingsError unless there are a certificate and a key of ours to be loaded."""
    read(keys, CERTIFICATE)
    require_key(keys)


def _load_own(context: ssl.SSLContext, keys: str) -> None:
    """Have `context` show our certificate; raises SettingsError."""
    certificate, key = f"{keys}/{CERTIFICATE}", f"{keys}/{KEY}"

    def refuse_passphrase() -> str:
        # Without a callback OpenSSL would ask on the terminal, and a daemon would hang.
        raise SettingsError(f"{key} is encrypted: store it without a passphrase, readable by its owner only")

    try:
        context.load_cert_chain(certificate, key, refuse_passphrase)
    except OSError as error:
        reason = getattr(error, "reason", None)
        if reason == "KEY_VALUES_MISMATCH":
            raise SettingsError(f"{key} is not the key of {certificate}: copy the folder again") from None
        if reason in TOO_WEAK:
            raise SettingsError(f"{certificate} {TOO_WEAK[reason]}") from None
        raise SettingsError(f"{certificate} with {key} cannot be used: {openssl_words(error)}") from None
