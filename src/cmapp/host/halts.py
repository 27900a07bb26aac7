"""Requests by signals: to halt, as a cluster manager or a person asks for the application's end, or to leave it.

Responsible for turning them into a descriptor that can be polled, so that a signal is an event like any other.
The invariant: whoever asks once is heard once.
"""

from __future__ import annotations

import os
import signal
import time

DISMISSAL = signal.SIGUSR1
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, DISMISSAL)
SAME = 0.1  # seconds: cluster managers signal a process and then its group, which is not to ask twice


class Halts:
    """The requests so far; the descriptor can be read when there are new ones."""

    __slots__ = ("_first", "_write", "descriptor")

    def __init__(self) -> None:
        self.descriptor, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._first: float | None = None

    def listen(self) -> None:
        """Take the signals over, even if whoever started us has blocked them."""
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)  # the descriptor says it all
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def heard(self) -> list[int]:
        """Return the signals that were new requests, in order."""
        requests: list[int] = []
        for number in os.read(self.descriptor, 64):
            now = time.monotonic()
            if number == DISMISSAL:
                requests.append(number)
            elif self._first is None or now - self._first > SAME:
                requests.append(number)
                self._first = self._first or now
        return requests
