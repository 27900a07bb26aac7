"""What a poll costs the server in processor time, at a steady thousand a second and when it never rests.

Twenty connections, each with a `sleep` to report on. Steady: one poll each millisecond, connection after
connection, the reply awaited. Saturated: all twenty polls are sent before the first reply is taken, again and
again, so that the server always has the next one waiting. Processor time is the server's own clock (user and
system, all its threads), divided by the polls; the kinds in turn.

Error bars: 3 percent saturated, 5 percent steady, which holds the wake-ups: their price depends on what else
keeps the processor awake.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from client import Link, trust
from measure import cpu, median
from table import Figure, Row, Samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Stage

LINKS = 20
RATE = 1000  # polls a second


def measure(stage: Stage, *, quick: bool) -> list[Row]:
    """Return processor microseconds of server per poll."""
    rounds, seconds = (3, 0.5) if quick else (5, 1.0)
    kinds = stage.present("ours", "c", "python")
    ways: dict[str, Callable[[list[Link], float], int]] = {f"at {RATE}/s": _steady, "saturated": _saturated}
    taken: dict[str, Samples] = {way: {kind.name: [] for kind in kinds} for way in ways}
    context = trust(stage.keys)
    with contextlib.ExitStack() as stack:
        played = []
        for kind in kinds:
            server = stack.enter_context(stage.serve(kind))
            links = [Link(context, server.port) for _ in range(LINKS)]
            for link in links:
                stack.callback(link.close)
                link.launch(["/bin/sleep", "1000"])
            played.append((kind, server, links))
        for _ in range(rounds):
            for way, poll in ways.items():
                for kind, server, links in played:
                    before = cpu(server.child.pid)
                    polls = poll(links, seconds)
                    taken[way][kind.name].append((cpu(server.child.pid) - before) / polls * 1e6)
    how = f"CPU of the server per poll, {LINKS} connections"
    figures = [Figure(f"poll {way}", "us", taken[way], median, how) for way in ways]
    return [stage.beside(other, figure) for other in ("c", "python") for figure in figures]


def _steady(links: list[Link], seconds: float) -> int:
    begun, count = time.monotonic(), int(seconds * RATE)
    for number in range(count):
        time.sleep(max(0.0, begun + number / RATE - time.monotonic()))
        links[number % LINKS].ask("poll", "report")
    return count


def _saturated(links: list[Link], seconds: float) -> int:
    end, count = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        for link in links:
            link.say("poll")
        for link in links:
            link.hear("report")
        count += len(links)
    return count
