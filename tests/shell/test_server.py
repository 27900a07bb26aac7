"""Whoever calls the port: nobody gets in without proof, nobody takes the server down, and everybody learns why."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import time
import uuid
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.core.wire import LINE_LIMIT, encode
from cmapp.net.refusals import ALPN
from tests.shell.served import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

SOON = 30.0
NOISE = (
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\0" * 1000,
    b"SSH-2.0-x\r\n",
    b'{"type":"hello","id":1}\n',
    os.urandom(5000),
)
HELLO = encode(m.Hello(1, (1,)))
RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"


class Knock:
    """A TCP connection to the server that has not proven anything."""

    def __init__(self, server: Served, data: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port), SOON)
        self.sock.sendall(data)

    @property
    def name(self) -> str:
        """How the server calls it."""
        host, port = self.sock.getsockname()
        return f"{host}:{port}"

    def turned_away(self) -> bool:
        """Wait until the server has hung up."""
        try:
            while self.sock.recv(65536):
                pass
        except ConnectionResetError:
            pass
        return True


@pytest.fixture
def knock() -> Iterator[Callable[..., Knock]]:
    """Return a function that makes a TCP connection, closed at the end."""
    knocks: list[Knock] = []

    def make(server: Served, data: bytes = b"") -> Knock:
        knocks.append(Knock(server, data))
        return knocks[-1]

    yield make
    for one in knocks:
        one.sock.close()


@pytest.mark.parametrize("noise", NOISE, ids=["http", "zeros", "ssh", "ours without TLS", "random"])
def test_noise(served: Served, call: Callable[..., Caller], knock: Callable[..., Knock], noise: bytes) -> None:
    """What does not speak TLS is hung up on, and the log says who and why."""
    one = knock(served, noise)
    assert one.turned_away()
    served.logged(f"turned away: {one.name} ")
    assert call().run("true").outcome == Exited(0)


def test_certificate_of_a_guest(served: Served, key_folders: Path, call: Callable[..., Caller]) -> None:
    """A guest's key cannot act as a manager, and the foreign authority's cannot act at all."""
    for keys, why in (("guest", "other role"), ("host-foreign", "authority")):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(key_folders / "host" / "ca.pem")
        context.load_cert_chain(key_folders / keys / "cert.pem", key_folders / keys / "key.pem")
        context.set_alpn_protocols([ALPN])
        since = len(served.lines)
        sock = socket.create_connection(("127.0.0.1", served.port), SOON)
        with context.wrap_socket(sock, server_hostname="vm1") as tls, pytest.raises(OSError, match="alert"):
            tls.recv(4096)
        served.logged(f"turned away: .*{why}", since=since)
    assert call().welcome.version == 1


def test_no_certificate_and_other_protocols(serve: Callable[..., Served], key_folders: Path) -> None:
    """Who shows no certificate, or speaks TLS for something else, or too old a TLS, is turned away.

    A server of its own says so: on one that was called by others just before, these lines may be one too many.
    """
    server = serve()
    plain = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    plain.set_alpn_protocols([ALPN])
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    other.set_alpn_protocols(["h2"])
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    for context, why in (
        (plain, "showed no certificate"),
        (other, "not cmapp/1|no certificate"),
        (old, "no TLS version"),
    ):
        context.load_verify_locations(key_folders / "host" / "ca.pem")
        if context is not plain:
            context.load_cert_chain(key_folders / "host" / "cert.pem", key_folders / "host" / "key.pem")
        since = len(server.lines)
        with socket.create_connection(("127.0.0.1", server.port), SOON) as sock:
            try:
                with context.wrap_socket(sock, server_hostname="vm1") as tls:
                    assert tls.recv(4096) == b""
            except OSError:
                pass
        server.logged(f"turned away: .*{why}", since=since)


def test_half_a_handshake(
    serve: Callable[..., Served], call: Callable[..., Caller], knock: Callable[..., Knock]
) -> None:
    """A connection that does not prove itself in time is closed, whatever it said; one that did stays."""
    server = serve("--handshake-timeout", "500ms")
    caller = call(server)
    silent, slow = knock(server), knock(server, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03")
    assert silent.turned_away()
    assert slow.turned_away()
    for one in (silent, slow):
        server.logged(f"{one.name} has not proven itself in time")
    assert caller.run("true").outcome == Exited(0)


def test_manager_that_never_greets(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A manager that proved itself but says nothing does not keep its place for ever."""
    assert "nothing was heard" in call(serve("--handshake-timeout", "500ms"), greet=False).bye()


