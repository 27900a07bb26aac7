"""Java as its users have it: keytool for keystores, and a client on JSSE, in a source file of its own.

Every keystore here has the password `changeit`, as most have. The invariant: what a keystore holds was made by the
real keytool, with the options that its manual gives.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

JAVA, JAVAC, KEYTOOL = (shutil.which(name) for name in ("java", "javac", "keytool"))
needs_java = pytest.mark.skipif(
    not (JAVA and JAVAC and KEYTOOL), reason="needs java, javac and keytool: install default-jdk-headless"
)
CLIENT = Path(__file__).parent / "Client.java"
PASSWORD = "changeit"  # noqa: S105 - known to all
KEY_PASSWORD = "another password"  # noqa: S105
LIMIT = 60.0  # seconds that anything in Java may take
KINDS = {
    "rsa": ("-keyalg", "RSA", "-keysize", "2048"),
    "ec": ("-keyalg", "EC", "-groupname", "secp256r1"),
    "ed25519": ("-keyalg", "Ed25519"),
    "rsa-1024": ("-keyalg", "RSA", "-keysize", "1024"),
    "dsa": ("-keyalg", "DSA", "-keysize", "2048"),
}
_QUICK = ("-J-XX:TieredStopAtLevel=1", "-J-XX:+UseSerialGC", "-J-Duser.language=en")


def keytool(*arguments: object) -> str:
    """Run keytool, which must succeed, and return what it said."""
    command = [str(KEYTOOL), *_QUICK, *map(str, arguments), "-storepass", PASSWORD]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


def generate(store: Path, alias: str, *more: str, kind: str = "ec", key_password: str | None = None) -> Path:
    """Make a keystore with a self-signed key, of the type that its name ends with; return its path."""
    form = "JKS" if store.suffix == ".jks" else "PKCS12"
    own = ("-keypass", key_password) if key_password else ()
    name = () if "-dname" in more else ("-dname", f"CN={alias}")
    keytool("-genkeypair", "-alias", alias, *KINDS[kind], *name, *more, "-keystore", store, "-storetype", form, *own)
    return store


def exported(store: Path, alias: str) -> Path:
    """Return a file with the certificate of an entry."""
    path = store.with_name(f"{store.stem}-{alias}.pem")
    path.write_text(keytool("-exportcert", "-rfc", "-alias", alias, "-keystore", store))
    return path


def trust(store: Path, **certificates: Path) -> Path:
    """Have a keystore or truststore, which is made if it is missing, trust certificates by these aliases."""
    form = "JKS" if store.suffix == ".jks" else "PKCS12"
    for alias, path in certificates.items():
        keytool("-importcert", "-noprompt", "-alias", alias, "-file", path, "-keystore", store, "-storetype", form)
    return store


class Authority:
    """An authority that keytool made, and what it signs."""

    def __init__(self, folder: Path, name: str, kind: str = "ec") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        may = ("-ext", "bc:c=ca:true,pathlen:0", "-ext", "KU:c=keyCertSign,cRLSign")
        self.store = generate(folder / f"{name}.p12", name, *may, kind=kind)
        self.name, self.folder = name, folder
        self.certificate = exported(self.store, name)

    def sign(  # noqa: PLR0913 - as many options has keytool
        self,
        path: Path,
        role: str,
        name: str,
        *more: str,
        kind: str = "ec",
        sans: Iterable[str] = (),
        key_password: str | None = None,
    ) -> Path:
        """Make the keystore `path` with a key of `name`, which this authority has signed for `role`, and trusts it."""
        alias, request, reply = "own", path.with_suffix(".csr"), path.with_suffix(".crt")
        generate(path, alias, "-dname", f"CN={name}", kind=kind, key_password=key_password)
        own = ("-keypass", key_password) if key_password else ()
        keytool("-certreq", "-alias", alias, "-keystore", path, "-file", request, *own)
        names = ",".join([f"DNS:{name}", *sans, f"URI:cmapp://{role}/{name}"])
        purpose = {"host": "clientAuth", "guest": "serverAuth"}[role]
        says = ("-ext", f"EKU={purpose}", "-ext", f"SAN={names}", "-ext", "KU:c=digitalSignature")
        signing = ("-alias", self.name, "-keystore", self.store, "-infile", request, "-outfile", reply)
        keytool("-gencert", "-rfc", *signing, *says, *more)
        trust(path, authority=self.certificate)
        keytool("-importcert", "-noprompt", "-alias", alias, "-file", reply, "-keystore", path, *own)
        return path


class Ended:
    """A client that has ended: its exit code as a shell sees it, and what it said."""

    def __init__(self, code: int, said: str) -> None:
        self.code, self.said = code, said


def compiled(folder: Path) -> list[str]:
    """Compile the client, and return the command that runs it."""
    subprocess.run([str(JAVAC), "-Xlint:all", "-Werror", "-d", folder, CLIENT], check=True, timeout=LIMIT)
    return [str(JAVA), "-XX:TieredStopAtLevel=1", "-cp", str(folder), "Client"]


def client(command: list[str], *arguments: object) -> Ended:
    """Run the client to its end."""
    whole = [*command, *map(str, arguments)]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=LIMIT, check=False, env={})
    assert not re.search(r"^\s+at \S+\(", done.stderr, re.MULTILINE), done.stderr  # a stack trace
    return Ended(done.returncode, done.stdout + done.stderr)
