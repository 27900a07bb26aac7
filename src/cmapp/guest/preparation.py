"""What a run needs before its process is started: a plan for the trampoline, limits, and pipes for its output.

The invariant: what cannot be had is a RunError, in words for the manager.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core.messages import Refusal, Stream
from cmapp.errors import RunError
from cmapp.guest import privilege
from cmapp.guest.output import Capture

if TYPE_CHECKING:
    from typing import Any

    from cmapp.core.messages import Launch
    from cmapp.guest.containment import Tree
    from cmapp.guest.surroundings import Surroundings

_CGROUP_LIMITS = ("memory", "pids")


def plan_of(around: Surroundings, launch: Launch) -> dict[str, Any]:
    """Return the trampoline's plan, but for `argv` and `env`: also a command beside the application goes by it."""
    return {
        "cwd": launch.cwd,
        "user": launch.user,
        "group": launch.group,
        "umask": launch.umask,
        "limits": {name: limit for name, limit in launch.limits.items() if name not in _CGROUP_LIMITS},
        "descriptors": around.descriptors,
        "search_path": around.settings.search_path,
        "confined": privilege.is_confined(),
    }


def limit(tree: Tree, launch: Launch) -> None:
    """Limit the whole tree, where the launch says so."""
    memory, pids = (launch.limits.get(name) for name in _CGROUP_LIMITS)
    if memory is not None or pids is not None:
        tree.limit(memory, pids)


def open_output(around: Surroundings, launch: Launch, *, live: bool = True) -> dict[Stream, Capture]:
    """Return a capture of each stream; those of a run that is not `live` hold what was spooled, and read nothing."""
    settings = around.settings
    captures: dict[Stream, Capture] = {}
    try:
        for stream in Stream:
            captures[stream] = Capture(
                settings.state_dir,
                launch.run_id,
                stream,
                keep=settings.output_keep,
                spool=around.spool,
                live=live,
            )
    except OSError as error:
        for capture in captures.values():
            capture.close()
        raise RunError(Refusal.RESOURCES, f"the state folder has no room for it: {error.strerror}") from None
    return captures
