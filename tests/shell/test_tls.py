"""Mutual TLS with real handshakes: who gets in, who does not, and what each end is told."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cmapp.errors import TrustError
from cmapp.keys.authority import Credential, issue, make_authority
from cmapp.keys.keystore import write_credential
from cmapp.net.identity import Identity, Role, require_role
from cmapp.net.refusals import ALPN
from cmapp.net.tls import client_context, peer_identity, server_context
from tests.shell.handshakes import meeting

if TYPE_CHECKING:
    from pathlib import Path

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
HOST, GUEST = Identity(Role.HOST, "n1"), Identity(Role.GUEST, "vm1")
HOST_URI, GUEST_URI = "cmapp://host/n1", "cmapp://guest/vm1"


@pytest.fixture(scope="session")
def authority() -> Credential:
    """Return the authority that everybody trusts, unless said otherwise."""
    return make_authority(None, days=30, now=NOW - 20 * DAY)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory, authority: Credential) -> Path:
    """Return a folder of key folders, each named after what is wrong with it."""
    root = tmp_path_factory.mktemp("keys")
    other = make_authority("other", days=30, now=NOW)
    old = make_authority("old", days=3, now=NOW - 9 * DAY)
    made = {"guest-vm9": (issue(authority, Identity(Role.GUEST, "vm9"), days=9, now=NOW), authority)}
    for name, who, sans in (("guest", GUEST, ["192.0.2.7", "2001:db8::1"]), ("host", HOST, [])):
        good = issue(authority, who, sans=sans, days=9, now=NOW)
        made |= {
            name: (good, authority),
            f"{name}-expired": (issue(authority, who, days=2, now=NOW - 9 * DAY), authority),
            f"{name}-early": (issue(authority, who, days=2, now=NOW + DAY), authority),
            f"{name}-stranger": (issue(other, who, days=9, now=NOW), authority),
            f"{name}-trusts-another": (good, other),
            f"{name}-of-old": (issue(old, who, days=9, now=NOW - 9 * DAY), old),
            f"{name}-by-a-leaf": (issue(good, who, days=9, now=NOW), authority),
        }
    for name, (credential, trusted) in made.items():
        write_credential(root / name, credential, trusted, force=False)
    return root


def contexts(folders: Path, guest: str = "guest", host: str = "host") -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's context and the client's."""
    return server_context(str(folders / guest)), client_context(str(folders / host))


def test_a_host_and_a_guest_meet(folders: Path) -> None:
    """Both prove themselves, know each other's role and name, and speak TLS 1.3 and cmapp."""
    with meeting(*contexts(folders)) as met:
        assert (met.server_told, met.client_told) == (None, None)
        assert peer_identity(met.client) == GUEST
        assert peer_identity(met.server) == HOST
        assert met.client.version() == "TLSv1.3"
        assert met.client.selected_alpn_protocol() == ALPN


@pytest.mark.parametrize("called", ["vm1", "VM1", "192.0.2.7", "2001:db8::1", "2001:DB8:0::1"])
def test_a_guest_goes_by_every_name_of_its_certificate(folders: Path, called: str) -> None:
    """Names and addresses of the certificate are as good as each other, in every spelling."""
    with meeting(*contexts(folders), called) as met:
        assert met.client_told is None


UNTRUSTED = "the certificate of {} is not from our authority: compare ca.pem on both sides"
REFUSED = "{} refused our certificate: "
EXPIRED = "the certificate of {} has expired (or its authority's has): issue a new one"
WRONG_ROLE = "the certificate of {} is for the other role: a host's cannot serve and a guest's cannot connect"
NOT_YET = "the certificate of {} is not yet valid: check the clocks of both sides"
TOLD_UNKNOWN = (
    REFUSED + "it does not trust the authority, or has no revocation list of it; compare ca.pem on both sides"
)
TOLD_EXPIRED = REFUSED + "it has expired (or its authority has, or the revocation list there); issue a new one"
TOLD_BAD = REFUSED + "it is not valid yet, too weak, or not for the name that was called; check all three"
TOLD_ROLE = REFUSED + "it is for the other role; give this side its own key folder"

