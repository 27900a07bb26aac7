"""Targets: the TLS port, record by record, and certificates that our authority would never have signed.

The other end is OpenSSL itself, whose records are cut, changed, repeated, reordered and mixed with others on their
way. The invariants: only TrustError and LinkError come out of a link; what it hands on was said by the other end, from
the beginning and without a gap; and whoever is believed to be somebody has a certificate that says so.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import ssl
import time
from typing import TYPE_CHECKING

from cryptography import x509

from cmapp.errors import LinkError, TrustError
from cmapp.net.link import Link
from cmapp.net.tls import client_context, peer_identity, server_context
from fuzz import papers
from fuzz.breach import held, require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmapp.net.identity import Identity

STEPS = 48  # at most, of one conversation
HEADER = 5  # bytes of a record: its kind, a version, its length
LIMIT = 1 << 18  # bytes that may wait to be sent
MOST = 1 << 20  # bytes that a link may keep
GUESTS = {"host": papers.GUEST, "guest": None}  # whom our end calls, in either role
PURPOSES = {"host": "1.3.6.1.5.5.7.3.2", "guest": "1.3.6.1.5.5.7.3.1"}


@functools.cache
def _contexts(role: str, *, old: bool) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return our context in this role, and that of the other end, which is honest; with TLS 1.2 if `old`."""
    keys = {name: str(papers.key_folder(name)) for name in ("host", "guest")}
    serving, calling = server_context(keys["guest"], allow_tls12=old), client_context(keys["host"], allow_tls12=old)
    ours, other = (serving, calling) if role == "guest" else (calling, serving)
    if old:
        other.maximum_version = ssl.TLSVersion.TLSv1_2
    return ours, other


class Other:
    """The other end, OpenSSL itself, whose records reach the connection `far` only as somebody else pleases."""

    def __init__(self, far: socket.socket, context: ssl.SSLContext, *, serves: bool = False) -> None:
        far.setblocking(False)
        self._far = far
        self._out, self._in = ssl.MemoryBIO(), ssl.MemoryBIO()
        name = None if serves else papers.GUEST
        self._tls = context.wrap_bio(self._in, self._out, server_side=serves, server_hostname=name)
        self.records: list[bytes] = []
        self.said = b""

    def go_on(self) -> None:
        """Do what can be done without waiting."""
        try:
            while data := self._far.recv(1 << 16):
                self._in.write(data)
            self._in.write_eof()
        except OSError:
            pass  # nothing has come, or it is gone
        try:
            self._tls.do_handshake()
            self._tls.read(1 << 16)
        except ssl.SSLError:
            pass  # it waits, or is done for
        self._cut()

    def say(self, data: bytes) -> None:
        """Say something."""
        try:
            self._tls.write(data)
        except ssl.SSLError:
            return
        self.said += data
        self._cut()

    def end(self) -> None:
        """Say that it ends."""
        try:
            self._tls.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # the other's end is not there yet
        self._cut()

    def send(self, data: bytes) -> None:
        """Put bytes on the way."""
        try:
            self._far.send(data)
        except OSError:
            pass  # the other has closed, or does not read

    def cut_off(self) -> None:
        """Close the way."""
        try:
            self._far.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is closed

    def _cut(self) -> None:
        data = self._out.read()
        while data:
            end = HEADER + int.from_bytes(data[3:HEADER], "big")
            self.records.append(data[:end])
            data = data[end:]


