"""What the manager of a run has said at its end, and the marks beside it in the resource's folder.

`result` is cmappmgr's own; `starting` is there while a start has not succeeded; `failed` tells the guest's own resource
that its application has failed here. The invariant: a result is only that of the run that was asked for.
"""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.agent.instance import Instance

RESULT, STARTING, FAILED, LOG = "result", "starting", "failed", "log"
FAILURES = ("exited", "signaled", "unhealthy", "unknown", "not-started", "refused", "failed")  # of the application
TAIL = 4096  # bytes at the end of a log


def result_of(instance: Instance, run_id: str) -> dict[str, Any] | None:
    """Return what the manager of the run has left, None if it has left nothing."""
    try:
        with open(instance.path(RESULT), encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("run_id") == run_id else None


def is_told_gone(result: dict[str, Any] | None) -> bool:
    """Tell whether the server has said that nothing is left: it says so of an end that did not come by itself."""
    return result is not None and result.get("reason", "itself") != "itself"


def last_words(instance: Instance) -> str:
    """Return the last line that a manager wrote to standard error, which is why it did not even begin."""
    try:
        with open(instance.path(LOG), "rb") as file:
            file.seek(max(0, os.stat(file.fileno()).st_size - TAIL))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line for line in reversed(lines) if line.strip()), "").removeprefix("cmappmgr: ")


def mark(instance: Instance, name: str, text: str = "") -> None:
    """Leave a mark."""
    with open(instance.path(name), "w", encoding="utf-8") as file:
        file.write(text)


def is_marked(instance: Instance, name: str) -> bool:
    """Tell whether the mark is there."""
    return os.path.exists(instance.path(name))


def unmark(instance: Instance, *names: str) -> None:
    """Take marks, or a result, away."""
    for name in names:
        try:
            os.unlink(instance.path(name))
        except FileNotFoundError:
            pass
