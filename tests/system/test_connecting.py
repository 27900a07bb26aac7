"""Ways to a guest: addresses as people write them, guests that are not up yet, and guests that never are."""

from __future__ import annotations

import os
import re
import socket
import time
from typing import TYPE_CHECKING

import pytest

from tests.system import peers
from tests.system.serving import free_port

if TYPE_CHECKING:
    from tests.system.bed import Bed

UNREACHABLE = "exit code 123 means that the server was unreachable"


def has_ipv6_loopback() -> bool:
    """Tell whether this machine can call itself by IPv6."""
    try:
        return free_port("::1") > 0
    except OSError:
        return False


def localhost_is_ipv4() -> bool:
    """Tell whether the resolver knows localhost."""
    return peers.LOOPBACK in {found[4][0] for found in socket.getaddrinfo("localhost", 1, type=socket.SOCK_STREAM)}


@pytest.mark.parametrize("guest", ["127.0.0.1:{port}", "localhost:{port}"])
def test_guest_by_address_or_name(bed: Bed, guest: str) -> None:
    """A guest is reached by its IPv4 address or its name, each with a port, as its certificate has both."""
    if "localhost" in guest and not localhost_is_ipv4():
        pytest.skip("localhost is not 127.0.0.1 on this machine")
    guest = guest.format(port=bed.server.port)
    manager = bed.run("/bin/sh", "-c", "exit 6", guest=guest)
    assert manager.wait() == 6
    assert f" {manager.name} on {guest.partition(':')[0]}: " in manager.last_line


@pytest.mark.skipif(not has_ipv6_loopback(), reason="this machine has no IPv6 loopback")
def test_guest_by_ipv6_address(bed: Bed) -> None:
    """A guest that listens on IPv6 is reached by its address in brackets."""
    server = bed.serve(listen="[::1]:0")
    assert bed.run("/bin/sh", "-c", "exit 6", guest=f"[::1]:{server.port}").wait() == 6


def test_port_of_its_own(bed: Bed) -> None:
    """Without a port, 5315 is called."""
    # All of 127/8 is this machine: on one that is made of our process id the port is free.
    address = f"127.53.{os.getpid() // 250 % 250}.{os.getpid() % 250 + 1}"
    bed.serve(listen=address, keys=bed.keys.issue("guest", address))
    assert bed.run("/bin/sh", "-c", "exit 6", guest=address).wait() == 6


def test_address_apart_from_the_name(bed: Bed) -> None:
    """With --address a guest is called there, and its certificate must bear the name all the same."""
    options = ["--address", f"127.0.0.1:{bed.server.port}", "--connect-timeout", "500ms"]
    assert bed.run("/bin/sh", "-c", "exit 6", guest="vm1", options=options).wait() == 6
    assert bed.run("/bin/sh", "-c", "exit 6", guest="vm2", options=options).wait() == 122


def test_guest_that_comes_up_later(bed: Bed) -> None:
    """A manager that was started before its guest tries on, says so once, and launches when the guest is there."""
    port = free_port()
    manager = bed.start("/bin/sh", "-c", "exit 6", guest=f"127.0.0.1:{port}", options=["--connect-timeout", "60"])
    manager.until_log("not reached yet, attempt 1: .*nothing listens there")
    bed.serve(listen=f"127.0.0.1:{port}")
    assert manager.wait() == 6
    assert manager.log.count("not reached yet") == 1


def test_guest_that_is_slow_to_answer(bed: Bed) -> None:
    """A guest that breaks the first connections off is tried again until it greets."""
    with peers.listener(peers.hang_up) as port:
        manager = bed.start("/bin/sh", "-c", "exit 6", guest=f"127.0.0.1:{port}", options=["--connect-timeout", "60"])
        manager.until_log("not reached yet, attempt 1: .*closed the connection")
    bed.serve(listen=f"127.0.0.1:{port}")
    assert manager.wait() == 6


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        pytest.param(None, "nothing listens there", id="nobody-listens"),
        pytest.param(peers.say_nothing, "", id="accepts-and-says-nothing"),
        pytest.param(peers.hang_up, "closed the connection", id="hangs-up"),
    ],
)
def test_guest_that_never_comes_up(bed: Bed, serve: object, reason: str) -> None:
    """A guest that cannot be reached is given up after --connect-timeout, not before, not much later: 123 and why."""
    assert serve is None or callable(serve)
    begin = time.monotonic()
    options = ["--connect-timeout", "800ms"]
    if serve is None:
        manager = bed.run("/bin/true", guest=f"127.0.0.1:{free_port()}", options=options)
    else:
        with peers.listener(serve) as port:
            manager = bed.run("/bin/true", guest=f"127.0.0.1:{port}", options=options)
    assert 0.8 <= time.monotonic() - begin < 3
    assert manager.wait() == 123
    assert f"no connection within 0.8 s{': ' if reason else ''}" in manager.last_line
    assert reason in manager.last_line
    assert UNREACHABLE in manager.last_line
    assert manager.result["cause"] == "unreachable"


def test_unknown_name(bed: Bed) -> None:
    """A name that nobody knows is tried until the limit, for a resolver can be down too: 123, and the name is told."""
    manager = bed.run("/bin/true", guest="no-such-guest.invalid", options=["--connect-timeout", "300ms"])
    assert manager.wait() == 123
    assert "the name no-such-guest.invalid cannot be resolved" in manager.last_line


def test_wrong_port(bed: Bed) -> None:
    """Where something other than TLS answers, trying on is useless: 122 at once, and the log says what to check."""
    with peers.listener(peers.greet_plainly) as port:
        begin = time.monotonic()
        manager = bed.run("/bin/true", guest=f"127.0.0.1:{port}", options=["--connect-timeout", "30"])
        assert time.monotonic() - begin < 10
    assert manager.wait() == 122
    assert re.search("does not speak TLS: check the port", manager.last_line)
