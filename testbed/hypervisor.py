"""A hypervisor for guests that boot in half a second, which the nodes command through the counter.

A guest belongs to at most one node, the one that has started it or was given it by a migration; when that node loses
its power, so does the guest, at once. A migration moves nothing but that: the guest goes on where it is, after a
moment in which it stands still. The invariant: no guest runs twice; who asks for it is told no, and it is written down.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.guests import Guest

BROWNOUT = 0.1  # seconds that a guest stands still while it migrates
SHUTDOWN_LIMIT = 15.0  # seconds for an orderly stop, before its power is taken
PAUSE = 0.02


class Machine:
    """A guest, the node that it belongs to, and how it is."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.owner = ""
        self.state = "running"  # what is told of it while it has power: running, paused, migrating
        self.lock = threading.RLock()


class Hypervisor:
    """All guests of a bed, as they are commanded from nodes and harassed by tests."""

    def __init__(self, alive: Callable[[str], bool]) -> None:
        """`alive` tells whether a node has power."""
        self._alive = alive
        self._machines: dict[str, Machine] = {}
        self.events: list[tuple[float, str, str, str]] = []
        """What was done: when, what, to which guest, for which node; "refused" is a second start."""

    def define(self, guest: Guest) -> None:
        """Make a guest known, which is off."""
        self._machines[guest.name] = Machine(guest)

    def undefine(self, name: str) -> None:
        """Forget a guest, its disk too; it loses its power."""
        machine = self._machines.pop(name)
        with machine.lock:  # whoever takes its power just now has finished
            machine.guest.discard()

    def owner(self, name: str) -> str:
        """Return the node that a guest runs on, or nothing."""
        machine = self._machines[name]
        return machine.owner if machine.guest.up else ""

    def command(self, words: list[str]) -> str:
        """Do what a node commands: NODE VERB GUEST [TARGET]."""
        node, verb, name, *more = words
        machine = self._machines.get(name)
        if machine is None:
            return f"error: there is no guest {name}"
        match verb:
            case "start":
                return self._start(machine, node)
            case "stop":
                return self._stop(machine, node)
            case "destroy":
                return self._destroy(machine, node)
            case "state":
                return self._state(machine, node)
            case "migrate" if more and more[0]:
                return self._migrate(machine, node, more[0])
        return "error: what is asked for is start, stop, destroy, state, or migrate with a target"

    def power_lost(self, node: str) -> None:
        """Take the power of all guests of a node, which has lost its own."""
        owned = [machine for machine in self._machines.values() if machine.owner == node]
        for machine in owned:
            if machine.guest.up:
                machine.guest.cut()
        for machine in owned:
            with machine.lock:
                machine.guest.crash()
                machine.owner = ""
                self._note("lost", machine, node)

    def pause(self, name: str, *, told: bool = True) -> None:
        """Let a guest stand still: as one that was paused, or (`told` false) as one that hangs, and seems to run."""
        self._machines[name].guest.freeze()
        if told:
            self._machines[name].state = "paused"

    def resume(self, name: str) -> None:
        """Let a guest go on."""
        self._machines[name].state = "running"
        self._machines[name].guest.thaw()

    def _start(self, machine: Machine, node: str) -> str:
        with machine.lock:
            if machine.guest.up and machine.owner != node:
                self._note("refused", machine, node)
                return f"error: {machine.guest.name} runs on {machine.owner}"
            if not machine.guest.up:
                machine.guest.power_on()
                machine.owner, machine.state = node, "running"
                self._note("start", machine, node)
            return "running"

    def _stop(self, machine: Machine, node: str) -> str:
        if not machine.guest.up or machine.owner != node:
            return self._state(machine, node)
        machine.guest.ask_to_stop()
        deadline = time.monotonic() + SHUTDOWN_LIMIT
        while machine.guest.up and time.monotonic() < deadline:
            time.sleep(PAUSE)  # without the lock: its node may lose its power meanwhile
        return self._destroy(machine, node)

    def _destroy(self, machine: Machine, node: str) -> str:
        with machine.lock:
            if machine.owner == node:
                machine.guest.crash()
                machine.owner = ""
                self._note("stop", machine, node)
            return "down"

    def _state(self, machine: Machine, node: str) -> str:
        if not machine.guest.up:
            return "down"
        if machine.owner != node:
            return f"elsewhere: it runs on {machine.owner}"
        return machine.state

    def _migrate(self, machine: Machine, node: str, target: str) -> str:
        with machine.lock:
            if not machine.guest.up or machine.owner != node:
                return f"error: {machine.guest.name} does not run on {node}"
            if not self._alive(target):
                return f"error: {target} has no power"
            machine.state = "migrating"
            machine.guest.freeze()
            time.sleep(BROWNOUT)
            machine.owner = target
            machine.guest.thaw()
            machine.state = "running"
            self._note("migrate", machine, target)
            return "running"

    def _note(self, what: str, machine: Machine, node: str) -> None:
        self.events.append((time.monotonic(), what, machine.guest.name, node))
