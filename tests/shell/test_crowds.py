"""Crowds at the port: who is in is served on, who comes from elsewhere gets in, and a host's own managers queue."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited
from tests.shell.crowd_bed import OTHER, RECORD, Herd, Strangers, client_hello, fragments, undisturbed
from tests.shell.served import COMMAND, SOON

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

HELLO = client_hello()
KINDS = {
    "silent": b"",
    "begun": RECORD,
    "greeted": HELLO,
    "not TLS": b"GET / HTTP/1.1\r\n\r\n",
    "in pieces": fragments(HELLO),
    "a long hello in pieces": fragments(b"\x16\x03\x01\xff\xff" + b"\1\0\xff\xff" + bytes(10_000)),
}


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
def test_who_is_in_is_served_on(serve: Callable[..., Served], call: Callable[..., Caller], data: bytes) -> None:
    """500 strangers, whatever they say, cost a manager that is in no more than moments."""
    server = serve()
    there = call(server)
    there.launch("sleep", "1000")
    with Strangers(server.port, 0, data) as crowd:
        coming = threading.Thread(target=crowd.add, args=(500,))
        coming.start()
        try:
            undisturbed(there, 2.0)
        finally:
            coming.join()
    assert call(server).run("true").outcome == Exited(0)


def test_crowd_from_one_address(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A crowd that does not go on with its handshakes fills its own places: from elsewhere one gets in at once."""
    server = serve("--max-handshakes", "4", "--max-handshakes-per-address", "3", "--handshake-timeout", "1m")
    with Strangers(server.port, 100, HELLO):
        began = time.monotonic()
        for _ in range(5):
            assert call(server).run("true").outcome == Exited(0)
        assert time.monotonic() - began < 5


def test_crowd_from_many_addresses(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Sources that have more than their share of all places make room for one that has none."""
    server = serve("--max-handshakes", "8", "--max-handshakes-per-address", "2", "--handshake-timeout", "1m")
    crowds = [Strangers(server.port, 20, HELLO, f"127.0.1.{number}") for number in range(1, 9)]
    try:
        began = time.monotonic()
        assert call(server).run("true").outcome == Exited(0)
        assert time.monotonic() - began < 5
    finally:
        for crowd in crowds:
            crowd.__exit__()


def test_crowd_from_ones_own_address(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Who shares its address with a crowd stands in its queue, in which those who do not go on give way."""
    server = serve("--max-handshakes-per-address", "4", "--handshake-timeout", "1m")
    with Strangers(server.port, 300, HELLO, "127.0.0.1"):
        assert call(server).run("true").outcome == Exited(0)


def test_thousand_managers_of_one_host(serve: Callable[..., Served], key_folders: Path) -> None:
    """When a server comes back, all managers of one host come at once: they queue, and nobody is turned away."""
    server = serve()
    herd = Herd(server.port, key_folders / "host", 1000)
    try:
        took = herd.get_in(SOON)
    finally:
        herd.close()
    assert "gives way" not in server.log, f"within {took:.1f} s"
    assert "turned away" not in server.log


def test_more_strangers_than_may_wait(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Those who wait are bounded by the descriptors that there are; the first of the largest crowd goes."""
    shell = ("/bin/sh", "-c", 'ulimit -n 512; exec "$@"', "sh")
    server = serve("--max-applications", "10", "--handshake-timeout", "1m", command=(*shell, *COMMAND))
    before = server.descriptors
    with Strangers(server.port, 300) as crowd:
        crowd.turned_away(300 - 64)
        assert server.descriptors <= before + 64
        assert call(server).run("true").outcome == Exited(0)
        with Strangers(server.port, 1, source=OTHER.replace("66", "67")) as one:
            crowd.add(50)
            crowd.turned_away(0)
            one.socks[0].settimeout(0.2)
            with pytest.raises(TimeoutError):  # it is there still
                one.socks[0].recv(1)


def test_what_strangers_can_have_logged(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Of a crowd the first few are in the log, and how many more there were."""
    server = serve()
    with Strangers(server.port, 300, b"GET / HTTP/1.1\r\n\r\n") as crowd:
        crowd.turned_away(300)
    assert call(server).run("true").outcome == Exited(0)
    server.stop()
    assert server.log.count("does not speak TLS") == 10
    server.logged("turned away: and 290 more such lines in 10 s")
