"""What testssl would ask of a server's port, asked of a real one by Python's ssl and OpenSSL itself."""

from __future__ import annotations

import re
import shutil
import socket
import ssl
import subprocess
import warnings
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from attack.raw import RawTls
from cmapp.core import messages as m
from cmapp.keys.authority import issue
from cmapp.keys.keystore import read_authority, write_credential
from cmapp.net.identity import Identity, Role
from cmapp.net.refusals import ALPN
from tests.shell.served import Served

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.caller import Caller

LOOPBACK, PATIENCE = "127.0.0.1", 30.0
HELLO = b'{"type":"hello","id":1,"versions":[1]}\n'
STATUS = b'{"type":"status","id":2}\n'
HANDSHAKE, ALERT = 0x16, 0x15  # types of TLS records
FEW, FLOOD = 100, 20_000  # key updates
DAY = timedelta(days=1)
VERSIONS = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}
SUITES_1_3 = (
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_128_CCM_SHA256",
    "TLS_AES_128_CCM_8_SHA256",
)
GOOD_1_3 = set(SUITES_1_3[:3])
GOOD_1_2 = re.compile(r"ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA(256|384)|CHACHA20-POLY1305)")

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl command")


@pytest.fixture(scope="module")
def strict(key_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server as it is by default."""
    yield from _serve(tmp_path_factory.mktemp("strict"), key_folders)


@pytest.fixture(scope="module")
def lenient(key_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return a server that allows TLS 1.2."""
    yield from _serve(tmp_path_factory.mktemp("lenient"), key_folders, "--allow-tls12")


def _serve(folder: Path, keys: Path, *options: str) -> Iterator[Served]:
    served = Served(folder, keys / "guest", *options)
    try:
        yield served
        served.stop()
    finally:
        served.close()


def context(keys: Path | None, *versions: str, ciphers: str = "ALL:COMPLEMENTOFALL:@SECLEVEL=0") -> ssl.SSLContext:
    """Return a client's TLS that believes anybody and would take any cipher, in the versions from first to last."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_ciphers(ciphers)
    made.set_alpn_protocols([ALPN])
    if versions:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            made.minimum_version, made.maximum_version = VERSIONS[versions[0]], VERSIONS[versions[-1]]
    if keys is not None:
        made.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    return made


def connect(
    served: Served, how: ssl.SSLContext, name: str | None = "vm1", session: ssl.SSLSession | None = None
) -> ssl.SSLSocket:
    """Return a connection whose handshake is done."""
    plain = socket.create_connection((LOOPBACK, served.port), PATIENCE)
    try:
        return how.wrap_socket(plain, server_hostname=name, session=session)
    except OSError:
        plain.close()
        raise


def answer(tls: ssl.SSLSocket) -> bytes:
    """Say hello, and return what the server says; nothing if it hangs up."""
    with tls.makefile("rb") as lines, suppress(ConnectionError, ssl.SSLError):
        tls.sendall(HELLO)
        return lines.readline()
    return b""


def welcomes(served: Served, how: ssl.SSLContext) -> bool:
    """Tell whether the server lets a peer in that speaks TLS like this."""
    try:
        with connect(served, how) as tls:
            return b'"welcome"' in answer(tls)
    except OSError:
        return False


def openssl(served: Served, keys: Path | None, *options: str) -> str:
    """Return what `openssl s_client` tells of the server."""
    who = ["-cert", str(keys / "cert.pem"), "-key", str(keys / "key.pem")] if keys else []
    command = ["openssl", "s_client", "-connect", f"{LOOPBACK}:{served.port}", "-alpn", ALPN, *who, *options]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=PATIENCE, check=False)
    return done.stdout + done.stderr


# ---- versions and ciphers ------------------------------------------------------------------------------------


def test_versions(strict: Served, lenient: Served, key_folders: Path) -> None:
    """TLS 1.3 alone by default, 1.2 too where it is allowed, and never anything older."""
    host = key_folders / "host"
    for served, offered in ((strict, {"TLSv1.3"}), (lenient, {"TLSv1.2", "TLSv1.3"})):
        assert {version for version in VERSIONS if welcomes(served, context(host, version))} == offered
    with connect(lenient, context(host)) as tls:
        assert tls.version() == "TLSv1.3"  # who can do better is not talked down


@pytest.mark.parametrize("version", [b"\x03\x00", b"\x00\x02"], ids=["SSLv3", "SSLv2"])
def test_no_ssl(lenient: Served, version: bytes) -> None:
    """A hello of SSL is not answered by a handshake."""
    suites = b"\x00\x0a\x00\x05\x00\x04\xc0\x0a\xc0\x09"
    body = version + bytes(32) + b"\x00" + len(suites).to_bytes(2, "big") + suites + b"\x01\x00"
    hello = b"\x01" + len(body).to_bytes(3, "big") + body
    with socket.create_connection((LOOPBACK, lenient.port), PATIENCE) as sock:
        sock.sendall(b"\x16" + version + len(hello).to_bytes(2, "big") + hello)
        sock.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            assert sock.recv(1) in (b"", bytes([ALERT]))


def test_ciphers_of_tls_1_2(lenient: Served, key_folders: Path) -> None:
    """All that is taken has forward secrecy and authenticates what it encrypts; something is taken."""
    host = key_folders / "host"
    all_of_them = context(None).get_ciphers()
    names = [cipher["name"] for cipher in all_of_them if not cipher["name"].startswith("TLS_")]
    assert len(names) > len(GOOD_1_3)
    taken = set()
    for name in names:
        how = context(host, "TLSv1.2", ciphers=f"{name}:@SECLEVEL=0")
        if welcomes(lenient, how):
            taken.add(name)
    assert taken
    assert {name for name in taken if not GOOD_1_2.fullmatch(name)} == set()


@needs_openssl
def test_ciphers_of_tls_1_3(strict: Served, key_folders: Path) -> None:
    """Of TLS 1.3's five the three are taken that are not made for tiny machines."""
    host = key_folders / "host"
    told = {suite: openssl(strict, host, "-tls1_3", "-ciphersuites", suite) for suite in SUITES_1_3}
    assert {suite for suite, text in told.items() if f"Cipher is {suite}" in text} == GOOD_1_3


@needs_openssl
@pytest.mark.parametrize("algorithm", ["ECDSA+SHA1", "RSA+SHA1"])
def test_no_old_hash_signs(lenient: Served, key_folders: Path, algorithm: str) -> None:
    """A peer that can verify nothing but signatures over broken hashes is refused."""
    told = openssl(lenient, key_folders / "host", "-tls1_2", "-sigalgs", algorithm, "-cipher", "ALL:@SECLEVEL=0")
    assert "Cipher is (NONE)" in told, told


# ---- what a handshake could be made to do --------------------------------------------------------------------


def test_no_renegotiation(lenient: Served, key_folders: Path) -> None:
    """A client that asks for a new handshake on its TLS 1.2 connection is hung up on, however often it asks."""
    sock = socket.create_connection((LOOPBACK, lenient.port), PATIENCE)
    with RawTls(sock, key_folders / "host", old=True) as raw:
        raw.say(HELLO)
        raw.flush()
        assert b'"welcome"' in raw.hear()
        raw.renegotiate()
        with pytest.raises(ConnectionError):  # noqa: PT012 - either may be the first to see it
            raw.flush()
            raw.say(STATUS)
            raw.flush()
            raw.hear()
    assert welcomes(lenient, context(key_folders / "host"))


@needs_openssl
def test_what_openssl_tells_of_tls_1_2(lenient: Served, key_folders: Path) -> None:
    """Renegotiation would be secure, nothing is compressed, no ticket is given, and no authority is named."""
    told = openssl(lenient, key_folders / "host", "-tls1_2", "-tlsextdebug", "-msg")
    assert "Secure Renegotiation IS supported" in told, told
    assert "Compression: NONE" in told
    assert "NewSessionTicket" not in told
    assert "heartbeat" not in told
    assert f"ALPN protocol: {ALPN}" in told
    assert "No client certificate CA names sent" in told


@needs_openssl
def test_what_openssl_tells_of_tls_1_3(strict: Served, key_folders: Path) -> None:
    """No ticket, so nothing to be resumed and no early data; no authority of ours is named to strangers."""
    told = openssl(strict, key_folders / "host", "-tlsextdebug", "-msg")
    assert "NewSessionTicket" not in told, told
    assert "heartbeat" not in told
    assert "Compression: NONE" in told
    assert "Early data was not sent" in told
    assert "No client certificate CA names sent" in told


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_certificate_is_required(lenient: Served, version: str) -> None:
    """Who shows none is told so by an alert, and nothing else."""
    told = openssl(lenient, None, version, "-ign_eof")
    assert "alert" in told, told
    assert "welcome" not in told


def test_a_protocol_is_required(strict: Served, key_folders: Path) -> None:
    """Who names none by ALPN, or another, is not listened to, whatever its certificate."""
    for protocols in ([], ["h2"], ["cmapp/2"], ["CMAPP/1"]):
        how = context(key_folders / "host")
        how.set_alpn_protocols(protocols)
        assert not welcomes(strict, how)
    assert welcomes(strict, context(key_folders / "host"))


@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1", ".".join(["x" * 60] * 4), "xn--n3h.example", None])
def test_the_name_that_is_asked_for_means_nothing(strict: Served, key_folders: Path, name: str | None) -> None:
    """Whatever name a client asks for, it is shown the one certificate that there is."""
    with connect(strict, context(key_folders / "host"), name) as tls:
        shown = tls.getpeercert(binary_form=True)
    assert shown == ssl.PEM_cert_to_DER_cert((key_folders / "guest/cert.pem").read_text())


# ---- what a proof is worth, and for how long -----------------------------------------------------------------


def test_no_ticket_stands_for_a_proof(strict: Served, key_folders: Path) -> None:
    """In TLS 1.3 a connection leaves nothing by which the next could do without a certificate."""
    how = context(key_folders / "host")
    with connect(strict, how) as tls:
        assert answer(tls)
        session = tls.session
    assert session is None or not session.has_ticket
    if session is not None:
        with connect(strict, how, session=session) as tls:
            assert answer(tls)
            assert not tls.session_reused


def test_a_resumed_session_is_looked_at_again(serve: Callable[..., Served], key_folders: Path, tmp_path: Path) -> None:
    """TLS 1.2 may resume by a session's number, and whoever does is still who it was; not once it is revoked."""
    authority = read_authority(key_folders / "authority")
    mine = issue(authority, Identity(Role.HOST, "resumer"), days=1, now=datetime.now(UTC))
    write_credential(tmp_path / "mine", mine, authority, force=False)
    guest = issue(authority, Identity(Role.GUEST, "vm1"), days=1, now=datetime.now(UTC))
    write_credential(tmp_path / "guest", guest, authority, force=False)
    served = serve("--allow-tls12", keys=tmp_path / "guest")
    proven, nobody = context(tmp_path / "mine", "TLSv1.2"), context(None, "TLSv1.2")
    with connect(served, proven) as tls:
        assert b'"welcome"' in answer(tls)
        session = tls.session
    since = len(served.lines)
    with connect(served, proven, session=session) as tls:
        assert b'"welcome"' in answer(tls)
    served.logged("manager resumer at .* connected", since=since)
    assert not welcomes(served, nobody)
    revoke(authority.certificate, authority.key, mine.certificate, tmp_path / "guest" / "crl.pem")
    since = len(served.lines)
    try:
        with connect(served, proven, session=session) as tls:
            assert answer(tls) == b""
    except OSError:
        pass  # refused in the handshake, which was a whole one
    served.logged("revoked", since=since)


def revoke(issuer: x509.Certificate, key: object, certificate: x509.Certificate, path: Path) -> None:
    """Write a list that revokes a certificate."""
    now = datetime.now(UTC)
    entry = x509.RevokedCertificateBuilder().serial_number(certificate.serial_number).revocation_date(now - DAY).build()
    builder = x509.CertificateRevocationListBuilder().issuer_name(issuer.subject).add_revoked_certificate(entry)
    listed = builder.last_update(now - DAY).next_update(now + DAY).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    path.write_bytes(listed.public_bytes(serialization.Encoding.PEM))


def test_key_updates_are_bounded(strict: Served, key_folders: Path, call: Callable[..., Caller]) -> None:
    """A peer may change its keys now and then; one that does nothing else is hung up on, and others are served."""
    honest = call(strict)
    with RawTls(socket.create_connection((LOOPBACK, strict.port), PATIENCE), key_folders / "host") as raw:
        raw.say(HELLO)
        raw.update_keys(FEW, answered=True)
        raw.say(STATUS)
        raw.flush()
        heard = b""
        while b'"runs"' not in heard:
            heard += raw.hear()
        raw.update_keys(FLOOD)
        with pytest.raises(ConnectionError):  # noqa: PT012 - either may be the first to see it
            raw.flush()
            raw.hear()
    assert honest.ask(m.Runs, m.Status).runs == ()
