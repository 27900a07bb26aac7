"""Attacks by bad lines and by good ones in the wrong order, of a manager whose key is good.

Each ends the link that it is said on, with a reason, and changes nothing else.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from attack.hostile import HELLO, ask, attempt, context, first_word, last_word, launch, secure, what_is

if TYPE_CHECKING:
    import ssl

    from attack.hostile import Target

LINE_LIMIT = 65536
DEEP = 30_000
MEGABYTES, ENDLESS = 10, 5


BAD_LINES: dict[str, bytes] = {
    "64 KiB and 1": b'{"type":"status","id":2,"after":"%s"}\n' % (b"x" * (LINE_LIMIT - 36)),
    "no newline": b"x" * (LINE_LIMIT + 1),
    "nested arrays": b"[" * DEEP + b"]" * DEEP + b"\n",
    "nested objects": b'{"a":' * (DEEP // 3) + b"1" + b"}" * (DEEP // 3) + b"\n",
    "not UTF-8": b'{"type":"status","id":2,"after":"\xff\xfe"}\n',
    "overlong UTF-8": b'{"type":"status","id":2,"after":"\xc0\xaf"}\n',
    "lone surrogate": b'{"type":"status","id":2,"after":"\\ud800"}\n',
    "NUL": b'{"type":"status","id":2,"after":"\\u0000"}\n',
    "a key twice": b'{"type":"status","id":2,"id":3}\n',
    "a key twice within": b'{"type":"launch","id":2,"name":"a","run_id":"b","argv":["c"],"env":{"a":"1","a":"2"}}\n',
    "huge number": b'{"type":"status","id":' + b"9" * 60_000 + b"}\n",
    "huge exponent": b'{"type":"status","id":1e999999999}\n',
    "many digits": b'{"type":"hello","id":1,"versions":[' + b"1" * 5000 + b"]}\n",
    "negative id": b'{"type":"status","id":-1}\n',
    "fraction": b'{"type":"status","id":2.5}\n',
    "true for a number": b'{"type":"status","id":true}\n',
    "NaN": b'{"type":"status","id":NaN}\n',
    "no object": b'["status",2]\n',
    "no type": b'{"id":2}\n',
    "type is a list": b'{"type":["status"],"id":2}\n',
    "empty line": b"\n",
    "carriage returns": b"\r\n\r\n\r\n",
    "byte order mark": b'\xef\xbb\xbf{"type":"status","id":2}\n',
    "no such signal": launch(stop={"signal": 65}),
    "a path for a name": launch(name="../../etc/passwd"),
    "a run id that is a path": launch(run_id="../../../etc/cron.d/evil-0000-0000-00"),
    "a list too long": launch(argv=["x"] * 5000),
    "forged log line": b'{"type":"status\\nJan  1 00:00:00 INFO: all is well","id":"\\u001b[2J"}\n',
}
OUT_OF_ORDER: dict[str, bytes] = {
    "launch first": launch(1),
    "poll first": ask("poll", 1),
    "second hello": HELLO + ask("hello", 2, versions=[1]),
    "tail without a run": HELLO + ask("tail"),
    "detach without a run": HELLO + ask("detach"),
    "welcome": HELLO + b'{"type":"welcome","id":1,"version":1}\n',
    "launch after launch": HELLO + launch(2) + launch(3, name="evil2"),
    "one id twice": HELLO + launch(2) + ask("poll", 2),
    "hold while launching": HELLO + launch(2) + ask("hold", 3, name="evil"),
}


def bad_lines(target: Target) -> Counter[str]:
    """Say each bad line, after a hello and in its place."""
    how = context(target.rogue)
    outcomes: Counter[str] = Counter()
    for line in BAD_LINES.values():
        outcomes[attempt(target, how, line)] += 1
        outcomes[_after_hello(target, how, line)] += 1
    return outcomes


def out_of_order(target: Target) -> Counter[str]:
    """Say what is not to be said yet, or not any more; what was launched meanwhile ends by itself."""
    how = context(target.rogue)
    return Counter(_ended(target, how, said) for said in OUT_OF_ORDER.values())


def endless_line(target: Target) -> Counter[str]:
    """Send ten megabytes without a newline."""
    how = context(target.rogue)
    outcomes: Counter[str] = Counter()
    for _ in range(ENDLESS):
        try:
            with secure(target, how) as tls:
                with suppress(OSError):
                    for _ in range(MEGABYTES):
                        tls.sendall(b"x" * 1_000_000)
                outcomes[last_word(tls)] += 1
        except OSError as error:
            outcomes[what_is(error)] += 1
    return outcomes


def _after_hello(target: Target, how: ssl.SSLContext, line: bytes) -> str:
    try:
        with secure(target, how) as tls:
            tls.sendall(HELLO)
            first_word(tls)
            with suppress(BrokenPipeError, ConnectionResetError):
                tls.sendall(line)
            return first_word(tls)
    except OSError as error:
        return what_is(error)


def _ended(target: Target, how: ssl.SSLContext, said: bytes) -> str:
    try:
        with secure(target, how) as tls:
            tls.sendall(said)
            return last_word(tls)
    except OSError as error:
        return what_is(error)
