"""Attacks by much, and by slowness, of a manager whose key is good.

It may be served as long as it stays within its share, and is let go beyond; the others wait for nobody.
"""

from __future__ import annotations

import select
import ssl
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from attack.hostile import CLOSED, HELLO, KEPT, ask, context, first_word, launch, let_go, secure, shown_line, what_is
from attack.raw import RawTls

if TYPE_CHECKING:
    from collections.abc import Callable

    from attack.hostile import Target

LINKS = 5  # of each flood
LINES_EACH = 40  # small lines on each link, for each handshake of a crowd
UPDATES_EACH = 20  # key updates likewise: 5,000 make 2.7 MB
SLOW = 20  # trickling links
FLOOD, LAST_ANSWER = 10.0, 10.0  # seconds for a flood, and then until what came last is answered
UNTAKEN = 1.0  # seconds after which it asks no more whose questions are not taken
TRICKLE = 0.2  # seconds between two bytes
CROWD = 600  # links of one manager
PEEKS = 1000  # answers of 43 KiB that are never read
CHUNK = 16384
WRITTEN = 32768  # bytes of output that each of them tells
LAUNCHES = 50
_WANTS = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


def tiny_lines(target: Target) -> Counter[str]:
    """Ask small questions as fast as they are answered."""
    return _flood(target, lambda place: b'{"type":"status","id":%d}\n' % place)


def unknown_words(target: Target) -> Counter[str]:
    """Say words of no version, which want no answer: each might make a line in the log."""
    return _flood(target, lambda _: b'{"type":"x"}\n')


def unknown_requests(target: Target) -> Counter[str]:
    """The same with ids: each has to be refused."""
    return _flood(target, lambda place: b'{"type":"x","id":%d}\n' % place)


def acknowledgements(target: Target) -> Counter[str]:
    """Acknowledge runs that never were."""
    return _flood(target, lambda place: ask("acknowledge", place, run_id=f"00000000-0000-4000-8000-{place:012}"))


def _flood(target: Target, line: Callable[[int], bytes]) -> Counter[str]:
    """Send a flood on each of a few links, read what comes, and see whether the link lives at its end."""
    count = target.handshakes * LINES_EACH
    said = b"".join(line(place) for place in range(2, count + 2))

    def deed(_: int) -> str:
        try:
            with secure(target, context(target.rogue)) as tls:
                tls.sendall(HELLO)
                return _answered(tls, said, count + 9)
        except OSError as error:
            return what_is(error)

    with ThreadPoolExecutor(LINKS) as pool:
        return Counter(pool.map(deed, range(LINKS)))


def _answered(tls: ssl.SSLSocket, said: bytes, number: int) -> str:
    """Send all there is time for, reading meanwhile, until a last request is answered, or the link is ended."""
    tls.setblocking(False)
    last, place, rest = b'"id":%d' % number, 0, b""
    chunk: memoryview | None = None
    begun, waiting = time.monotonic(), select.poll()
    said += (end := ask("poll", number))
    view = memoryview(said)
    while (passed := time.monotonic() - begun) < FLOOD + LAST_ANSWER:
        if passed > FLOOD and view.nbytes == len(said) and chunk is None and place < len(said) - len(end):
            view = memoryview(said[: said.index(b"\n", place) + 1] + end)
        waiting.register(tls, select.POLLIN | (select.POLLOUT if place < len(view) else 0))
        waiting.poll(1000)
        try:
            with suppress(*_WANTS):
                while place < len(view):
                    chunk = chunk or view[place : place + CHUNK]  # the same again, until OpenSSL has taken it
                    place += tls.send(chunk)
                    chunk = None
            with suppress(*_WANTS):
                while data := tls.recv(65536):
                    *lines, rest = (rest + data).split(b"\n")
                    for line in lines:
                        if last in line or line.startswith(b'{"type":"bye"'):
                            return shown_line(line)
                return CLOSED
        except OSError as error:
            return what_is(error)
    return KEPT


def never_reads(target: Target) -> Counter[str]:
    """Ask for much, and read none of it before the server must have lost its patience."""
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        links = []
        for number in range(LINKS):
            try:
                link = stack.enter_context(secure(target, context(target.rogue)))
                refusal = _asked_for_much(link, number)
            except OSError as error:
                refusal = what_is(error)
            if refusal:
                outcomes[refusal] += 1
            else:
                links.append(link)
        time.sleep(target.long)
        for link in links:  # the end is behind all that the kernels have taken
            outcomes[_end_of(link)] += 1
    return outcomes


