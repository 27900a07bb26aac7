"""The counter outside of the nodes, where they ask for what no node can do by itself: power and guests.

A question is one line of JSON, its answer another. The invariant: whatever is asked, there is an answer, and one
that begins with "error" says why nothing was done.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Service = Callable[[list[str]], str]

LINE_LIMIT = 65536  # bytes
ASK_LIMIT = 120.0  # seconds for an answer: a guest may take its time to shut down


class Counter:
    """Answers questions at a socket until it is closed, each in a thread of its own."""

    def __init__(self, path: Path, services: dict[str, Service]) -> None:
        """`services` are called with the words that follow their name."""
        self._services = services
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        threading.Thread(target=self._listen, name="counter", daemon=True).start()

    def close(self) -> None:
        """Answer no more."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _listen(self) -> None:
        while True:
            try:
                asked, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._answer, args=(asked,), daemon=True).start()

    def _answer(self, asked: socket.socket) -> None:
        with asked:
            try:
                with asked.makefile("rb") as file:
                    words = json.loads(file.readline(LINE_LIMIT))
                answer = self._services[words[0]](words[1:])
            except Exception as error:  # noqa: BLE001 - whoever asked is told
                answer = f"error: {type(error).__name__}: {error}"
            try:
                asked.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                return  # who asked has lost its power meanwhile


def ask(path: Path, *words: str) -> str:
    """Ask at the counter, and return the answer; raises RuntimeError with the reason when nothing was done."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(ASK_LIMIT)
        link.connect(os.fspath(path))
        link.sendall(json.dumps(words).encode() + b"\n")
        with link.makefile("rb") as file:
            answer = str(json.loads(file.readline()))
    if answer.startswith("error"):
        raise RuntimeError(answer)
    return answer
