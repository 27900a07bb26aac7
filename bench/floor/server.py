"""The least that a guest's server in Python can cost: one asyncio loop, `add_reader`, pidfds, `SSLSocket`s.

The same as server.c, line for line where the languages allow: mutual TLS 1.3, hello, launch, poll, and
`exited` in one write when the pidfd says that the child is gone. No policy, receipts, output, or care.

    server.py KEYS PORT

For every launch it prints "launch NANOSECONDS" (CLOCK_MONOTONIC, when the line was read).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import ssl
import sys
import time
from typing import Any

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


class Peer:
    """A connection and the one application that was launched over it."""

    __slots__ = ("link", "name", "pid", "pidfd", "rest", "run_id", "since", "started")

    def __init__(self, link: ssl.SSLSocket) -> None:
        self.link = link
        self.rest = b""
        self.pid = self.pidfd = 0
        loop.add_reader(link.fileno(), self.handshake)

    def handshake(self) -> None:
        """Go on with the handshake."""
        try:
            self.link.do_handshake()
        except ssl.SSLWantReadError:
            return
        except OSError:
            self.drop()
            return
        loop.add_reader(self.link.fileno(), self.readable)
        self.readable()

    def readable(self) -> None:
        """Answer every line that is there."""
        try:
            while True:
                data = self.link.recv(65536)
                if not data:
                    break
                *lines, self.rest = (self.rest + data).split(b"\n")
                for line in lines:
                    self.answer(json.loads(line))
        except ssl.SSLWantReadError:
            return
        except OSError:
            pass
        self.drop()

    def say(self, **message: Any) -> None:
        """Write one message at once."""
        self.link.send(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def answer(self, message: dict[str, Any]) -> None:
        """Do what a message asks and reply."""
        match message["type"]:
            case "hello":
                self.say(type="welcome", id=message["id"], version=1, software="floor")
            case "launch":
                self.launch(message)
                self.say(type="launched", id=message["id"], run_id=self.run_id, pid=self.pid)
            case "poll":
                self.say(type="report", id=message["id"], run=self.report())
            case "acknowledge":
                self.say(type="done", id=message["id"])

    def launch(self, message: dict[str, Any]) -> None:
        """Start the application and watch it."""
        self.since, self.started = time.monotonic(), time.time()
        print("launch", time.monotonic_ns(), flush=True)
        self.name, self.run_id = message["name"], message["run_id"]
        argv = message["argv"]
        self.pid = os.posix_spawn(argv[0], argv, {}, file_actions=QUIET, setsid=True)
        self.pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self.pidfd, self.ended)

    def report(self) -> dict[str, Any]:
        """Return how the application is, from /proc as cmappserver must."""
        fields = self.look("stat").rpartition(b")")[2].split()
        children = self.look(f"task/{self.pid}/children")
        return {
            "name": self.name,
            "run_id": self.run_id,
            "state": "running",
            "pid": self.pid,
            "uptime": round(time.monotonic() - self.since, 3),
            "cpu": (int(fields[11]) + int(fields[12])) / TICKS,
            "memory": int(fields[21]) * PAGE,
            "processes": 1 + len(children.split()),
        }

    def look(self, name: str) -> bytes:
        """Read a file of the application's in /proc."""
        file = os.open(f"/proc/{self.pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        text = os.read(file, 1024)
        os.close(file)
        return text

    def ended(self) -> None:
        """Reap the application and push its receipt."""
        status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        loop.remove_reader(self.pidfd)
        os.close(self.pidfd)
        self.pid = 0
        if self.link.fileno() < 0:
            return
        outcome = {"type": "exited", "code": status} if status >= 0 else {"type": "signaled", "signal": -status}
        receipt = {
            "name": self.name,
            "run_id": self.run_id,
            "outcome": outcome,
            "reason": "itself",
            "forced": False,
            "started": round(self.started, 3),
            "ended": round(time.time(), 3),
            "lasted": round(time.monotonic() - self.since, 3),
        }
        self.say(type="exited", receipt=receipt)

    def drop(self) -> None:
        """Forget the manager and kill its application."""
        loop.remove_reader(self.link.fileno())
        self.link.close()
        if self.pid:
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)


def accept() -> None:
    """Take every connection that waits."""
    while True:
        try:
            raw, _ = listener.accept()
        except BlockingIOError:
            return
        raw.settimeout(0)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Peer(context.wrap_socket(raw, server_side=True, do_handshake_on_connect=False))


QUIET = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in range(3)]
keys, port = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.minimum_version = ssl.TLSVersion.TLSv1_3
context.load_cert_chain(f"{keys}/cert.pem", f"{keys}/key.pem")
context.load_verify_locations(f"{keys}/ca.pem")
context.verify_mode = ssl.CERT_REQUIRED
context.set_alpn_protocols(["cmapp/1"])
context.num_tickets = 0
listener = socket.create_server(("127.0.0.1", int(port)), backlog=1024)
listener.settimeout(0)
loop = asyncio.new_event_loop()
loop.add_reader(listener.fileno(), accept)
loop.run_forever()