# The guest's keys, the host's keys, the name that is called, who refuses, its words, the refused end's words.
REFUSALS = [
    ("guest-stranger", "host", "vm1", "client", UNTRUSTED, TOLD_UNKNOWN),
    ("guest-by-a-leaf", "host", "vm1", "client", UNTRUSTED, TOLD_UNKNOWN),
    ("guest-expired", "host", "vm1", "client", EXPIRED, TOLD_EXPIRED),
    ("guest-of-old", "host-of-old", "vm1", "client", EXPIRED, TOLD_EXPIRED),
    ("guest-early", "host", "vm1", "client", NOT_YET, TOLD_BAD),
    ("host", "host", "n1", "client", WRONG_ROLE, TOLD_ROLE),
    ("guest-vm9", "host", "vm1", "client", "the certificate of {} is for another name: issue", TOLD_BAD),
    ("guest", "host", "192.0.2.8", "client", "the certificate of {} is for another address: issue", TOLD_BAD),
    ("guest", "host-stranger", "vm1", "server", UNTRUSTED, TOLD_UNKNOWN),
    ("guest-trusts-another", "host", "vm1", "server", UNTRUSTED, TOLD_UNKNOWN),
    ("guest", "host-by-a-leaf", "vm1", "server", UNTRUSTED, TOLD_UNKNOWN),
    ("guest", "host-expired", "vm1", "server", EXPIRED, TOLD_EXPIRED),
    ("guest", "host-early", "vm1", "server", NOT_YET, TOLD_BAD),
    ("guest", "guest", "vm1", "server", WRONG_ROLE, TOLD_ROLE),
]


@pytest.mark.parametrize("row", REFUSALS, ids=[f"{row[0]}+{row[1]}" for row in REFUSALS])
def test_a_certificate_is_refused(folders: Path, row: tuple[str, ...]) -> None:
    """Whoever cannot be trusted is refused, and both ends know why; trying again would not help."""
    guest, host, called, refusing, said, told = row
    with meeting(*contexts(folders, guest, host), called) as met:
        server = (met.server_told, "n1")
        client = (met.client_told, "vm1")
        (judge, judge_peer), (judged, judged_peer) = (server, client) if refusing == "server" else (client, server)
        assert isinstance(judge, TrustError)
        assert isinstance(judged, TrustError)
        assert str(judge).startswith(said.format(judge_peer))
        assert str(judged) == told.format(judged_peer)


def test_a_manager_without_a_certificate_is_refused(folders: Path) -> None:
    """Nobody gets in without showing who it is."""
    naked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    naked.load_verify_locations(folders / "host" / "ca.pem")
    with meeting(contexts(folders)[0], naked) as met:
        assert isinstance(met.server_told, TrustError)
        assert str(met.server_told) == "n1 showed no certificate: give it a key folder with --keys"
        assert (
            str(met.client_told) == "vm1 refused our certificate: it got none; give this side a key folder with --keys"
        )


@pytest.mark.parametrize("old", ["server", "client"])
def test_tls_1_2_is_refused_unless_it_is_allowed(folders: Path, old: str) -> None:
    """The default is TLS 1.3 alone, and allowing 1.2 makes an old peer welcome."""
    for allowed in (False, True):
        serving = server_context(str(folders / "guest"), allow_tls12=allowed or old == "server")
        calling = client_context(str(folders / "host"), allow_tls12=allowed or old == "client")
        (serving if old == "server" else calling).maximum_version = ssl.TLSVersion.TLSv1_2
        with meeting(serving, calling) as met:
            if allowed:
                assert met.client.version() == "TLSv1.2"
                assert peer_identity(met.client) == Identity(Role.GUEST, "vm1")
            else:
                for told, peer in ((met.client_told, "vm1"), (met.server_told, "n1")):
                    assert isinstance(told, TrustError)
                    assert str(told).startswith(f"{peer} speaks no TLS version that we allow")


