"""Managers that are slow, silent or want too much: proven, and bounded all the same."""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.core.rules import OrphanRules
from cmapp.core.wire import encode
from cmapp.errors import LinkError
from cmapp.guest.channel import ENOUGH
from cmapp.guest.connection import SEND_LIMIT
from tests.shell.crowd_bed import undisturbed
from tests.shell.served import MAIN, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

# The server as it is, but for the times that it gives its peers.
HASTE = """
import cmapp.guest.channel as channel, cmapp.guest.connection as connection
channel.TAKEN_IN = connection.LINE_TIME = 1.5
"""
HASTY = (sys.executable, "-c", HASTE + MAIN)
WRITES = ("sh", "-c", "head -c 100000 /dev/zero; exec sleep 1000")


def polls(first: int, count: int) -> bytes:
    """Return that many polls in one piece."""
    return b"".join(encode(m.Poll(number)) for number in range(first, first + count))


def test_answers_in_turns(call: Callable[..., Caller]) -> None:
    """However many requests come at once, each is answered, in order, and a stop among them is heard."""
    caller = call()
    caller.launch("sleep", "1000")
    caller.send(polls(1000, 3000) + encode(m.Stop(99_999)))
    answers: list[dict[str, object]] = []
    rest = b""
    while not rest.endswith(b'"done"}\n') and len(answers) < 3001:
        *lines, rest = (rest + (caller.link.read() or b"")).split(b"\n")
        answers += [json.loads(line) for line in lines]
    assert [answer["id"] for answer in answers if "id" in answer][:3001] == [*range(1000, 4000), 99_999]


def test_flood_of_polls(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A manager that asks without end, and reads, does not keep the others waiting."""
    server = serve()
    there, flood = call(server), call(server)
    there.launch("sleep", "1000")
    flood.launch("sleep", "1000")
    ends = threading.Event()

    def ask() -> None:
        number = 1000
        with suppress(LinkError, OSError):
            while not ends.is_set():
                if flood.link.waiting < 1 << 20:
                    flood.link.write(polls(number, 500))
                    number += 500
                flood.link.read()
                flood.link.flush()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        undisturbed(there, 2.0)
    finally:
        ends.set()
        asking.join()
        flood.close()


def test_who_does_not_read_is_not_heard(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """What waits for a manager that asks and does not read is bounded by not hearing it; in time it is let go."""
    server = serve(command=HASTY)
    caller = call(server)
    caller.launch(*WRITES, orphan=OrphanRules(timeout=0))
    asked, began = 0, time.monotonic()
    with suppress(LinkError):
        while "does not read what it is sent" not in server.log:
            if caller.link.waiting < 1 << 20:
                caller.link.write(encode(m.Tail(1, m.Stream.STDOUT)))
                asked += 1
            caller.link.flush()
            assert unread(server) < SEND_LIMIT
    server.logged("because its manager was lost")
    assert server.log.count("does not read what it is sent") == 1
    assert asked * 40_000 > ENOUGH
    assert time.monotonic() - began > 1.5


def unread(server: Served) -> int:
    """Return how many bytes the server has grown by since it was asked first, which is what waits in it, and more."""
    size = int(Path(f"/proc/{server.pid}/statm").read_text().split()[1]) * 4096
    before: int = server.__dict__.setdefault("size", size)
    return (size - before) // 4  # pieces of what waits are also in TLS and in the allocator


def test_reader_that_trickles(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Who takes a few bytes now and then holds what waits for it no longer than who takes none."""
    server = serve(command=HASTY)
    caller = call(server)
    caller.launch(*WRITES)
    for number in range(1000):  # more than the kernel takes for it
        caller.link.write(encode(m.Tail(1000 + number, m.Stream.STDOUT)))
    with suppress(OSError):
        while "does not read what it is sent" not in server.log:
            caller.link.sock.recv(10)
            time.sleep(0.05)


def test_reader_that_is_slow_but_steady(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Who takes what waits for it, however slowly, is served on and gets all of it."""
    server = serve(command=HASTY)
    caller = call(server)
    caller.launch(*WRITES)
    whole = m.OUTPUT_CHUNK
    until(lambda: len(caller.ask(m.Output, m.Tail, stream=m.Stream.STDOUT).data) == whole, "all that an answer holds")
    caller.send(b"".join(encode(m.Tail(1000 + number, m.Stream.STDOUT)) for number in range(1000)))
    began, size, wanted = time.monotonic(), 0, 1000 * whole * 4 // 3
    while size < wanted and time.monotonic() - began < 4:
        data = caller.link.read()
        assert data is not None
        size += len(data)
        time.sleep(0.02)
    while size < wanted:
        data = caller.link.read()
        assert data is not None, server.log
        size += len(data)
    assert "does not read" not in server.log


def test_line_that_is_never_finished(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A line that was begun has to end in time, however steadily its bytes come; the wait between lines is free."""
    server = serve(command=HASTY)
    slow, idle = call(server), call(server)
    idle.send(encode(m.Status(77, after="")))
    began = time.monotonic()
    with suppress(LinkError):
        while "a line was begun and not finished" not in server.log:
            slow.link.write(b" ")
            time.sleep(0.05)
    assert time.monotonic() - began > 1.5
    assert "a line was begun and not finished" in slow.bye()
    assert server.log.count("not finished") == 1


def test_hello_by_bytes(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A hello that comes a byte at a time is a line that is not finished."""
    server = serve("--handshake-timeout", "1m", command=HASTY)
    slow = call(server, greet=False)
    with suppress(LinkError):
        while "not finished" not in server.log:
            slow.link.write(b" ")
            time.sleep(0.05)
    assert "not finished" in slow.bye()


def test_connections_of_one_host(serve: Callable[..., Served], call: Callable[..., Caller], other_host: Path) -> None:
    """A host's certificate has so many connections and no more; another host's has its own."""
    server = serve("--max-connections-per-manager", "2")
    first, second = call(server), call(server)
    assert call(server, greet=False).bye() == "n1 has 2 connections, which is max_connections_per_manager"
    assert call(server, keys=other_host).run("true").outcome == Exited(0)
    assert first.run("true").outcome == Exited(0)
    second.close()

    def there_is_room() -> bool:
        caller = call(server, greet=False)
        caller.say(m.Hello, versions=m.VERSIONS)
        return isinstance(caller.hear(), m.Welcome)

    assert until(there_is_room, "there is room again")


@pytest.mark.parametrize("word", ["fly", "x" * 1000])
def test_words_that_nobody_knows(serve: Callable[..., Served], call: Callable[..., Caller], word: str) -> None:
    """What a manager makes the log say of itself is bounded, and counted."""
    server = serve()
    caller = call(server)
    for _ in range(10):
        caller.send(b"".join(json.dumps({"type": word}).encode() + b"\n" for _ in range(100)))
    assert caller.run("true").outcome == Exited(0)
    caller.close()
    server.stop()
    assert server.log.count("which this version does not know") == 100
    server.logged("manager n1, unknown: and 900 more such lines in 10 s")
