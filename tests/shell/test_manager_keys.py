"""The keys of a manager that watches: renewed under it, pinned, and told of before they expire."""

from __future__ import annotations

import select
import signal
import socket
import ssl
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.errors import TrustError
from cmapp.net.identity import Identity, Role
from cmapp.net.tls import peer_identity, server_context
from tests.shell.certificates import DAY, Made, new_authority, new_leaf, pin, plain, write_keys
from tests.shell.manager_bed import SOON, Guest, Peer, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.shell.manager_bed import Manager

RARELY = ("--poll-interval", "1h")


@pytest.fixture(scope="module")
def authority() -> Made:
    """Return an authority."""
    return new_authority("company")


@pytest.fixture
def guest(authority: Made, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call, with keys of the test's own."""
    write_keys(tmp_path / "host", new_leaf(authority, "host", "n1"), authority)
    write_keys(tmp_path / "guest", new_leaf(authority, "guest", "vm1"), authority)
    made = Guest(tmp_path, tmp_path)
    yield made
    made.close()


def end(manager: Manager, peer: Peer, launch: m.Launch) -> None:
    """Have the run end."""
    peer.say(m.Exited(receipt(launch, Exited(7))))
    assert manager.ends() == 7


def test_it_returns_with_new_keys(guest: Guest, authority: Made) -> None:
    """The link that is there stays, and the next one is made by the keys of then."""
    manager, peer, launch = guest.launched(*RARELY)
    assert peer_identity(peer.link.tls) == Identity(Role.HOST, "n1")
    write_keys(guest.folder / "host", new_leaf(authority, "host", "n2"))
    peer.reset()
    again = guest.accept()
    assert peer_identity(again.link.tls) == Identity(Role.HOST, "n2")
    again.reattach()
    manager.says("have changed and are used from here on, until 20")
    end(manager, again, launch)


def test_it_returns_with_the_old_keys_while_the_new_ones_are_no_use(guest: Guest, authority: Made) -> None:
    """A certificate that came without its key does not keep it from its application."""
    manager, peer, launch = guest.launched(*RARELY)
    cert = guest.folder / "host" / "cert.pem"
    cert.write_bytes(new_leaf(authority, "host", "n2").pem)
    peer.reset()
    again = guest.accept()
    assert peer_identity(again.link.tls) == Identity(Role.HOST, "n1")
    again.reattach()
    assert "key.pem is not the key of" in manager.says("have changed, but cannot be used, so those from before stay")
    end(manager, again, launch)


def test_it_calls_a_guest_that_is_pinned(guest: Guest) -> None:
    """Two that vouch for themselves need no authority, and the name of the file is the guest's name."""
    host, other = plain("n1"), plain("vm1")
    for name in ("host", "guest"):
        (guest.folder / name / "ca.pem").unlink()
    write_keys(guest.folder / "host", host)
    write_keys(guest.folder / "guest", other)
    pin(guest.folder / "host", "guest", "vm1", other)
    pin(guest.folder / "guest", "host", "node1", host)
    manager, peer, launch = guest.launched(*RARELY)
    assert peer_identity(peer.link.tls) == Identity(Role.HOST, "node1")
    end(manager, peer, launch)


def test_a_guest_that_is_not_the_pinned_one_is_left(guest: Guest) -> None:
    """An authority that the host trusts does not help another to be the pinned guest."""
    pin(guest.folder / "host", "guest", "vm1", plain("vm1"))
    manager = guest.call()
    peer = guest.accept(shakes=False)
    with pytest.raises(TrustError, match="refused our certificate"):
        peer.shake()
    assert manager.ends() == 122
    assert "the certificate of vm1 " in manager.lines()[-1]


def test_what_expires_is_in_the_package_log(guest: Guest, authority: Made) -> None:
    """The manager's own certificate at once, and the guest's once it has shown it, each once."""
    write_keys(guest.folder / "host", new_leaf(authority, "host", "n1", until=9 * DAY))
    write_keys(guest.folder / "guest", new_leaf(authority, "guest", "vm1", until=5 * DAY))
    manager, peer, launch = guest.launched(*RARELY)
    own = manager.says(f"our certificate, {guest.folder}/host/cert.pem, expires in 9 days, on ")
    assert "WARNING" in own
    assert "WARNING" in manager.says("the certificate of vm1 expires in 5 days, on ")
    end(manager, peer, launch)
    assert sum("expires in 5 days" in line for line in manager.lines()) == 1


def test_weak_keys_are_told_before_anything_is_connected(guest: Guest, authority: Made) -> None:
    """A host whose key nobody would accept does not try for a minute."""
    write_keys(guest.folder / "host", new_leaf(authority, "host", "n1", kind="RSA 1024"))
    manager = guest.call()
    assert manager.ends() == 125
    [line] = manager.lines()
    assert line.endswith(
        "host/cert.pem holds a key that is too weak: issue one with RSA of 2048 bits or more, EC of 256 or more,"
        " or Ed25519"
    )


def test_what_comes_with_the_handshake_is_heard(guest: Guest) -> None:
    """A server that hangs up at once may be read together with the last of the handshake, of which no poll tells."""
    context = server_context(str(guest.folder / "guest"), allow_tls12=True)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        keys = str(guest.folder / "host")
        manager = guest.start("--keys", keys, "--allow-tls12", "--address", address, "vm1", "--", "web")
        peer = Peer(listener.accept()[0], context)
        waiting = select.poll()
        waiting.register(peer.link, select.POLLIN)
        for _ in range(2):  # the manager's hello, and its certificate, after which it waits
            assert waiting.poll(SOON * 1000)
            manager.freeze()
            proven = peer.link.handshake()
            if proven:
                peer.say(m.Bye("this guest is full"))
            manager.signal(signal.SIGCONT)
        assert proven
        manager.says("vm1 hung up: this guest is full")
        peer.close()
