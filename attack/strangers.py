"""Attacks of those who show the wrong certificate, or speak the wrong kind of TLS: each is refused, with a reason.

The invariant of each: the server's side of the handshake never gets as far as reading a line.
"""

from __future__ import annotations

import socket
import ssl
import threading
import warnings
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from attack.credentials import ADDRESS, GUEST, HONEST
from attack.hostile import HELLO, SEVERAL, attempt, context, secure, what_is

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Self

    from attack.hostile import Target

OLD_VERSIONS = {"TLS 1.0": ssl.TLSVersion.TLSv1, "TLS 1.1": ssl.TLSVersion.TLSv1_1, "TLS 1.2": ssl.TLSVersion.TLSv1_2}
BAD_CIPHERS = ("NULL", "aNULL", "EXPORT", "RC4", "3DES", "kRSA", "PSK")
RECORD_HEADER = 5


def _tried(target: Target, keys: Path, *, weak: bool = False, alpn: str | None = "cmapp/1") -> Counter[str]:
    how = context(keys, weak=weak, alpn=alpn)
    return Counter(attempt(target, how) for _ in range(SEVERAL))


def wrong_certificate(name: str) -> Callable[[Target], Counter[str]]:
    """Return the attack that shows the odd certificate of that name."""

    def attack(target: Target) -> Counter[str]:
        return _tried(target, target.odd(name), weak=name.endswith("weak"))

    return attack


def guest_as_manager(target: Target) -> Counter[str]:
    """Command a guest by the key of a guest: another's, and its own."""
    return _tried(target, target.keys / "guest/vm2") + _tried(target, target.keys / GUEST)


def wrong_protocol(target: Target) -> Counter[str]:
    """Speak another protocol by ALPN, with a key that is good."""
    return _tried(target, target.rogue, alpn="h2")


def no_protocol(target: Target) -> Counter[str]:
    """Name no protocol by ALPN, with a key that is good."""
    return _tried(target, target.rogue, alpn=None)


def old_version(version: str) -> Callable[[Target], Counter[str]]:
    """Return the attack that insists on that version of TLS, with a key that is good."""

    def attack(target: Target) -> Counter[str]:
        how = context(target.rogue, weak=True)
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            how.minimum_version = how.maximum_version = OLD_VERSIONS[version]
        return Counter(attempt(target, how) for _ in range(SEVERAL // 2))

    return attack


def weak_ciphers(target: Target) -> Counter[str]:
    """Offer nothing but ciphers that nobody should take; those that OpenSSL here has forgotten cannot be offered."""
    outcomes: Counter[str] = Counter()
    for cipher in BAD_CIPHERS:
        how = context(target.rogue, weak=True)
        how.maximum_version = ssl.TLSVersion.TLSv1_2
        with suppress(ssl.SSLError):
            how.set_ciphers(f"{cipher}:@SECLEVEL=0")
            outcomes[attempt(target, how)] += 1
    return outcomes


def replayed_stream(target: Target) -> Counter[str]:
    """Record what an honest manager sends, and send the same bytes again."""
    with _Tap(target) as tap:
        how = context(target.keys / HONEST)
        plain = socket.create_connection((ADDRESS, tap.port), target.patience)
        with plain, suppress(OSError), how.wrap_socket(plain, server_hostname=ADDRESS) as tls:
            tls.sendall(HELLO)
            tls.recv(1024)
        recorded = bytes(tap.sent)
    outcomes: Counter[str] = Counter()
    for _ in range(SEVERAL):
        with target.call() as sock:
            try:
                sock.sendall(recorded)
                sock.shutdown(socket.SHUT_WR)
                while data := sock.recv(65536):
                    if data[:1] == b"\x15":
                        outcomes["alert"] += 1
                        break
                else:
                    outcomes["closed"] += 1
            except OSError as error:
                outcomes[what_is(error)] += 1
    return outcomes


def reordered_records(target: Target) -> Counter[str]:
    """Swap two records of an insider's stream on their way, drop one, send one twice, and change a bit in one."""
    outcomes: Counter[str] = Counter()
    for harm in ("swap", "drop", "twice", "flip"):
        with _Tap(target) as tap, suppress(OSError):
            plain = socket.create_connection((ADDRESS, tap.port), target.patience)
            with context(target.rogue).wrap_socket(plain, server_hostname=ADDRESS) as tls:
                tls.sendall(HELLO)
                tls.recv(1024)
                tap.harm(harm)
                for number in range(2, 6):
                    tls.sendall(b'{"type":"status","id":%d}\n' % number)
                try:
                    heard = b""
                    while data := tls.recv(65536):
                        heard += data
                    outcomes["closed" if heard.count(b"\n") < len(range(2, 6)) else "said: all of it"] += 1
                except OSError as error:
                    outcomes[what_is(error)] += 1
    return outcomes


class _Tap:
    """A relay of one connection that keeps what the client sends, and can harm the records that come."""

    def __init__(self, target: Target) -> None:
        self.sent = bytearray()
        self._target = target
        self._harm = ""
        self._listening = socket.create_server((ADDRESS, 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(self._target.patience)

    def harm(self, how: str) -> None:
        """Harm the client's next records."""
        self._harm = how

    def _relay(self) -> None:
        with suppress(OSError):
            near, _ = self._listening.accept()
            with near, self._target.call() as far:
                back = threading.Thread(target=self._back, args=(far, near), daemon=True)
                back.start()
                self._forth(near, far)
                with suppress(OSError):
                    far.shutdown(socket.SHUT_WR)
                back.join(self._target.patience)

    def _back(self, far: socket.socket, near: socket.socket) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                near.sendall(data)
            near.shutdown(socket.SHUT_WR)

    def _forth(self, near: socket.socket, far: socket.socket) -> None:
        held = b""
        with near.makefile("rb") as records:
            while len(header := records.read(RECORD_HEADER)) == RECORD_HEADER:
                record = header + records.read(int.from_bytes(header[3:], "big"))
                self.sent += record
                match self._harm:
                    case "swap" if not held:
                        held = record
                        continue
                    case "swap":
                        record, self._harm = record + held, ""
                    case "drop":
                        record, self._harm = b"", ""
                    case "twice":
                        record, self._harm = record * 2, ""
                    case "flip":
                        record, self._harm = record[:-1] + bytes([record[-1] ^ 1]), ""
                far.sendall(record)


def resumed_without_certificate(target: Target) -> Counter[str]:
    """Keep the session of an insider's link, and come back with it but without a certificate."""
    outcomes: Counter[str] = Counter()
    proven = context(target.rogue)
    try:
        with secure(target, proven) as tls:
            tls.sendall(HELLO)
            tls.recv(1024)
            session = tls.session
        outcomes["ticket" if session is not None and session.has_ticket else "no ticket"] += 1
    except OSError as error:
        outcomes[what_is(error)] += 1
    for _ in range(SEVERAL):
        outcomes[attempt(target, context(None))] += 1
    return outcomes