def test_a_peer_that_speaks_another_protocol_has_no_identity(folders: Path) -> None:
    """A handshake succeeds without a common protocol, so the identity is where it is looked at."""
    serving, calling = contexts(folders)
    serving.set_alpn_protocols(["h2"])
    with meeting(serving, calling) as met:
        assert met.client_told is None
        with pytest.raises(TrustError, match="speaks TLS but not cmapp/1"):
            peer_identity(met.client)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_there_are_no_tickets(folders: Path, version: ssl.TLSVersion) -> None:
    """A ticket would outlive the certificate check that it stands for."""
    serving = server_context(str(folders / "guest"), allow_tls12=True)
    calling = client_context(str(folders / "host"), allow_tls12=True)
    serving.maximum_version = version
    with meeting(serving, calling) as met:
        met.server.send(b"x")
        assert met.client.recv(1) == b"x"
        session = met.client.session
        assert session is not None
        assert not session.has_ticket


def test_the_system_authorities_are_not_trusted(folders: Path) -> None:
    """Only the folder's own authority is."""
    for context in contexts(folders):
        assert len(context.get_ca_certs()) == 1


def forge(authority: Credential, purpose: x509.ObjectIdentifier, uris: list[str]) -> Credential:
    """Sign a certificate with the common name vm1 that cmapp itself would never issue."""
    model = issue(authority, GUEST, days=9, now=NOW).certificate
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder(model.issuer, model.subject, key.public_key(), 1)
        .not_valid_before(NOW - DAY)
        .not_valid_after(NOW + DAY)
        .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    )
    if uris:
        names = x509.SubjectAlternativeName(list(map(x509.UniformResourceIdentifier, uris)))
        builder = builder.add_extension(names, critical=False)
    return Credential(key, builder.sign(authority.key, hashes.SHA256()))


def test_a_common_name_is_no_name(folders: Path, authority: Credential, tmp_path: Path) -> None:
    """Only the subject alternative name says what a guest may be called."""
    nameless = forge(authority, ExtendedKeyUsageOID.SERVER_AUTH, [GUEST_URI])
    write_credential(tmp_path / "odd", nameless, authority, force=False)
    with meeting(server_context(str(tmp_path / "odd")), client_context(str(folders / "host"))) as met:
        assert "is for another name" in str(met.client_told)


@pytest.mark.parametrize(
    ("uris", "identity"),
    [
        ([HOST_URI], Identity(Role.HOST, "n1")),
        (["spiffe://x/y", HOST_URI], Identity(Role.HOST, "n1")),
        (["cmapp://host/n1.example.org_2-b"], Identity(Role.HOST, "n1.example.org_2-b")),
        (["cmapp://host/" + 64 * "n"], Identity(Role.HOST, 64 * "n")),
        ([], None),
        (["spiffe://x/y"], None),
        ([HOST_URI, HOST_URI], None),
        ([HOST_URI, GUEST_URI], None),
        (["cmapp://host/"], None),
        (["cmapp://host"], None),
        (["cmapp:host/n1"], None),
        (["CMAPP://host/n1"], None),
        (["cmapp://HOST_URI/n1"], None),
        (["cmapp://manager/n1"], None),
        (["cmapp://host/n1/"], None),
        (["cmapp://host/n1?x"], None),
        (["cmapp://host/../n1"], None),
        (["cmapp://host/-n1"], None),
        (["cmapp://host/n%31"], None),
        (["cmapp://host/n1\n"], None),
        (["cmapp://host/" + 65 * "n"], None),
        (["cmapp://host/*"], None),
    ],
    ids=str,
)
def test_an_identity_is_one_role_uri(
    folders: Path, authority: Credential, tmp_path: Path, uris: list[str], identity: Identity | None
) -> None:
    """A peer has exactly one role and one plain name, or it has none."""
    write_credential(tmp_path / "odd", forge(authority, ExtendedKeyUsageOID.CLIENT_AUTH, uris), authority, force=False)
    with meeting(server_context(str(folders / "guest")), client_context(str(tmp_path / "odd"))) as met:
        if identity:
            assert peer_identity(met.server) == identity
        else:
            with pytest.raises(TrustError) as refusal:
                peer_identity(met.server)
            assert str(refusal.value).isprintable()


def test_a_role_is_required() -> None:
    """A guest that gets past the handshake as a manager, or a host as a server, ends here."""
    require_role(Identity(Role.HOST, "n1"), Role.HOST)
    with pytest.raises(TrustError, match=r"^the peer is guest vm1, but must be a host: "):
        require_role(Identity(Role.GUEST, "vm1"), Role.HOST)
