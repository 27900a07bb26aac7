"""Debian's redis-server as the application: it serves, is ended in every way, and can be launched again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.system.processes import session, until
from tests.system.serving import can_listen, free_port, until_serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

REDIS = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(REDIS is None, reason="no redis-server here: Debian's package redis-server")


class Redis:
    """A redis-server under a manager."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.port = free_port()
        self._bed = bed
        self._folder = folder

    def launch(self) -> Manager:
        """Launch it, and wait until it serves."""
        assert REDIS is not None
        settings = ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), "--save", ""]
        settings += ["--crash-log-enabled", "no"]  # its own report of a crash now and then crashes itself, by SIGSEGV
        manager = self._bed.start(
            REDIS, *settings, "--enable-debug-command", "yes", options=["--cwd", str(self._folder), "--output", "log"]
        )
        manager.until_launched()
        until_serving(self.port, manager)
        assert self.say("PING") == b"+PONG\r\n"
        assert self.say("SET", "key", "value") == b"+OK\r\n"
        assert self.say("GET", "key") == b"$5\r\nvalue\r\n"
        return manager

    def say(self, *words: str) -> bytes:
        """Return the answer to a command; nothing if the connection was closed instead."""
        with socket.create_connection(("127.0.0.1", self.port), 20) as sock:
            sock.sendall(b"".join([b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(w), w.encode()) for w in words)]))
            try:
                return sock.recv(4096)
            except ConnectionResetError:
                return b""


ENDS: dict[str, tuple[signal.Signals | list[str] | None, int, str]] = {
    "SIGKILL": (signal.SIGKILL, 137, "was killed by signal 9 (KILL)"),
    "SIGTERM": (signal.SIGTERM, 0, "exited with code 0"),
    "SIGINT": (signal.SIGINT, 0, "exited with code 0"),
    "SIGQUIT": (signal.SIGQUIT, 131, "was killed by signal 3 (QUIT)"),
    "SIGABRT": (signal.SIGABRT, 134, "was killed by signal 6 (ABRT)"),
    "SHUTDOWN": (["SHUTDOWN", "NOSAVE"], 0, "exited with code 0"),
    "SEGFAULT": (["DEBUG", "SEGFAULT"], 139, "was killed by signal 11 (SEGV)"),
    "PANIC": (["DEBUG", "PANIC"], 134, "was killed by signal 6 (ABRT)"),
    "graceful-stop": (None, 0, "exited with code 0"),
}


@pytest.mark.parametrize("way", ENDS)
def test_every_end(bed: Bed, tmp_path: Path, way: str) -> None:
    """However redis-server ends, its outcome is told, nothing of it is left, and it can be launched again."""
    how, code, words = ENDS[way]
    redis = Redis(bed, tmp_path)
    manager = redis.launch()
    leader = manager.until_launched()
    if how is None:
        manager.process.terminate()
    elif isinstance(how, list):
        redis.say(*how)
    else:
        os.kill(leader, how)
    assert manager.wait(20) == code
    assert words in manager.last_line
    assert ("stopped on request" in manager.last_line) == (how is None)
    until(lambda: not session(leader), "the end of its processes")
    assert can_listen(redis.port)
    again = redis.launch()
    again.process.terminate()
    assert again.wait() == 0
