"""The files of pinned certificates: which are taken, and what is said of those that cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.errors import SettingsError
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys
from cmapp.net.tls import client_context, server_context
from tests.shell.certificates import pin, plain, write_keys

if TYPE_CHECKING:
    from pathlib import Path

UNFIT = {
    "two names": "peers/host/n2.pem holds the certificate of n1 too: remove one of the two",
    "no name": "peers/host/-.pem: '-' cannot name a host: rename it",
    "no certificate": "peers/host/n2.pem holds no certificate in PEM format",
    "half a certificate": "peers/host/n2.pem cannot be used: it holds a broken certificate (it ends too soon)",
    "too many": "peers/host holds more than 3 files: use an authority for so many",
}


@pytest.mark.parametrize("what", UNFIT)
def test_pins_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A file that says nothing, or too much, is named before anybody calls, and `--check` says the same."""
    monkeypatch.setattr("cmapp.net.trust.PINS_LIMIT", 3)
    keys, host = write_keys(tmp_path / "guest", plain("vm1")), plain("n1")
    pin(keys, "host", "n1", host)
    file = keys / "peers" / "host" / "n2.pem"
    if what == "two names":
        pin(keys, "host", "n2", host)
    elif what == "no name":
        pin(keys, "host", "-", plain())
    elif what == "too many":
        for name in ("a", "b", "c"):
            pin(keys, "host", name, plain())
    else:
        file.write_bytes(b"" if what == "no certificate" else host.pem[:200])
    with pytest.raises(SettingsError) as refusal:
        server_context(str(keys))
    assert UNFIT[what] in str(refusal.value)
    assert any(UNFIT[what] in problem for problem in check_keys(str(keys), Role.GUEST))


def test_what_is_no_pin_is_left_alone(tmp_path: Path) -> None:
    """Hidden files and files of other endings are on their way in, or somebody's notes."""
    keys = write_keys(tmp_path / "guest", plain("vm1"))
    pin(keys, "host", "n1", plain("n1"))
    for name in (".n2.pem.1234", ".n2.pem", "README", "n1.pem~"):
        (keys / "peers" / "host" / name).write_text("not a certificate")
    assert list(server_context(str(keys)).trust.pins.values()) == ["n1"]


def test_neither_authority_nor_pin(tmp_path: Path) -> None:
    """Whoever trusts nobody is told so, as is a host that has no pin for the guest it calls."""
    keys = write_keys(tmp_path / "host", plain("n1"))
    pin(keys, "guest", "vm2", plain("vm2"))
    with pytest.raises(SettingsError, match=r"cannot read .*/ca\.pem"):
        client_context(str(keys), peer="vm1")
    with pytest.raises(SettingsError, match=r"cannot read .*/ca\.pem"):
        server_context(str(keys))
