"""Processes and their trees without a server around them: started, waited for and cleared away by the test itself.

The test's own process is the subreaper here. The invariant: nothing that a bed has started, and no cgroup that it
has made, is left when it is closed.
"""

from __future__ import annotations

import os
import select
import uuid
from typing import TYPE_CHECKING

from cmapp.guest import cgroupfs
from cmapp.guest.containment import become_subreaper, containment_for, reap_orphans
from cmapp.guest.process import Process
from tests.shell.served import SOON, children, until

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Any

    from cmapp.core.outcome import Outcome
    from cmapp.guest.containment import Containment, Tree


def cgroup_for_tests() -> str | None:
    """Return a cgroup of the tests' own, or None where none can be made."""
    for point, _ in cgroupfs.mounts():
        folder = f"{point}/cmapp-test-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        try:
            os.mkdir(folder)  # noqa: PTH102 - a cgroup, not a file
        except OSError:
            continue
        return folder
    return None


def readable(descriptor: int) -> bool:
    """Wait until the descriptor can be read."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(SOON * 1000))


class TreeBed:
    """Runs that a test starts by itself."""

    def __init__(self, folder: Path, cgroup: str | None) -> None:
        """Keep trees apart by cgroups below `cgroup`, or by sessions if there is none."""
        assert become_subreaper()
        self.folder = folder
        self.cgroup = cgroup
        self.containment: Containment = containment_for(cgroup or "none")
        self._before = set(children(os.getpid()))
        self._runs: list[tuple[Process, Tree]] = []
        self._ids: dict[int, str] = {}

    def start(self, *argv: str, go: bool = True, **plan: Any) -> tuple[Process, Tree, int]:
        """Start a command; return its process, its tree, and a descriptor to read its stdout from."""
        run_id = str(uuid.uuid4())
        tree = self.containment.tree(run_id)
        self._ids[id(tree)] = run_id
        reading, writing = os.pipe()
        try:
            process = self.process(argv, writing, tree, **plan)
        finally:
            os.close(writing)
        self._runs.append((process, tree))
        if go:
            process.go()
        return process, tree, reading

    def process(self, argv: Sequence[str], output: int, tree: Tree, **plan: Any) -> Process:
        """Start a command in a tree; the process is the caller's to reap."""
        whole = {
            "argv": list(argv),
            "cwd": "/",
            "user": None,
            "group": None,
            "umask": 0o22,
            "descriptors": (1024, 4096),
            "search_path": "/usr/local/bin:/usr/bin:/bin",
            **plan,
            "env": {**tree.env, **plan.get("env", {})},
        }
        process = Process(whole, output, output, tree.join)
        tree.started(process.pid)
        return process

    def launch(self, *argv: str, words: int = 0, **plan: Any) -> tuple[Process, Tree, list[int]]:
        """Start a command; return its process, its tree, and the first numbers that it has written."""
        process, tree, reading = self.start(*argv, **plan)
        until(lambda: readable(process.trouble) and process.hear_trouble(), "the application runs")
        assert process.take_trouble() is None
        said = b""
        while len(said.split()) < words or not said.endswith(b"\n" if words else b""):
            assert readable(reading)
            said += os.read(reading, 4096)
        os.close(reading)
        return process, tree, [int(word) for word in said.split()]

    def run_id(self, tree: Tree) -> str:
        """Return the id of the run that the tree is of."""
        return self._ids[id(tree)]

    def end(self, process: Process) -> Outcome:
        """Return how the process ended."""
        assert readable(process.pidfd)
        until(lambda: process.outcome() is not None, "its end is told")
        outcome = process.outcome()
        assert outcome is not None
        return outcome

    def clear(self, tree: Tree) -> None:
        """Wait until nothing of the tree is left."""
        until(lambda: self._nobody_left(tree), "nothing survives")
        assert tree.members() == []

    def _nobody_left(self, tree: Tree) -> bool:
        try:
            survivors = tree.survivors()
        except BlockingIOError:
            return False
        for survivor in survivors:
            assert readable(survivor)
            os.close(survivor)
        return not survivors

    def close(self) -> None:
        """Clear everything away."""
        for process, tree in self._runs:
            tree.kill()
            self.clear(tree)
            self.end(process)
            process.reap()
            tree.remove()
        reap_orphans(self._before)
        assert self.containment.strays() == []
        if self.cgroup is not None:
            assert cgroupfs.remove(self.cgroup)
