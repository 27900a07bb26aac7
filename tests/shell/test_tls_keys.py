"""Keys and certificates of a company's own authority: which kinds work, and which are refused, in which words."""

from __future__ import annotations

import ssl
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from cmapp.errors import SettingsError, TrustError
from cmapp.net.identity import Identity, Role, require_role
from cmapp.net.keyfolder import check_keys
from cmapp.net.tls import client_context, peer_identity, server_context
from tests.shell.certificates import (
    DAY,
    NOW,
    SHA_256,
    Made,
    first_version,
    new_authority,
    new_leaf,
    new_list,
    resigned,
    write_keys,
)
from tests.shell.handshakes import meeting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cryptography import x509

HOST, GUEST = Identity(Role.HOST, "n1"), Identity(Role.GUEST, "vm1")
KINDS = ["RSA 2048", "RSA 3072", "P-256", "P-384", "P-521", "Ed25519"]


@pytest.fixture(scope="module")
def authority() -> Made:
    """Return the company's authority."""
    return new_authority("company")


@pytest.fixture
def guest(authority: Made, tmp_path: Path) -> Path:
    """Return the key folder of a guest that is in order."""
    return write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1"), authority)


@pytest.fixture
def host(authority: Made, tmp_path: Path) -> Path:
    """Return the key folder of a host that is in order."""
    return write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)


