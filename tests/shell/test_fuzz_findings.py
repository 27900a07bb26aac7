"""What `./run fuzz` found outside of the core, each defect by its name."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING

import pytest

from cmapp.cli.arguments import settings_of
from cmapp.errors import SettingsError
from cmapp.guest import upgrade
from cmapp.guest.probe import _http_trouble
from cmapp.guest.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


def test_configuration_that_is_nested_too_deeply(tmp_path: Path) -> None:
    """Thousands of brackets in a configuration file were a traceback."""
    file = tmp_path / "cmappserver.conf"
    file.write_text(f"listen = {'[' * 5000}")
    with pytest.raises(SettingsError, match=r"cmappserver\.conf: the configuration is nested too deeply$"):
        settings_of(Settings, Namespace(config=str(file)), default_file="")


@pytest.mark.parametrize(
    "told",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"lock":"0","listeners":[]}',
        b'{"lock":9007199254740990,"listeners":[]}',
        b'{"lock":0,"listeners":7}',
        b'{"lock":0,"listeners":[],"runs":[]}',
        b'{"lock":0,"listeners":[],"runs":{"x":{"known":[[1]]}}}',
        b'{"lock":0,"listeners":[],"runs":{"x":{"process":{}}}}',
        b'{"lock":0,"listeners":[],"runs":{"x":{"process":{"leader":[1],"main":[1],"trouble":1,"said":""}}}}',
        b'{"lock":0,"listeners":[],"runs":{"x":{"process":{"leader":[],"main":[],"trouble":1,"said":"x"}}}}',
        b"[" * 20_000,
    ],
)
def test_what_is_no_handover(told: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was started with CMAPP_HANDOVER in its environment, of whatever origin, ended in a traceback."""
    memory = os.memfd_create("handover")
    os.write(memory, told)
    os.lseek(memory, 0, os.SEEK_SET)
    monkeypatch.setenv(upgrade.HANDOVER, str(memory))
    with pytest.raises(SettingsError, match=r"^CMAPP_HANDOVER names nothing that a cmappserver hands over: "):
        upgrade.taken()
    assert upgrade.taken() == {}


@pytest.mark.parametrize("number", ["x", "-1", "999999", "99999999999999999999"])
def test_what_is_no_descriptor(number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So did one whose environment names no descriptor there."""
    monkeypatch.setenv(upgrade.HANDOVER, number)
    with pytest.raises(SettingsError, match=r"^CMAPP_HANDOVER names nothing that a cmappserver hands over: "):
        upgrade.taken()


@pytest.mark.parametrize("said", [b"HTTP/1.1 2\r\n", b"HTTP/1.1 20 OK\r\n", b"HTTP/1.1 2", b"HTTP/1.1 3 \n"])
def test_status_of_fewer_digits_is_not_http(said: bytes) -> None:
    """An answer whose status is a 2 and nothing more counted as ready."""
    assert _http_trouble(said) == "what answers does not speak HTTP"
