"""Servers that are killed one after the other while an application writes: each byte must be there, once.

Only the part of a server that captures runs here, in a process that is forked for it, which takes no time: hundreds are
killed in a few seconds. To be started as `python -m tests.shell.crash_bed FOLDER KILLS SEED`; what it found is printed.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
import time
from functools import partial
from pathlib import Path

from cmapp.core.messages import Stream
from cmapp.guest.disk import Disk
from cmapp.guest.output import Capture
from cmapp.guest.spool import Spool

RUN = "01234567-89ab-cdef-0123-456789abcdef"
LINE = 10  # bytes of a line
LIMIT = 1 << 28  # bytes: the spool is to have room for all of it
LIFE = 0.001, 0.008  # seconds that a server lives, from its fork on
HANG = 0.02  # seconds: a disk that hangs for a server's whole life
PAUSE = 0.0006  # seconds between two writes, at most
SHIFTED, BROKEN = 3, 4  # exit codes of a server


class Server:
    """What of a server captures one stream, on what the one before has left."""

    def __init__(self, folder: str) -> None:
        self.loop = asyncio.new_event_loop()
        self.disk = Disk(self.loop)
        self.capture = Capture(folder, RUN, Stream.STDOUT, keep=1000, spool=Spool(self.disk, folder, LIMIT))

    def serve(self) -> None:
        """Read what is written until killed; end only if a byte is not the one that belongs to its offset."""
        self.loop.add_reader(self.capture.descriptor, self._read)
        self.loop.run_forever()

    def _read(self) -> None:
        at = self.capture.total
        data = self.capture.read()
        if data and data != text(at, at + len(data)):
            os._exit(SHIFTED)

    def finish(self) -> int:
        """Read the rest, and return where it ends, or -1 if the spool has not all of it."""
        while self.capture.read():
            pass
        assert self.disk.flush(60)
        at, total = 0, self.capture.total
        while at < total:
            start, data = self.capture.since(at, 1 << 16)
            if start != at or data != text(at, at + len(data)):
                return -1
            at += len(data)
        return total


def text(start: int, end: int) -> bytes:
    """Return what stands in the stream from one offset to another."""
    first = start // LINE
    return b"".join(b"%09d\n" % number for number in range(first, end // LINE + 1))[start - first * LINE :][
        : end - start
    ]


def write(descriptor: int, chance: random.Random) -> None:
    """Write lines, few or many at once, until killed."""
    at = 0
    while True:
        end = at + LINE * chance.choice((1, 1, 3, 30, 400))
        while at < end:
            at += os.write(descriptor, text(at, end))
        time.sleep(chance.random() * PAUSE)


def forked(what: partial[None]) -> int:
    """Do it in another process, and return its number."""
    pid = os.fork()
    if not pid:
        try:
            what()
        finally:
            os._exit(BROKEN)
    return pid


def serve(folder: str, *, hangs: bool) -> None:
    """Be a server, whose disk may hang."""
    server = Server(folder)
    if hangs:
        server.disk.do(partial(time.sleep, HANG))
    server.serve()


def main(folder: str, kills: int, seed: int) -> None:
    """Kill servers until one has lost or doubled something."""
    chance = random.Random(seed)  # noqa: S311 - so that it can be done again
    fifo = Path(folder, "runs", f"{RUN}.stdout")
    fifo.parent.mkdir(parents=True)
    os.mkfifo(fifo)
    descriptor = os.open(fifo, os.O_RDWR)
    writer = forked(partial(write, descriptor, chance))
    killed, status = 0, signal.SIGKILL.value
    while killed < kills and status == signal.SIGKILL:
        server = forked(partial(serve, folder, hangs=chance.random() < 1 / 3))
        time.sleep(chance.uniform(*LIFE))
        os.kill(server, signal.SIGKILL)
        status = os.waitpid(server, 0)[1]
        killed += 1
    os.kill(writer, signal.SIGKILL)
    os.waitpid(writer, 0)
    total = Server(folder).finish() if status == signal.SIGKILL else -1
    print(json.dumps({"killed": killed, "total": total}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