def anyhow(protocol: int, folder: Path) -> ssl.SSLContext:
    """Return a context that shows what is in a folder, whatever it is."""
    context = ssl.SSLContext(protocol)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize("tls12", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_work(tmp_path: Path, kind: str, tls12: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """The authority and both ends have keys of one kind."""
    authority = new_authority("company", kind=kind)
    keys = {}
    for who in (HOST, GUEST):
        made = new_leaf(authority, who.role.value, who.name, kind=kind)
        keys[who] = str(write_keys(tmp_path / who.name, made, authority))
        assert check_keys(keys[who], who.role) == []
    serving = server_context(keys[GUEST], allow_tls12=tls12)
    if tls12:
        serving.maximum_version = ssl.TLSVersion.TLSv1_2
    with meeting(serving, client_context(keys[HOST], allow_tls12=tls12)) as met:
        assert (met.server_told, met.client_told) == (None, None)
        assert (peer_identity(met.server), peer_identity(met.client)) == (HOST, GUEST)
        assert met.client.version() == ("TLSv1.2" if tls12 else "TLSv1.3")


TOO_WEAK = "holds a key that is too weak: issue one with RSA of 2048 bits or more, EC of 256 or more, or Ed25519"
SHA_1 = "is signed by way of a weak hash such as SHA-1: issue a new one with SHA-256"
WEAK: dict[str, tuple[Callable[[Made, Identity], Made], str]] = {
    "RSA 1024": (lambda authority, who: new_leaf(authority, who.role.value, who.name, kind="RSA 1024"), TOO_WEAK),
    "P-192": (lambda authority, who: new_leaf(authority, who.role.value, who.name, kind="P-192"), TOO_WEAK),
    "SHA-1": (lambda authority, who: new_leaf(authority, who.role.value, who.name, digest="SHA-1"), SHA_1),
}


@pytest.mark.parametrize("what", WEAK)
@pytest.mark.parametrize("who", [HOST, GUEST], ids=str)
def test_what_is_weak_is_refused_at_home(authority: Made, tmp_path: Path, what: str, who: Identity) -> None:
    """Neither side starts with it, and `--check` says the same."""
    make, words = WEAK[what]
    keys = str(write_keys(tmp_path / "keys", make(authority, who), authority))
    with pytest.raises(SettingsError) as refusal:
        (server_context if who is GUEST else client_context)(keys)
    assert str(refusal.value) == f"{keys}/cert.pem {words}"
    assert str(refusal.value) in check_keys(keys, who.role)


@pytest.mark.parametrize("what", WEAK)
@pytest.mark.parametrize("who", [HOST, GUEST], ids=str)
def test_what_is_weak_is_refused_of_a_peer(  # noqa: PLR0913, PLR0917 - both ends and what one shows
    authority: Made, tmp_path: Path, host: Path, guest: Path, what: str, who: Identity
) -> None:
    """Whoever brings it all the same is not let in."""
    make, words = WEAK[what]
    keys = write_keys(tmp_path / "weak", make(authority, who), authority)
    contexts: tuple[ssl.SSLContext, ssl.SSLContext]
    if who is HOST:
        contexts = (server_context(str(guest)), anyhow(ssl.PROTOCOL_TLS_CLIENT, keys))
    else:
        contexts = (anyhow(ssl.PROTOCOL_TLS_SERVER, keys), client_context(str(host)))
    with meeting(*contexts) as met:
        told = met.server_told if who is HOST else met.client_told
        assert isinstance(told, TrustError)
        if what != "P-192" and not (what == "SHA-1" and who is GUEST):  # TLS 1.3 has nothing to do it with at all
            assert str(told) == f"the certificate of {who.name} {words}"


def test_a_weak_authority_is_refused(tmp_path: Path) -> None:
    """What it signs is worth as much as its own key."""
    weak = new_authority("company", kind="RSA 1024")
    guest = write_keys(tmp_path / "guest", new_leaf(weak, "guest", "vm1"), weak)
    host = write_keys(tmp_path / "host", new_leaf(weak, "host", "n1"), weak)
    for keys, role in ((guest, Role.GUEST), (host, Role.HOST)):
        words = "has an authority whose key is too weak: make a new authority"
        assert check_keys(str(keys), role) == [f"{keys}/cert.pem {words}"]
    other = new_authority("strong")
    host = write_keys(tmp_path / "other", new_leaf(other, "host", "n1"), other, weak)
    with meeting(anyhow(ssl.PROTOCOL_TLS_SERVER, guest), client_context(str(host))) as met:
        assert str(met.client_told) == f"the certificate of vm1 {words}"
    with meeting(server_context(str(guest)), client_context(str(host))) as met:
        assert str(met.server_told) == f"n1 cannot be shown our certificate, which {words}"


def test_authorities_in_between(authority: Made, tmp_path: Path) -> None:
    """They are shown with the certificate, and only the root is in ca.pem; if they are not shown, nothing is proven."""
    between = new_authority("team", new_authority("department", authority))
    host = write_keys(tmp_path / "host", new_leaf(between, "host", "n1"), authority)
    guest = write_keys(tmp_path / "guest", new_leaf(between, "guest", "vm1"), authority)
    assert check_keys(str(guest), Role.GUEST) == check_keys(str(host), Role.HOST) == []
    with meeting(server_context(str(guest)), client_context(str(host))) as met:
        assert (peer_identity(met.server), peer_identity(met.client)) == (HOST, GUEST)
    leaf, *_ = (host / "cert.pem").read_bytes().partition(b"-----END CERTIFICATE-----\n")[:2]
    (host / "cert.pem").write_bytes(leaf + b"-----END CERTIFICATE-----\n")
    with meeting(server_context(str(guest)), client_context(str(host))) as met:
        assert "is not from our authority" in str(met.server_told)


def test_an_old_and_a_new_authority_side_by_side(authority: Made, tmp_path: Path) -> None:
    """With both in ca.pem, each mixture of old and new certificates meets; even if both go by the same name."""
    for name in ("successor", "company"):
        new = new_authority(name)
        for by_guest in (authority, new):
            for by_host in (authority, new):
                guest = write_keys(tmp_path / "guest", new_leaf(by_guest, "guest", "vm1"), authority, new)
                host = write_keys(tmp_path / "host", new_leaf(by_host, "host", "n1"), new, authority)
                with meeting(server_context(str(guest)), client_context(str(host))) as met:
                    assert (peer_identity(met.server), peer_identity(met.client)) == (HOST, GUEST)


def test_half_an_authority_is_none(host: Path) -> None:
    """A file that is cut off in its second certificate is not taken for one that holds the first alone."""
    pem = (host / "ca.pem").read_bytes()
    (host / "ca.pem").write_bytes(pem + new_authority("successor").pem[:300])
    with pytest.raises(
        SettingsError, match=r"ca\.pem cannot be used: it holds a broken certificate \(it ends too soon"
    ):
        client_context(str(host))


def test_notes_in_a_file_are_left_alone(host: Path, guest: Path) -> None:
    """`openssl x509 -text` writes what it shows above the certificate, in whatever letters."""
    for keys in (host, guest):
        (keys / "ca.pem").write_bytes("Subject: CN = Zürich\n".encode() + (keys / "ca.pem").read_bytes())
    with meeting(server_context(str(guest)), client_context(str(host))) as met:
        assert peer_identity(met.server) == HOST


# ---- roles -----------------------------------------------------------------------------------------------------------

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH


@pytest.mark.parametrize("tls12", [False, True])
@pytest.mark.parametrize(
    ("role", "uri", "purpose", "words"),
    [
        ("guest", "cmapp://guest/vm2", SERVER, "is for the other role"),
        ("guest", "cmapp://guest/vm2", CLIENT, "the peer is guest vm2, but must be a host"),
        ("host", "cmapp://guest/n1", CLIENT, "the peer is guest n1, but must be a host"),
        ("host", "spiffe://x/n1", CLIENT, "bears no role URI"),
        ("host", "cmapp://host/n1", SERVER, "is for the other role"),
        ("host", "cmapp://host/n1", ExtendedKeyUsageOID.CODE_SIGNING, "is for the other role"),
    ],
)
def test_who_may_not_command(  # noqa: PLR0913, PLR0917 - one for each thing that is odd
    authority: Made,
    guest: Path,
    tmp_path: Path,
    role: str,
    uri: str,
    purpose: x509.ObjectIdentifier,
    words: str,
    tls12: bool,  # noqa: FBT001 - pytest passes it by name
) -> None:
    """A guest's certificate commands no other guest, whatever one half of it says, and whatever TLS resumes."""
    made = new_leaf(authority, role, "n1", uris=[uri], purpose=purpose)
    folder = write_keys(tmp_path / "odd", made, authority)
    serving, session = server_context(str(guest), allow_tls12=tls12), None
    if tls12:
        serving.maximum_version = ssl.TLSVersion.TLSv1_2
    calling = client_context(str(folder), allow_tls12=tls12)
    with ExitStack() as both:  # a session is forgotten when its connection breaks
        for resumed in (False, tls12):
            met = both.enter_context(meeting(serving, calling, session=session))
            if met.server_told is not None:
                assert words in str(met.server_told)
                break
            session = met.client.session
            assert met.server.session_reused is resumed
            with pytest.raises(TrustError, match=words):
                require_role(peer_identity(met.server), Role.HOST)


@pytest.mark.parametrize("who", [HOST, GUEST], ids=str)
def test_a_name_that_cannot_be_read_names_nobody(authority: Made, tmp_path: Path, who: Identity) -> None:
    """An old authority may write Latin-1 where UTF-8 belongs: that is told, and is no defect of ours."""
    made = new_leaf(authority, who.role.value, "Zurich", uris=[f"cmapp://{who.role.value}/n1"])
    odd = resigned(made, authority, SHA_256, {b"\x82\x06Zurich": b"\x82\x06Z\xfcrich"})
    keys = write_keys(tmp_path / "odd", odd, authority)
    [problem] = check_keys(str(keys), who.role)
    assert problem == f"{keys}/cert.pem holds a name that is not in UTF-8: issue a new one"
    if who is HOST:
        other = write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1"), authority)
        with meeting(server_context(str(other)), client_context(str(keys))) as met:
            assert met.server_told is None
            with pytest.raises(TrustError, match="the peer's certificate holds a name that is not in UTF-8"):
                peer_identity(met.server)


def test_a_leaf_vouches_for_nobody(authority: Made, guest: Path, tmp_path: Path) -> None:
    """Whoever has a host's key cannot make itself another host with it."""
    leaf = new_leaf(authority, "host", "n1")
    made = new_leaf(leaf, "host", "boss")
    folder = write_keys(tmp_path / "forged", Made(made.key, made.certificate, (leaf.certificate,)), authority)
    with meeting(server_context(str(guest)), client_context(str(folder))) as met:
        assert isinstance(met.server_told, TrustError)


def test_a_certificate_of_version_1_names_nobody(authority: Made, guest: Path, tmp_path: Path) -> None:
    """It has no place for a role, even if the authority has signed it."""
    folder = write_keys(tmp_path / "old", first_version("n1", signer=authority), authority)
    with meeting(server_context(str(guest)), client_context(str(folder))) as met:
        assert met.server_told is None
        with pytest.raises(TrustError, match="bears no role URI"):
            peer_identity(met.server)


@pytest.mark.parametrize("what", ["certificate", "revocation list"])
def test_what_has_expired_is_not_resumed(
    authority: Made, guest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """A session of TLS 1.2 outlives the look at certificate and list; their dates are looked at again."""
    made = new_leaf(authority, "host", "n1", until=DAY if what == "certificate" else 9 * DAY)
    calling = client_context(str(write_keys(tmp_path / "host", made, authority)), allow_tls12=True)
    if what == "revocation list":
        (guest / "crl.pem").write_bytes(
            new_list(authority, until=DAY) + new_list(new_authority("other"), until=9 * DAY)
        )
    serving = server_context(str(guest), allow_tls12=True)
    serving.maximum_version = ssl.TLSVersion.TLSv1_2
    with meeting(serving, calling) as met, meeting(serving, calling, session=met.client.session) as again:
        assert again.server.session_reused
        assert peer_identity(again.server) == HOST
        monkeypatch.setattr("cmapp.net.tls.time.time", lambda: (NOW + DAY).timestamp() + 1)
        with pytest.raises(TrustError, match=f"{what}.* has expired"):
            peer_identity(again.server)
