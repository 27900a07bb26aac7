"""Targets: what applications and those who answer for them say to the server.

Any process of a run may write to its notification socket, and anybody may listen on the port that a probe asks. The
invariant: the answer is the plain reading of their words, and what is told of it fits a log line.
"""

from __future__ import annotations

import re

from cmapp.guest import notify, probe
from fuzz.breach import require, require_plain
from fuzz.draw import expand

PIDS = range(2, 2**22 + 1)
STATUS = 300 * len("\\U0001f600")  # characters: each of those that are kept may be written out
TROUBLE = 200 * len("\\U0001f600") + 100

_STATUS_LINE = re.compile(rb"HTTP/[^ \n]* *([0-9]{3})([ \t\r\x0b\x0c].*)?", re.DOTALL)


def notice(data: bytes) -> None:
    """Read a datagram: it says what one of its lines says, and no more."""
    data = expand(data)[: notify.LONGEST]
    said = notify.parse_notice(data)
    lines = data.split(b"\n")
    for word, heard in (
        (b"READY=1", said.ready),
        (b"STOPPING=1", said.stopping),
        (b"WATCHDOG=1", said.beat),
        (b"WATCHDOG=trigger", said.trigger),
    ):
        require(not heard or word in lines, "heard what was not said", word, data)
        require(heard or word not in lines or b"\0" in data or _said_before(word, lines), "not heard", word, data)
    require(said.main is None or (said.main in PIDS and b"MAINPID=%d" % said.main in _bare(lines)), "no process", said)
    if said.status is not None:
        require_plain(said.status)
        require(len(said.status) <= STATUS, "a status that is too long", len(said.status))


def _said_before(word: bytes, lines: list[bytes]) -> bool:
    """Tell whether an earlier line gave the variable another value: the first one counts."""
    name = word.partition(b"=")[0]
    return next(line for line in lines if line.partition(b"=")[0] == name) != word


def _bare(lines: list[bytes]) -> list[bytes]:
    return [re.sub(rb"=0+(?=[0-9])", b"=", line) for line in lines]


def http(data: bytes) -> None:
    """Judge the beginning of an answer: well only if it is HTTP's 2xx or 3xx."""
    data = expand(data)[: probe.HEARD]
    trouble = probe._http_trouble(data)  # noqa: SLF001 - the socket in front of it adds nothing
    require_plain(trouble)
    require(len(trouble) <= TROUBLE, "a trouble that is too long", len(trouble))
    line = _STATUS_LINE.fullmatch(data.partition(b"\n")[0].strip())
    if not trouble:
        require(line is not None and line[1][:1] in (b"2", b"3"), "well, and is not", data)
