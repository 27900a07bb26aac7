"""What hostile servers do to managers: each a deed that is done to one who has called.

The invariant: a deed comes to its end when its victim hangs up, or after LIMIT seconds.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

LIMIT = 40.0  # seconds that a manager may take
OTHER_RUN = "00000000-0000-4000-8000-000000000000"


class Victim:
    """A manager that has called: what it says is heard line by line, and anything may be said to it."""

    def __init__(self, tls: ssl.SSLSocket) -> None:
        self.tls = tls
        self._lines = tls.makefile("rb")
        self.run_id = OTHER_RUN

    def hear(self) -> dict[str, Any]:
        """Return its next message; raises ConnectionError when it hung up."""
        line = self._lines.readline()
        if not line:
            raise ConnectionError("the manager hung up")
        message: dict[str, Any] = json.loads(line)
        if message["type"] == "launch":
            self.run_id = message["run_id"]
        return message

    def say(self, **fields: Any) -> None:
        """Say a message."""
        self.tls.sendall(json.dumps(fields).encode() + b"\n")

    def welcome(self) -> None:
        """Take its hello, and welcome it."""
        hello = self.hear()
        self.say(type="welcome", id=hello["id"], version=1, software="cmapp/0", guest="vm1", boot_id="b")

    def launched(self) -> None:
        """Welcome it and its launch."""
        self.say(type="launched", id=self.until_launch()["id"], run_id=self.run_id, pid=1)

    def until_launch(self) -> dict[str, Any]:
        """Welcome it, and return its launch; raises ConnectionError if there is none."""
        self.welcome()
        launch = self.hear()
        if launch["type"] != "launch":
            raise ConnectionError("the manager has thought better of it")
        return launch

    def until_gone(self) -> None:
        """Take what it says until it hangs up."""
        with suppress(OSError, ValueError):
            while self.tls.recv(65536):
                pass


def receipt(run_id: str, outcome: dict[str, Any]) -> dict[str, Any]:
    """Return a receipt."""
    times = {"started": 1.0, "ended": 2.0, "lasted": 1.0}
    return {"name": "app", "run_id": run_id, "outcome": outcome, "reason": "itself", **times}


def nothing(victim: Victim) -> None:
    """Say nothing."""
    victim.until_gone()


def raw(data: bytes) -> Callable[[Victim], None]:
    """Return the deed of sending `data` to who has launched."""

    def deed(victim: Victim) -> None:
        victim.launched()
        with suppress(OSError):
            victim.tls.sendall(data)
        victim.until_gone()

    return deed


def at_once(data: bytes) -> Callable[[Victim], None]:
    """Return the deed of sending `data` before anything was asked."""

    def deed(victim: Victim) -> None:
        with suppress(OSError):
            victim.tls.sendall(data)
        victim.until_gone()

    return deed


def said(**fields: Any) -> Callable[[Victim], None]:
    """Return the deed of saying a message to who has launched."""

    def deed(victim: Victim) -> None:
        victim.launched()
        victim.say(**fields)
        victim.until_gone()

    return deed


def own_exit(**outcome: Any) -> Callable[[Victim], None]:
    """Return the deed of telling the end of the victim's own run."""

    def deed(victim: Victim) -> None:
        victim.launched()
        victim.say(type="exited", receipt=receipt(victim.run_id, outcome))
        victim.until_gone()

    return deed


def forever(line: Callable[[int], bytes]) -> Callable[[Victim], None]:
    """Return the deed of sending lines without end; `line` makes them, by their numbers."""

    def deed(victim: Victim) -> None:
        victim.launched()
        place = 0
        deadline = time.monotonic() + LIMIT
        with suppress(OSError):
            while time.monotonic() < deadline:
                block = b"".join(line(place + number) for number in range(64))
                victim.tls.sendall(block)
                place += 64

    return deed


def output(place: int, size: int = 24_000) -> bytes:
    """Return a line of output that fits the ones before it."""
    data = base64.b64encode(b"\x1b[2J" + b"line\n" * (size // 5)).decode()
    where = {"stream": "stderr", "offset": place * (4 + size // 5 * 5)}
    return json.dumps({"type": "output", **where, "data": data}).encode() + b"\n"


def dribble(victim: Victim) -> None:
    """Answer nothing, by a byte now and then."""
    victim.launched()
    with suppress(OSError):
        while True:
            victim.tls.sendall(b" ")
            time.sleep(0.1)


def wrong_version(victim: Victim) -> None:
    """Welcome to a version that was not offered."""
    hello = victim.hear()
    victim.say(type="welcome", id=hello["id"], version=99)
    victim.until_gone()


def other_launched(victim: Victim) -> None:
    """Tell that another run was launched."""
    launch = victim.until_launch()
    victim.say(type="launched", id=launch["id"], run_id=OTHER_RUN, pid=1)
    victim.until_gone()


def forged_refusal(victim: Victim) -> None:
    """Refuse in words that would forge a line of a log, and clear a terminal."""
    launch = victim.until_launch()
    text = "no\nJan  1 00:00:00 INFO: all is well\x1b[2J"
    victim.say(type="refused", id=launch["id"], code="po\nlicy\x1b[2J", text=text)
    victim.until_gone()


def other_report(victim: Victim) -> None:
    """Report on another run."""
    victim.launched()
    poll = victim.hear()
    run = {"name": "app", "run_id": str(uuid.uuid4()), "state": "running"}
    victim.say(type="report", id=poll["id"], run=run)
    victim.until_gone()
