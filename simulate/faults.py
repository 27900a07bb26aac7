"""What is done to the world: each decision of a schedule has one method here, named by its word.

A fault that lasts ends by itself, or when all cease. The invariant: nothing here looks at what the cores think; a
decision that makes no sense when it is due does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core.outcome import Exited
from cmapp.core.pursuit import Event

if TYPE_CHECKING:
    from collections.abc import Callable

    from kernel import Process
    from manager import Manager
    from schedule import Decision
    from server import Server
    from wires import Wire
    from world import World


class Faults:
    """The faults of one world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._freezes = 0
        self._waiting: tuple[dict[str, Process], object] | None = None  # what a server starts with after the thaw
        self._calm: list[Callable[[], None]] = []  # what ends the faults that last

    def do(self, decision: Decision) -> None:
        """Carry out a decision."""
        self._world.trace(lambda: f"*** {decision}")
        getattr(self, f"_{decision.what.replace(' ', '_')}")(decision)

    def cease(self) -> None:
        """End all faults."""
        self._world.trace(lambda: "*** all faults cease")
        for end in list(self._calm):
            end()

    def _for(self, seconds: float, end: Callable[[], None]) -> None:
        """Have a fault end after some time, or when all cease."""

        def once() -> None:
            if once in self._calm:
                self._calm.remove(once)
                self._world.trace(lambda: "a fault ends")
                end()

        self._calm.append(once)
        self._world.timeline.after(seconds, once)

    # ---- managers ------------------------------------------------------------------------------------------

    def _start(self, decision: Decision) -> None:
        task = decision.task
        if task is not None and task.number not in self._world.managers:
            self._world.start(task)

    def _living(self, decision: Decision) -> Manager | None:
        manager = self._world.managers.get(decision.who)
        return manager if manager is not None and manager.alive else None

    def _kill(self, decision: Decision) -> None:
        if manager := self._living(decision):
            manager.die()

    def _pause(self, decision: Decision) -> None:
        if manager := self._living(decision):
            manager.pause()
            self._for(decision.lasts, manager.go_on)

    def _term(self, decision: Decision) -> None:
        if manager := self._living(decision):
            manager.asked(Event.SIGNALED)

    def _usr1(self, decision: Decision) -> None:
        if manager := self._living(decision):
            manager.asked(Event.DISMISSED)

    # ---- links ---------------------------------------------------------------------------------------------

    def _cut(self, decision: Decision) -> None:
        manager = self._living(decision)
        if manager is not None and manager.wire is not None:
            manager.wire.cut(tell=decision.ends, keep=decision.number)

    def _stall(self, decision: Decision) -> None:
        manager = self._living(decision)
        if manager is None or manager.wire is None:
            return
        for end in decision.ends:
            manager.wire.hold(end)
            self._for(decision.lasts, self._release(manager.wire, end))

    def _partition(self, decision: Decision) -> None:
        held = list(self._world.wires)
        self._world.partitions += 1
        for wire in held:
            wire.hold("server")
            wire.hold("manager")
        self._world.reach()
        self._for(decision.lasts, self._heal)

    def _heal(self) -> None:
        self._world.partitions -= 1
        self._world.reach()
        for wire in list(self._world.wires):
            for end in ("server", "manager"):
                if wire.ways[end].held:
                    wire.release(end)

    @staticmethod
    def _release(wire: Wire, end: str) -> Callable[[], None]:
        return lambda: wire.release(end)

    # ---- the server ----------------------------------------------------------------------------------------

    def _restart(self, handed: dict[str, Process], identity: object = None) -> None:
        if self._freezes:
            self._waiting = (handed, identity)
        else:
            self._world.new_server(handed, identity)

    def _crash(self, decision: Decision) -> None:
        server = self._world.server
        if server is None or not server.alive:
            return
        self._world.end_server(server)
        self._world.kernel.orphan(server.identity)
        self._for(decision.lasts, lambda: self._restart({}))

    def _leave(self, decision: Decision) -> None:
        server = self._world.server
        if server is not None and server.alive and not server.leaving and not server.quitting:
            server.event(server.leave, lambda: self._crash(decision))

    def _quit(self, decision: Decision) -> None:
        server = self._world.server
        if server is not None and server.alive and not server.leaving:
            server.event(server.quit, lambda: self._crash(decision))

    def _upgrade(self, _: Decision) -> None:
        server = self._world.server
        if server is not None and server.alive and not server.leaving and not server.quitting:
            server.event(server.upgrade, lambda: self._exchange(server))

    def _exchange(self, server: Server) -> None:
        self._world.end_server(server)
        for process in server.executions.processes.values():
            process.watchers.clear()
            if process.alive and not process.go:
                self._world.kernel.later(process, 0.001, Exited(1))
        handed = {run_id: process for run_id, process in server.executions.processes.items() if process.told}
        self._restart(handed, server.identity)

    def _stop_server(self, decision: Decision) -> None:
        server = self._world.server
        if server is not None and server.alive:
            server.pause()
            self._for(decision.lasts, server.go_on)

    # ---- the guest -----------------------------------------------------------------------------------------

    def _freeze(self, decision: Decision) -> None:
        if not self._world.up:
            return
        self._freezes += 1
        kernel, server = self._world.kernel, self._world.server
        kernel.freeze()
        if server is not None:
            server.pause()

        def thaw() -> None:
            self._freezes = max(0, self._freezes - 1)
            if not self._freezes:
                kernel.thaw()
            if server is not None:
                server.go_on()
            if not self._freezes and self._waiting is not None:
                (handed, identity), self._waiting = self._waiting, None
                self._world.new_server(handed, identity)

        self._for(decision.lasts, thaw)

    def _power(self, decision: Decision) -> None:
        if self._world.up:
            self._freezes, self._waiting = 0, None
            self._world.lose_power()
            self._for(decision.lasts, self._world.boot)

    def _full(self, decision: Decision) -> None:
        self._world.disk.full += 1
        self._for(decision.lasts, lambda: setattr(self._world.disk, "full", self._world.disk.full - 1))

    def _broken(self, decision: Decision) -> None:
        self._world.disk.broken += 1
        self._for(decision.lasts, lambda: setattr(self._world.disk, "broken", self._world.disk.broken - 1))

    def _slow(self, decision: Decision) -> None:
        self._world.disk.slow += 1
        self._for(decision.lasts, lambda: setattr(self._world.disk, "slow", self._world.disk.slow - 1))

    def _wall(self, decision: Decision) -> None:
        self._world.jump += decision.lasts

    def _end(self, decision: Decision) -> None:
        for process in list(self._world.kernel.processes):
            if process.alive and process.leader and process.ran and self._world.names[process.run_id] == decision.name:
                self._world.kernel.end(process, decision.outcome or Exited(0))

    def _hold(self, decision: Decision) -> None:
        self._ask_hold(decision.name, on=True)

    def _resume(self, decision: Decision) -> None:
        self._ask_hold(decision.name, on=False)

    def _ask_hold(self, name: str, *, on: bool) -> None:
        server = self._world.server
        if server is not None and server.alive:
            server.event(server.hold, name, on)

    def _unhealthy(self, decision: Decision) -> None:
        server = self._world.server
        if server is not None and server.alive:
            server.event(server.unhealthy, decision.name)
