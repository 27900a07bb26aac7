"""The process of a run that another server has launched: handed over, found by its identity, or kept by systemd.

The invariant: what is returned is the process that the run's file names, by number and start, and no other.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from cmapp.guest import proc
from cmapp.guest.process import Process
from cmapp.guest.spawn import TRAMPOLINE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cmapp.core.effects import Adopt

log = logging.getLogger(__name__)

_PREPARING = b"\0".join(word.encode() for word in TRAMPOLINE[:4]) + b"\0"


def was_executed(pid: int) -> bool:
    """Tell whether a living process that a server has launched is the application, and no longer what prepared it."""
    try:
        command = proc.read(f"/proc/{pid}/cmdline")
    except OSError:
        return False
    return bool(command) and not command.startswith(_PREPARING)


def process_left(adopt: Adopt, handed: Mapping[str, Any] | None, stored: int | None) -> Process | None:
    """Return the process of a run, or None if it is gone and nothing can tell how it ended.

    `handed` is what the program before us told of it, `stored` a descriptor that systemd kept, which is taken over.
    """
    process = None
    try:
        process = Process.adopt(adopt.pid, adopt.start) if handed is None else Process.take_over(handed)
    except OSError as error:
        name = f"{adopt.launch.name} (run {adopt.run_id})"
        log.error("%s: process %d cannot be watched: %s", name, adopt.pid, error.strerror or error)
    if stored is None:
        return process
    if process is None:
        handle = [adopt.pid, adopt.start, stored]
        try:
            return Process.take_over({"leader": handle, "main": handle, "trouble": -1, "said": ""})
        except OSError:
            pass  # it is no process's, or another's
    os.close(stored)
    return process
