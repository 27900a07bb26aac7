"""Signing requests: a key that never leaves its machine, and an authority that takes nothing on trust."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cmapp.keys import pem
from cmapp.keys.description import identity_of, is_authority, names
from cmapp.keys.keystore import fits, read_certificate, read_certificates, read_key, read_request
from cmapp.keys.request import make_request
from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import done, keys, meet, openssl, refused

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

WEAK = rsa.generate_private_key(65537, 1024)  # noqa: S505 - weak on purpose
VM1, N1 = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1")


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the folder of an authority that has issued keys for n1."""
    done("init", tmp_path / "ca")
    done("issue", tmp_path / "ca", "host", "n1")
    return tmp_path / "ca"


@pytest.fixture
def asks(tmp_path: Path) -> Path:
    """Return the folder of a guest that asks for a certificate."""
    done("request", tmp_path / "asks", "guest", "vm1", "--san", "192.0.2.7", "--san", "vm1.example.org")
    return tmp_path / "asks"


def modes(folder: Path) -> dict[str, int]:
    """Return the files of a folder with their rights."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def ask(path: Path, key: CertificateIssuerPrivateKeyTypes, *extensions: x509.ExtensionType) -> Path:
    """Write a request that cmapp itself would not make."""
    builder = x509.CertificateSigningRequestBuilder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "boss")]))
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    path.write_bytes(pem.written([builder.sign(key, algorithm)]))
    return path


def uris(*texts: str) -> x509.SubjectAlternativeName:
    """Return a subject alternative name of URIs, and a DNS name."""
    return x509.SubjectAlternativeName([*map(x509.UniformResourceIdentifier, texts), x509.DNSName("boss.example")])


def test_a_key_stays_where_it_was_made(store: Path, asks: Path) -> None:
    """The authority never sees the key, both sides can compare its fingerprint, and the folder works."""
    assert modes(asks) == {"key.pem": 0o600, "request.pem": 0o644}
    key = (asks / "key.pem").read_bytes()
    signed = done("sign", store, asks / "request.pem", "--out", asks.parent / "answer.pem")
    assert signed.startswith(
        f"signed {asks.parent}/answer.pem for guest vm1 (DNS vm1, DNS vm1.example.org, IP 192.0.2.7), valid until "
    )
    fingerprint = signed.split("public half:\n  ")[1].splitlines()[0]
    assert fingerprint in done("show", asks / "request.pem")
    assert sorted(path.name for path in (store / "guest" / "vm1").iterdir()) == ["ca.pem", "cert.pem"]
    accepted = done("accept", asks, asks.parent / "answer.pem", store / "ca.pem")
    assert accepted.startswith(f"{asks} is ready for guest vm1 (")
    assert modes(asks) == {"key.pem": 0o600, "cert.pem": 0o644, "ca.pem": 0o644}
    assert (asks / "key.pem").read_bytes() == key
    assert meet(asks, store / "host" / "n1") == (VM1, N1)
    assert keys("check", asks)[0] == 0


def test_a_request_asks_for_all_that_is_needed(asks: Path) -> None:
    """A company's authority that copies the extensions of a request signs what cmapp needs."""
    request = read_request(asks)
    assert request.is_signature_valid
    there = {each.oid._name: each for each in request.extensions}
    assert set(there) == {"basicConstraints", "keyUsage", "extendedKeyUsage", "subjectAltName"}
    assert identity_of(request) == VM1
    assert list(there["extendedKeyUsage"].value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert there["keyUsage"].critical


def test_a_request_can_be_read_by_openssl(asks: Path) -> None:
    """Its signature is good there, and the role stands in it."""
    text = openssl("req", "-in", asks / "request.pem", "-verify", "-noout", "-text")
    assert "URI:cmapp://guest/vm1, DNS:vm1, IP Address:192.0.2.7, DNS:vm1.example.org" in text
    assert "TLS Web Server Authentication" in text


def test_a_key_in_use_stays_in_use(store: Path, asks: Path) -> None:
    """A guest that asks anew works with its old key until it has accepted the answer, and never without."""
    done("sign", store, asks)
    done("accept", asks, store / "guest" / "vm1")
    old = (asks / "key.pem").read_bytes()
    said = done("request", asks, "guest", "vm1")
    assert f"its key, {asks}/new-key.pem, stays here" in said
    assert modes(asks)["new-key.pem"] == 0o600
    assert (asks / "key.pem").read_bytes() == old
    assert keys("check", asks)[0] == 0
    assert refused("sign", store, asks) == f"{store}/guest/vm1/cert.pem is there already: use --force to replace it"
    assert f"signed {store}/guest/vm1/cert.pem for guest vm1" in done("sign", store, asks, "--force")
    assert keys("check", asks)[0] == 0
    new = (asks / "new-key.pem").read_bytes()
    done("accept", asks, store / "guest" / "vm1")
    assert sorted(modes(asks)) == ["ca.pem", "cert.pem", "key.pem"]
    assert (asks / "key.pem").read_bytes() == new != old
    assert meet(asks, store / "host" / "n1") == (VM1, N1)


def test_a_request_for_the_key_that_is_there(store: Path, asks: Path) -> None:
    """With --same-key no key is made, not even when there is none."""
    done("sign", store, asks)
    done("accept", asks, store / "guest" / "vm1")
    before = (asks / "key.pem").read_bytes()
    done("request", asks, "guest", "vm1", "--same-key")
    assert sorted(modes(asks)) == ["ca.pem", "cert.pem", "key.pem", "request.pem"]
    done("sign", store, asks, "--force")
    done("accept", asks, store / "guest" / "vm1")
    assert (asks / "key.pem").read_bytes() == before
    assert refused("request", asks / "none", "guest", "vm1", "--same-key").startswith(
        f"cannot read {asks}/none/key.pem"
    )


def test_a_request_is_not_overwritten(asks: Path) -> None:
    """An answer that is on its way would fit no key any more."""
    before = (asks / "key.pem").read_bytes()
    complaint = f"{asks}/key.pem is there already: use --force to replace it"
    assert refused("request", asks, "guest", "vm1") == complaint
    assert (asks / "key.pem").read_bytes() == before
    done("request", asks, "guest", "vm1", "--force")
    assert (asks / "key.pem").read_bytes() != before


def test_nothing_else_is_taken_from_a_request(store: Path, tmp_path: Path) -> None:
    """Whoever asks to be an authority, to sign code and to be called by mail gets a guest's certificate."""
    names_asked = x509.SubjectAlternativeName(
        [
            x509.UniformResourceIdentifier("cmapp://guest/vm1"),
            x509.UniformResourceIdentifier("https://example.org"),
            x509.DNSName("vm1"),
            x509.RFC822Name("root@example.org"),
        ]
    )
    greedy = ask(
        tmp_path / "greedy.pem",
        ec.generate_private_key(ec.SECP256R1()),
        x509.BasicConstraints(ca=True, path_length=None),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.CODE_SIGNING]),
        names_asked,
    )
    done("sign", store, greedy)
    made = read_certificate(store / "guest" / "vm1")
    extensions = made.extensions
    assert not is_authority(made)
    assert made.subject.rfc4514_string() == "CN=vm1"
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert list(extensions.get_extension_for_class(x509.SubjectAlternativeName).value) == [
        x509.UniformResourceIdentifier("cmapp://guest/vm1"),
        x509.DNSName("vm1"),
    ]


