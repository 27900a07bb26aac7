"""From `kill -9` of the application to the word of its manager, and to the manager's exit.

Each round starts a few managers of every kind, each with an application of its own, lets them settle, and
then kills the applications one by one, the kinds in turn, so that noise hits all of them. The clock starts
right before the signal is sent by pidfd. `told` stops it when the exit code can be read in the package log,
which is the manager's stderr; `exit` when its pidfd says that the process is gone, which is
what a cluster waits for, and where an interpreter pays about 1 ms for its memory to be torn down. Nobody is
asked, nothing plays a part. ssh says nothing, so it has an exit only. Every manager's exit code is checked.
Where we may (as root), all of it runs ahead of whatever else the machine does.

Error bars: a p50 holds within 5 percent from run to run on a quiet machine, within 20 on a busy one, and the
ratios better than that. The p99 of 200 is the third largest value: it doubles easily, and on a machine with more
to do than processors the kernel's 50 ms for the starved may be in it. The harness adds about 15 us to each.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from measure import PATIENCE, BenchError, median, p99, undisturbed, watch_writes
from table import Figure, Row, Samples

if TYPE_CHECKING:
    from stage import Kind, Stage

SETTLE = 0.2  # seconds from the last launch to the first kill
PAUSE = 0.01  # seconds between two kills


def measure(stage: Stage, *, quick: bool) -> list[Row]:
    """Return kill-to-exit times of ours beside those of the floors and of ssh."""
    rounds, width = (5, 8) if quick else (20, 10)
    kinds = stage.present("ours", "c", "python", "ssh")
    told: Samples = {kind.name: [] for kind in kinds}
    gone: Samples = {kind.name: [] for kind in kinds}
    with contextlib.ExitStack() as servers:
        ports = {kind.name: servers.enter_context(stage.serve(kind)).port for kind in kinds}
        for _ in range(rounds):
            crowds = [_crowd(stage, kind, ports[kind.name], width // kind.weight) for kind in kinds]
            for run in chain(*crowds):
                run.settle()
            time.sleep(SETTLE)
            with undisturbed():
                for run in filter(None, chain(*zip_longest(*crowds))):
                    word, end = run.kill()
                    told[run.kind.name] += [word * 1e3] if word else []
                    gone[run.kind.name].append(end * 1e3)
                    time.sleep(PAUSE)
    rows = []
    for name, samples, how in (
        ("told", told, "kill -9 of the application to its exit code in the package log"),
        ("exit", gone, "kill -9 of the application to the end of the manager process"),
    ):
        middle = Figure(f"{name} p50", "ms", samples, median, how)
        tail = Figure(f"{name} p99", "ms", samples, p99, how)
        rows += [stage.beside("c", middle, goal=2.0), stage.beside("c", tail)]
        rows += [stage.beside("python", middle), stage.beside("python", tail)]
        if samples is gone:
            rows += [stage.beside("ssh", middle, goal=1.0), stage.beside("ssh", tail)]
    return rows


def _crowd(stage: Stage, kind: Kind, port: int, size: int) -> list[Run]:
    return [Run(stage, kind, port) for _ in range(size)]


class Run:
    """A manager and its application, which writes its pid to a file before it becomes a `sleep`."""

    def __init__(self, stage: Stage, kind: Kind, port: int) -> None:
        self.kind = kind
        self.file = stage.folder / f"{time.monotonic_ns()}.pid"
        script = f"echo $$ >{self.file}; exec /bin/sleep 1000"
        command = ["/bin/sh", "-c", script]
        self.manager = stage.manage(kind, port, command, log=self.file.with_suffix(".log"))

    def settle(self) -> None:
        """Wait until the application runs, and take hold of it and of the manager's log."""
        deadline = time.monotonic() + PATIENCE
        while not (self.file.exists() and (text := self.file.read_text()).endswith("\n")):
            if time.monotonic() > deadline:
                raise BenchError(f"no application of {self.kind.name} runs: {self.manager.last_words()}")
            time.sleep(0.005)
        self.application = os.pidfd_open(int(text))
        self.writes = watch_writes(self.manager.log)

    def kill(self) -> tuple[float | None, float]:
        """Return the seconds from the kill to the manager's word, if it says one, and to its exit."""
        word, end = None, None
        watching = select.poll()
        watching.register(self.writes, select.POLLIN)
        watching.register(self.manager.pidfd, select.POLLIN)
        begun = time.monotonic_ns()
        signal.pidfd_send_signal(self.application, signal.SIGKILL)
        while end is None and (ready := watching.poll(PATIENCE * 1000)):
            now = (time.monotonic_ns() - begun) / 1e9
            if (self.writes, select.POLLIN) in ready:
                os.read(self.writes, 4096)  # or it stays readable, and we would take the processor from the others
                if f"exit code {self.kind.killed}" in self.manager.last_words():
                    word = word or now
            if (self.manager.pidfd, select.POLLIN) in ready:
                end = now
        code = self.manager.reap() if end else None
        if end is None or code != self.kind.killed:
            raise BenchError(f"a manager of {self.kind.name} ended with {code}: {self.manager.last_words()}")
        os.close(self.application)
        os.close(self.writes)
        return word, end
