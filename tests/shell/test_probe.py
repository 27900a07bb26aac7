"""Readiness is found out by real sockets and real commands, and nobody waits for anybody."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core.readiness import parse_ready, target_of
from cmapp.core.rules import Probe, ReadyRules
from cmapp.guest import probe
from cmapp.guest.probe import Knock, Readiness, is_own_echo
from tests.shell.care_bed import Commands, run, until

if TYPE_CHECKING:
    from pathlib import Path

PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Page:
    """A server on loopback that hears a request and gives `answer`, piece by piece."""

    def __init__(self, *answer: bytes, host: str = "127.0.0.1") -> None:
        self.answer = answer
        self.heard: list[bytes] = []
        self._host = host
        self._server: asyncio.Server | None = None

    async def start(self, port: int = 0) -> int:
        """Serve; return the port."""
        self._server = await asyncio.start_server(self._serve, self._host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Serve no more."""
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.heard.append(await reader.readuntil(b"\r\n\r\n"))
            for piece in self.answer:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0)
        except (asyncio.IncompleteReadError, OSError):
            pass  # who only connects, or has heard enough
        writer.close()


async def knock(text: str) -> str:
    """Ask once; return what went wrong."""
    told: list[str] = []
    target = target_of(parse_ready(text))
    assert target is not None
    Knock(asyncio.get_running_loop(), target, told.append)
    assert not told
    await until(lambda: told)
    return told[0]


def free_port() -> int:
    """Return a port of loopback on which nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def hung_up(sock: socket.socket) -> bool:
    """Tell whether the other side closed the connection."""
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except ConnectionResetError:
        pass
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_port_that_accepts(host: str) -> None:
    """A listener on either address of localhost is enough."""

    async def main() -> None:
        page = Page(host=host)
        port = await page.start()
        assert await knock(f"tcp:{port}") == ""
        shown = f"[{host}]" if ":" in host else host
        assert await knock(f"tcp:{shown}:{port}") == ""
        await page.stop()

    run(main())


def test_port_where_nobody_listens() -> None:
    """A refused connection is told as one, with its address."""

    async def main() -> None:
        port = free_port()
        assert await knock(f"tcp:{port}") == f"127.0.0.1:{port}: Connection refused"
        assert await knock(f"http:{port}/") == f"127.0.0.1:{port}: Connection refused"

    run(main())


ANSWERS: list[tuple[tuple[bytes, ...], str]] = [
    ((PAGE,), ""),
    (tuple(PAGE[i : i + 1] for i in range(len(PAGE))), ""),
    ((b"HTTP/1.0 204\r\n\r\n",), ""),
    ((b"HTTP/1.1 302 Found\r\n",), ""),
    ((b"HTTP/1.1 503 Service Unavailable\r\n\r\n",), "answered 503 Service Unavailable"),
    ((b"HTTP/1.1 404 \x1b[2J\xff\r\n",), "answered 404 \\x1b[2J\N{REPLACEMENT CHARACTER}"),
    ((b"HTTP/1.1 103 Early Hints\r\n",), "answered 103 Early Hints"),
    ((b"HTTP/1.1 2000 OK\r\n",), "what answers does not speak HTTP"),
    ((b"220 mail.example.org ESMTP\r\n",), "what answers does not speak HTTP"),
    ((b"x" * 100_000,), "what answers does not speak HTTP"),
    ((), "hung up without an answer"),
]


@pytest.mark.parametrize(
    ("answer", "trouble"), ANSWERS, ids=[f"{b''.join(a)[:24]!r}" + str(len(a)) for a, _ in ANSWERS]
)
def test_page(answer: tuple[bytes, ...], trouble: str) -> None:
    """2xx and 3xx are ready, whatever else is said is told, fit for a log, and no more than a line is read."""

    async def main() -> None:
        page = Page(*answer)
        port = await page.start()
        assert await knock(f"http:{port}/health?deep=1") == (trouble and f"127.0.0.1:{port}: {trouble}")
        [request] = page.heard
        assert request.startswith(f"GET /health?deep=1 HTTP/1.1\r\nHost: localhost:{port}\r\n".encode())
        await page.stop()

    run(main())


def test_long_path() -> None:
    """A request that does not fit into one write is sent whole."""

    async def main() -> None:
        page = Page(PAGE)
        port = await page.start()
        path = "x" * 30_000
        assert await knock(f"http:{port}/{path}") == ""
        assert page.heard[0].startswith(f"GET /{path} HTTP".encode())
        await page.stop()

    run(main())


def test_one_who_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence ends the attempt, and does not keep the loop waiting."""
    monkeypatch.setattr(probe, "ANSWER_LIMIT", 0.2)

    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            started = time.monotonic()
            assert await knock(f"http:{port}/") == f"127.0.0.1:{port}: gave no answer within 200 ms"
            assert time.monotonic() - started > 0.2

    run(main())