def _end_of(tls: ssl.SSLSocket) -> str:
    try:
        while tls.recv(65536):
            pass
    except OSError as error:
        return what_is(error)
    return CLOSED


def _asked_for_much(tls: ssl.SSLSocket, number: int) -> str:
    """Launch what has much to tell, and ask for that as long as it is taken; return what became of it if it is not."""
    argv = ["/bin/sh", "-c", f"head -c {WRITTEN} /dev/zero >&2; exec sleep 100"]
    tls.sendall(HELLO + launch(name=f"evil-{number}", argv=argv, orphan={"timeout": 0}))
    with tls.makefile("rb") as lines:
        lines.readline()
        told = lines.readline()
        if b'"launched"' not in told:
            return shown_line(told)
        answer = b""
        while len(answer) < WRITTEN:  # until the application has written all of it
            tls.sendall(ask("tail"))
            answer = lines.readline()
    tls.settimeout(UNTAKEN)
    with suppress(OSError):
        for place in range(3, PEEKS + 3):
            tls.sendall(ask("tail", place))
    return ""


def slow_hello(target: Target) -> Counter[str]:
    """Prove to be an insider, and say a hello that does not end, by a byte now and then."""
    return _trickle(target, b"", b" " * 1000)


def slow_line(target: Target) -> Counter[str]:
    """Say a hello, and then a line that does not end, by a byte now and then."""
    return _trickle(target, HELLO, b" " * 1000)


def _trickle(target: Target, first: bytes, slowly: bytes) -> Counter[str]:
    how, links = context(target.rogue), []
    with ExitStack() as stack:
        for _ in range(SLOW):
            with suppress(OSError):  # who is let go already is counted below
                link = stack.enter_context(secure(target, how))
                link.sendall(first)
                links.append(link)
        begun = time.monotonic()
        alive = list(links)
        while alive and time.monotonic() - begun < target.long:
            for link in list(alive):
                try:
                    link.send(slowly[:1])
                except OSError:
                    alive.remove(link)
            slowly = slowly[1:]
            time.sleep(TRICKLE)
        return Counter({CLOSED: SLOW - len(alive), KEPT: len(alive)}) - Counter()


def silent_insiders(target: Target) -> Counter[str]:
    """Prove to be an insider, many times, and say nothing."""
    outcomes: Counter[str] = Counter()
    how, links = context(target.rogue), []
    for source in (source for source, _ in zip(target.addresses(many=True), range(SLOW * 5), strict=False)):
        try:
            links.append(how.wrap_socket(target.call(source), server_hostname="127.0.0.1"))
        except OSError as error:
            outcomes[what_is(error)] += 1
    return outcomes + let_go(list(links), target.patience)


def crowd_of_one(target: Target) -> Counter[str]:
    """Have very many links in the name of one manager, all in order."""
    how, links = context(target.rogue), []
    outcomes: Counter[str] = Counter()
    with ExitStack() as stack:
        for source in (source for source, _ in zip(target.addresses(many=True), range(CROWD), strict=False)):
            try:
                link = stack.enter_context(secure(target, how, source))
                link.sendall(HELLO)
            except OSError as error:
                outcomes[what_is(error)] += 1
            else:
                links.append(link)
        for link in links:
            word = first_word(link)
            outcomes["bye: (its limit)" if word.startswith("bye: ") else word] += 1
    return outcomes


def many_launches(target: Target) -> Counter[str]:
    """Launch one thing after the other, each on a link of its own."""
    how = context(target.rogue)
    outcomes: Counter[str] = Counter()
    for number in range(LAUNCHES):
        try:
            with secure(target, how) as tls, tls.makefile("rb") as lines:
                tls.sendall(HELLO + launch(name=f"evil-{number}"))
                lines.readline()
                outcomes[shown_line(lines.readline())] += 1
        except OSError as error:
            outcomes[what_is(error)] += 1
    return outcomes


def key_updates(target: Target) -> Counter[str]:
    """Change the keys of a link again and again, made ready before and sent all at once."""
    outcomes: Counter[str] = Counter()
    for answered in (False, True):
        try:
            with RawTls(target.call(), target.rogue) as raw:
                raw.say(HELLO)
                raw.flush()
                raw.hear()
                raw.update_keys(target.handshakes * UPDATES_EACH, answered=answered)
                raw.say(ask("status"))
                raw.flush()
                outcomes["said: runs" if b'"runs"' in raw.hear() else "said: something"] += 1
        except OSError as error:
            outcomes[what_is(error)] += 1
    return outcomes
