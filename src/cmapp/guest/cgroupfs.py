"""The files of cgroups, version 2: where they are mounted, what is in them, and how they are written and removed.

The invariant: a cgroup that is gone is one without processes, and what could not be looked at for want of
descriptors is an OSError.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cmapp.guest import proc

if TYPE_CHECKING:
    from collections.abc import Iterator


def mounts() -> Iterator[tuple[str, str]]:
    """Yield where cgroups of version 2 are mounted, and the name that the outermost of them has in /proc/PID/cgroup."""
    for line in proc.read("/proc/self/mountinfo").decode(errors="replace").splitlines():
        words = line.split()
        if words[words.index("-") + 1] == "cgroup2" and "\\" not in words[3] + words[4]:
            yield words[4], words[3]


def name_of(path: str) -> str:
    """Return the name that the cgroup at `path` has in /proc/PID/cgroup."""
    for point, root in mounts():
        if f"{path}/".startswith(f"{point}/".replace("//", "/")):
            return os.path.normpath(os.path.join(root, os.path.relpath(path, point)))
    return path


def below(path: str) -> Iterator[str]:
    """Yield the cgroup and all below it, the outer before the inner."""
    waiting = [path]
    for folder in waiting:
        yield folder
        try:
            with os.scandir(folder) as entries:
                waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            proc.unless_blind(error)  # or else it was removed


def procs(path: str) -> list[bytes]:
    """Return the numbers of the processes in the cgroup itself, as the kernel writes them."""
    try:
        return proc.read(f"{path}/cgroup.procs").split()
    except OSError as error:
        proc.unless_blind(error)
        return []  # it was removed, or holds threads of processes that its parent tells


def number(path: str, key: bytes, otherwise: float) -> float:
    """Return the number behind `key` in a file of the cgroup."""
    try:
        for line in proc.read(path).splitlines():
            name, _, value = line.partition(b" ")
            if name == key:
                return int(value)
    except OSError as error:
        proc.unless_blind(error)
    return otherwise


def write(path: str, text: str) -> None:
    """Write a file of a cgroup."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def remove(path: str) -> bool:
    """Remove a cgroup with those in it; return whether it is gone."""
    try:
        for folder in reversed(list(below(path))):
            os.rmdir(folder)
    except FileNotFoundError:
        return not os.path.exists(path)
    except OSError:
        return False
    return True
