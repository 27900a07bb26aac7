"""An application that keeps a book of its life, from which its instances, their ends and survivors can be told.

Runs in a guest by itself, on the standard library alone:

    python3 -IS application.py BOOK RUN PLAN ON_STOP [TRICK]

PLAN is `forever`, or `exit:CODE@SECONDS` or `signal:NUMBER@SECONDS` for what it does by itself. ON_STOP is what it does
with SIGTERM: `exit:CODE`, `slow:CODE` (half a second later), `default` (it dies of it) or `ignore`. What is written to
BOOK.order, `RUN exit CODE` or `RUN signal NUMBER`, is obeyed. A helper that left the session and the family
by two forks writes to the same book for as long as it lives. A TRICK makes it break a promise, for the checker to
find out: `double`, `escape` or `liar`.

The invariant: a line is one write to a file opened for appending, and an `end` line is followed by that end or by
SIGKILL, because every other signal is blocked before it is written.
"""

import os
import signal
import sys
import time

BEAT = 0.05  # seconds between two heartbeats
LIFE = 900.0  # seconds after which anything of ours ends, were all others gone
OUTSIDE = "/sys/fs/cgroup/init.scope/cgroup.procs"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


class Book:
    """The lines of one instance in the book of its name."""

    def __init__(self, path: str, run: str) -> None:
        with open(BOOT_ID) as file:  # noqa: PTH123 - pathlib would be most of what is imported
            boot = file.read().strip()
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.instance = f"{boot[:8]}-{os.getpid()}-{time.monotonic_ns()}"
        self.write("start", run, boot, os.getpid())

    def write(self, word: str, *details: object) -> None:
        """Write a line: what, who, the two clocks, and more."""
        clocks = f"{time.monotonic():.6f} {time.time():.6f}"
        line = " ".join([word, self.instance, clocks, *map(str, details)])
        os.write(self._file, line.encode() + b"\n")


def main(path: str, run: str, plan: str, on_stop: str, trick: str = "") -> None:
    """Live as was asked for."""
    if trick == "double" and not os.fork():
        os.setsid()
    stopped: list[float] = []
    if on_stop == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    elif on_stop != "default":
        signal.signal(signal.SIGTERM, lambda *_: stopped.append(time.monotonic()))
    book = Book(path, run)
    leave_behind(book, escape=trick == "escape")
    way, _, after = plan.partition("@")
    begun = time.monotonic()
    while (now := time.monotonic()) < begun + LIFE:
        book.write("beat", "main")
        if after and now >= begun + float(after):
            end(book, *way.split(":"), lie=trick == "liar")
        if order := ordered(path, run):
            end(book, *order, lie=trick == "liar")
        if stopped:
            manner, code = on_stop.split(":")
            if manner == "exit" or now >= stopped[0] + 0.5:
                end(book, "exit", code, lie=trick == "liar")
        time.sleep(BEAT)


def leave_behind(book: Book, *, escape: bool) -> None:
    """Fork a helper that is no child of ours, in no session of ours, and does not heed SIGTERM."""
    if child := os.fork():
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if escape:
        with open(OUTSIDE, "w") as group:  # noqa: PTH123
            group.write("0")
    begun = time.monotonic()
    while time.monotonic() < begun + LIFE:
        book.write("beat", "helper")
        time.sleep(BEAT)
    os._exit(0)


def ordered(path: str, run: str) -> list[str]:
    """Return what we are ordered to do, if we are."""
    try:
        with open(path + ".order") as file:  # noqa: PTH123
            words = file.read().split()
    except OSError:
        return []
    return words[1:] if words[:1] == [run] else []


def end(book: Book, way: str, number: str, *, lie: bool) -> None:
    """End in that way, after having written it down."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    book.write("end", way, number)
    if way == "exit":
        os._exit((int(number) + lie) % 256)
    if int(number) not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(int(number), signal.SIG_DFL)
    os.kill(os.getpid(), int(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [int(number)])
    time.sleep(LIFE)


if __name__ == "__main__":
    main(*sys.argv[1:])
