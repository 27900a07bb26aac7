"""What one manager costs: the time from exec until its launch is at the server, and its memory among others.

Time: the harness starts a manager, and a floor server says when the line that asks for the launch was there
(one CLOCK_MONOTONIC for all); ours and the bare one in turn, each then killed. Memory: a crowd of one kind is
started, polls twice a second, and its median proportional set size is read; pages that all share count once.
Both kinds run on the same interpreter, from the same environment, against the same server, and while time is
taken, where we may (as root), ahead of whatever else the machine does.

Error bars: 3 percent for the median time on a quiet machine, 1 percent for memory.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING

from measure import PATIENCE, BenchError, median, p99, pss, undisturbed
from table import Figure, Row, Samples

if TYPE_CHECKING:
    from stage import Kind, Server, Stage

CROWD = 20
IDLE = 1.6  # seconds before memory is read: each has polled by then
POLLING = ("--poll-interval", "0.5")
COMMAND = ("/bin/sleep", "1000")


def measure(stage: Stage, *, quick: bool) -> list[Row]:
    """Return start-to-launch time and memory of our manager beside the bare one's."""
    rounds = 15 if quick else 60
    kinds = stage.present("ours", "python")
    taken: Samples = {kind.name: [] for kind in kinds}
    memory: Samples = {kind.name: [] for kind in kinds}
    with stage.serve(stage.present("c", "python")[0]) as server:
        for kind in kinds:
            _start_to_launch(stage, kind, server)  # byte code and page cache are warm from here
        with undisturbed():
            for _ in range(rounds):
                for kind in kinds:
                    taken[kind.name].append(_start_to_launch(stage, kind, server) * 1e3)
        for kind in kinds:
            memory[kind.name] = _crowd(stage, kind, server)
    how = "exec of the manager to its launch at the server"
    size = Figure("manager memory", "MiB", memory, median, f"PSS of one among {CROWD} idle ones")
    return [
        stage.beside("python", Figure("manager start p50", "ms", taken, median, how), goal=1.25),
        stage.beside("python", Figure("manager start p99", "ms", taken, p99, how)),
        stage.beside("python", size, goal=1.25),
    ]


def _start_to_launch(stage: Stage, kind: Kind, server: Server) -> float:
    manager = stage.manage(kind, server.port, COMMAND, ahead=True)
    launched = _next_launch(server)
    manager.end()
    return (launched - manager.spawned) / 1e9


def _next_launch(server: Server) -> int:
    if not select.select([server.output], [], [], PATIENCE)[0]:
        raise BenchError(f"no launch arrived: {server.child.last_words()}")
    said = os.read(server.output, 4096)
    if not said:
        raise BenchError(f"the floor server died: {server.child.last_words()}")
    return int(said.split()[-1])


def _crowd(stage: Stage, kind: Kind, server: Server) -> list[float]:
    managers = []
    for _ in range(CROWD):
        managers.append(stage.manage(kind, server.port, COMMAND, *POLLING))
        _next_launch(server)
    time.sleep(IDLE)
    sizes = [pss(manager.pid) / 1024 for manager in managers]
    for manager in managers:
        manager.end()
    return sizes