def test_attempt_that_is_given_up() -> None:
    """Who closes an attempt hears nothing of it any more."""

    async def main() -> None:
        told: list[str] = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            target = target_of(parse_ready(f"http:{listener.getsockname()[1]}/"))
            assert target is not None
            attempt = Knock(asyncio.get_running_loop(), target, told.append)
            await until(lambda: attempt._socket is not None)
            attempt.close()
            accepted, _ = listener.accept()
            with accepted:
                accepted.setblocking(False)
                await until(lambda: hung_up(accepted))
        assert not told

    run(main())


def test_connection_to_oneself() -> None:
    """Where nobody listens, TCP may connect a socket to itself: that is nobody's answer."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        assert is_own_echo(sock)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as sock:
        assert not is_own_echo(sock)


def test_asked_until_ready() -> None:
    """Attempts go on until one succeeds; meanwhile the last trouble can be told."""

    async def main() -> None:
        done: list[bool] = []
        port = free_port()
        readiness = Readiness(
            asyncio.get_running_loop(), parse_ready(f"http:{port}/"), Commands().run, lambda: done.append(True)
        )
        await until(lambda: readiness.trouble.endswith("Connection refused"))
        page = Page(b"HTTP/1.1 503 Starting\r\n\r\n")
        await page.start(port)
        await until(lambda: readiness.trouble.endswith("answered 503 Starting"))
        assert not done
        page.answer = (PAGE,)
        await until(lambda: done)
        heard = len(page.heard)
        await asyncio.sleep(0.5)
        assert (len(done), len(page.heard)) == (1, heard)
        readiness.close()
        await page.stop()

    run(main())


def test_command_until_ready(tmp_path: Path) -> None:
    """A command is run until it succeeds, one at a time."""

    async def main() -> None:
        done: list[bool] = []
        commands = Commands()
        script = f"echo >>{tmp_path}/tries; echo not yet; test $(wc -l <{tmp_path}/tries) -ge 3"
        rules = parse_ready(f'command:sh -c "{script}"')
        readiness = Readiness(asyncio.get_running_loop(), rules, commands.run, lambda: done.append(True))
        await until(lambda: readiness.trouble == "exited with code 1: not yet")
        await until(lambda: done)
        assert (len(commands.env), commands.most) == (3, 1)

    run(main())


def test_command_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is killed, and asked again when it has ended."""
    monkeypatch.setattr(probe, "COMMAND_LIMIT", 0.2)

    async def main() -> None:
        commands = Commands()
        rules = ReadyRules(probe=Probe.COMMAND, command=("sleep", "60"))
        readiness = Readiness(asyncio.get_running_loop(), rules, commands.run, lambda: None)
        await until(lambda: len(commands.env) == 3)
        assert readiness.trouble == "gave no answer within 200 ms"
        assert commands.most == 1
        readiness.close()
        await until(lambda: not commands.running)

    run(main())


def test_command_that_is_not_there() -> None:
    """It cannot succeed, and why is told."""

    async def main() -> None:
        rules = parse_ready("command:/nowhere/check")
        readiness = Readiness(asyncio.get_running_loop(), rules, Commands().run, lambda: None)
        await until(lambda: readiness.trouble == "could not be run: there is no command /nowhere/check")
        readiness.close()

    run(main())
