"""Where the processes of runs belong: in a cgroup for each run, or below the server where there is none to write to.

The server is a subreaper: whatever the application forked and left becomes the server's child when its own
parent ends, so orphans can be found below the server and none is left as a zombie. The invariant: a tree tells what
belongs to its run and nothing else, and all that signals, kills and waits for a tree goes through it.
"""

from __future__ import annotations

import ctypes
import os
import stat
import zlib
from typing import TYPE_CHECKING, Protocol

from cmapp.errors import SettingsError
from cmapp.guest import cgroupfs, proc
from cmapp.guest.cgroup import OWN, RUN, Cgroups
from cmapp.guest.sessions import Sessions

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from cmapp.guest.proc import Usage

_PR_SET_CHILD_SUBREAPER = 36


class Tree(Protocol):
    """All processes of one run.

    `join` is a descriptor for the trampoline, or None; `where` is its cgroup, or ""; `env` what the application's
    environment has to have; `known` the processes seen so far, start by number, whose pairs are worth keeping for
    `found`.
    """

    join: int | None
    where: str
    env: dict[str, str]
    known: dict[int, int]

    def started(self, leader: int) -> None:
        """Take note of the run's leader, and later of what else was proven to be the run's."""

    def enter(self) -> int | None:
        """Return another descriptor like `join`, the caller's to close; raises RunError where there is none."""

    def members(self) -> list[int]:
        """Return the processes that live; raises OSError when blind."""

    def owns(self, pid: int) -> bool:
        """Tell whether `pid` belongs to the run; raises OSError when blind."""

    def remember(self) -> None:
        """Look who is there; to be called once a second or so."""

    def signal(self, number: int) -> None:
        """Signal every member."""

    def kill(self) -> None:
        """Kill every member, forks meanwhile included; from here on `survivors` kills what it finds."""

    def survivors(self) -> list[int]:
        """Return pidfds of at most 64 living members, the caller's to close; raises OSError when blind."""

    def limit(self, memory: tuple[int, int] | None = None, pids: tuple[int, int] | None = None) -> None:
        """Limit the tree, soft and hard; raises RunError where that cannot be."""

    def usage(self) -> Usage:
        """Return what the tree uses."""

    def remove(self) -> None:
        """Forget the tree, which must be empty, or never have started."""


class Containment(Protocol):
    """Where the trees of runs are made; `kind` is "cgroup" or "session"."""

    @property
    def kind(self) -> str:
        """How trees are told."""

    def tree(self, run_id: str) -> Tree:
        """Return the tree of a run that is about to start; raises RunError when there is no room for it."""

    def found(self, run_id: str, known: Iterable[Sequence[int]] = ()) -> Tree:
        """Return the tree of a run that a server before this one started, empty if nothing is left of it."""

    def strays(self) -> list[str]:
        """Return the run ids of which cgroups are here."""

    def tidy(self) -> bool:
        """Remove what trees that were forgotten have left; return whether nothing is left of them."""


def containment_for(mode: str, state_dir: str = "") -> Containment:
    """Return what "auto", "none" or the path of a cgroup means here; raises SettingsError if it cannot be used.

    Servers that share a cgroup are kept apart by their state folders.
    """
    owner = f"{zlib.crc32(os.path.realpath(state_dir).encode()):08x}" if state_dir else ""
    if mode == "none":
        return Sessions()
    if mode == "auto":
        base = _own_cgroup()
        return Sessions() if base is None else Cgroups(base, owner)
    if not os.path.isabs(mode) or not os.path.exists(f"{mode}/cgroup.controllers"):
        raise SettingsError(f"cgroup: {mode} is no cgroup of version 2")
    if not _is_usable(mode):
        raise SettingsError(f"cgroup: the server may not make cgroups in {mode}")
    return Cgroups(os.path.realpath(mode), owner)


def is_closed(containment: Containment) -> bool:
    """Tell whether it takes root's powers to make cgroups for runs: below another user's, or a read-only one."""
    if not isinstance(containment, Cgroups):
        return False
    for path in (containment.base, f"{containment.base}/cgroup.procs"):
        status = os.stat(path)
        if status.st_uid != os.geteuid() or not status.st_mode & stat.S_IWUSR:
            return True
    return False


def tree_left(containment: Containment, run_id: str, where: str, known: Iterable[Sequence[int]] = ()) -> Tree:
    """Return the tree of a run that a server before this one started, in the cgroup `where` or without one.

    That may be another place than where this server, with its own settings, has its runs.
    """
    if not where:
        return (containment if containment.kind == "session" else Sessions()).found(run_id, known)
    base, name = os.path.split(where)
    return Cgroups(base, name.removeprefix(f"{RUN}{run_id}").removeprefix(".")).found(run_id)


def become_subreaper() -> bool:
    """Have orphans of our children become ours; return whether the kernel does so."""
    return bool(ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def orphans(leaders: AbstractSet[int]) -> list[int]:
    """Return the children of this process that it did not launch itself."""
    return [pid for pid in proc.children(os.getpid()) if pid not in leaders]


def reap_orphans(leaders: AbstractSet[int]) -> int:
    """Reap the orphans that have ended, but none of `leaders`, whose ends somebody asks for; return how many."""
    reaped = 0
    try:
        found = orphans(leaders)
    except OSError:
        return 0  # no descriptor left to look with: it is done again
    for pid in found:
        try:
            reaped += os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG) is not None
        except ChildProcessError:
            pass
    return reaped


def _own_cgroup() -> str | None:
    """Return the folder of the cgroup that this server may make others in, or None."""
    try:
        with open("/proc/self/cgroup") as file:
            own = next((line[3:].rstrip("\n") for line in file if line.startswith("0::")), "")
        for point, root in cgroupfs.mounts():
            path = os.path.normpath(os.path.join(point, os.path.relpath(own, root)))
            if own and str(os.getpid()).encode() in cgroupfs.procs(path):  # or else we are outside of what is mounted
                outer = os.path.dirname(path)
                if os.path.basename(path) == OWN and _is_usable(outer):  # where a server, or its unit, has put itself
                    path = outer
                if _is_usable(path):
                    return path
    except OSError:
        pass  # neither /proc nor a descriptor
    return None


def _is_usable(path: str) -> bool:
    """Tell whether we may make cgroups in that one and move ourselves to them."""
    try:
        with open(f"{path}/cgroup.type") as file:
            if file.read().strip() != "domain":
                return False
    except FileNotFoundError:
        pass  # the root has none
    except OSError:
        return False
    return os.access(path, os.W_OK | os.X_OK) and os.access(f"{path}/cgroup.procs", os.W_OK)
