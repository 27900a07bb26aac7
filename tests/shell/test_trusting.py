"""Whom a key folder trusts: authorities side by side, and certificates that are pinned."""

from __future__ import annotations

import os
import ssl
import stat
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cmapp.keys import pem
from cmapp.keys.description import common_name
from cmapp.keys.keystore import read_certificate, read_certificates, read_lists
from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import done, keys, meet, openssl, refused

if TYPE_CHECKING:
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
VM1, N1 = Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "n1")
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "self")])
LEAF = (x509.BasicConstraints(ca=False, path_length=None),)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return the folder of an authority called old that has issued keys for vm1 and n1."""
    done("init", tmp_path / "old", "--name", "old")
    done("issue", tmp_path / "old", "guest", "vm1")
    done("issue", tmp_path / "old", "host", "n1")
    return tmp_path / "old"


@pytest.fixture
def new(tmp_path: Path) -> Path:
    """Return the folder of an authority called new."""
    done("init", tmp_path / "new", "--name", "new")
    return tmp_path / "new"


def trusted(folder: Path) -> list[str]:
    """Return the names of the authorities that a folder trusts."""
    return [common_name(each.subject) for each in read_certificates(folder / "ca.pem")]


def test_an_authority_is_replaced_without_a_gap(old: Path, new: Path) -> None:
    """At every step of the way each guest and each host that was let in is let in."""
    guest, host = old / "guest" / "vm1", old / "host" / "n1"
    for folder in (guest, host):
        assert done("trust", folder, new) == f"{folder} trusts new\n"
        assert meet(guest, host) == (VM1, N1)
    done("trust", new, old)
    for role, name in (("guest", "vm1"), ("host", "n1")):
        done("issue", new, role, name)
    guest_after, host_after = new / "guest" / "vm1", new / "host" / "n1"
    assert trusted(guest_after) == trusted(host_after) == ["new", "old"]
    assert meet(guest_after, host) == meet(guest, host_after) == meet(guest_after, host_after) == (VM1, N1)
    for folder in (guest_after, host_after):
        said = done("distrust", folder, "old")
        assert f"{folder} no longer trusts old (" in said
        assert said.endswith("it still trusts new\n")
    assert meet(guest_after, host_after) == (VM1, N1)
    with pytest.raises(ssl.SSLCertVerificationError):
        meet(guest_after, host)
    assert keys("check", guest_after)[0] == 0


def test_trust_is_told_once(old: Path, new: Path) -> None:
    """Who is trusted already is said to be, and does not stand there twice."""
    folder = old / "guest" / "vm1"
    done("trust", folder, new / "ca.pem")
    assert done("trust", folder, new) == f"{folder} trusted already new\n"
    assert trusted(folder) == ["old", "new"]


def test_an_authority_without_a_list_is_told(old: Path, new: Path) -> None:
    """A folder with a list fails closed for whom it has none of: it is said, with what to do, until there is one."""
    folder = old / "guest" / "vm1"
    done("revoke", old, "host", "n1")
    said = done("trust", folder, new)
    assert f"but {folder}/crl.pem has no list of it, so nobody of it is let in: " in said
    assert "has no list of the authority new" in keys("check", folder)[1]
    done("revoke", new)
    done("trust", folder, new / "ca.pem", "--crl", new / "crl.pem")
    assert keys("check", folder)[0] == 0
    assert len(read_lists(folder / "crl.pem")) == 2
    done("distrust", folder, "new")
    assert len(read_lists(folder / "crl.pem")) == 1


def forge(
    path: Path,
    *extensions: x509.ExtensionType,
    key: CertificateIssuerPrivateKeyTypes | None = None,
    issuer: x509.Name = NAME,
    start: datetime = NOW - DAY,
    end: datetime = NOW + DAY,
) -> Path:
    """Write a self-signed certificate that cmapp itself would not make."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(issuer, NAME, key.public_key(), x509.random_serial_number(), start, end)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    path.write_bytes(pem.written([builder.sign(key, hashes.SHA256())]))
    return path


def usage(*, signs: bool) -> x509.KeyUsage:
    """Return a key usage of signatures, or of signing certificates."""
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )


