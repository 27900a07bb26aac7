"""Keys that change under a running daemon: they are used at the next handshake, whole or not at all."""

from __future__ import annotations

import gc
import time
from itertools import permutations
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import SettingsError
from cmapp.net.identity import Identity, Role
from cmapp.net.keyring import Keyring
from cmapp.net.tls import Context, client_context, peer_identity, server_context
from tests.shell.certificates import DAY, NOW, Made, new_authority, new_leaf, new_list, pin, plain, write_keys
from tests.shell.handshakes import meeting

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable
    from pathlib import Path

TODAY = NOW.timestamp()


@pytest.fixture(scope="module")
def authority() -> Made:
    """Return an authority."""
    return new_authority("company")


@pytest.fixture(scope="module")
def host(authority: Made) -> Made:
    """Return a host."""
    return new_leaf(authority, "host", "n1")


@pytest.fixture
def keys(authority: Made, tmp_path: Path) -> Path:
    """Return the key folder of a guest."""
    return write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1"), authority)


@pytest.fixture
def calling(authority: Made, host: Made, tmp_path: Path) -> ssl.SSLContext:
    """Return the context of a host."""
    return client_context(str(write_keys(tmp_path / "host", host, authority)))


def serial(context: ssl.SSLContext, calling: ssl.SSLContext) -> int:
    """Return the serial number of the certificate that a server with this context shows."""
    with meeting(context, calling) as met:
        assert (met.server_told, met.client_told) == (None, None)
        return int(str((met.client.getpeercert() or {})["serialNumber"]), 16)


def replace(folder: Path, name: str, content: bytes) -> None:
    """Replace a file in one step, as a careful program would."""
    (folder / f".{name}").write_bytes(content)
    (folder / f".{name}").chmod(0o600)
    (folder / f".{name}").replace(folder / name)


def test_one_context_serves_as_long_as_nothing_changes(keys: Path) -> None:
    """A context for each connection would cost memory and time."""
    keyring = Keyring(str(keys), Role.GUEST)
    time.sleep(0.06)  # the folder was made just now, so it is looked at once more
    first = keyring.context()
    for _ in range(100):
        assert keyring.context() is first
    assert keyring.news() == []


def test_a_new_certificate_is_shown_at_the_next_handshake(keys: Path, authority: Made, calling: ssl.SSLContext) -> None:
    """It is said once, and what is connected stays as it is."""
    keyring = Keyring(str(keys), Role.GUEST)
    with meeting(keyring.context(), calling) as met:
        new = new_leaf(authority, "guest", "vm1")
        write_keys(keys, new)
        assert serial(keyring.context(), calling) == new.certificate.serial_number
        met.server.send(b"still here")
        assert met.client.recv(99) == b"still here"
        assert peer_identity(met.server) == Identity(Role.HOST, "n1")
    [news] = keyring.news()
    assert news.startswith(f"the keys in {keys} have changed and are used from here on, until 20")
    assert keyring.news() == []


@pytest.mark.parametrize("order", list(permutations(["cert.pem", "key.pem", "ca.pem"])), ids=" ".join)
def test_half_a_folder_changes_nothing(
    keys: Path, host: Made, authority: Made, tmp_path: Path, order: tuple[str, ...]
) -> None:
    """In whatever order the files of another authority are copied: handshakes go on, and at the end it is used."""
    other = new_authority("successor")
    new = write_keys(tmp_path / "new", new_leaf(other, "guest", "vm1"), other, authority)
    calling = client_context(str(write_keys(tmp_path / "host", host, authority, other)))
    keyring = Keyring(str(keys), Role.GUEST)
    before = serial(keyring.context(), calling)
    told = []
    for step, name in enumerate(order, 1):
        replace(keys, name, (new / name).read_bytes())
        for _ in range(3):
            shown = serial(keyring.context(), calling)
        told += keyring.news()
        assert (shown == before) is (step < len(order))
    assert "are used from here on" in told[-1]
    assert len(told) <= len(order)


def test_what_is_wrong_is_told_once(keys: Path) -> None:
    """A folder that stays wrong is not complained of at every handshake, but when something else is wrong."""
    keyring = Keyring(str(keys), Role.GUEST)
    first = keyring.context()
    whole = (keys / "key.pem").read_bytes()
    for content in (b"", whole[:60]):
        (keys / "key.pem").write_bytes(content)
        for _ in range(5):
            assert keyring.context() is first
        [news] = keyring.news()
        assert news.startswith(
            f"the keys in {keys} have changed, but cannot be used, so those from before stay in use: {keys}/"
        )
    time.sleep(0.06)
    assert keyring.context() is first
    assert keyring.news() == []
    (keys / "key.pem").write_bytes(whole)
    assert keyring.context() is not first
    assert "are used from here on" in keyring.news()[0]


