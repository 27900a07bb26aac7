"""What the server pays in memory for a manager's connection, and for one with an application on it.

The bench opens some connections, reads the server's proportional set size, opens many more that say hello
and idle, and reads it again: the growth, divided. Then the same with fewer, each launching a `sleep`. Helpers
that a server starts count as the server; the applications do not. Kernel memory (sockets, pipes) is not in
it. Every count has a fresh server.

Error bars: 1 percent per connection; 5 percent per application, whose sum is smaller.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from client import Link, trust
from measure import median, pss, server_processes
from table import Figure

if TYPE_CHECKING:
    from collections.abc import Callable

    from stage import Kind, Stage
    from table import Row

WARM = 5  # of so many connections, one is opened before memory is read first
SETTLE = 0.5  # seconds before memory is read


def measure(stage: Stage, *, quick: bool) -> list[Row]:
    """Return KiB of server per idle connection, and per application with its connection."""
    idle, busy = (300, 60) if quick else (1000, 200)
    context = trust(stage.keys)

    def connect(port: int) -> Link:
        return Link(context, port)

    def launch(port: int) -> Link:
        link = Link(context, port)
        link.launch(["/bin/sleep", "1000"])
        return link

    kinds = stage.present("ours", "c", "python")
    connections = {kind.name: [_growth(stage, kind, connect, idle)] for kind in kinds}
    applications = {kind.name: [_growth(stage, kind, launch, busy)] for kind in kinds}
    how = "growth of the server's PSS, by idle connections"
    per_link = Figure("memory per connection", "KiB", connections, median, how, idle)
    how = "growth of the server's PSS, by connections with a sleep each"
    per_run = Figure("memory per application", "KiB", applications, median, how, busy)
    return [
        stage.beside("c", per_link, goal=1.4),
        stage.beside("c", per_run, goal=1.4),
        stage.beside("python", per_link),
        stage.beside("python", per_run),
    ]


def _growth(stage: Stage, kind: Kind, join: Callable[[int], Link], count: int) -> float:
    with stage.serve(kind) as server, contextlib.ExitStack() as links:

        def size() -> float:
            time.sleep(SETTLE)
            return pss(*server_processes(server.child.pid))

        for _ in range(max(1, count // WARM)):  # what a start leaves free in the heap is used up first
            links.callback(join(server.port).close)
        before = size()
        for _ in range(count):
            links.callback(join(server.port).close)
        return (size() - before) / count
