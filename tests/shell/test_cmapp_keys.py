"""`cmapp keys` as a user meets it: help, wrong usage, and what `show` says of each kind of file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.shell.keys_bed import done, keys, refused

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ["renew", "revoke", "check", "request", "sign", "accept", "trust", "distrust", "pin", "import", "export"]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_is_given(command: str, option: str) -> None:
    """Every command explains itself, on standard output."""
    assert done(command, option).startswith(f"Usage: cmapp keys {command} [OPTIONS] ")


USAGE = [
    "renew",
    "renew d guest",
    "renew d boss vm1",
    "renew d guest vm1 --days 0",
    "revoke",
    "revoke d guest",
    "revoke d host a b",
    "revoke d --days 36501",
    "check",
    "check d boss",
    "check d --days x",
    "request d guest",
    "request d boss vm1",
    "sign d",
    "sign d r --as guest",
    "sign d r --as boss vm1",
    "accept d",
    "trust d",
    "distrust d",
    "pin d guest vm1",
    "init d --passphrase-file",
]


@pytest.mark.parametrize("arguments", USAGE)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: str) -> None:
    """It says what is wrong and where to read more."""
    code, out, err = keys(*arguments.split())
    assert (code, out) == (2, "")
    assert re.fullmatch(r"cmapp: [^\n]+ \(see 'cmapp( keys [a-z]+)? --help'\)\n", err)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Return the folder of an authority called ours."""
    done("init", tmp_path / "ca", "--name", "ours")
    return tmp_path / "ca"


def rows(text: str) -> list[dict[str, str]]:
    """Return each thing that is shown, by its labels."""
    return [dict(re.findall(r"^  (\S+) +(.*)$", part, re.MULTILINE)) for part in text.split("\n\n")]


def test_a_request_is_shown(tmp_path: Path) -> None:
    """What it asks for, and the fingerprint by which it is compared; a folder stands for its request."""
    said = done("request", tmp_path, "host", "n1", "--san", "192.0.2.1")
    fingerprint = said.splitlines()[2].strip()
    (shown,) = rows(done("show", tmp_path / "request.pem"))
    assert shown == {
        "request": "n1",
        "role": "host",
        "names": "DNS n1, IP 192.0.2.1",
        "key": "EC P-256",
        "SHA-256": f"{fingerprint} (of the key)",
    }
    assert rows(done("show", tmp_path)) == [shown]


def test_a_list_is_shown(store: Path) -> None:
    """How many it revokes, which, whose it is, and until when it is good."""
    done("issue", store, "host", "n1")
    serial = re.findall(r"serial number (\w+)", done("revoke", store, "host", "n1", "--days", 7))[0]
    (shown,) = rows(done("show", store / "crl.pem"))
    assert shown["revoked"] == "1 certificate"
    assert shown["issuer"] == "ours"
    assert shown["number"] == "1"
    assert shown["until"].endswith(" UTC, 7 days left")
    assert shown["serials"] == serial


def test_all_authorities_of_a_file_are_shown(store: Path, tmp_path: Path) -> None:
    """A ca.pem with two is told to have two."""
    done("init", tmp_path / "new", "--name", "new")
    done("trust", store, tmp_path / "new")
    assert [each["who"] for each in rows(done("show", store / "ca.pem"))] == ["ours", "new"]


def test_a_file_of_several_kinds_is_shown(store: Path) -> None:
    """Whatever stands in one file is told, lists and certificates alike."""
    done("revoke", store)
    both = store / "both.pem"
    both.write_bytes((store / "ca.pem").read_bytes() + (store / "crl.pem").read_bytes())
    first, second = rows(done("show", both))
    assert (first["revoked"], second["who"]) == ("0 certificates", "ours")
    assert refused("show", store / "ca-key.pem").startswith(f"{store}/ca-key.pem holds no certificate in PEM format")
