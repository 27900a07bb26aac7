"""How long a manager waits for what, and what that comes to: the bounds that are told at its start."""

from __future__ import annotations

from cmapp.core.record import Record

OPINION_LIMIT = 10.0  # seconds that an answer about the guest may take
OPINION_EVERY = 5.0  # seconds from an answer to the next question


class Patience(Record):
    """How long a pursuit waits for what, in seconds; with `asks`, there is somebody to ask about the guest."""

    poll_interval: float = 5.0
    poll_timeout: float = 10.0
    connect_timeout: float = 60.0
    stop_timeout: float = 30.0
    link_timeout: float = 30.0
    asks: bool = False
    pause_timeout: float = 600.0

    @property
    def silence(self) -> float:
        """The longest time that a hung guest, or a hung manager, goes unnoticed."""
        return self.poll_interval + self.poll_timeout

    @property
    def bound(self) -> float:
        """The longest time from a hang, or a loss, to the verdict that the guest cannot be reached.

        A guest of which it is said that it is paused has `pause_timeout` more.
        """
        return self.silence + self.link_timeout + (OPINION_LIMIT if self.asks else 0.0)
