"""The control group of a unit: systemd's, so it is looked at and its processes are signalled, but it is never changed.

The invariant: what is reached is the group that bears the unit's own name, below the outermost, or nothing.
"""

from __future__ import annotations

import os

from cmapp.guest import cgroupfs
from cmapp.guest.cgroup import Cgroups, CgroupTree


def group_of(name: str, group: str) -> CgroupTree | None:
    """Return the control group `group` of the unit `name`, as systemd calls it, None if it is not there."""
    base = os.path.basename(group)
    if not group.startswith("/") or base not in (name, f"_{name}") or ".." in group.split("/"):
        return None
    for point, root in cgroupfs.mounts():
        path = os.path.normpath(os.path.join(point, os.path.relpath(group, root)))
        if path.startswith(f"{point}/".replace("//", "/")) and os.path.isdir(path):
            return CgroupTree(Cgroups(os.path.dirname(path), ""), path, None)
    return None
