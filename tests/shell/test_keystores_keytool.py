"""The real keytool beside our reading and writing: what one makes, the other takes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import SettingsError
from cmapp.keys import jks, pkcs12
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.keystore import fits
from cmapp.net.identity import Identity, Role
from tests.java.keytool import KEY_PASSWORD, PASSWORD, Authority, exported, generate, keytool, needs_java

if TYPE_CHECKING:
    from pathlib import Path

    from cmapp.keys.store import Store

pytestmark = needs_java

NOW = datetime.now(UTC)
AUTHORITY = make_authority("the authority", days=9, now=NOW)
HOST = issue(AUTHORITY, Identity(Role.HOST, "n1"), days=9, now=NOW)
CHAIN = [HOST.certificate, AUTHORITY.certificate]
LEGACY = "-J-Dkeystore.pkcs12.legacy"  # as Java 8 wrote it: RC2 and triple DES
NO_PASSWORD = (
    "-J-Dkeystore.pkcs12.certProtectionAlgorithm=NONE",
    "-J-Dkeystore.pkcs12.macAlgorithm=NONE",
)  # as the JDK's own list of authorities


def read(path: Path) -> Store:
    """Read a keystore as what it is."""
    data = path.read_bytes()
    return jks.read(data, PASSWORD) if data.startswith(jks.MAGIC) else pkcs12.read(data, PASSWORD)


@pytest.fixture(scope="module")
def company(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that keytool made."""
    return Authority(tmp_path_factory.mktemp("company"), "company")


@pytest.mark.parametrize("kind", ["rsa", "ec", "ed25519"])
@pytest.mark.parametrize("form", ["p12", "jks"])
def test_a_keystore_of_keytool_is_read(tmp_path: Path, form: str, kind: str) -> None:
    """Key and certificate belong together, whatever the format and the kind."""
    own = KEY_PASSWORD if form == "jks" else None
    (entry,) = read(generate(tmp_path / f"k.{form}", "Own", kind=kind, key_password=own)).keys
    assert (entry.alias, len(entry.certificates)) == ("own", 1)
    assert fits(entry.unlock(own or PASSWORD), entry.certificates[0])


@pytest.mark.parametrize("more", [(LEGACY,), NO_PASSWORD], ids=["java-8", "no-password"])
def test_other_settings_of_keytool_are_read(tmp_path: Path, more: tuple[str, ...]) -> None:
    """What Java 8 wrote, and what has neither encrypted certificates nor a digest."""
    store = generate(tmp_path / "k.p12", "own", *more)
    trust_file = exported(generate(tmp_path / "t.p12", "peer"), "peer")
    keytool("-importcert", "-noprompt", "-alias", "peer", "-file", trust_file, "-keystore", store, *more)
    found = read(store)
    assert fits(found.keys[0].unlock(PASSWORD), found.keys[0].certificates[0])
    assert [each.alias for each in found.trusted] == ["peer"]


@pytest.mark.parametrize("form", ["p12", "jks"])
def test_who_is_trusted_is_told_from_who_only_came_along(tmp_path: Path, company: Authority, form: str) -> None:
    """The issuer of a key is trusted if it stands there by itself; what it once had signed is in the chain."""
    store = company.sign(tmp_path / f"k.{form}", "host", "node1")
    assert [each.alias for each in read(store).trusted] == ["authority"]
    keytool("-delete", "-alias", "authority", "-keystore", store)
    found = read(store)
    assert not found.trusted
    assert len(found.keys[0].certificates) == 2


@pytest.mark.parametrize("form", ["p12", "jks"])
def test_several_keys_are_told_apart(tmp_path: Path, form: str) -> None:
    """`cryptography` would return one of them, without a word of the others."""
    store = tmp_path / f"k.{form}"
    for alias, kind in (("one", "ec"), ("two", "rsa"), ("three", "ed25519")):
        generate(store, alias, kind=kind)
    found = read(store)
    assert {key.alias for key in found.keys} == {"one", "two", "three"}
    for key in found.keys:
        (own,) = [each for each in key.certificates if fits(key.unlock(PASSWORD), each)]
        assert own.subject.rfc4514_string() == f"CN={key.alias}"


@pytest.mark.parametrize("form", ["p12", "jks"])
def test_keytool_reads_what_we_write(tmp_path: Path, form: str) -> None:
    """It lists the key with its chain and the trusted ones, and opens the key to sign with it."""
    key, trusted = tmp_path / f"k.{form}", tmp_path / f"t.{form}"
    entries = [("first", AUTHORITY.certificate), ("second", HOST.certificate)]
    own: tuple[str, ...] = ()
    if form == "jks":
        own = ("-keypass", KEY_PASSWORD)
        key.write_bytes(jks.write(PASSWORD, now=NOW.timestamp(), key=("n1", HOST.key, CHAIN, KEY_PASSWORD)))
        trusted.write_bytes(jks.write(PASSWORD, now=NOW.timestamp(), trusted=entries))
    else:
        key.write_bytes(pkcs12.write_keystore("n1", HOST.key, CHAIN, PASSWORD))
        trusted.write_bytes(pkcs12.write_truststore(entries, PASSWORD))
    said = keytool("-list", "-v", "-keystore", key)
    assert "Your keystore contains 1 entry" in said
    assert "PrivateKeyEntry" in said
    assert "Certificate chain length: 2" in said
    assert f"{NOW:%b} {NOW.day}, {NOW:%Y}" in said  # the day that it was made
    assert "BEGIN NEW CERTIFICATE REQUEST" in keytool("-certreq", "-alias", "n1", "-keystore", key, *own)
    assert keytool("-list", "-keystore", trusted).count("trustedCertEntry") == 2


def test_an_old_cryptography_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 38, as Debian 12 has it, cannot make truststores of PKCS#12: a sentence says what to do instead."""
    monkeypatch.delattr("cryptography.hazmat.primitives.serialization.pkcs12.serialize_java_truststore", raising=False)
    with pytest.raises(SettingsError, match=r"cannot make PKCS#12 truststores: use --format jks, or install a newer "):
        pkcs12.write_truststore([], PASSWORD)