def test_who_it_is_can_be_said(store: Path, tmp_path: Path) -> None:
    """A request without a role is signed for whom the administrator names, with no name that it asks for itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    without = ask(tmp_path / "without.pem", key, uris())
    assert refused("sign", store, without).startswith(f"{without} bears no role URI: say whom it is for with --as ")
    said = done("sign", store, without, "--as", "guest", "vm7", "--san", "192.0.2.9")
    assert "not taken from the request: boss.example; name with --san what it needs" in said
    made = read_certificate(store / "guest" / "vm7")
    assert names(made) == ("DNS vm7", "IP 192.0.2.9")
    assert fits(key, made)
    other = ask(tmp_path / "other.pem", key, uris("cmapp://host/n1"))
    done("sign", store, other, "--as", "guest", "vm8", "--out", tmp_path / "vm8.pem")
    assert identity_of(read_certificate(tmp_path / "vm8.pem")) == Identity(Role.GUEST, "vm8")


@pytest.mark.parametrize(
    ("roles", "complaint"),
    [
        (["cmapp://guest/a", "cmapp://host/a"], "bears 2 role URIs, not one"),
        (["cmapp://guest/../a"], "bears cmapp://guest/../a, which names no host and no guest"),
        (["CMAPP://guest/a"], "bears CMAPP://guest/a, which names no host and no guest"),
        (["cmapp://boss/a"], "bears cmapp://boss/a, which names no host and no guest"),
    ],
)
def test_a_role_is_one_and_plain(store: Path, tmp_path: Path, roles: list[str], complaint: str) -> None:
    """A request from which two readers could take two roles is signed for none."""
    odd = ask(tmp_path / "odd.pem", ec.generate_private_key(ec.SECP256R1()), uris(*roles))
    assert refused("sign", store, odd) == f"{odd} {complaint}"
    assert not (store / "guest").exists()


def test_a_changed_request_is_refused(store: Path, asks: Path) -> None:
    """A request is signed by the key in it, so nobody on its way can have another name or another key certified."""
    request = read_request(asks).public_bytes(serialization.Encoding.DER)
    changed = asks.parent / "changed.pem"
    (asks.parent / "der").write_bytes(request.replace(b"cmapp://guest/vm1", b"cmapp://guest/vm9"))
    openssl("req", "-inform", "DER", "-in", asks.parent / "der", "-out", changed)
    assert refused("sign", store, changed).startswith(f"{changed} is not signed by the key in it: ")


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        (WEAK, "has a weak or unsuitable key (RSA 1024 bits), which TLS refuses: "),
        (ec.generate_private_key(ec.SECP192R1()), "has a weak or unsuitable key (EC secp192r1), which TLS refuses: "),
    ],
    ids=["rsa-1024", "p-192"],
)
def test_a_weak_key_is_not_signed(
    store: Path, tmp_path: Path, key: CertificateIssuerPrivateKeyTypes, complaint: str
) -> None:
    """It would be refused by every peer anyway: better say so at once, and what to use."""
    weak = ask(tmp_path / "weak.pem", key, uris("cmapp://guest/vm1"))
    assert refused("sign", store, weak).startswith(f"{weak} {complaint}")


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048),
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
    ],
    ids=["rsa", "p-384", "ed25519"],
)
def test_other_kinds_of_keys_work(store: Path, tmp_path: Path, key: CertificateIssuerPrivateKeyTypes) -> None:
    """Whatever made the key, Java or a card: its certificate works with ours."""
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    (folder / "key.pem").chmod(0o600)
    (folder / "request.pem").write_bytes(pem.written([make_request(key, VM1, [])]))
    done("sign", store, folder)
    done("accept", folder, store / "guest" / "vm1")
    assert meet(folder, store / "host" / "n1") == (VM1, N1)
    assert keys("check", folder)[0] == 0
    done("renew", store, "guest", "vm1", "--same-key")
    done("accept", folder, store / "guest" / "vm1")
    done("request", folder, "guest", "vm1", "--same-key")


def test_an_answer_to_another_request_is_refused(store: Path, asks: Path, tmp_path: Path) -> None:
    """A certificate that does not fit the key is not put beside it, and nothing is changed."""
    before = modes(asks)
    done("request", tmp_path / "vm2", "guest", "vm2")
    done("sign", store, tmp_path / "vm2")
    said = refused("accept", asks, store / "guest" / "vm2")
    assert said == f"{store}/guest/vm2/cert.pem is not for {asks}/key.pem: it answers another request"
    assert modes(asks) == before


def test_an_answer_that_would_not_work_is_refused(store: Path, asks: Path, tmp_path: Path) -> None:
    """It is tried before it is taken: a wrong authority, one that is missing, a certificate without its role."""
    done("sign", store, asks, "--out", tmp_path / "answer.pem")
    done("init", tmp_path / "other")
    before = modes(asks)
    said = refused("accept", asks, tmp_path / "answer.pem")
    assert said.startswith(f"there is no {asks}/ca.pem yet: ")
    said = refused("accept", asks, tmp_path / "answer.pem", tmp_path / "other" / "ca.pem")
    assert said.startswith(f"{asks}/cert.pem is not vouched for by {asks}/ca.pem: ")
    openssl(
        *("x509", "-req", "-in", asks / "request.pem", "-CA", store / "ca.pem", "-CAkey", store / "ca-key.pem"),
        *("-out", tmp_path / "bare.pem"),
    )
    said = refused("accept", asks, tmp_path / "bare.pem", store / "ca.pem")
    assert said.startswith(f"{tmp_path}/bare.pem bears no role URI, not one: have it signed with the names ")
    assert refused("accept", tmp_path / "other", tmp_path / "answer.pem", store / "ca.pem").startswith(
        f"there is no {tmp_path}/other/key.pem: make it with 'cmapp keys request'"
    )
    assert modes(asks) == before


def test_an_answer_of_a_new_authority_is_added(store: Path, asks: Path, tmp_path: Path) -> None:
    """Peers that still have certificates of the old authority are not turned away."""
    done("sign", store, asks)
    done("accept", asks, store / "guest" / "vm1")
    done("init", tmp_path / "new", "--name", "new")
    done("request", asks, "guest", "vm1")
    done("sign", tmp_path / "new", asks)
    done("accept", asks, tmp_path / "new" / "guest" / "vm1")
    assert read_certificates(asks / "ca.pem") == [read_certificate(tmp_path / "new"), read_certificate(store)]
    done("trust", store / "host" / "n1", tmp_path / "new")
    assert meet(asks, store / "host" / "n1") == (VM1, N1)
    assert fits(read_key(asks / "key.pem"), read_certificate(asks))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("", "holds no signing request in PEM format: make it with 'cmapp keys request'"), (None, "cannot read ")],
)
def test_a_request_that_is_none_is_explained(store: Path, content: str | None, complaint: str) -> None:
    """The file is named."""
    path = store / "request"
    if content is not None:
        path.write_text(content)
    assert complaint in (said := refused("sign", store, path))
    assert str(path) in said
