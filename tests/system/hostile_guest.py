"""A guest whose key was stolen: it says what it likes to all who call, in every text that the protocol has."""

from __future__ import annotations

import json
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.system.peers import LOOPBACK, line, listener

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

FORGED = (
    "\nNov 22 10:00:00 ERROR: forged\r\x1b[2J\x1b]0;forged\x07\x9b31m\u2028\u2029\x85"
    "\u202eforged\u2066\ufeff<3>forged\b"
)
LONG = FORGED + "\xe4\u20ac\U0001f40d" * 800
FEATURES = ("attach", "health", "hold", "kinds", "limits", "orphans", "output", "readiness", "status", "tail")


class Guest:
    """One connection of a manager to a guest that says what it likes."""

    def __init__(self, connection: ssl.SSLSocket) -> None:
        self._connection = connection
        self._lines = connection.makefile("rb")
        self.launch: dict[str, Any] = {}

    def say(self, word: str, **fields: Any) -> None:
        """Say one message."""
        self._connection.sendall(line({"type": word, **fields}))

    def hear(self, word: str) -> dict[str, Any]:
        """Return the next request of that kind."""
        while said := self._lines.readline():
            message: dict[str, Any] = json.loads(said)
            if message["type"] == word:
                return message
        raise ConnectionResetError(word)

    def welcome(self) -> None:
        """Let the manager in, under a forged name."""
        number = self.hear("hello")["id"]
        features = [*FEATURES, FORGED]
        self.say("welcome", id=number, version=1, software=LONG, guest=FORGED, boot_id=FORGED, features=features)

    def launched(self) -> None:
        """Say that its command runs."""
        self.welcome()
        self.launch = self.hear("launch")
        self.say("launched", id=self.launch["id"], run_id=self.run_id, pid=7)

    @property
    def run_id(self) -> str:
        """The run that the manager asked for."""
        return str(self.launch["run_id"])

    def report(self, **fields: Any) -> None:
        """Answer a poll."""
        run = {"name": self.launch["name"], "run_id": self.run_id, "state": "running", "pid": 7, **fields}
        self.say("report", id=self.hear("poll")["id"], run=run)

    def exit(self, outcome: dict[str, Any], **fields: Any) -> None:
        """Say that it has ended, and wait until the manager has hung up."""
        receipt = {"name": self.launch["name"], "run_id": self.run_id, "outcome": outcome, "reason": "itself"}
        times = {"started": 1.0, "ended": 2.0, "lasted": 1.0}
        self.say("exited", receipt={**receipt, **times, **fields})
        while self._lines.readline():
            pass


@contextmanager
def hostile(keys: Path, play: Callable[[Guest], None]) -> Iterator[str]:
    """Be a guest with these keys to all who call; yield where."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    context.load_verify_locations(keys / "ca.pem")
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["cmapp/1"])

    def serve(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as tls:
            play(Guest(tls))

    with listener(serve) as port:
        yield f"{LOOPBACK}:{port}"
