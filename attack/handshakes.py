"""Attacks of those who never prove who they are: unfinished handshakes, churn, trickles, nonsense, fragments.

All of them are let go, and cost no more than the server's caps for the unproven allow.
"""

from __future__ import annotations

import random
import select
import socket
import ssl
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from attack.hostile import (
    CLOSED,
    HELLO,
    KEPT,
    ONE_ADDRESS,
    SEVERAL,
    attempt,
    client_hello,
    context,
    let_go,
    secure,
    what_is,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from attack.hostile import Target

AT_ONCE = 4  # handshakes side by side: enough to keep the server busy all the time
TRICKLERS = 100
WAITS = 5  # times the handshake timeout that a stranger may wait until it is its turn, and then is let go
TRICKLE = 1.0  # seconds between two bytes
FRAGMENTED = 131_000  # bytes of a ClientHello, each in a record of its own: OpenSSL takes 131,396
FRAGMENTERS = 20
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close by a reset
MILLION = 10  # megabytes of nonsense


def _crowd(target: Target, said: bytes, *, many: bool) -> Counter[str]:
    """Have a crowd connect, say something, and wait, all at once."""
    outcomes: Counter[str] = Counter()
    socks = []
    for source in islice(target.addresses(many=many), target.handshakes):
        try:
            sock = target.call(source)
        except OSError as error:
            outcomes[what_is(error)] += 1
            continue
        socks.append(sock)
        with suppress(OSError):  # whoever was let go already is counted below
            sock.sendall(said)
    return outcomes + let_go(socks, target.patience)


def silent_from_one(target: Target) -> Counter[str]:
    """Connect and say nothing."""
    return _crowd(target, b"", many=False)


def silent_from_many(target: Target) -> Counter[str]:
    """The same from as many addresses as there are peers."""
    return _crowd(target, b"", many=True)


def half_from_one(target: Target) -> Counter[str]:
    """Say half a ClientHello."""
    hello = client_hello()
    return _crowd(target, hello[: len(hello) // 2], many=False)


def half_from_many(target: Target) -> Counter[str]:
    """The same from many addresses."""
    hello = client_hello()
    return _crowd(target, hello[: len(hello) // 2], many=True)


def _each(target: Target, deed: Callable[[str], str], *, many: bool) -> Counter[str]:
    """Have a crowd do something, a few at once."""
    sources = list(islice(target.addresses(many=many), target.handshakes))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return Counter(pool.map(deed, sources))


def nameless_from_one(target: Target) -> Counter[str]:
    """Shake hands to the end, without a certificate."""
    how = context(None)
    return _each(target, lambda source: attempt(target, how, HELLO, source), many=False)


def nameless_from_many(target: Target) -> Counter[str]:
    """The same from many addresses."""
    how = context(None)
    return _each(target, lambda source: attempt(target, how, HELLO, source), many=True)


def churn(target: Target) -> Counter[str]:
    """Connect and hang up, many by a reset."""

    def deed(source: str) -> str:
        with suppress(OSError), target.call(source) as sock:
            if source[-1] in "13579":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return "hung up"

    return _each(target, deed, many=True)


def proven_churn(target: Target) -> Counter[str]:
    """Prove to be an insider, and hang up."""
    how = context(target.rogue)

    def deed(source: str) -> str:
        try:
            with secure(target, how, source):
                return "hung up"
        except OSError as error:
            return what_is(error)

    return _each(target, deed, many=True)


def trickled_handshake(target: Target) -> Counter[str]:
    """Say a ClientHello by a byte a second."""
    hello, outcomes = client_hello(), Counter[str]()
    waiting = select.poll()
    left: dict[int, socket.socket] = {}
    for source in islice(target.addresses(many=True), TRICKLERS):
        sock = target.call(source)
        left[sock.fileno()] = sock
        waiting.register(sock, select.POLLIN | select.POLLRDHUP)
    begun = time.monotonic()
    for place in range(len(hello)):
        if not left or time.monotonic() - begun > WAITS * target.brief:  # a crowd may be before it
            break
        for sock in left.values():
            with suppress(OSError):
                sock.send(hello[place : place + 1])
        due = begun + (place + 1) * TRICKLE
        while left and (rest := due - time.monotonic()) > 0:
            for number, _ in waiting.poll(rest * 1000):
                waiting.unregister(number)
                left.pop(number).close()
                outcomes[CLOSED] += 1
    outcomes[KEPT] += len(left)
    for sock in left.values():
        sock.close()
    return +outcomes


def fragments(target: Target) -> Counter[str]:
    """Send ClientHellos as long as OpenSSL takes them, in records of one byte each, all at once."""
    hello = bytes([1]) + FRAGMENTED.to_bytes(3, "big") + b"\x03\x03" + bytes(FRAGMENTED - 3)
    said = b"".join(b"\x16\x03\x01\x00\x01" + hello[place : place + 1] for place in range(len(hello)))

    def deed(source: str) -> str:
        try:
            with target.call(source) as sock:
                sock.sendall(said)
                sock.shutdown(socket.SHUT_WR)
                return CLOSED if not sock.recv(1024) else "alert"
        except OSError as error:
            return what_is(error)

    with ThreadPoolExecutor(FRAGMENTERS) as pool:
        return Counter(pool.map(deed, islice(target.addresses(many=True), FRAGMENTERS)))


def nonsense(target: Target) -> Counter[str]:
    """Speak plain HTTP, the protocol without TLS, noise, zeros, SSLv2, records that are no TLS."""
    draw = random.Random(target.seed)  # noqa: S311 - as hostile.py
    words = (
        b"GET / HTTP/1.1\r\nHost: vm1\r\n\r\n",
        HELLO,
        draw.randbytes(4096),
        bytes(65536),
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + draw.randbytes(37),
        b"\x17\x03\x03\x40\x00" + draw.randbytes(16384),
        b"\x16\x03\x01\xff\xff" + draw.randbytes(65535),
        b"\x15\x03\x03\x00\x02\x01\x00" * 1000,
        b"\x14\x03\x03\x00\x01\x01" * 1000,
    )
    return Counter(_tell(target, words[number % len(words)]) for number in range(SEVERAL))


def endless_nonsense(target: Target) -> Counter[str]:
    """Send megabytes without ever being proven, after a ClientHello that is good."""
    hello, noise = client_hello(), random.Random(target.seed).randbytes(1 << 20)  # noqa: S311 - as hostile.py

    def deed(_: int) -> str:
        with target.call() as sock:
            try:
                sock.sendall(hello)
                for _ in range(MILLION):
                    sock.sendall(noise)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(65536):
                    pass
            except OSError as error:
                return what_is(error)
            return CLOSED

    return Counter(map(deed, range(SEVERAL // 10)))


def _tell(target: Target, words: bytes) -> str:
    try:
        with target.call(ONE_ADDRESS) as sock:
            sock.sendall(words)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                if b"welcome" in data or b"runs" in data:
                    return "said: something"
            return CLOSED
    except OSError as error:
        return what_is(error)


def early_words(target: Target) -> Counter[str]:
    """Send words of the protocol together with the end of a handshake that proves nothing."""
    return Counter(_early(target) for _ in range(SEVERAL))


def _early(target: Target) -> str:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context(None).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    try:
        with target.call() as sock:
            while True:
                try:
                    tls.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(outgoing.read())
                    data = sock.recv(65536)
                    if not data:
                        return CLOSED
                    incoming.write(data)
            tls.write(HELLO + b'{"type":"launch","id":2,"name":"evil","run_id":"","argv":["/bin/true"]}\n')
            sock.sendall(outgoing.read())
            while data := sock.recv(65536):
                incoming.write(data)
                with suppress(ssl.SSLWantReadError):
                    return f"said: {tls.read(1024)!r}"
            return CLOSED
    except OSError as error:
        return what_is(error)
