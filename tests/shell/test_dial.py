"""From a name with several addresses to a connected socket."""

from __future__ import annotations

import select
import socket
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import LinkError
from cmapp.host.dial import LIMIT, Dial
from cmapp.net.address import Address

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = 20.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a socket that listens on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port that does not answer: more have called than may wait there."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(0)
        callers = [socket.socket() for _ in range(4)]
        for caller in callers:
            caller.setblocking(False)
            caller.connect_ex(sock.getsockname())
        yield sock.getsockname()[1]
        for caller in callers:
            caller.close()


@pytest.fixture
def closed() -> Iterator[int]:
    """Return a port that nobody listens at."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def dial(monkeypatch: pytest.MonkeyPatch, *ports: int) -> Dial:
    """Return a dial to a name that the resolver knows these ports of."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    return Dial(Address("vm1", 5315))


def connected_to(dial: Dial, now: float) -> int:
    """Go on until the dial is through, and return the port that it is connected to."""
    while (sock := dial.step(now)) is None:
        assert dial.sock is not None
        assert select.select([], [dial.sock], [], SOON)[1]
    with sock:
        assert dial.sock is None
        return int(sock.getpeername()[1])


def test_next_address_after_a_refusal(monkeypatch: pytest.MonkeyPatch, closed: int, listener: socket.socket) -> None:
    """An address where nothing listens costs nothing: the next one is tried in the same attempt."""
    port = listener.getsockname()[1]
    assert connected_to(dial(monkeypatch, closed, port), 0.0) == port


def test_next_address_after_silence(monkeypatch: pytest.MonkeyPatch, silent: int, listener: socket.socket) -> None:
    """An address that does not answer has its share of the time, and no more."""
    port = listener.getsockname()[1]
    calling = dial(monkeypatch, silent, port)
    assert calling.step(100.0) is None
    assert calling.deadline == 100.0 + LIMIT / 2
    assert calling.step(calling.deadline - 0.1) is None
    assert connected_to(calling, calling.deadline) == port


def test_no_address_is_left(monkeypatch: pytest.MonkeyPatch, silent: int, closed: int) -> None:
    """The reason of each address is told."""
    calling = dial(monkeypatch, silent, closed)
    assert calling.step(0.0) is None
    with pytest.raises(LinkError) as error:
        connected_to(calling, LIMIT)
    assert str(error.value) == (
        "vm1:5315: 127.0.0.1: no answer within 4.5 s; it may be down, hung or behind a firewall;"
        " 127.0.0.1: nothing listens there; is cmappserver running?"
    )


def test_dial_is_given_up(monkeypatch: pytest.MonkeyPatch, silent: int) -> None:
    """Whoever gives up leaves no socket behind."""
    calling = dial(monkeypatch, silent)
    calling.step(0.0)
    calling.close()
    assert calling.sock is None
