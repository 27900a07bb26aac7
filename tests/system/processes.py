"""Processes as the kernel shows them, and waiting for what is to happen to them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

SOON = 20.0  # seconds: how long anything is waited for that should happen at once
T = TypeVar("T")


def until(condition: Callable[[], T | None], what: str, limit: float = SOON) -> T:
    """Return what `condition` returns as soon as it is true; fail the test when it does not become so."""
    deadline = time.monotonic() + limit
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit:g} s: {what}")
        time.sleep(0.005)
    return found


def until_written(path: Path) -> str:
    """Wait until a line stands in the file, and return all of it."""

    def whole() -> str | None:
        text = path.read_text() if path.exists() else ""
        return text if text.endswith("\n") else None

    return until(whole, f"a line in {path}")


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child of ours, and reap it."""
    process.kill()
    process.wait()


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the state on, or none if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def alive(pid: int) -> bool:
    """Tell whether the process lives: a zombie does not, whoever is late to reap it."""
    fields = stat(pid)
    return bool(fields) and fields[0] not in "ZX"


def until_gone(*pids: int) -> None:
    """Wait until none of the processes lives."""
    until(lambda: not any(map(alive, pids)), f"the end of {pids}")


def paused(pid: int) -> bool:
    """Tell whether the process stands still by SIGSTOP."""
    return stat(pid)[:1] == ["T"]


def session(leader: int) -> list[int]:
    """Return the living processes of the session that `leader` leads."""
    return [pid for pid, fields in everybody() if fields[0] not in "ZX" and int(fields[3]) == leader]


def children(parent: int) -> list[int]:
    """Return the children of `parent`, zombies too."""
    return [pid for pid, fields in everybody() if int(fields[1]) == parent]


def everybody() -> list[tuple[int, list[str]]]:
    """Return all processes with what `stat` says of them."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [(pid, fields) for pid in pids if (fields := stat(pid))]