AUTHORITY = x509.BasicConstraints(ca=True, path_length=None)
BAD_AUTHORITIES = {
    "is no authority's (CA:TRUE): ": LEAF,
    "may not sign certificates (key usage without keyCertSign): ": (AUTHORITY, usage(signs=False)),
    "is an intermediate's: trust root, which issued it, ": (AUTHORITY, "issuer"),
    "has a weak or unsuitable key (RSA 1024 bits), ": (AUTHORITY, "weak"),
    "has expired on ": (AUTHORITY, "expired"),
    "is not valid before ": (AUTHORITY, "early"),
}
ODD = {
    "issuer": {"issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])},
    "weak": {"key": rsa.generate_private_key(65537, 1024)},  # noqa: S505 - weak on purpose
    "expired": {"end": NOW - timedelta(hours=1)},
    "early": {"start": NOW + timedelta(hours=1)},
}


@pytest.mark.parametrize("complaint", BAD_AUTHORITIES)
def test_an_unfit_authority_is_not_trusted(old: Path, tmp_path: Path, complaint: str) -> None:
    """What could not vouch for anybody, or never should, does not get into ca.pem."""
    extensions = [each for each in BAD_AUTHORITIES[complaint] if not isinstance(each, str)]
    odd = next((ODD[each] for each in BAD_AUTHORITIES[complaint] if isinstance(each, str)), {})
    path = forge(tmp_path / "odd.pem", *extensions, **odd)  # type: ignore[arg-type]
    before = (old / "guest" / "vm1" / "ca.pem").read_bytes()
    assert refused("trust", old / "guest" / "vm1", path).startswith(f"{path} {complaint}")
    assert (old / "guest" / "vm1" / "ca.pem").read_bytes() == before


def test_an_authority_is_found_by_its_fingerprint(old: Path, tmp_path: Path) -> None:
    """Two of the same name are told apart, and neither is removed by a guess."""
    folder = old / "guest" / "vm1"
    for name in ("a", "b"):
        done("init", tmp_path / name, "--name", "twin")
        done("trust", folder, tmp_path / name)
    assert refused("distrust", folder, "twin").startswith("2 authorities there are called twin: name one by ")
    fingerprint = read_certificate(tmp_path / "a").fingerprint(hashes.SHA256()).hex(":").upper()
    done("distrust", folder, fingerprint)
    assert read_certificates(folder / "ca.pem")[1:] == [read_certificate(tmp_path / "b")]
    done("distrust", folder, read_certificate(tmp_path / "b").fingerprint(hashes.SHA256()).hex()[:8])
    assert trusted(folder) == ["old"]


def test_what_must_not_be_distrusted(old: Path, new: Path) -> None:
    """Neither the last authority, nor the own one by mistake, nor the one whose folder it is."""
    folder = old / "guest" / "vm1"
    assert refused("distrust", folder, "old").startswith(f"old is the only authority that {folder} trusts: ")
    done("trust", folder, new)
    assert refused("distrust", folder, "old").startswith(f"{folder}/cert.pem is of old: put one of another ")
    assert refused("distrust", folder, "odl") == (
        "no authority there is called odl or has that fingerprint: there is old, new"
    )
    done("distrust", folder, "old", "--force")
    done("trust", old, new)
    assert refused("distrust", old, "old", "--force").startswith("old is the authority that ")


def self_signed(folder: Path, *options: str) -> Path:
    """Make a key and a self-signed certificate as administrators do, with openssl."""
    folder.mkdir(mode=0o700)
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 30),
        *("-keyout", folder / "key.pem", "-out", folder / "cert.pem", "-subj", "/CN=Unknown", *options),
    )
    return folder


def test_self_signed_pairs_meet(tmp_path: Path) -> None:
    """Two that pinned each other need no authority, and are whom they were pinned as; a third is nobody."""
    options = ("-addext", "basicConstraints=critical,CA:FALSE")
    guest, host, third = (self_signed(tmp_path / name, *options) for name in ("g", "h", "t"))
    done("pin", guest, "host", "n1", host / "cert.pem")
    done("pin", host, "guest", "vm1", guest / "cert.pem")
    assert meet(guest, host) == (VM1, N1)
    assert (keys("check", guest, "guest", "--days", 9), keys("check", host, "host", "--days", 9)[0]) == (
        (0, f"{guest} is in order: a guest known by its pin, 30 days left\n", ""),
        0,
    )
    done("pin", third, "guest", "vm1", guest / "cert.pem")
    with pytest.raises(ssl.SSLError):
        meet(guest, third)


def test_a_pinned_peer_changes_without_a_gap(tmp_path: Path) -> None:
    """With --beside both certificates are taken until the peer has changed."""
    options = ("-addext", "basicConstraints=critical,CA:FALSE")
    guest, host, after = (self_signed(tmp_path / name, *options) for name in ("g", "h", "a"))
    done("pin", host, "guest", "vm1", guest / "cert.pem")
    done("pin", after, "guest", "vm1", guest / "cert.pem")
    done("pin", guest, "host", "n1", host / "cert.pem")
    done("pin", guest, "host", "n1", after / "cert.pem", "--beside")
    assert meet(guest, host) == meet(guest, after) == (VM1, N1)
    assert "is there already: use --force" in refused("pin", guest, "host", "n1", after / "cert.pem")
    done("pin", guest, "host", "n1", after / "cert.pem", "--force")
    with pytest.raises(ssl.SSLError):
        meet(guest, host)


