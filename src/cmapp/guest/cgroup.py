"""A run's tree as a cgroup of its own: nothing that is forked in it can leave it unseen.

The trampoline enters the cgroup before it does anything else, so whatever the application does, double forks and
new sessions, stays in. Sub-cgroups that an application makes belong to it. The invariant: only what is in the
cgroup while a descriptor holds on to it is signalled, and a tree is empty only when the kernel says so.
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from cmapp.core.messages import Refusal
from cmapp.errors import RunError
from cmapp.guest import cgroupfs, pidfd, proc
from cmapp.guest.proc import Usage
from cmapp.guest.reach import KILL_PASSES, PASSES, WAITED_FOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

OWN = "server"  # the cgroup that the server moves to, when controllers are wanted
_KILL = "cgroup.kill"  # Linux 5.14
RUN = "run-"


class Cgroups:
    """All runs whose trees are cgroups below `base`; `owner` keeps those of several servers apart."""

    kind = "cgroup"

    def __init__(self, base: str, owner: str) -> None:
        self.base = base
        self._name = cgroupfs.name_of(base)
        self._suffix = f".{owner}" if owner else ""
        self._left: list[CgroupTree] = []

    def tree(self, run_id: str) -> CgroupTree:
        """Return the tree of a run that is about to start; raises RunError when its cgroup cannot be made."""
        self._remove_left()
        path = self._path(run_id)
        try:
            os.makedirs(path, 0o755, exist_ok=True)
            join = os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RunError(Refusal.RESOURCES, f"no cgroup can be made for it: {error.strerror}") from None
        return CgroupTree(self, path, join)

    def found(self, run_id: str, known: Iterable[Sequence[int]] = ()) -> CgroupTree:
        """Return the tree of a run that another server started; there is nothing else to know of it."""
        del known
        return CgroupTree(self, self._path(run_id), None)

    def holds(self, pid: int, path: str) -> bool:
        """Tell whether `pid`, which may be a zombie, is in the cgroup at `path` or below it."""
        try:
            lines = proc.read(f"/proc/{pid}/cgroup").decode(errors="replace").splitlines()
        except OSError as error:
            proc.unless_blind(error)
            return False
        own = next((line[3:].removesuffix(" (deleted)") for line in lines if line.startswith("0::")), "")
        name = os.path.normpath(os.path.join(self._name, os.path.relpath(path, self.base)))
        return f"{own}/".startswith(f"{name}/")

    def strays(self) -> list[str]:
        """Return the runs of this server, and of those before it, whose cgroups are here."""
        self._remove_left()
        try:
            names = os.listdir(self.base)
        except OSError:
            return []
        names = [name for name in names if name.startswith(RUN) and name.endswith(self._suffix)]
        runs = [name.removeprefix(RUN).removesuffix(self._suffix) for name in names]
        return sorted(run for run in runs if "." not in run)

    def enable(self, controller: str) -> None:
        """Have `controller` in the cgroups of runs; raises OSError where that cannot be.

        A cgroup with controllers holds no processes, so the server moves to one of its own beside the runs.
        """
        wanted = f"{self.base}/cgroup.subtree_control"
        if controller.encode() in proc.read(wanted).split():
            return
        if controller.encode() not in proc.read(f"{self.base}/cgroup.controllers").split():
            raise FileNotFoundError(errno.ENOENT, "there is no such controller here")
        try:
            cgroupfs.write(wanted, f"+{controller}")
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            self._move()
            cgroupfs.write(wanted, f"+{controller}")

    def _move(self) -> None:
        """Make room: the server and what it is about to start go to a cgroup of their own."""
        os.makedirs(f"{self.base}/{OWN}", 0o755, exist_ok=True)
        for pid in map(int, cgroupfs.procs(self.base)):
            found = proc.stat(pid)
            if pid == os.getpid() or (found is not None and found.parent == os.getpid()):
                cgroupfs.write(f"{self.base}/{OWN}/cgroup.procs", str(pid))

    def remove(self, tree: CgroupTree) -> None:
        """Remove a tree's cgroup, now or when the last of it is out."""
        self._left.append(tree)
        self._remove_left()

    def tidy(self) -> bool:
        """Remove the cgroups of trees that were forgotten; return whether none is left."""
        self._remove_left()
        return not self._left

    def _remove_left(self) -> None:
        self._left = [tree for tree in self._left if not cgroupfs.remove(tree.path)]

    def _path(self, run_id: str) -> str:
        return f"{self.base}/{RUN}{run_id}{self._suffix}"


