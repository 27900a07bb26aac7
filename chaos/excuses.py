"""What a fault of ours explains: the reasons for which the judge lets pass what it would report otherwise.

A fault is felt while it lasts and for the story's patience afterwards, by those whom it concerns. The invariant:
nothing is explained by a fault on another guest, or by one that was over for longer than that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.story import FOREVER

if TYPE_CHECKING:
    from chaos.story import Fault, Instance, Manager, Server, Story

UNWELL = (
    "cut",
    "deaf",
    "mute",
    "freeze",
    "server-pause",
    "server-kill",
    "server-term",
    "server-restart",
    "crash",
    "shutdown",
    "server-upgrade",
    "disk-full",
    "manager-pause",
)
DEADLY = ("server-kill", "server-term", "server-restart", "crash", "shutdown")
POWERLESS = ("crash", "shutdown")
SLACK = 0.3  # seconds between what a clock said and when a process that had read it was stopped
LINGER = 5.0  # seconds for what an application that ended by itself leaves behind
GIVING_UP = 16.0  # seconds: the longest that a manager waits for anything, its stop time-out and 15
STILL = ("server-pause", "freeze")
LAUNCHING = 1.0  # seconds in which a server that is killed does not know what it has launched
STARTING = 3.0  # seconds from a server's first sign of life until it has taken up what runs


def felt(story: Story, manager: Manager, kinds: tuple[str, ...]) -> bool:
    """Tell whether a fault of one of these kinds was felt while the manager came to its end."""
    since = max(manager.began, manager.ended - GIVING_UP)
    return any(
        fault.kind in kinds and fault.guest == manager.guest and _near(fault, since, manager.ended, story)
        for fault in story.faults
    )


def refusable(story: Story, manager: Manager) -> bool:
    """Tell whether a manager may have been turned away: as it was told to stop, for want of disk, or for another one.

    The other is there as a duplicate, or was killed when the guest could not learn of it, and still waits there.
    """
    if manager.refusal == "stopped":
        return bool(manager.signals) or felt(story, manager, ("shutdown",))
    if manager.refusal == "resources":
        return felt(story, manager, ("disk-full",))
    others = [
        other
        for other in story.managers
        if (other.guest, other.name) == (manager.guest, manager.name) and other.number != manager.number
        if other.began <= manager.ended and other.ended + story.patience >= manager.began
    ]
    beside = any(other.ended > manager.began for other in others)
    return beside or (bool(others) and felt(story, manager, UNWELL))


def may_be_unknown(story: Story, instances: list[Instance], run_id: str) -> bool:
    """Tell whether nobody can have seen the end: the server was down, or the guest lost its power."""
    if not instances:
        managers = [manager for manager in story.managers if manager.run_id == run_id]
        return any(
            fault.kind in DEADLY and fault.guest == manager.guest and _near(fault, manager.began, manager.ended, story)
            for manager in managers
            for fault in story.faults
        )
    return any(_unseen(story, instance) for instance in instances)


def _unseen(story: Story, instance: Instance) -> bool:
    servers = sorted((server for server in story.servers if server.guest == instance.guest), key=lambda one: one.seen)
    stills = [fault for fault in story.faults if fault.guest == instance.guest and fault.kind in STILL]
    low, high = instance.last_main - SLACK, instance.last_main + 1.0
    for server, later in zip(servers, [*servers[1:], None], strict=True):
        if server.ended is None:
            continue
        blind = min(server.ended, *(one.begun for one in stills if one.begun < server.ended <= one.ended), FOREVER)
        again = later.seen + STARTING if later is not None else FOREVER
        if high >= blind - SLACK and low <= again:
            return True
        if abs(server.ended - instance.started) < LAUNCHING:
            return True  # it cannot be told from the end of what was to become the application
        if not story.tells_strangers and instance.started < server.ended and high > again:
            return True  # adopted by a server whose kernel cannot tell
    powerless = ("crash", "shutdown")
    return any(
        fault.kind in powerless and fault.guest == instance.guest and fault.begun - 1 <= high and low <= fault.ended
        for fault in story.faults
    )


def hindered(story: Story, guest: str, since: float) -> float:
    """Return for how long, all in all, the guest's server was hindered from `since` on, until it was well for long."""
    seconds = 0.0
    for fault in sorted(story.faults, key=lambda fault: fault.begun):
        near = fault.guest == guest and fault.kind in UNWELL
        if near and fault.ended > since - LINGER and fault.begun < since + LINGER + seconds:
            seconds += fault.ended - fault.begun + LINGER
    return seconds


def cause_of_death(server: Server, causes: list[Fault], story: Story) -> Fault | None:
    """Return which of our faults ended a server, if one did."""
    assert server.ended is not None  # noqa: S101 - for the type checker
    for cause in causes:
        if cause.begun - SLACK <= server.ended <= cause.ended + story.patience:
            return cause
    return None


def _near(fault: Fault, since: float, until: float, story: Story) -> bool:
    return fault.begun <= until and fault.ended + story.patience >= since
