"""The server's hands in this world: it prepares processes, signals and watches them, and adopts those it finds.

What is done here is what guest/execution.py and process.py do, and the trampoline. The invariant: whether a command
runs is reported once, and before the end of its process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kernel import KILL, TERM

from cmapp.core.lifecycle import Action, Event
from cmapp.core.messages import Refusal
from cmapp.core.outcome import Exited, Unknown

if TYPE_CHECKING:
    from kernel import Process
    from server import Server
    from world import World

MOMENT = 0.0005  # seconds from an event in the kernel to the server's loop
EXECUTING, SLOWLY = 0.001, 0.2  # seconds from `go` to the application, or to what kept it from running
USUAL = 0.8  # how often it does not take long


class Executions:
    """The main processes of the runs of one life of the server, by run id."""

    def __init__(self, world: World, server: Server, handed: dict[str, Process]) -> None:
        """`handed` is what the program before has handed over."""
        self.processes: dict[str, Process] = {}
        self._world = world
        self._server = server
        self._handed = handed

    def prepare(self, run_id: str) -> Process | None:
        """Start the trampoline of a run."""
        behaviour = self._world.behaviours[run_id]
        if behaviour.refused == Refusal.RESOURCES:
            return None
        process = self._world.kernel.spawn(run_id, behaviour, self._server.identity)
        self.processes[run_id] = process
        process.watchers.append(self._died)
        return process

    def adopt(self, run_id: str, pid: int, start: int) -> Process | None:
        """Watch a process that a server before this one has launched, if it is there; its end is reported if not."""
        process = self._handed.get(run_id) or self._world.kernel.find(pid, start)
        if process is not None:
            self.processes[run_id] = process
            process.told = True
            if process.alive:
                process.watchers.append(self._died)
                self._await_readiness(process)
            else:
                self._ended(process)
        return process

    def do(self, run_id: str, action: Action) -> None:
        """Carry out an action of the lifecycle."""
        self._world.trace(lambda: f"server does to {self._world.called(run_id)}: {action.value}")
        process, server, kernel = self.processes.get(run_id), self._server, self._world.kernel
        match action:
            case Action.EXECUTE if process is not None:
                process.go = True
                takes = EXECUTING if self._world.dice.random() < USUAL else SLOWLY
                self._world.timeline.after(takes, self._execute, process)
            case Action.ASK_TO_STOP:
                takes = self._world.behaviours[run_id].command
                server.soon(takes, server.happened, run_id, Event.STOP_COMMAND_ENDED)
            case Action.SIGNAL_TREE if process is not None:
                kernel.signal(process, TERM)
            case Action.SIGNAL_REST | Action.KILL_TREE:
                for member in kernel.tree(run_id):
                    kernel.signal(member, KILL if action is Action.KILL_TREE else TERM)
            case Action.WATCH_TREE:
                server.soon(0.0, self._look_at_tree, run_id)
            case Action.FREE_NAME if process is not None:
                kernel.reap(self.processes.pop(run_id))

    def _execute(self, process: Process) -> None:
        """Play the trampoline, which got its `go`: the server may be dead by now, or stand still."""
        kernel = self._world.kernel
        if kernel.frozen:
            kernel.postpone(self._execute, process)
        elif not process.alive or any(number == KILL for _, number in process.signals):
            return
        elif process.behaviour.refused:
            process.refused = process.behaviour.refused
            kernel.later(process, 0.0, Exited(1))
        else:
            kernel.execute(process)
            self._server.soon(MOMENT, self._report, process)

    def _report(self, process: Process) -> None:
        """Report, once, whether the command runs."""
        if self.processes.get(process.run_id) is not process or process.told:
            return
        process.told = True
        if process.ran:
            self._server.happened(process.run_id, Event.SPAWNED)
            self._await_readiness(process)
        else:
            refusal = (process.refused or Refusal.RESOURCES, "it could not be executed")
            self._server.happened(process.run_id, Event.SPAWN_FAILED, refusal=refusal)

    def _await_readiness(self, process: Process) -> None:
        if process.behaviour.ready is not None:
            at = process.began + process.behaviour.ready
            self._server.soon(max(0.0, at - self._world.timeline.now), self._ready, process)

    def _ready(self, process: Process) -> None:
        if process.alive and self.processes.get(process.run_id) is process:
            self._server.happened(process.run_id, Event.READY)

    def _died(self, process: Process) -> None:
        self._server.soon(MOMENT, self._ended, process)

    def _ended(self, process: Process) -> None:
        self._report(process)
        known = process.parent is self._server.identity or self._world.tells
        outcome = process.outcome if known else Unknown("this kernel does not tell")
        self._server.happened(process.run_id, Event.LEADER_ENDED, outcome=outcome)

    def _look_at_tree(self, run_id: str) -> None:
        members = self._world.kernel.tree(run_id)
        if members:
            members[0].watchers.append(lambda _: self._server.soon(MOMENT, self._look_at_tree, run_id))
        else:
            self._server.happened(run_id, Event.TREE_EMPTY)
