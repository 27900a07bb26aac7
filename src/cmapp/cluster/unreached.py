"""What follows when a guest cannot be reached any more; a monitor of the agent's loads it, so it is on its own."""

from __future__ import annotations

import enum


class Unreached(enum.Enum):
    """What to do when the guest cannot be reached: fail the guest's resource, wait for it, or fail."""

    GUEST = "guest"
    WAIT = "wait"
    FAIL = "fail"
