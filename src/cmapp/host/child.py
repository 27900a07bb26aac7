"""A command of the host's that a manager starts: to ask somebody, or to tell somebody.

It gets a session and an environment of its own, nothing on standard input, and our standard error. The invariant: of
our descriptors it has no other, also of those that whoever started us has left open; a lock that is held through one
of them would be held on by a stranger.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OURS = (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def spawn(command: Sequence[str], *, stdout: int | None = None, env: Mapping[str, str] | None = None) -> int:
    """Start `command`, an absolute path and its arguments, and return its pid; raises OSError.

    Its standard output is `stdout`, or our standard error. It has PATH, LC_ALL=C and `env`, and is to be reaped.
    """
    keep_descriptors()
    return os.posix_spawn(
        command[0],
        tuple(command),
        {"PATH": PATH, "LC_ALL": "C", **(env or {})},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, 2 if stdout is None else stdout, 1),
        ],
        setsid=True,
        setsigmask=(),
        setsigdef=_OURS,
    )


def keep_descriptors() -> None:
    """Have nothing that is started from here on inherit a descriptor of ours beyond the three standard streams."""
    for entry in os.listdir("/proc/self/fd"):
        try:
            os.set_inheritable(int(entry), int(entry) <= 2)  # noqa: PLR2004 - the three standard streams
        except OSError:
            pass  # that was the folder's own
