"""A server among strangers: what they say or do not say never keeps it from its work."""

from __future__ import annotations

import os
import socket
import ssl
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.system.peers import LOOPBACK, PATIENCE, Client, client_context, line
from tests.system.processes import until

if TYPE_CHECKING:
    from tests.system.bed import Bed
    from tests.system.server import Server

HELLO = {"type": "hello", "id": 1, "versions": [1]}
NONSENSE = {
    "http": b"GET / HTTP/1.1\r\nHost: vm1\r\n\r\n",
    "random": os.urandom(4096),
    "json-without-tls": line(HELLO),
    "truncated-client-hello": b"\x16\x03\x01\x02\x00\x01\x00",
    "zeros": bytes(70_000),
}
BAD_LINES = {
    "not-json": b"hello\n",
    "not-utf-8": b'{"type":"\xff"}\n',
    "not-an-object": b"[1,2,3]\n",
    "no-type": b'{"id":1}\n',
    "deep": b"[" * 60_000 + b"\n",
    "huge-number": b'{"type":"hello","id":' + b"9" * 60_000 + b',"versions":[1]}\n',
    "launch-before-hello": b'{"type":"launch","id":1,"name":"x","run_id":"0","argv":["/bin/true"]}\n',
    "what-a-server-says": b'{"type":"welcome","id":1,"version":1}\n',
}


def call(server: Server) -> socket.socket:
    """Return a TCP connection to the server."""
    return socket.create_connection((LOOPBACK, server.port), PATIENCE)


def hears_end(sock: socket.socket) -> bool:
    """Tell whether the peer closes the connection."""
    try:
        while sock.recv(65536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        pass
    return True


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_no_tls(bed: Bed, nonsense: str) -> None:
    """Whoever speaks no TLS is hung up on in time, and a manager is served meanwhile."""
    server = bed.serve("--handshake-timeout", "700ms")
    with call(server) as stranger:
        stranger.sendall(NONSENSE[nonsense])
        assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
        assert hears_end(stranger)


def test_half_a_handshake(bed: Bed) -> None:
    """A peer that begins a handshake and goes silent is let go after --handshake-timeout, not before."""
    server = bed.serve("--handshake-timeout", "1500ms")
    out = ssl.MemoryBIO()
    client = client_context(bed.keys.host).wrap_bio(ssl.MemoryBIO(), out, server_hostname=LOOPBACK)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    hello = out.read()
    begin = time.monotonic()
    with call(server) as first_half, call(server) as nothing_at_all, call(server) as all_but_the_end:
        first_half.sendall(hello[: len(hello) // 2])
        all_but_the_end.sendall(hello)
        assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
        assert all(map(hears_end, (first_half, nothing_at_all, all_but_the_end)))
    assert 1.5 <= time.monotonic() - begin < 6
    assert server.log.count("has not proven itself in time") == 3


def test_more_unfinished_handshakes_than_allowed(bed: Bed) -> None:
    """However many connections prove nothing, a manager gets in: the oldest of them gives way."""
    bed.serve("--max-handshakes", "8", "--handshake-timeout", "60s")
    with ExitStack() as stack:
        strangers = [stack.enter_context(call(bed.server)) for _ in range(40)]
        for stranger in strangers:
            stranger.sendall(b"\x16\x03\x01")
        assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
        assert hears_end(strangers[0])


def test_connections_beyond_the_limit(bed: Bed) -> None:
    """A manager beyond the limit is told so, those that are in stay, and there is room again when one has left."""
    bed.serve("--max-connections", "2", "--max-handshakes", "1")
    clients = [Client(bed.server.port, bed.keys.host) for _ in range(2)]
    for client in clients:
        assert client.greet()["type"] == "welcome"
    beyond = Client(bed.server.port, bed.keys.host)
    assert beyond.hear() == {"type": "bye", "reason": "2 managers are connected, which is max_connections"}
    beyond.close()
    clients[0].close()
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
    clients[1].ask("status")
    assert clients[1].hear() == {"type": "runs", "id": 2}
    clients[1].close()


def test_a_megabyte_without_a_newline(bed: Bed) -> None:
    """A proven manager that sends 1 MB without a newline is told why it is hung up on, and others are served on."""
    server = bed.serve()
    bystander = bed.start("/bin/sleep", "1000", options=["--poll-interval", "50ms"])
    bystander.until_launched()
    client = Client(server.port, bed.keys.host)
    assert client.greet()["type"] == "welcome"
    try:
        client.tls.sendall(b"x" * 1_000_000)
    except OSError:
        pass  # it hung up before it had read all of it
    assert client.hear() == {"type": "bye", "reason": "a line of more than 65536 bytes"}
    client.close()
    until(lambda: "a line of more than 65536 bytes" in server.log, "a word in the server's log")
    bystander.process.terminate()
    assert bystander.wait() == 143


@pytest.mark.parametrize("bad", BAD_LINES)
def test_bad_line(bed: Bed, bad: str) -> None:
    """A line that is not the protocol's ends the connection with a reason, in the server's log too."""
    server = bed.serve()
    client = Client(server.port, bed.keys.host)
    client.tls.sendall(BAD_LINES[bad])
    said = client.hear()
    assert said["type"] == "bye"
    assert said["reason"]
    assert client.hear() == {}
    client.close()
    assert str(said["reason"]) in server.log
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6


def test_unknown_type_and_key(bed: Bed) -> None:
    """A request of a later version is refused by name, an unknown key is ignored, and the connection goes on."""
    client = Client(bed.server.port, bed.keys.host)
    client.ask("hello", versions=[1, 99], colour="blue")
    assert client.hear()["version"] == 1
    client.ask("freeze", hard=True)
    refused = client.hear()
    assert (refused["type"], refused["id"], refused["code"]) == ("refused", 2, "unknown-type")
    assert "freeze" in refused["text"]
    client.ask("status")
    assert client.hear()["type"] == "runs"
    client.close()


def test_no_version_in_common(bed: Bed) -> None:
    """A manager that speaks no version of ours is refused with both told."""
    client = Client(bed.server.port, bed.keys.host)
    client.ask("hello", versions=[98, 99])
    refused = client.hear()
    assert (refused["type"], refused["code"]) == ("refused", "version")
    assert client.hear() == {}
    client.close()
