"""What really became of a run, as the judge has seen it.

The invariant: nothing here comes from what a core believes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kernel import Process
    from wires import Wire

    from cmapp.core.messages import Launch
    from cmapp.core.outcome import Outcome, Receipt


class Truth:
    """What really became of one run."""

    def __init__(self, launch: Launch) -> None:
        self.launch = launch
        self.starts = 0
        self.leader: Process | None = None
        self.outcome: Outcome | None = None
        self.doubtful = False  # whether something happened after which nobody can know how it ended
        self.told: Receipt | None = None
        self.earlier: list[Receipt] = []  # what was told before that, by servers that were killed before it was written
        self.safe: dict[str, Any] | None = None  # the receipt that outlives a loss of power
        self.acknowledged = False
        self.forgotten = False  # rightly: acknowledged long ago, or lost with the guest's power
        self.heard = 0.0  # when its manager was heard last
        self.before: list[Receipt | None] = []  # what was told when it ran before, which was forgotten since
        self.wire: Wire | None = None  # on which it was heard
        self.detached = False  # whether its manager left it on purpose
        self.left = False  # and that is written down
        self.stopping = ""  # why it is being stopped
