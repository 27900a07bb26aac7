"""Defects to be planted: each breaks one rule of the package, in memory, and its target has to find it.

A target that has never found anything proves nothing. The invariant: what is planted is gone when `planted` is left.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmapp.cli import arguments
from cmapp.core import (
    charge,
    checks,
    dbus,
    dbusvalues,
    duration,
    ledger,
    options,
    outcome,
    patterns,
    policy,
    session,
    wire,
)
from cmapp.core.admission import Admission
from cmapp.core.session import Session
from cmapp.guest import notify, probe, reception, runfile, upgrade
from cmapp.host import inquiry, journal
from cmapp.keys import jks, pem
from cmapp.net import address, der, link, tls, x509
from cmapp.net.identity import Identity, Role
from fuzz import corpus
from fuzz.mutate import mutated
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def planted(name: str) -> Iterator[str]:
    """Break the rule that is called `name` for as long as this lasts; yield the target that has to find it."""
    target, *changes = PLANTS[name]
    with contextlib.ExitStack() as stack:
        for where, what, value in changes:
            stack.callback(setattr, where, what, vars(where)[what])
            setattr(where, what, value)
        yield target


def found(name: str, tries: int) -> bytes | None:
    """Return an input by which a target finds what is planted, one that was kept or of so many that are changed."""
    with planted(name) as target:
        function, kept, chance = TARGETS[target].load(), corpus.inputs(target), random.Random(1)  # noqa: S311
        for number in range(len(kept) + tries):
            data = kept[number] if number < len(kept) else mutated(TARGETS[target], kept, chance.randbytes(40))
            try:
                function(data)
            except Exception:  # noqa: BLE001 - anything that comes out is a finding
                return data
    return None


def _scan(content: bytes) -> Any:
    """Tell of a gap never."""
    (entries, _), end = _SCAN(content)
    return ledger.Content((entries, False)), end


def _entry(line: bytes) -> Any:
    """Believe a line whatever its checksum says."""
    try:
        return json.loads(line[9:])
    except ValueError:
        return None


def _start(self: Any, launch: Any, peer: Any, holder: Any, now: float) -> None:
    """Start a run although something of the run before still lives."""
    del holder
    self._start(launch, peer, now, 0.0)


def _remember(self: Any, number: int, word: str, error: Any) -> None:
    """Take any request, however many wait and under whatever id."""
    del error
    self._unanswered[number] = word


def _read_twice(self: Any) -> bytes | None:
    """Hand what came on twice."""
    data = _READ(self)
    return data and data + data


def _common_name(certificate: Any) -> Identity:
    """Believe a certificate's common name instead of its role URI."""
    names = [value for part in certificate["subject"] for key, value in part if key == "commonName"]
    return Identity(Role.HOST if names == ["n1"] else Role.GUEST, names[0])


def _climbs(self: Any, word: str) -> bool:
    """Hold a word against a pattern without regard to its dots."""
    return bool(_FITS(self, word if self.literal else word.replace("..", "__")))


def _receive_alone(self: Any, data: bytes) -> Any:
    """Read what came without what came before."""
    self._buffer.clear()
    return _RECEIVE(self, data)


def _fail(*_: Any) -> Any:
    """Fail in a way that nobody expects."""
    raise KeyError("planted")


def _short(tag: int, *contents: bytes) -> bytes:
    """Write an element whose length is cut."""
    content = b"".join(contents)
    return bytes((tag, len(content) & 0x7F)) + content


def _sure(content: bytes) -> Any:
    """Read a certificate, and expect that it can be."""
    try:
        return _STATEMENT(content)
    except ValueError:
        return _fail()


def _any_number(digits: str, *_: Any) -> int | None:
    """Read any number."""
    return int(digits) if digits.isdecimal() else None


def _same(text: str) -> str:
    return text


_WITHOUT_STOP = {**session.TABLE, (session.State.ENDED, session.Event.STOP): None}
_STATEMENT = x509.certificate
_RECEIVE = dbus.Decoder.receive
_SCAN, _READ, _FITS = ledger.scan, link.Link.read, patterns.Pattern.fits

PLANTS: dict[str, tuple[Any, ...]] = {
    "a line of 64 KiB and one byte is heard": ("wire", (wire, "LINE_LIMIT", 64 * 1024 + 1)),
    "a key may stand twice": ("wire", (wire, "_parse", json.JSONDecoder().decode)),
    "errors repeat what came as it came": ("wire", (wire, "printable", _same)),
    "requests are not counted": ("session", (Session, "_remember", _remember)),
    "a name is started while it is taken": ("crowd", (Admission, "_contend", _start)),
    "a text may be of any length": ("checked", (checks, "TEXT_LIMIT", 10**9)),
    "unhealthy is 0 if it exits so": ("verdict", (outcome, "FAULTS", ())),
    "verdicts are told as they came": ("verdict", (outcome, "printable", _same)),
    "a port has six digits": ("words", (address, "_number", _any_number)),
    "a duration has no end": ("words", (duration, "LONGEST", 1e300)),
    "a checksum is not looked at": ("ledger", (ledger, "_entry", _entry)),
    "a gap is not told": ("ledger", (ledger, "scan", _scan)),
    "times of a run are not checked": ("facts", (charge, "_time", float)),
    "what is handed over is not checked": ("handover", (upgrade, "_checked", _same)),
    "a wildcard climbs out": ("pattern", (patterns.Pattern, "fits", _climbs)),
    "a launch has the rights that it asks for": ("rights", (policy, "_with_rights", lambda _rule, launch: launch)),
    "a piece of a message is forgotten": ("bus", (dbus.Decoder, "receive", _receive_alone)),
    "values on a bus may be nested without an end": ("bus", (dbusvalues, "DEPTH", 10**9)),
    "an answer of one digit will do": ("http", (probe, "CODE", 1)),
    "any number is a process": ("notice", (notify, "_pid", _any_number)),
    "years of two digits are of the last century": ("statement", (x509, "_CENTURY", 0)),
    "an error repeats all of a value": ("config", (options, "_shown", repr)),
    "what came is handed on twice": ("records", (link.Link, "read", _read_twice)),
    "everybody is somebody": ("port", (reception, "peer_identity", lambda *_: Identity(Role.HOST, "somebody"))),
    "a common name is believed": ("certificate", (tls, "named_by", _common_name)),
    "what crosses an end is not heard": ("crossing", (session, "TABLE", _WITHOUT_STOP)),
    "what is damaged is thrown away": ("receipts", (runfile, "attempt", lambda _call, path, *_: Path(path).unlink())),
    "words are not quoted": ("package", (shlex, "join", " ".join)),
    "bad usage is another error": ("arguments", (arguments.Parser, "error", _fail)),
    "lengths have one byte": ("asn1", (der, "element", _short)),
    "certificates in keystores are good": ("keystore", (jks, "certificate_of", lambda *_: _fail())),
    "PEM holds anything": (
        "texts",
        (pem, "_BLOCK", re.compile(rb"-----BEGIN (.+?)-----.*?-----END \1-----", re.DOTALL)),
    ),
    "certificates in key folders are good": ("folder", (x509, "certificate", _sure)),
    "a refusal is another error": ("inquiry", (inquiry, "DeclinedError", KeyError)),
    "a log line is written as it came": ("manager", (journal, "fitted", lambda text, _: text.encode())),
}