class Near:
    """Our link, which is asked for what it promises."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, guest: str | None) -> None:
        self.link = Link(sock, context, peer="the peer", limit=LIMIT, guest=guest)
        self.heard = b""
        self.proven = self.over = False

    def go_on(self) -> None:
        """Do what can be done without waiting."""
        try:
            if not self.proven:
                if not self.link.handshake():
                    return
                peer_identity(self.link.tls)
                self.proven = True
            data = self.link.read()
            self.link.flush()
        except (TrustError, LinkError) as error:
            require_plain(str(error))
            self.over = True
            return
        self.over = data is None
        self.heard += data or b""

    def close(self) -> None:
        """Close it as a server does."""
        self.link.hang_up()
        self.link.drain()
        self.link.close()


def records(data: bytes) -> None:
    """Have somebody between the two ends do what he likes with records."""
    draw = Draw(data)
    what = draw.byte()
    role = "guest" if what & 1 else "host"
    ours, theirs = _contexts(role, old=bool(what & 2))
    near, far = socket.socketpair()
    with far, contextlib.closing(Near(near, ours, guest=GUESTS[role])) as us:
        other = Other(far, theirs, serves=role == "host")
        for _ in range(STEPS):
            if draw.done or us.over:
                break
            interfere(other, draw)
            other.go_on()
            us.go_on()
            require(other.said.startswith(us.heard), "heard what was not said", us.heard)
            require(us.proven or not us.heard, "heard somebody who is not proven", us.heard)
            require(held(us.heard) + us.link.waiting < MOST, "a link keeps too much")


def interfere(other: Other, draw: Draw) -> None:
    """Do one thing with what `other` has to say, or say something in its place."""
    how = draw.below(16)
    record = other.records.pop(0) if other.records and how < len(_WITH_RECORDS) else b""
    if how < len(_WITH_RECORDS):
        for piece in _WITH_RECORDS[how](record, draw):
            other.send(piece)
        if how == _LATER:
            other.records.insert(1, record)
    elif how == len(_WITH_RECORDS):
        body = expand(draw.chunk())
        other.send(bytes([draw.byte(), 3, draw.byte() % 5]) + draw.below(1 << 16).to_bytes(2, "big") + body)
    elif how == len(_WITH_RECORDS) + 1:
        other.say(expand(draw.chunk()) or b"x")
    elif how == len(_WITH_RECORDS) + 2:
        other.end()
    else:
        other.cut_off()


def _cut_short(record: bytes, draw: Draw) -> list[bytes]:
    return [record[: draw.below(max(1, len(record)))]]


def _altered(record: bytes, draw: Draw) -> list[bytes]:
    at = draw.below(max(1, len(record)))
    return [record[:at] + bytes([draw.byte()]) + record[at + 1 :]]


def _padded(record: bytes, draw: Draw) -> list[bytes]:
    at = draw.below(max(1, len(record)))
    return [record[:at] + draw.chunk() + record[at:]]


_WITH_RECORDS: tuple[Callable[[bytes, Draw], list[bytes]], ...] = (
    *([lambda record, _: [record]] * 6),
    *(_cut_short, _altered, lambda record, _: [record, record], lambda *_: [], _padded, lambda *_: []),
)
_LATER = 9  # of those: the record comes after the next


# ---- certificates ----------------------------------------------------------------------------------------------


def certificate(data: bytes) -> None:
    """Have a peer show a certificate with anything in it, rightly signed: it is known by what it says, or refused."""
    draw = Draw(data)
    role = draw.pick(("host", "guest"))
    signed = papers.papers().leaves[role].tbs_certificate_bytes
    changes: list[tuple[bytes, bytes]] = []
    while not draw.done and len(changes) < STEPS:
        at, length = draw.below(len(signed)), draw.byte() % 24
        new = draw.take(length)
        changes.append((signed[at : at + len(new)], new))
    der = papers.signed_again(role, changes)
    shown = _shown_by(role, der)
    if shown is None:
        return
    require_plain(str(shown))
    try:
        told = x509.load_der_x509_certificate(der)
        several = {type(item.value): item.value for item in told.extensions}
        names = several[x509.SubjectAlternativeName].get_values_for_type(x509.UniformResourceIdentifier)
    except ValueError:
        return  # it is more particular than OpenSSL is
    require(names.count(f"cmapp://{shown.role.value}/{shown.name}") == 1, "believed to be another", shown, names)
    purposes = several.get(x509.ExtendedKeyUsage)  # without any, OpenSSL lets a certificate be for all
    if isinstance(purposes, x509.ExtendedKeyUsage):
        require(PURPOSES[role] in [purpose.dotted_string for purpose in purposes], "of another purpose", purposes)
    require(told.not_valid_after_utc.timestamp() > time.time(), "believed after its end", told.not_valid_after_utc)


def _shown_by(role: str, der: bytes) -> Identity | None:
    """Return whom our end takes the peer for that shows this certificate, None if it is turned away."""
    file, key = papers.scratch() / "shown.pem", papers.key_folder(role) / "key.pem"
    file.write_text(ssl.DER_cert_to_PEM_cert(der))
    other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if role == "host" else ssl.PROTOCOL_TLS_SERVER)
    other.check_hostname, other.verify_mode = False, ssl.CERT_NONE
    other.set_alpn_protocols(["cmapp/1"])
    try:
        other.load_cert_chain(file, key)
    except ssl.SSLError:
        return None  # OpenSSL cannot read it, or the key is another
    ours = _contexts("guest" if role == "host" else "host", old=False)[0]
    near, far = socket.socketpair()
    link = Link(near, ours, peer="the peer", limit=LIMIT, guest=papers.GUEST if role == "guest" else None)
    far.setblocking(False)
    try:
        with other.wrap_socket(far, server_side=role == "guest", do_handshake_on_connect=False) as peer:
            for _ in range(6):
                try:
                    peer.do_handshake()
                except OSError:
                    pass  # it waits, or was turned away
                if link.handshake():
                    return peer_identity(link.tls)
    except (TrustError, LinkError) as error:
        require_plain(str(error))
        return None
    finally:
        link.close()
        far.close()
    os.sched_yield()
    raise AssertionError("a handshake that neither succeeds nor fails")
