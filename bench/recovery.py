"""From `kill -9` of an application to its next start by Pacemaker: told at once, beside monitors at intervals.

The same application three times, in one cluster and in turn: `ours` is ocf:cmapp:application, in a guest; the others
are a plain resource on a machine with pacemaker-remoted, whose monitor runs every second and every 10 s. The clock
starts right before the signal is sent by pidfd. `noticed` stops it when the exit code can be read in the manager's
log, or when a monitor writes down that it found nobody; `begun` when the agent's stop is called, with which Pacemaker
begins a recovery; `running` when the next application writes down that it runs. A kill comes at another point
of the interval each time, so that all of them are met equally often.

Error bars: with an interval the median of 20 is that of the interval's even spread, within 10 percent. Ours is nothing
but work, a dozen processes one after the other, so it holds within 10 percent on a quiet machine, and on one with three
times as much to do as processors it was seen to triple.
"""

from __future__ import annotations

import os
import select
import shlex
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

from measure import BenchError, median, watch_writes
from remotes import GUEST, REMOTE, Remotes
from table import Row

from testbed.cluster import what_is_missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from stage import Stage

LIMIT = 60.0  # seconds until a resource runs, for the first time or again
SETTLE = 0.5  # seconds from a start to the next kill, at least
NOTICED_GOAL, BEGUN_GOAL = 20.0, 100.0  # ms
FIRST_SLEEP = 7_001_001  # seconds that the first application sleeps, by which it is known
BACKSTOP = "30s"  # how often Pacemaker looks where it is told
RESOURCES = {"ours": 0.0, "every1": 1.0, "every10": 10.0}  # and the seconds between two monitors, by which kills spread
LABELS = {"every1": "monitored every 1 s", "every10": "monitored every 10 s"}


def measure(_stage: Stage, *, quick: bool) -> list[Row]:
    """Return the medians of all three."""
    if missing := what_is_missing():
        raise BenchError(missing)
    count = 5 if quick else 20
    with Remotes() as cluster:
        applications = _start(cluster)
        for turn in range(count):
            for name, interval in RESOURCES.items():
                applications[name].await_phase(interval, (turn + 0.5) / count)
                applications[name].kill()
    rows = []
    for place, (stage, goal, how) in enumerate(
        (
            ("noticed", NOTICED_GOAL, "kill -9 to the word of the manager, or of a monitor"),
            ("begun", BEGUN_GOAL, "kill -9 to the agent's stop"),
            ("running", None, "kill -9 to the next application"),
        )
    ):
        values = {name: median([taken[place] for taken in one.taken]) for name, one in applications.items()}
        rows += [
            Row(f"{stage} / {label}", "ms", values["ours"], values[floor], None, count, how, most=goal)
            for floor, label in LABELS.items()
        ]
    return rows


