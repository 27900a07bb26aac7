"""A real `cmappmgr` as a child, and the guest that it meets: a server that says what the test wants, when it wants.

The test plays the server in its own thread, so the order of things is the order of its lines. The invariant:
nothing waits longer than SOON, and no child outlives its test.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import cmapp
from cmapp.core import messages as m
from cmapp.core.outcome import Outcome, Reason, Receipt
from cmapp.core.session import Role, Session
from cmapp.net.link import Link
from cmapp.net.refusals import ALPN
from cmapp.net.tls import server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence
    from typing import Any

SOON = 20.0  # seconds: how long is waited for what should come at once
WRITE_LIMIT = 64 * 1024 * 1024
SOURCE = str(Path(cmapp.__file__).parents[1])
START = f"import sys; sys.path.insert(0, {SOURCE!r}); import cmapp.cli.cmappmgr as command; %s; command.main(%r)"
FEATURES = ("attach", "health", "kinds", "limits", "orphans", "readiness")
M = TypeVar("M", bound=m.Message)


class Manager:
    """One `cmappmgr`, whose package log is `log`, and its standard error too unless there is a `--log-file`."""

    def __init__(
        self,
        folder: Path,
        arguments: Sequence[str],
        *,
        syslog: str = "/nonexistent",
        before: str = "pass",
        shell: str = "",
        **how: Any,
    ) -> None:
        """Start it with an empty environment; `before` is Python that runs first, `shell` what /bin/sh does to it."""
        self.stderr = folder / "stderr"
        self.log = self.stderr
        argv = [sys.executable, "-c", START % (before, syslog), *arguments]
        if shell:
            argv = ["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *argv]
        with self.stderr.open("ab") as stderr:
            self.process = subprocess.Popen(argv, env={}, **{"stdin": subprocess.DEVNULL, "stderr": stderr, **how})

    def ends(self) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(SOON)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it stands, until SIGCONT."""
        self.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self.process.pid, os.WSTOPPED)

    def lines(self) -> list[str]:
        """Return the lines of its log."""
        return self.log.read_text().splitlines()

    def says(self, text: str) -> str:
        """Wait for a line of its log that holds `text`, and return it."""
        deadline = time.monotonic() + SOON
        while time.monotonic() < deadline:
            for line in self.lines():
                if text in line:
                    return line
            time.sleep(0.005)
        raise AssertionError(f"{text!r} is not in {self.lines()}")

    def close(self) -> None:
        """Make sure that it is gone."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


class Peer:
    """The server's end of one link."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.link = Link(sock, context, peer="the manager", limit=WRITE_LIMIT)
        self.session = Session(Role.SERVER)
        self.boot = "boot-1"
        self.features: tuple[str, ...] = FEATURES
        self._heard: deque[m.Message | m.Unrecognized] = deque()

    def shake(self) -> None:
        """Finish the handshake."""
        while not self.link.handshake():
            self._await(select.POLLIN)

    def hear(self, kind: type[M]) -> M:
        """Return the next message, which must be a `kind`."""
        while not self._heard:
            data = self.link.read()
            assert data is not None, f"the manager hung up, a {kind.word} was expected"
            self._heard.extend(self.session.receive(data))
            if not self._heard:
                self._await(select.POLLIN)
        message = self._heard.popleft()
        assert isinstance(message, kind), f"a {kind.word} was expected: {message}"
        return message

    def say(self, *messages: m.Message) -> None:
        """Say all of them in one write, however long it takes."""
        self.blurt(b"".join(map(self.session.send, messages)))

    def blurt(self, data: bytes) -> None:
        """Say anything."""
        self.link.write(data)
        while self.link.waiting:
            self._await(select.POLLOUT)
            self.link.flush()

    def greet(self) -> m.Hello:
        """Hear the hello and answer it."""
        hello = self.hear(m.Hello)
        self.say(m.Welcome(hello.id, 1, "scripted", "vm1", self.boot, self.features))
        return hello

    def launch(self, pid: int = 4711) -> m.Launch:
        """Go on until the run is watched."""
        self.greet()
        launch = self.hear(m.Launch)
        self.say(m.Launched(launch.id, launch.run_id, pid))
        return launch

    def reattach(self, pid: int = 4711) -> m.Launch:
        """Take back a manager that was here before, and answer the poll that comes with its launch."""
        self.greet()
        launch = self.hear(m.Launch)
        self.say(m.Launched(launch.id, launch.run_id, pid, attached=True))
        self.report(launch)
        return launch

    def report(self, launch: m.Launch, phase: m.Phase = m.Phase.RUNNING, **how: Any) -> None:
        """Hear a poll and answer it."""
        poll = self.hear(m.Poll)
        self.say(m.Report(poll.id, m.RunReport(launch.name, launch.run_id, phase, 4711, **how)))

    def reset(self) -> None:
        """Break the connection without a word."""
        self.link.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        """Close the connection without a word."""
        self.link.close()

    def _await(self, event: int) -> None:
        waiting = select.poll()
        waiting.register(self.link, event)
        assert waiting.poll(SOON * 1000), "the manager neither speaks nor listens"


class Guest:
    """A listener on loopback, where `folder` has the key folders of tests/shell/conftest.py."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.folder = folder
        self.keys = folder / "guest"
        self.protocol = ALPN
        self.port = 0
        self._scratch = scratch
        self._children: list[Manager] = []
        self._peers: list[Peer] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SOON)
        self.port = self._listener.getsockname()[1]

    def call(self, *options: str, guest: str = "vm1", command: Sequence[str] = ("web",), **how: Any) -> Manager:
        """Start a manager that calls here."""
        fixed = ["--keys", str(self.folder / "host"), "--address", f"127.0.0.1:{self.port}"]
        return self.start(*fixed, *options, guest, "--", *command, **how)

    def start(self, *arguments: str, **how: Any) -> Manager:
        """Start a manager with these arguments."""
        self._children.append(Manager(self._scratch, arguments, **how))
        return self._children[-1]

    def accept(self, *, shakes: bool = True) -> Peer:
        """Take the next connection."""
        sock, _ = self._listener.accept()
        context = server_context(str(self.keys))
        context.set_alpn_protocols([self.protocol])
        self._peers.append(Peer(sock, context))
        if shakes:
            self._peers[-1].shake()
        return self._peers[-1]

    def stop_listening(self) -> None:
        """Have nobody there for the next connection."""
        self._listener.close()

    def launched(self, *options: str, **how: Any) -> tuple[Manager, Peer, m.Launch]:
        """Start a manager and go on until it watches."""
        manager = self.call(*options, **how)
        peer = self.accept()
        return manager, peer, peer.launch()

    def close(self) -> None:
        """Take everything down."""
        for child in self._children:
            child.close()
        for peer in self._peers:
            peer.close()
        self._listener.close()


def receipt(launch: m.Launch, outcome: Outcome, reason: Reason = Reason.ITSELF, *, forced: bool = False) -> Receipt:
    """Return the receipt of a run that took a tenth of a second."""
    times: dict[str, Any] = {"started": 1000.0, "ended": 1000.1, "lasted": 0.1}
    return Receipt(name=launch.name, run_id=launch.run_id, outcome=outcome, reason=reason, forced=forced, **times)


def outcome_in(path: Path) -> dict[str, Any]:
    """Return what a result file says."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
