"""What servers and managers that were killed may leave: processes of runs, and the cgroups that these had.

A run's processes are told by its run id, which their cgroup or their environment bears, so that nothing but what a
test has started is ever ended. The invariant: a process is signalled only when it was proven, while it was held, to be
one of the runs'.
"""

from __future__ import annotations

import os
import re
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

UUID = "[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
RUN_ID = re.compile(rf"\brun ({UUID})\b")
MARK = re.compile(rf"(?:/run-|CMAPP_RUN_ID=)({UUID})")


def run_ids(*logs: str) -> set[str]:
    """Return the runs that the logs of managers or servers speak of."""
    return {found for log in logs for found in RUN_ID.findall(log)}


def belongs(pid: int, runs: AbstractSet[str]) -> bool:
    """Tell whether the process is one of these runs'."""
    process = Path(f"/proc/{pid}")
    try:
        said = process.joinpath("cgroup").read_text() + process.joinpath("environ").read_bytes().decode(
            errors="replace"
        )
    except OSError:
        return False
    return not runs.isdisjoint(MARK.findall(said))


def members(runs: AbstractSet[str]) -> list[int]:
    """Return the processes of these runs."""
    if not runs:
        return []
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [pid for pid in pids if belongs(pid, runs)]


def end_runs(runs: AbstractSet[str]) -> None:
    """Kill what lives of these runs, and remove the cgroups that they had."""

    def gone() -> bool:
        left = members(runs)
        for pid in left:
            with suppress(ProcessLookupError):
                kill(pid, runs)
        return not left

    until(gone, "the end of what is left of runs")
    for cgroup in cgroups(runs):
        until(lambda cgroup=cgroup: removed(cgroup), f"the removal of {cgroup}")  # type: ignore[misc]


def kill(pid: int, runs: AbstractSet[str]) -> None:
    """Kill one process, if it still is one of these runs'; raises ProcessLookupError."""
    pidfd = os.pidfd_open(pid)
    try:
        if belongs(pid, runs):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


def cgroups(runs: AbstractSet[str]) -> list[Path]:
    """Return the cgroups of these runs, the innermost first."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    points = [words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2"]
    folders = [folder for point in points for folder, _, _ in os.walk(point, topdown=False)]
    return [Path(folder) for folder in folders if not runs.isdisjoint(MARK.findall(folder))]


def removed(cgroup: Path) -> bool:
    """Remove a cgroup, which is possible a moment after its last process has ended."""
    try:
        cgroup.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True