def test_what_is_fresh_is_read_once_more(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that were written just before they were read are read again once they have settled, and no more then."""
    now = max(path.stat().st_ctime for path in keys.iterdir()) + 0.01
    monkeypatch.setattr("cmapp.net.keyring.time.time", lambda: now)
    keyring = Keyring(str(keys), Role.GUEST)
    first = keyring.context()
    assert keyring.context() is first
    now += 1
    second = keyring.context()
    assert second is not first
    assert keyring.context() is second
    assert keyring.news() == []


def test_a_change_within_one_tick_is_seen(keys: Path, authority: Made, calling: ssl.SSLContext) -> None:
    """A file that looks the same may have changed right after it was read: what is fresh is read once more."""
    keyring = Keyring(str(keys), Role.GUEST)
    new = new_leaf(authority, "guest", "vm1")
    stamps = keyring._look
    still, _ = stamps()
    keyring._look = lambda: (still, False)  # type: ignore[method-assign]
    keyring.context()
    write_keys(keys, new)
    keyring.context()
    keyring._look = lambda: (still, True)  # type: ignore[method-assign]
    assert serial(keyring.context(), calling) == new.certificate.serial_number


FITTING: dict[str, Callable[[Made], Made]] = {
    "its role": lambda authority: new_leaf(authority, "host", "vm1"),
    "its authority": lambda _: new_leaf(new_authority("other"), "guest", "vm1"),
    "its key": lambda authority: new_leaf(authority, "guest", "vm1", kind="RSA 1024"),
    "its hash": lambda authority: new_leaf(authority, "guest", "vm1", digest="SHA-1"),
}


@pytest.mark.parametrize("what", FITTING)
def test_unfit_keys_do_not_replace_fit_ones(keys: Path, authority: Made, what: str) -> None:
    """A certificate that nobody would trust, or one of another role, does not take the server away."""
    keyring = Keyring(str(keys), Role.GUEST)
    first = keyring.context()
    write_keys(keys, FITTING[what](authority))
    assert keyring.context() is first
    assert "cannot be used" in keyring.news()[0]


def test_a_certificate_of_tomorrow_waits(keys: Path, authority: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied before its time is used from then on, without another change; the old one serves until then."""
    keyring = Keyring(str(keys), Role.GUEST)
    first = keyring.context()
    write_keys(keys, new_leaf(authority, "guest", "vm1", since=2 * DAY, until=9 * DAY))
    assert keyring.context() is first
    assert "cert.pem is not valid before " in keyring.news()[0]
    with monkeypatch.context() as later:
        later.setattr("cmapp.net.keyring.time.time", (NOW + 3 * DAY).timestamp)
        assert keyring.context() is not first
    assert "are used from here on" in keyring.news()[0]


def test_a_certificate_of_yesterday_is_not_taken(keys: Path, authority: Made) -> None:
    """Somebody copied the wrong folder; but where there is nothing better, it is what there is."""
    keyring = Keyring(str(keys), Role.GUEST)
    first = keyring.context()
    write_keys(keys, new_leaf(authority, "guest", "vm1", since=-9 * DAY, until=-DAY))
    assert keyring.context() is first
    assert "cert.pem has expired on " in keyring.news()[0]
    assert Keyring(str(keys), Role.GUEST).context() is not first


def test_a_revocation_list_counts_from_the_next_handshake(
    keys: Path, authority: Made, host: Made, calling: ssl.SSLContext
) -> None:
    """It is copied beside the keys, and taken away again, without a restart."""
    keyring = Keyring(str(keys), Role.GUEST)
    for lists, word in ((new_list(authority, [host]), "has been revoked"), (b"", "None")):
        if lists:
            (keys / "crl.pem").write_bytes(lists)
        else:
            (keys / "crl.pem").unlink()
        with meeting(keyring.context(), calling) as met:
            assert word in str(met.server_told)


def test_pins_come_and_go(tmp_path: Path) -> None:
    """A pin counts as soon as its file is there, and no longer than it is."""
    guest, host = plain("vm1"), plain("n1")
    keys, folder = write_keys(tmp_path / "guest", guest), write_keys(tmp_path / "host", host)
    pin(keys, "host", "n0", plain())
    pin(folder, "guest", "vm1", guest)
    keyring, calling = Keyring(str(keys), Role.GUEST), client_context(str(folder), peer="vm1")
    for there in (False, True, False):
        if there:
            pin(keys, "host", "n1", host)
        else:
            (keys / "peers" / "host" / "n1.pem").unlink(missing_ok=True)
        with meeting(keyring.context(), calling) as met:
            assert (met.server_told is None) is there


def test_a_manager_finds_new_keys_too(keys: Path, authority: Made, tmp_path: Path) -> None:
    """It dials with what is there then, also where the guest is pinned meanwhile."""
    folder = write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)
    keyring = Keyring(str(folder), Role.HOST, peer="vm1")
    new = new_leaf(authority, "host", "n2")
    write_keys(folder, new)
    with meeting(server_context(str(keys)), keyring.context()) as met:
        assert peer_identity(met.server) == Identity(Role.HOST, "n2")
    pin(folder, "guest", "vm1", plain())
    with meeting(server_context(str(keys)), keyring.context()) as met:
        assert met.client_told is not None


def test_keys_that_cannot_be_used_at_the_start(tmp_path: Path) -> None:
    """There is nothing to go on with then."""
    for role in Role:
        with pytest.raises(SettingsError, match=r"cannot read .*/cert\.pem"):
            Keyring(str(tmp_path), role)


def test_rotation_does_not_leak(keys: Path, authority: Made) -> None:
    """A context that nobody is connected by is gone once it is replaced."""
    keyring = Keyring(str(keys), Role.GUEST)
    made = [new_leaf(authority, "guest", "vm1") for _ in range(20)]
    for one in made:
        write_keys(keys, one)
        keyring.context()
    gc.collect()
    contexts = [found for found in gc.get_objects() if isinstance(found, Context)]
    assert sum(found.trust.keys == str(keys) for found in contexts) == 1
