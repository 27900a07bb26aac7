"""The end of a schedule: faults have ceased and time has gone on, so all has to be well, or over.

The invariant: here, and only here, the server's own books are looked at, and they must agree with the truth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core.ledger import decode
from cmapp.core.rules import OrphanAction

if TYPE_CHECKING:
    from truth import Truth
    from world import World


class Reckoning:
    """Judges the world when nothing goes wrong any more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._expect = world.judge.expect
        self._truths = world.judge.truths

    def settled(self) -> None:
        """Judge what goes on after a long time without faults: each run is watched, or it may be as it is."""
        world, watched = self._world, set()
        for manager in world.managers.values():
            if manager.alive:
                watched.add(manager.run_id)
                alive = any(process.leader and process.ran for process in world.kernel.tree(manager.run_id))
                called = world.called(manager.run_id)
                self._expect(alive, "liveness", f"manager {manager.task.number} waits for {called}, which is not there")
        charges = world.server.roster.charges if world.server is not None else {}
        for run_id, truth in self._truths.items():
            if run_id in watched or truth.leader is None or not truth.leader.alive:
                continue
            held = any(charge.run_id == run_id and charge.run.held for charge in charges.values())
            kept = truth.detached or truth.launch.orphan.action is OrphanAction.KEEP
            self._expect(held or kept, "P4", f"{world.called(run_id)} lives, and nobody watches it")

    def pushed(self) -> None:
        """Judge, a moment after all applications have ended, that every manager that could know it does."""
        for manager in self._world.managers.values():
            truth = self._truths.get(manager.run_id)
            ended = truth is not None and truth.starts and not truth.stopping
            who = f"manager {manager.task.number}"
            self._expect(not (manager.alive and ended), "P8", f"{who} does not know that its application has ended")

    def over(self) -> None:
        """Judge what is left when every application has ended."""
        world, server = self._world, self._world.server
        for manager in world.managers.values():
            self._expect(not manager.alive, "liveness", f"manager {manager.task.number} never concludes")
        if server is None or not server.alive:
            self._expect(False, "liveness", "there is no server")
            return
        left = [process.pid for process in world.kernel.processes if process.alive]
        self._expect(not left, "P5", f"processes {left} live on")
        names = sorted(server.roster.charges)
        self._expect(not names, "liveness", f"the names {', '.join(names)} are never free again")
        self._expect(not server.links, "P11", f"{len(server.links)} links are never let go")
        self._expect(not server.papers.waiting, "P2", "something is never written")
        for run_id, truth in self._truths.items():
            self._judge_books(run_id, truth)

    def _judge_books(self, run_id: str, truth: Truth) -> None:
        """Hold the receipt that the server keeps, and the one on the disk, against the truth."""
        world = self._world
        server, called = world.server, world.called(run_id)
        kept = server.roster.archive.find(run_id) if server is not None else None
        file = world.disk.files.get(run_id)
        written = any("receipt" in entry for entry in decode(file.content).entries) if file is not None else False
        if kept is not None:
            world.judge.judge_receipt(kept.receipt, truth)
            self._expect(written, "P2", f"the receipt of {called} is not on the disk")
        elif truth.starts:
            self._expect(truth.forgotten, "P2", f"{called} has ended, and there is no receipt")
