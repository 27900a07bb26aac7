"""The link over a real pair of sockets: never waiting, never growing, and its end told apart from its loss."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import LinkError, RemoteProtocolError, TrustError
from cmapp.net.link import BARREN_LIMIT, DEAF, Link
from cmapp.net.tls import client_context, server_context

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LIMIT = 1 << 20

Pair = tuple[Link, Link]


@pytest.fixture
def link(key_folders: Path) -> Iterator[Callable[..., Pair]]:
    """Return a function that makes a manager's and a server's link of two connected sockets."""
    links: list[Link] = []

    def make(ours: socket.socket, theirs: socket.socket, *, guest: str = "vm1") -> Pair:
        manager = Link(ours, client_context(str(key_folders / "host")), peer=guest, limit=LIMIT, guest=guest)
        links.append(manager)
        server = Link(theirs, server_context(str(key_folders / "guest")), peer="n1", limit=LIMIT)
        links.append(server)
        return manager, server

    yield make
    for one in links:
        one.close()


@pytest.fixture
def pair(link: Callable[..., Pair]) -> Pair:
    """Return two links to each other, before their handshake."""
    return link(*socket.socketpair())


@pytest.fixture
def joined(pair: Pair) -> Pair:
    """Return two links to each other, after their handshake."""
    return shake_hands(pair)


@pytest.fixture
def joined_by_tcp(link: Callable[..., Pair]) -> Pair:
    """Return two links to each other over TCP, after their handshake."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return shake_hands(link(ours, theirs))


def shake_hands(pair: Pair) -> Pair:
    """Step both ends until both are done."""
    done = [False, False]
    while not all(done):
        done = [ready or link.handshake() for ready, link in zip(done, pair, strict=True)]
    return pair


def forever(step: Callable[[], object]) -> None:
    """Do it again and again: only an error ends it."""
    while True:
        step()


def read_until(link: Link, enough: Callable[[bytes], bool], other: Link) -> bytes:
    """Step both ends until what was read is enough."""
    data = b""
    while not enough(data):
        other.flush()
        piece = link.read()
        assert piece is not None
        data += piece
    return data


def test_handshake_does_not_wait(pair: Pair) -> None:
    """A handshake that cannot go on says so instead of waiting."""
    manager, server = pair
    assert manager.handshake() is False
    assert manager.handshake() is False
    assert server.handshake() is False
    assert server.wants_write is False


def test_small_writes_are_not_held_back(joined_by_tcp: Pair) -> None:
    """Both ends send at once what they are given: no delayed acknowledgement costs 40 ms."""
    assert all(link.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for link in joined_by_tcp)


def test_silent_peers_are_given_up_by_the_kernel(joined_by_tcp: Pair) -> None:
    """Both ends have a backstop of 20 s for a peer that is cut off, whether something waits to be confirmed or not."""
    tcp = socket.IPPROTO_TCP
    for link in joined_by_tcp:
        assert link.sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert link.sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == DEAF * 1000 == 20_000
        idle, every, count = (
            link.sock.getsockopt(tcp, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * count == DEAF


def test_nothing_yet(joined: Pair) -> None:
    """Reading what has not come is nothing, not the end."""
    manager, server = joined
    assert (manager.read(), server.read()) == (b"", b"")


def test_both_ways(joined: Pair) -> None:
    """What is written arrives whole, in both directions, be it larger than a record or than a buffer."""
    manager, server = joined
    for size in (1, 16_384, 16_385, 500_000):
        sent = os.urandom(size)
        for writes, reads in ((manager, server), (server, manager)):
            writes.write(sent)
            assert read_until(reads, lambda data, size=size: len(data) >= size, writes) == sent  # type: ignore[misc]
            assert writes.waiting == 0
            assert writes.wants_write is False


def test_peer_that_does_not_read(joined: Pair) -> None:
    """What the socket does not take waits, up to the limit and not a byte more."""
    manager, _ = joined
    with pytest.raises(LinkError, match="does not read what it is sent"):
        forever(lambda: manager.write(bytes(10_000)))
    assert manager.wants_write
    assert LIMIT - 10_000 < manager.waiting <= LIMIT


def test_peer_that_reads_again(joined: Pair) -> None:
    """What waited goes out when the peer reads, in order and once."""
    manager, server = joined
    sent = os.urandom(LIMIT)
    manager.write(sent[: LIMIT // 2])
    manager.write(sent[LIMIT // 2 :])
    assert manager.wants_write
    assert read_until(server, lambda data: len(data) >= LIMIT, manager) == sent
    assert (manager.waiting, manager.wants_write) == (0, False)


def test_orderly_end(joined: Pair) -> None:
    """The peer's orderly end is told apart from nothing and from a loss, after all that was said before it."""
    manager, server = joined
    manager.write(b"last words")
    manager.hang_up()
    assert read_until(server, lambda data: data == b"last words", manager)
    assert server.read() is None
    assert server.read() is None


def test_loss(joined: Pair) -> None:
    """A connection that breaks without a goodbye is a loss, not an end."""
    manager, server = joined
    manager.close()
    with pytest.raises(LinkError, match="n1 closed the connection"):
        forever(server.read)


def test_writing_to_who_is_gone(joined: Pair) -> None:
    """Writing to a peer that is gone is a LinkError that names it."""
    manager, server = joined
    server.close()
    with pytest.raises(LinkError, match="vm1"):
        forever(lambda: manager.write(bytes(1000)))


def test_last_words_survive_what_is_not_read(joined_by_tcp: Pair) -> None:
    """Who hangs up and drains does not lose its last words to a reset, however much the peer still sends."""
    manager, server = joined_by_tcp
    manager.write(bytes(400_000))
    server.write(b"bye")
    server.hang_up()
    while manager.waiting:
        assert server.drain() is False
        manager.flush()
    assert read_until(manager, lambda data: data == b"bye", server)
    assert manager.read() is None
    manager.close()
    while not server.drain():
        pass


def test_guest_of_another_name(link: Callable[..., Pair]) -> None:
    """A manager that calls one guest and meets another does not trust it, and the guest learns so."""
    manager, server = link(*socket.socketpair(), guest="vm2")
    assert manager.handshake() is False
    assert server.handshake() is False
    with pytest.raises(TrustError, match="vm2 is for another name"):
        manager.handshake()
    with pytest.raises(TrustError, match="n1 refused our certificate"):
        server.handshake()


def test_one_that_only_keeps_us_busy(joined: Pair) -> None:
    """New keys without end, which are no word of ours, end the link; some between words do not."""
    manager, server = joined
    key_update = 27  # bytes
    for _ in range(3):
        server._barren = BARREN_LIMIT - 10 * key_update
        manager.write(b"a word")
        assert read_until(server, lambda data: data == b"a word", manager)
    server._barren = BARREN_LIMIT
    manager.sock.send(b"\x17\x03\x03\x00\x20half of a record")
    with pytest.raises(
        RemoteProtocolError, match="sends and sends, but says nothing: 65557 bytes of TLS's own messages"
    ):
        read_until(server, bool, manager)
