"""Twenty honest managers in a process of their own, which measure how long each answer to a poll takes.

    python -m attack.pollers PORT KEYS COUNT INTERVAL FILE

Each has a run of its own and polls it at fixed times, one after the other. The first poll that is due while the one
before is not answered is sent late, but counted from when it was due: a server that is slow is not asked less for it.
Those after it are left out, as a manager would, or a machine that is short of processors would never catch up. FILE
gets a pair of numbers for each answer: when the poll was due, and how long it took. The invariant: it ends with 0
only if every answer was right, no link was ever lost, and every run ended when asked.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import ssl
import struct
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from attack.credentials import ADDRESS

PAIR = struct.Struct("=dd")
PATIENCE = 60.0  # seconds until whoever was asked is given up
MOST_DUE = 2  # polls: one that is being answered, and one that is late
FIRST = 2  # the id of the launch
KILLED = {"type": "signaled", "signal": 15}


class Poller:
    """One manager: a link, a run, and the polls that wait."""

    def __init__(self, port: int, keys: Path, number: int) -> None:
        """Connect and launch, and wait for both."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_cert_chain(keys / "cert.pem", keys / "key.pem")
        context.load_verify_locations(keys / "ca.pem")
        context.set_alpn_protocols(["cmapp/1"])
        plain = socket.create_connection((ADDRESS, port), PATIENCE)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(plain, server_hostname=ADDRESS)
        self.run_id = str(uuid.uuid4())
        self.pid = 0
        self._number = FIRST
        self._rest = b""
        self._due: list[float] = []  # when the polls that are not answered were due; the first of them is sent
        self.say("hello", 1, versions=[1])
        self.say("launch", FIRST, name=f"polled-{number}", run_id=self.run_id, argv=["/bin/sleep", "100000"])
        while not self.pid:
            for message in self.hear():
                self.pid = message.get("pid", 0)
        self.tls.setblocking(False)

    def say(self, word: str, number: int, **fields: Any) -> None:
        """Send a request."""
        self.tls.sendall(json.dumps({"type": word, "id": number, **fields}).encode() + b"\n")

    def hear(self) -> list[dict[str, Any]]:
        """Return what came; raises OSError when the server has hung up."""
        try:
            data = self.tls.recv(65536)
        except ssl.SSLWantReadError:
            return []
        if not data:
            raise ConnectionError("the server hung up on an honest manager")
        *lines, self._rest = (self._rest + data).split(b"\n")
        messages = [json.loads(line) for line in lines]
        for message in messages:
            if message["type"] in ("bye", "refused"):
                raise ConnectionError(f"the server said {message}")
        return messages

    def due(self, at: float) -> None:
        """Poll, or note that it is late; when one is late already, leave it out."""
        if len(self._due) == MOST_DUE:
            return
        self._due.append(at)
        if len(self._due) == 1:
            self._poll()

    def answered(self, now: float) -> tuple[float, float] | None:
        """Take what came; return when the poll was due and how long it took, if it is answered."""
        for message in self.hear():
            run = message.get("run", {})
            if (message["type"], message["id"]) != ("report", self._number):
                raise ConnectionError(f"the server said {message} to the poll {self._number}")
            if (run["run_id"], run["state"], run["pid"]) != (self.run_id, "running", self.pid):
                raise ConnectionError(f"the application of an honest manager is not what it was: {run}")
            at = self._due.pop(0)
            if self._due:
                self._poll()
            return at, now - at
        return None

    @property
    def overdue(self) -> float:
        """When the poll was due that is waited for longest; far in the future if there is none."""
        return self._due[0] if self._due else float("inf")

    def end(self) -> None:
        """Stop the run, and check what is told of its end."""
        self.tls.settimeout(PATIENCE)
        self.say("stop", 1)
        outcome: dict[str, Any] = {}
        while not outcome:
            for message in self.hear():
                outcome = message.get("receipt", {}).get("outcome", {})
        if {key: outcome.get(key) for key in KILLED} != KILLED:
            raise ConnectionError(f"the end of an honest manager's run is told as {outcome}")
        self.say("acknowledge", 3, run_id=self.run_id)
        self.tls.close()

    def _poll(self) -> None:
        self._number += 1
        self.say("poll", self._number)


def main() -> int:
    """Poll until standard input ends, then end every run."""
    port, keys, count, interval, path = sys.argv[1:]
    pollers = [Poller(int(port), Path(keys), number) for number in range(int(count))]
    print("ready", flush=True)
    try:
        with Path(path).open("ab") as file:
            _poll_all(pollers, float(interval), file.fileno())
    except OSError:
        _end_what_is_left(pollers)
        raise
    for poller in pollers:
        poller.end()
    return 0


def _end_what_is_left(pollers: list[Poller]) -> None:
    """Kill the applications, which a server that died has left, if they are what was launched."""
    for poller in pollers:
        with suppress(OSError):
            handle = os.pidfd_open(poller.pid)
            if b"/bin/sleep\x00100000" in Path(f"/proc/{poller.pid}/cmdline").read_bytes():
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


def _poll_all(pollers: list[Poller], interval: float, file: int) -> None:
    waiting = select.poll()
    waiting.register(sys.stdin, select.POLLIN | select.POLLHUP)
    found = {poller.tls.fileno(): poller for poller in pollers}
    for number in found:
        waiting.register(number, select.POLLIN)
    begun, turn = time.monotonic(), 0
    pairs: list[bytes] = []
    while True:
        at = begun + turn * interval / len(pollers)
        rest = at - time.monotonic()
        if rest <= 0:
            pollers[turn % len(pollers)].due(at)
            turn += 1
            continue
        for number, _ in waiting.poll(rest * 1000):
            if number == sys.stdin.fileno():
                os.write(file, b"".join(pairs))
                return
            if pair := found[number].answered(time.monotonic()):
                pairs.append(PAIR.pack(*pair))
        if len(pairs) >= len(pollers):
            os.write(file, b"".join(pairs))
            pairs.clear()
        if time.monotonic() - min(poller.overdue for poller in pollers) > PATIENCE:
            raise ConnectionError(f"a poll was not answered within {PATIENCE:g} s")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
