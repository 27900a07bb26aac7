"""What every attack is made of: a target, connections from any loopback address, and words for what became of them.

An outcome is one short text a hostile peer: "closed" (without a word), "alert: ..." (TLS refused it), "bye: ..." and
"refused: ..." (the protocol did), "said: ..." (it was answered), "kept" (it was still there when its time was over).
The invariant: every hostile peer gives exactly one outcome, and waits no longer for it than the target's patience.
"""

from __future__ import annotations

import json
import random
import select
import socket
import ssl
import time
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attack.credentials import ADDRESS, ROGUE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALPN = "cmapp/1"
ONE_ADDRESS = "127.0.0.66"
CLOSED, KEPT = "closed", "kept"
ANSWER = 1.0  # seconds without a word, after which no more is to come
SEVERAL = 40  # hostile peers of an attack that needs no crowd, in each round
HELLO = b'{"type":"hello","id":1,"versions":[1]}\n'


def ask(word: str, number: int = 2, **fields: Any) -> bytes:
    """Return the line of a request."""
    return json.dumps({"type": word, "id": number, **fields}).encode() + b"\n"


def launch(number: int = 2, **fields: Any) -> bytes:
    """Return the line of a launch, of what does nothing unless `fields` say otherwise."""
    return ask("launch", number, **{"name": "evil", "run_id": str(uuid.uuid4()), "argv": ["/bin/true"], **fields})


@dataclass(frozen=True)
class Target:
    """What is attacked: the server's port, the folder of keys, how many `handshakes` make a crowd.

    `patience` is how many seconds a hostile peer waits for what becomes of it: longer than the server takes to let
    go of whoever does not prove itself and does not read its last words. `brief` is as long as the server takes to
    let go of whoever is silent, `long` as to let go of an insider who does not finish a line, or does not read.
    `run_id` and `name` are an honest manager's run.
    """

    port: int
    keys: Path
    handshakes: int
    patience: float
    brief: float
    long: float
    seed: int
    run_id: str = ""
    name: str = ""

    @property
    def rogue(self) -> Path:
        """The key folder of an insider."""
        return self.keys / ROGUE

    def odd(self, name: str) -> Path:
        """Return a key folder that is wrong in some way."""
        return self.keys / "odd" / name

    def addresses(self, *, many: bool) -> Iterator[str]:
        """Yield where one hostile peer after the other comes from."""
        draw = random.Random(self.seed)  # noqa: S311 - to be drawn again, not to be secret
        while True:
            parts = (draw.randrange(1, 255) for _ in range(3))
            yield "127." + ".".join(map(str, parts)) if many else ONE_ADDRESS

    def call(self, source: str = ONE_ADDRESS) -> socket.socket:
        """Return a TCP connection to the server from that address."""
        return socket.create_connection((ADDRESS, self.port), self.patience, (source, 0))


def context(keys: Path | None, *, weak: bool = False, alpn: str | None = ALPN) -> ssl.SSLContext:
    """Return a client's TLS that believes anybody, shows `keys` if there are any, and stoops to anything if `weak`."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if weak:
        made.set_ciphers("ALL:COMPLEMENTOFALL:@SECLEVEL=0")
    if alpn is not None:
        made.set_alpn_protocols([alpn])
    if keys is not None:
        made.load_cert_chain(keys / "cert.pem", keys / "key.pem")
    return made


def client_hello() -> bytes:
    """Return the first message of a handshake."""
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context(None).wrap_bio(ssl.MemoryBIO(), sent, server_hostname=ADDRESS).do_handshake()
    return sent.read()


def what_is(error: OSError) -> str:
    """Return the outcome that an error is."""
    if isinstance(error, TimeoutError):
        return KEPT
    words = str(error).lower()
    if isinstance(error, ssl.SSLError) and "alert" in words:
        alert = words.partition(" alert ")[2] or words.partition("tlsv13 alert ")[2]
        return f"alert: {alert.partition(' (')[0]}"
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError) and "eof" not in words:
        return f"tls: {str(error).partition('] ')[2].partition(' (')[0]}"
    return CLOSED


@contextmanager
def secure(target: Target, how: ssl.SSLContext, source: str = ONE_ADDRESS) -> Iterator[ssl.SSLSocket]:
    """Give a connection whose handshake is done; raises OSError for what the server, or OpenSSL here, makes of it."""
    plain = target.call(source)
    try:
        with how.wrap_socket(plain, server_hostname=ADDRESS) as tls:
            yield tls
    finally:
        plain.close()


def shown(message: dict[str, Any]) -> str:
    """Return the outcome that a message of the server is."""
    word = message.get("type")
    if word == "bye":
        return f"bye: {message.get('reason')}"
    if word == "refused":
        return f"refused: {message.get('code')}"
    return f"said: {word}"


def shown_line(line: bytes) -> str:
    """Return the outcome that a line of the server is, or none at all."""
    return shown(json.loads(line)) if line else CLOSED


def last_word(tls: socket.socket) -> str:
    """Return what became of a peer: the last line that it is sent, or how it was let go if it is sent none."""
    heard, failed = b"", CLOSED
    tls.settimeout(ANSWER)
    try:
        while b'{"type":"bye"' not in heard and (data := tls.recv(65536)):
            heard = (heard + data)[-2 * 65536 :]
    except OSError as error:
        failed = what_is(error)
    return shown_line(heard.split(b"\n")[-2]) if b"\n" in heard else failed


def attempt(target: Target, how: ssl.SSLContext, said: bytes = HELLO, source: str = ONE_ADDRESS) -> str:
    """Shake hands, say something, and return what became of it."""
    try:
        with secure(target, how, source) as tls:
            tls.sendall(said)
            return first_word(tls)
    except OSError as error:
        return what_is(error)


def first_word(tls: socket.socket) -> str:
    """Return what the first line is that a peer is sent, or how it was let go."""
    heard = b""
    try:
        while b"\n" not in heard:
            data = tls.recv(65536)
            if not data:
                return CLOSED
            heard += data
    except OSError as error:
        return what_is(error)
    return shown_line(heard.split(b"\n")[0])


def let_go(socks: list[socket.socket], patience: float) -> Counter[str]:
    """Return how many of the peers are let go within `patience` seconds, and close all."""
    outcomes: Counter[str] = Counter()
    waiting = select.poll()
    left = {sock.fileno(): sock for sock in socks}
    for number in left:
        waiting.register(number, select.POLLIN | select.POLLRDHUP)
    deadline = time.monotonic() + patience
    while left and (rest := deadline - time.monotonic()) > 0:
        for number, _ in waiting.poll(rest * 1000):
            sock = left[number]
            sock.setblocking(False)
            try:
                if sock.recv(65536):
                    continue
            except BlockingIOError:
                continue
            except OSError:
                pass
            waiting.unregister(number)
            del left[number]
            outcomes[CLOSED] += 1
    if left:
        outcomes[KEPT] += len(left)
    for sock in socks:
        sock.close()
    return outcomes