def test_flood_of_handshakes(
    serve: Callable[..., Served], call: Callable[..., Caller], knock: Callable[..., Knock]
) -> None:
    """Beyond the cap of handshakes those who do not go on give way: a manager gets in, and who is in is served."""
    server = serve("--max-handshakes", "4")
    there = call(server)
    there.launch("sleep", "1000")
    flood = [knock(server, b"\x16\x03\x01") for _ in range(50)]
    come = call(server)
    assert come.run("true").outcome == Exited(0)
    assert there.report().state is m.Phase.RUNNING
    assert all(one.turned_away() for one in flood[:46])
    server.logged("gives way")


def test_stop_does_not_wait_for_the_unproven(serve: Callable[..., Served], knock: Callable[..., Knock]) -> None:
    """Who has not proven anything is told nothing and holds up nothing."""
    server = serve()
    one, two = knock(server), knock(server, b"\x16\x03\x01")
    before = time.monotonic()
    server.stop()
    assert time.monotonic() - before < 2
    assert one.sock.recv(100) == b""
    assert two.turned_away()


def test_more_managers_than_allowed(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """One manager more than the cap is told so and hung up on; when another leaves, there is room."""
    server = serve("--max-connections", "2")
    first, second = call(server), call(server)
    assert "max_connections" in call(server, greet=False).bye()
    assert first.run("true").outcome == Exited(0)
    assert second.welcome.version == 1
    first.close()
    assert until(lambda: admitted(call(server, greet=False)), "there is room again")


def admitted(caller: Caller) -> bool:
    """Greet, and tell whether the server has room."""
    caller.say(m.Hello, versions=m.VERSIONS)
    if isinstance(caller.hear(), m.Welcome):
        return True
    caller.close()
    return False


LAUNCH = b'{"type":"launch","id":7,"name":"bad","run_id":"%s","argv":["sleep","9"]}\n' % RUN_ID.encode()
OTHER = LAUNCH.replace(b"01234567", b"76543210").replace(b'"bad"', b'"worse"')
BAD = {
    "not JSON": (b"nonsense\n", "not JSON"),
    "not UTF-8": (b'{"type":"\xff"}\n', "not UTF-8"),
    "not an object": (b"[1]\n", "not a JSON object"),
    "empty": (b"\n", "not JSON"),
    "no type": (b'{"id":1}\n', "without a type"),
    "type of a wrong type": (b'{"type":7,"id":1}\n', "without a type"),
    "deep": (b"[" * 60_000 + b"\n", "nested too deeply|not JSON"),
    "number without end": (b'{"type":"poll","id":' + b"9" * 20_000 + b"}\n", "not JSON|whole number"),
    "twice the same key": (b'{"type":"poll","id":7,"id":8}\n', "twice"),
    "a bad field": (b'{"type":"launch","id":7,"name":"../x","run_id":"x","argv":[]}\n', "a bad launch: "),
    "a missing field": (b'{"type":"launch","id":7}\n', "a bad launch: "),
    "out of order": (b'{"type":"tail","id":7}\n', "tail is not for a link that is open"),
    "a second hello": (b'{"type":"hello","id":7,"versions":[1]}\n', "hello is not for"),
    "too long": (b"x" * LINE_LIMIT, "more than 65536 bytes"),
    "1 MB without a newline": (b"x" * (1 << 20), "more than 65536 bytes"),
    "two launches": (LAUNCH + LAUNCH.replace(b":7,", b":8,"), "launch is not for"),
    "an id twice": (OTHER + b'{"type":"poll","id":7}\n', "second request with the id 7"),
}


@pytest.mark.parametrize(("line", "why"), BAD.values(), ids=BAD)
def test_bad_line(served: Served, call: Callable[..., Caller], line: bytes, why: str) -> None:
    """A line that the protocol does not allow ends the link with a reason that both sides have."""
    caller, since = call(), len(served.lines)
    caller.send(line)
    reason = caller.bye()
    assert re.search(why, reason), reason
    served.logged(f"manager n1 at .*({why})", since=since)
    assert call().run("true").outcome == Exited(0)


@pytest.mark.parametrize("line", [b'{"type":"poll","id":1}\n', b'{"type":"fly","id":1}\n', b"x\n"])
def test_bad_first_line(call: Callable[..., Caller], line: bytes) -> None:
    """Nothing is said before hello, be it otherwise right or wrong."""
    caller = call(greet=False)
    caller.send(line)
    assert caller.bye()


def test_unknown_request(call: Callable[..., Caller], served: Served) -> None:
    """A request of a later version is refused by name, an unknown push is passed over, and the link goes on."""
    caller, since = call(), len(served.lines)
    caller._session._unanswered[99] = m.Poll.word  # our own session must think that it has asked
    caller.send(b'{"type":"fly","id":99,"to":"the moon"}\n{"type":"gossip"}\n')
    refusal = caller.await_(m.Refused)
    assert (refusal.id, refusal.code, "fly" in refusal.text) == (99, "unknown-type", True)
    served.logged("asked for gossip", since=since)
    assert caller.run("true").outcome == Exited(0)


def test_unknown_keys(call: Callable[..., Caller]) -> None:
    """Keys that this version does not know are passed over."""
    caller = call(greet=False)
    caller._session.send(m.Hello(1, (1,)))
    caller.send(HELLO.replace(b"{", b'{"mood":{"deep":[1,null]},', 1))
    assert caller.await_(m.Welcome).version == 1


def test_version_that_is_not_spoken(call: Callable[..., Caller]) -> None:
    """A manager of another time is refused by the version, however many it offers, and the link ends."""
    for versions in ((2,), (0, 99), tuple(range(10**9, 10**9 + 4000))):
        caller = call(greet=False)
        caller.say(m.Hello, versions=versions)
        assert caller.await_(m.Refused).code == "version"
        assert caller.hear() is None


def test_pieces_and_heaps(call: Callable[..., Caller]) -> None:
    """Requests are understood however they are cut, and several at once are answered in order."""
    caller = call()
    launch = m.Launch(500, "pieces", str(uuid.uuid4()), ("sleep", "1000"))
    for byte in caller._session.send(launch):
        caller.send(bytes([byte]))
    assert caller.await_(m.Launched).id == 500
    caller.send(b"".join(caller._session.send(m.Poll(number)) for number in range(600, 660)))
    assert [caller.await_(m.Report).id for _ in range(60)] == list(range(600, 660))


def test_nobody_forges_a_log_line(served: Served, call: Callable[..., Caller]) -> None:
    """Whatever stands in a command, a version or a goodbye, it stays within its line of the log."""
    forged = "\nNov 22 10:00:00 ERROR: forged \x1b[31m\u2028 \x85"
    since = len(served.lines)
    caller = call()
    caller.refused(f"/nowhere{forged}")
    caller.say(m.Bye, reason=forged)
    other = call()
    other.send(json.dumps({"type": f"x{forged}"}).encode() + b"\n")
    other.send(json.dumps({"type": "launch", f"{forged}": 1, "env": {f"={forged}": ""}}).encode() + b"\n")
    other.bye()
    lines = served.lines[since:]
    assert any("forged" in line for line in lines)
    assert not [line for line in lines if line.startswith("Nov 22 10:00:00 ERROR: forged")]
    assert all(line.isprintable() for line in lines)
