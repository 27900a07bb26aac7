"""The administrator's tool in this process, and what its keys are good for: a handshake of two key folders."""

from __future__ import annotations

import io
import ssl
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import TYPE_CHECKING

from cmapp.cli.cmapp import main
from cmapp.net.tls import client_context, peer_identity, server_context

if TYPE_CHECKING:
    from pathlib import Path

    from cmapp.net.identity import Identity

COMMAND = (sys.executable, "-c", "from cmapp.cli.cmapp import main; main()", "keys")


def keys(*arguments: object) -> tuple[int, str, str]:
    """Run `cmapp keys` and return its exit code, what it said, and what it complained of."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["cmapp", "keys", *map(str, arguments)]
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    assert isinstance(code, int)
    return code, out.getvalue(), err.getvalue()


def done(*arguments: object) -> str:
    """Run `cmapp keys`, which must succeed, and return what it said."""
    code, out, err = keys(*arguments)
    assert (code, err) == (0, ""), err or out
    return out


def refused(*arguments: object) -> str:
    """Run `cmapp keys`, which must fail, and return its one sentence."""
    code, out, err = keys(*arguments)
    assert (code, out) == (1, ""), out
    assert err.startswith("cmapp: ")
    assert err.count("\n") == 1
    return err.removeprefix("cmapp: ").rstrip()


def meet(guest: Path, host: Path, name: str = "vm1") -> tuple[Identity, Identity]:
    """Let a guest and a host with these key folders shake hands, the guest called `name`; return both, proved.

    Raises what the side that refuses the other raises: ssl.SSLError or TrustError.
    """
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server_context(str(guest)).wrap_bio(to_server, to_client, server_side=True)
    calling = client_context(str(host), peer=name).wrap_bio(to_client, to_server, server_hostname=name)
    for side in (calling, serving, calling, serving):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return peer_identity(calling), peer_identity(serving)


def openssl(*arguments: object, within: Path | None = None) -> str:
    """Run `openssl`, which must succeed, and return what it said."""
    command = ["openssl", *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=within)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def verified(folder: Path, *options: str) -> bool:
    """Tell whether `openssl verify` takes the certificate in a key folder, by its ca.pem and crl.pem."""
    command = ["openssl", "verify", *options, "-CAfile", f"{folder}/ca.pem"]
    if (folder / "crl.pem").exists():
        command += ["-crl_check", "-CRLfile", f"{folder}/crl.pem"]
    return subprocess.run([*command, f"{folder}/cert.pem"], capture_output=True, check=False).returncode == 0
