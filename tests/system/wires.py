"""Links that go wrong between a manager and a server: a relay that is cut or stalls, a network that loses packets."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK = "127.0.0.1"
NSENTER, IP, NFT = "/usr/bin/nsenter", "/usr/sbin/ip", "/usr/sbin/nft"


class Wire:
    """A relay of TCP connections to a port of the loopback; managers call `port` instead."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._flows = threading.Event()
        self._flows.set()
        self._whole = True
        self._ends: list[socket.socket] = []
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def __enter__(self) -> Self:
        """Relay until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.cut()
        self.flow()
        self._acceptor.join()

    @property
    def guest(self) -> str:
        """How a manager calls the server by this wire."""
        return f"{LOOPBACK}:{self.port}"

    def cut(self) -> None:
        """Break all connections, and every new one, until the wire is mended."""
        self._whole = False
        ends, self._ends = self._ends, []
        for end in ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Let new connections through again."""
        self._whole = True

    def stall(self) -> None:
        """Hold back every byte, both ways, and tell nobody: connections look as if they lived."""
        self._flows.clear()

    def flow(self) -> None:
        """Pass on what was held back, and what comes."""
        self._flows.set()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection((LOOPBACK, self._target)) if self._whole else None
                except OSError:
                    far = None
                if far is None:
                    near.close()
                    continue
                self._ends += [near, far]
                open_ways = [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._relay, args=(source, sink, open_ways), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket, open_ways: list[socket.socket]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                sink.sendall(data)
        self._flows.wait()
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        open_ways.remove(source)
        source.close()


class Island:
    """A network of its own, whose packets to and from this one can be dropped without a word."""

    def __init__(self) -> None:
        """Raises OSError or CalledProcessError where no such network can be made."""
        number = os.getpid()
        self.name = f"cmapp-sys-{number}"
        here, there = f"cms{number}a", f"cms{number}b"
        net = f"10.{90 + number // 65536 % 64}.{number // 256 % 256}"
        first = number % 64 * 4
        self.address, inner = f"{net}.{first + 1}", f"{net}.{first + 2}"
        self.enter = [NSENTER, f"--net=/run/netns/{self.name}"]
        call(IP, "netns", "add", self.name)
        call(IP, "link", "add", here, "type", "veth", "peer", "name", there, "netns", self.name)
        call(IP, "address", "add", f"{self.address}/30", "dev", here)
        call(IP, "link", "set", here, "up")
        call(*self.enter, IP, "address", "add", f"{inner}/30", "dev", there)
        call(*self.enter, IP, "link", "set", there, "up")

    def drop(self, *ways: str) -> None:
        """Lose every packet from here on, both ways unless `ways` names one: input is to those on the island."""
        call(*self.enter, NFT, "add table inet lost")
        for way in ways or ("input", "output"):
            call(*self.enter, NFT, f"add chain inet lost {way} {{ type filter hook {way} priority 0; policy drop; }}")

    def mend(self) -> None:
        """Lose no packet any more, if it did."""
        call(*self.enter, NFT, "flush ruleset")


@contextmanager
def island() -> Iterator[Island | str]:
    """Make an island, or tell why there can be none."""
    made: Island | str
    try:
        try:
            made = Island()
            made.drop()
            made.mend()
        except FileNotFoundError as error:
            made = f"no network of our own here: there is no {error.filename}"
        except subprocess.CalledProcessError as error:
            made = f"no network of our own here: {error.stderr.decode().strip()}"
        yield made
    finally:
        if Path(IP).exists():  # with its interfaces
            subprocess.run([IP, "netns", "delete", f"cmapp-sys-{os.getpid()}"], check=False, capture_output=True)


def call(*command: str) -> None:
    """Run a command, which must succeed."""
    subprocess.run(command, check=True, capture_output=True)
