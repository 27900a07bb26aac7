"""What expires is told in time: certificates, authorities, pins and lists, our own and the peer's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.net.identity import Role
from cmapp.net.keyring import DAY as SECONDS
from cmapp.net.keyring import Keyring, Reminder
from cmapp.net.tls import server_context, shown_certificate
from tests.shell.certificates import DAY, NOW, Made, new_authority, new_leaf, new_list, pin, plain, write_keys
from tests.shell.handshakes import meeting

if TYPE_CHECKING:
    from pathlib import Path

TODAY = NOW.timestamp()


@pytest.fixture(scope="module")
def authority() -> Made:
    """Return an authority."""
    return new_authority("company")


@pytest.fixture
def keys(authority: Made, tmp_path: Path) -> Path:
    """Return the key folder of a guest."""
    return write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1"), authority)


def test_what_expires_is_told_in_time(tmp_path: Path) -> None:
    """Certificate, authority, pin and list: each from 30 days before its end, a list in its last third."""
    authority = new_authority("company", until=20 * DAY)
    other = new_authority("long", until=900 * DAY)
    keys = write_keys(
        tmp_path / "guest",
        new_leaf(authority, "guest", "vm1", until=12 * DAY),
        authority,
        other,
        lists=new_list(authority, since=-8 * DAY, until=2 * DAY) + new_list(other, since=-2 * DAY, until=5 * DAY),
    )
    pin(keys, "host", "n1", plain(until=3 * DAY))
    pin(keys, "host", "n2", plain(until=300 * DAY))
    keyring = Keyring(str(keys), Role.GUEST)

    def day(days: int) -> str:
        return (NOW + days * DAY).strftime("%Y-%m-%d")

    assert keyring.worries(TODAY) == [
        f"our certificate, {keys}/cert.pem, expires in 12 days, on {day(12)}: issue a new one",
        f"the pinned certificate of host n1 expires in 3 days, on {day(3)}: pin its new one beside it",
        f"the authority company in {keys}/ca.pem expires in 20 days, on {day(20)}: add its successor",
        f"the revocation list of company in {keys}/crl.pem expires in 2 days, on {day(2)}: copy a new one",
    ]
    assert f"the authority company in {keys}/ca.pem has expired on {day(20)}: add its successor" in keyring.worries(
        TODAY + 21 * SECONDS
    )


def test_an_expired_certificate_is_told(tmp_path: Path, authority: Made) -> None:
    """A server starts with one, for its clock may be wrong, and says so."""
    old = new_leaf(authority, "guest", "vm1", since=-9 * DAY, until=-DAY)
    keyring = Keyring(str(write_keys(tmp_path / "guest", old, authority)), Role.GUEST)
    assert "cert.pem, has expired on " in keyring.worries(TODAY)[0]


def test_reminders_come_once_a_day(tmp_path: Path, authority: Made) -> None:
    """They come at the start, once a day, and when there is something new; else nothing is said."""
    keys = write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1", until=9 * DAY), authority)
    reminder = Reminder(Keyring(str(keys), Role.GUEST))
    told = [
        (now, line)
        for now in range(1000, 1000 + 3 * int(SECONDS), 3600)
        for line in reminder.due(float(now), TODAY + now - 1000)
    ]
    assert [now for now, _ in told] == [1000, 1000 + SECONDS, 1000 + 2 * SECONDS]
    said = [line.split(", ")[2] for _, line in told]
    assert said == ["expires in 9 days", "expires in 8 days", "expires in 7 days"]


def test_a_reminder_knows_the_keys_of_today(tmp_path: Path, authority: Made) -> None:
    """Keys that were replaced while nobody called are no worry any more."""
    keys = write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1", until=9 * DAY), authority)
    reminder = Reminder(Keyring(str(keys), Role.GUEST))
    assert len(reminder.due(0.0, TODAY)) == 1
    write_keys(keys, new_leaf(authority, "guest", "vm1"))
    [line] = reminder.due(SECONDS, TODAY + SECONDS)
    assert "are used from here on" in line


def test_the_peer_is_a_worry_too(keys: Path, authority: Made, tmp_path: Path) -> None:
    """What it showed is told when it is met, once a day, and no more after it has shown a new one."""
    folder = write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)
    reminder = Reminder(keyring := Keyring(str(folder), Role.HOST, peer="vm1"))
    assert reminder.due(0.0, TODAY) == []
    found = []
    for now, until in ((1.0, 5), (2.0, 5), (3.0, 60)):
        write_keys(keys, new_leaf(authority, "guest", "vm1", until=until * DAY)) if now != 2.0 else None
        with meeting(server_context(str(keys)), keyring.context()) as met:
            reminder.met("vm1", shown_certificate(met.client))
        found.append([line.partition(", on")[0] for line in reminder.due(now, TODAY)])
    assert found == [["the certificate of vm1 expires in 5 days"], [], []]


def test_a_new_peer_does_not_repeat_our_own_worries(authority: Made, keys: Path, tmp_path: Path) -> None:
    """Each is told once a day."""
    folder = write_keys(tmp_path / "host", new_leaf(authority, "host", "n1", until=9 * DAY), authority)
    reminder = Reminder(keyring := Keyring(str(folder), Role.HOST, peer="vm1"))
    write_keys(keys, new_leaf(authority, "guest", "vm1", until=5 * DAY))
    assert ["our certificate" in line for line in reminder.due(0.0, TODAY)] == [True]
    with meeting(server_context(str(keys)), keyring.context()) as met:
        reminder.met("vm1", shown_certificate(met.client))
    assert ["the certificate of vm1" in line for line in reminder.due(1.0, TODAY)] == [True]
    assert reminder.due(2.0, TODAY) == []
    assert len(reminder.due(SECONDS, TODAY)) == 2