class CgroupTree:
    """The processes of one run: those in its cgroup; `join` is `cgroup.procs` to be written to, until it started."""

    def __init__(self, around: Cgroups, path: str, join: int | None) -> None:
        self.path = self.where = path
        self.join = join
        self.env: dict[str, str] = {}
        self.known: dict[int, int] = {}
        self._around = around
        self._killing = False

    def started(self, leader: int) -> None:
        """Take note that the trampoline has its descriptor."""
        del leader
        if self.join is not None:
            os.close(self.join)
            self.join = None

    def enter(self) -> int | None:
        """Return another descriptor like `join`, the caller's to close, for a command beside the application."""
        try:
            return os.open(f"{self.path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as error:
            raise RunError(Refusal.RESOURCES, f"its cgroup cannot be entered: {error.strerror}") from None

    def members(self) -> list[int]:
        """Return the processes that live; raises OSError when there is no descriptor left to look with."""
        return [int(pid) for path in cgroupfs.below(self.path) for pid in cgroupfs.procs(path) if pid != b"0"]

    def owns(self, pid: int) -> bool:
        """Tell whether `pid` belongs to the run."""
        return self._around.holds(pid, self.path)

    def remember(self) -> None:
        """Do nothing: the kernel remembers."""

    def signal(self, number: int) -> None:
        """Signal every member, and those that are forked meanwhile; as far as there are descriptors for it."""
        self._reach(number, PASSES)

    def kill(self) -> None:
        """Kill every member; `survivors` kills again what it finds from here on."""
        self._killing = True
        try:
            cgroupfs.write(f"{self.path}/{_KILL}", "1")
        except OSError:
            self._freeze(frozen=True)  # nothing forks in a cgroup that is frozen, and SIGKILL still ends it
            try:
                self._reach(signal.SIGKILL, KILL_PASSES)
            finally:
                self._freeze(frozen=False)

    def survivors(self) -> list[int]:
        """Return pidfds of members that live, at most 64, the caller's to close; empty only if none lives.

        Raises OSError when that cannot be told: no descriptor is left, or one is on its way out and holds on to
        what it had open.
        """
        if self._killing:
            self.kill()
        held = self._hold(self.members(), WAITED_FOR)
        if not held and self._populated():
            raise BlockingIOError(errno.EAGAIN, "somebody is still on its way out")
        return held

    def limit(self, memory: tuple[int, int] | None = None, pids: tuple[int, int] | None = None) -> None:
        """Limit the whole tree, in bytes and processes, soft and hard, -1 for none; raises RunError if it cannot be."""
        wanted = {"memory.high": memory and memory[0], "memory.max": memory and memory[1]}
        wanted["pids.max"] = pids and min((each for each in pids if each >= 0), default=-1)
        for file, value in wanted.items():
            if value is None:
                continue
            name = file.partition(".")[0]
            try:
                self._around.enable(name)
                cgroupfs.write(f"{self.path}/{file}", "max" if value < 0 else str(value))
            except OSError as error:
                text = f"a limit of {name} cannot be set in the server's cgroup: {error.strerror}"
                raise RunError(Refusal.UNSUPPORTED, text) from None

    def usage(self) -> Usage:
        """Return what the tree uses, with the processor time of all that have ended in it."""
        try:
            used = proc.usage_of(self.members())
        except OSError:
            return Usage(0.0, 0, 0)
        return used._replace(cpu=cgroupfs.number(f"{self.path}/cpu.stat", b"usage_usec", 1e6 * used.cpu) / 1e6)

    def remove(self) -> None:
        """Remove the cgroup, which must be empty; what was frozen or is on its way out is removed later."""
        self.started(0)
        self._around.remove(self)

    def _hold(self, pids: list[int], most: int) -> list[int]:
        """Return pidfds of those of `pids` that still are members once they are held."""
        held: dict[int, int] = {}
        try:
            for pid in pids[:most]:
                try:
                    held[pid] = os.pidfd_open(pid)
                except ProcessLookupError:
                    continue
            # Who is a member now has its number now, and so has who is held, if it lives at all.
            members = set(self.members())
        except OSError:
            for descriptor in held.values():
                os.close(descriptor)
            raise
        for pid in held.keys() - members:
            os.close(held.pop(pid))
        return list(held.values())

    def _reach(self, number: int, passes: int) -> None:
        reached: set[int] = set()
        for _ in range(passes):
            try:
                anew = [pid for pid in self.members() if pid not in reached]
                if not anew:
                    return
                for first in range(0, len(anew), WAITED_FOR):
                    for descriptor in self._hold(anew[first : first + WAITED_FOR], WAITED_FOR):
                        pidfd.send(descriptor, number)
                        os.close(descriptor)
            except OSError:
                return  # blind: whoever waits for the end looks again
            reached.update(anew)

    def _populated(self) -> bool:
        return cgroupfs.number(f"{self.path}/cgroup.events", b"populated", 0) > 0

    def _freeze(self, *, frozen: bool) -> None:
        try:
            cgroupfs.write(f"{self.path}/cgroup.freeze", str(int(frozen)))
        except OSError:
            pass  # Linux 5.2 has it: without it, one that forks faster than we look is looked at again