def test_one_certificate_is_one_peer(old: Path, tmp_path: Path) -> None:
    """Whoever shows it could be taken for either of two."""
    path = forge(tmp_path / "peer.pem", *LEAF)
    folder = old / "guest" / "vm1"
    done("pin", folder, "host", "n8", path)
    for role, name in (("host", "n9"), ("guest", "n8")):
        said = refused("pin", folder, role, name, path)
        assert said == f"{path} is pinned already, as {folder}/peers/host/n8.pem: one certificate is one peer's"


def test_a_pin_is_made_with_the_right_modes(old: Path, tmp_path: Path) -> None:
    """Folders are their owner's; a certificate is no secret."""
    before = os.umask(0)
    try:
        done("pin", old / "guest" / "vm1", "host", "n8", forge(tmp_path / "peer.pem", *LEAF))
    finally:
        os.umask(before)
    peers = old / "guest" / "vm1" / "peers"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (peers, peers / "host", peers / "host" / "n8.pem")]
    assert modes == [0o700, 0o700, 0o644]


def test_nothing_is_written_through_a_link(old: Path, tmp_path: Path) -> None:
    """Who may write to the key folder cannot have root write elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (old / "guest" / "vm1" / "peers").symlink_to(tmp_path / "elsewhere")
    said = refused("pin", old / "guest" / "vm1", "host", "n8", forge(tmp_path / "peer.pem", *LEAF))
    assert said == f"{old}/guest/vm1/peers is a link: nothing is written where it leads"
    assert not list((tmp_path / "elsewhere").iterdir())


def role_uri(text: str) -> x509.SubjectAlternativeName:
    """Return the names of whom a role URI names."""
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(text)])


NETSCAPE = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.16.840.1.113730.1.1"), bytes.fromhex("03020007"))
BAD_PINS: list[tuple[str, tuple[x509.ExtensionType | str, ...]]] = [
    ("is an authority's (CA:TRUE), which could vouch for others: ", (AUTHORITY,)),
    ("may sign certificates (keyCertSign), so it could vouch for others: ", (usage(signs=True),)),
    ("may sign certificates (keyCertSign), so it could vouch for others: ", (NETSCAPE,)),
    ("has a weak or unsuitable key (RSA 1024 bits), ", (*LEAF, "weak")),
    ("has expired on ", (*LEAF, "expired")),
    ("is not valid before ", (*LEAF, "early")),
    ("may not be used by a host (extended key usage): ", (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),)),
    ("says that it is guest vm1's, not host n8's: ", (role_uri("cmapp://guest/vm1"),)),
    ("bears cmapp://boss/n8, which names no host and no guest: ", (role_uri("cmapp://boss/n8"),)),
]


@pytest.mark.parametrize(("complaint", "features"), BAD_PINS)
def test_an_unfit_certificate_is_not_pinned(
    old: Path, tmp_path: Path, complaint: str, features: tuple[x509.ExtensionType | str, ...]
) -> None:
    """What could vouch for others, or would be refused at every handshake, is turned away in words."""
    extensions = [each for each in features if not isinstance(each, str)]
    odd = next((ODD[each] for each in features if isinstance(each, str)), {})
    path = forge(tmp_path / "odd.pem", *extensions, **odd)  # type: ignore[arg-type]
    said = refused("pin", old / "guest" / "vm1", "host", "n8", path)
    assert said.startswith(f"{path} {complaint}")
    assert not (old / "guest" / "vm1" / "peers").exists()


def test_a_v1_certificate_is_not_pinned(old: Path, tmp_path: Path) -> None:
    """It has no extensions that could keep it from vouching for others: OpenSSL would believe it."""
    openssl(
        *("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
        *("-keyout", tmp_path / "key.pem", "-out", tmp_path / "request.pem", "-subj", "/CN=v1"),
    )
    openssl(
        *("x509", "-req", "-in", tmp_path / "request.pem", "-key", tmp_path / "key.pem", "-days", 9),
        *("-out", tmp_path / "v1.pem"),
    )
    assert "Version: 1 (0x0)" in openssl("x509", "-in", tmp_path / "v1.pem", "-noout", "-text")
    said = refused("pin", old / "guest" / "vm1", "host", "n8", tmp_path / "v1.pem")
    assert said.startswith(f"{tmp_path}/v1.pem is an X.509 v1 certificate, which could vouch for others: ")
    assert refused("trust", old / "guest" / "vm1", tmp_path / "v1.pem").startswith(
        f"{tmp_path}/v1.pem is an X.509 v1 certificate, "
    )


def test_a_name_is_safe_in_a_path(old: Path, tmp_path: Path) -> None:
    """No name leads out of the folder."""
    path = forge(tmp_path / "peer.pem", *LEAF)
    assert refused("pin", old / "guest" / "vm1", "host", "../../n8", path).startswith("'../../n8' cannot name a host: ")