class Application:
    """One of the three, as it writes down what is done with it; `taken` holds the milliseconds of each kill."""

    def __init__(self, seconds: int, log: Path, word: str, books: list[Path]) -> None:
        """`word` in `log` says that it was noticed, `stop` and `up` in one of `books` the rest."""
        self.argv = ["/bin/sleep", str(seconds)]
        self.taken: list[tuple[float, ...]] = []
        self._started = time.monotonic()
        self._signs = {"noticed": (log, word), "begun": (books[0], "stop"), "running": (books[-1], "up")}
        for path in {log, *books}:
            path.touch()
            path.chmod(0o666)
        self._watches = {path: watch_writes(path) for path in {log, *books}}

    def await_phase(self, interval: float, part: float) -> None:
        """Wait until that part of the interval is over which began with the last start, or with a monitor since."""
        now = time.monotonic()
        at = max(self._started + SETTLE, now)
        if interval:
            at += (self._started + part * interval - at) % interval
        time.sleep(at - now)

    def kill(self) -> None:
        """Kill it, and take the times until it runs again."""
        descriptor = self._find()
        begins = {path: path.stat().st_size for path in self._watches}
        seen: dict[str, float] = {}
        watching = select.poll()
        for watch in self._watches.values():
            _drain(watch)
            watching.register(watch, select.POLLIN)
        begun = time.monotonic_ns()
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        while len(seen) < len(self._signs):
            if not watching.poll(LIMIT * 1000):
                said = {path.name: path.read_bytes()[begins[path] :] for path in self._watches}
                raise BenchError(f"no recovery within {LIMIT:g} s, but {seen}: {said}")
            now = (time.monotonic_ns() - begun) / 1e6
            for watch in self._watches.values():
                _drain(watch)
            for sign, (path, word) in self._signs.items():
                if sign not in seen and word.encode() in path.read_bytes()[begins[path] :]:
                    seen[sign] = now
        os.close(descriptor)
        self._started = time.monotonic()
        self.taken.append(tuple(seen[sign] for sign in self._signs))

    def _find(self) -> int:
        """Return a descriptor of the application's process, which is in other namespaces."""
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            for entry in Path("/proc").glob("[0-9]*"):
                if _words(entry) == self.argv:
                    descriptor = os.pidfd_open(int(entry.name))
                    if _words(entry) == self.argv:
                        return descriptor
                    os.close(descriptor)
            time.sleep(0.01)
        raise BenchError(f"there is no {shlex.join(self.argv)}")


def _start(cluster: Remotes) -> dict[str, Application]:
    """Have the cluster start all three, and return them when they run."""
    folder = cluster.folder
    applications, resources, places = {}, [], []
    connection = _primitive("r1", "ocf:pacemaker:remote", {"server": cluster.remote.address}, "5s")
    for number, (name, interval) in enumerate(RESOURCES.items()):
        seconds = FIRST_SLEEP + number
        book = folder / f"{name}.book"
        if name == "ours":
            own, log = cluster.guest.books / "ours.book", folder / "ours.log"
            script = f"echo up >>/books/{own.name}; exec /bin/sleep {seconds}"
            given = {"guest": GUEST, "command": shlex.join(["/bin/sh", "-c", script]), "log_file": str(log)}
            applications[name] = Application(seconds, log, "killed by signal 9", [book, own])
            resources.append(_primitive(name, "ocf:bench:noted", {**given, "book": str(book)}, BACKSTOP))
        else:
            script = f"echo up >>{book}; exec /bin/sleep {seconds}"
            applications[name] = Application(seconds, book, "dead", [book])
            resources.append(_primitive(name, "ocf:bench:plain", {"script": script, "book": str(book)}, f"{interval}s"))
        node = "n1" if name == "ours" else REMOTE
        places.append(f'<rsc_location id="{name}-place" rsc="{name}" node="{node}" score="INFINITY"/>')
    places.append('<rsc_location id="r1-place" rsc="r1" node="n2" score="INFINITY"/>')
    whole = f"<resources>{connection}{''.join(resources)}</resources><constraints>{''.join(places)}</constraints>"
    cluster.load(f"<configuration>{whole}</configuration>")
    cluster.until_on("n1", "ours", limit=LIMIT)
    cluster.until_on(REMOTE, *LABELS, limit=LIMIT)
    return applications


def _primitive(name: str, agent: str, given: Mapping[str, str], interval: str) -> str:
    standard, provider, kind = agent.split(":")
    pairs = "".join(
        f"<nvpair id={quoteattr(f'{name}-{key}')} name={quoteattr(key)} value={quoteattr(value)}/>"
        for key, value in given.items()
    )
    operation = f'<op id="{name}-monitor" name="monitor" interval="{interval}" timeout="20s"/>'
    return (
        f'<primitive id="{name}" class="{standard}" provider="{provider}" type="{kind}">'
        f'<instance_attributes id="{name}-given">{pairs}</instance_attributes>'
        f"<operations>{operation}</operations></primitive>"
    )


def _words(entry: Path) -> list[str]:
    try:
        return (entry / "cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _drain(watch: int) -> None:
    try:
        os.read(watch, 65536)
    except BlockingIOError:
        pass
