"""Targets: what fields hold, how things are told, and words as people write them.

What a check lets through it lets through again, unchanged, and JSON can say it; what is told fits a log line.
"""

from __future__ import annotations

import ipaddress
import json
import math
import shlex
from typing import TYPE_CHECKING

from cmapp.core import checks, outcome, rules
from cmapp.core import messages as m
from cmapp.core.duration import LONGEST, format_duration, parse_duration
from cmapp.core.readiness import parse_ready, parse_words, target_of
from cmapp.core.text import printable
from cmapp.core.wire import plain
from cmapp.errors import SettingsError
from cmapp.host import result
from cmapp.host.task import meaning_of
from cmapp.net.address import parse_address, parse_listen_address
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from cmapp.core.record import Record

BASE64 = 32 * 1024 * 4 // 3 + 4  # characters that the longest value has
MANY = 4096
PORTS = range(1, 65536)
LISTENED = range(65536)
FAULTS = {"unhealthy", "not-ready", "hung"}  # for which the server stops a run by itself

CHECKS: tuple[Callable[[Any], Any], ...] = (
    *(checks.text, checks.name, checks.uuid, checks.count, checks.within(1, 64), checks.seconds, checks.flag),
    *(checks.optional(checks.text), checks.many(checks.text), checks.many(checks.count, least=1)),
    *(checks.environment, checks.limits, checks.one_of(rules.Kind), checks.one_of(outcome.Reason), checks.blob),
    checks.tagged(outcome.Exited, outcome.Signaled, outcome.Unknown),
)
RECORDS: tuple[type[Record], ...] = (
    *(*m.FROM_MANAGER.values(), *m.FROM_SERVER.values()),
    *(m.RunReport, outcome.Receipt, rules.StopRules, rules.OrphanRules, rules.ReadyRules, rules.HealthRules),
)


# ---- fields ------------------------------------------------------------------------------------------------


def checked(data: bytes) -> None:
    """Hold any value against any check, and any values against any record."""
    draw = Draw(data)
    if draw.byte() % 2:
        check, value = draw.pick(CHECKS), draw.value()
    else:
        kind = draw.pick(RECORDS)
        check, value = checks.record(kind), filled(kind, draw)
    try:
        kept = check(value)
    except ValueError as error:
        require(isinstance(error, ValueError) and str(error), "a check that does not say why", error)
        return
    require(check(kept) == kept, "a check that does not accept what it returned", kept)
    said = json.dumps(plain(kept), allow_nan=False).encode()
    require(check(json.loads(said)) == kept, "JSON does not say what was kept", said)
    _bounded(plain(kept))


def filled(kind: type[Record], draw: Draw) -> dict[str, Any]:
    """Return values for the fields of `kind`, good ones and others, and a key that it does not know."""
    value: dict[str, Any] = {}
    for name in kind.fields():
        how = draw.byte()
        if how < 0x30:  # noqa: PLR2004 - seldom
            value[name] = draw.value()
        elif how < 0xC0:  # noqa: PLR2004 - mostly
            value[name] = GOOD.get(name, 1)
    return value | ({"x": 1} if draw.chance(4) else {})


GOOD: dict[str, Any] = {
    "name": "web",
    "run_id": "01234567-89ab-cdef-0123-456789abcdef",
    "argv": ["/bin/web", "--port", "80"],
    "command": ["/bin/check"],
    "versions": [1],
    "env": {"A": "1"},
    "limits": {"nofile": [64, -1]},
    "kind": "forking",
    "unit": "web.service",
    "stop": {"signal": 2, "timeout": 5, "command": ["w"]},
    "orphan": {"timeout": 5, "action": "keep"},
    "ready": True,
    "health": "",
    "stream": "stdout",
    "data": "eA==",
    "receipt": None,
    "outcome": {"type": "exited", "code": 0},
    "reason": "itself",
    "state": "running",
    "action": "keep",
    "probe": "tcp",
    "target": "80",
    "run": {"name": "web", "run_id": "01234567-89ab-cdef-0123-456789abcdef", "state": "running"},
    "on_existing": "attach",
    **dict.fromkeys(("software", "node", "instance", "user", "group", "after", "guest", "boot_id", "text"), "x"),
    **dict.fromkeys(("kill", "attached", "more", "held", "takeover", "resume", "output", "forced", "on"), False),
    **dict.fromkeys(("cwd", "pid_file", "code", "status", "detail"), "/"),
}


def _bounded(value: Any) -> None:
    if isinstance(value, str):
        require(len(value) <= BASE64, "a text that is too long was let through", len(value))
        require("\0" not in value, "a NUL was let through", value)
        value.encode()
    elif isinstance(value, (list, dict)):
        require(len(value) <= MANY, "more than may be was let through", len(value))
        for item in value.values() if isinstance(value, dict) else value:
            _bounded(item)


# ---- what is told ------------------------------------------------------------------------------------------


def verdict(data: bytes) -> None:
    """Conclude from any end that a server tells: its code is right, its words fit a line, its result is JSON."""
    draw = Draw(data)
    told: Any
    try:
        told = draw.pick((_receipt, _refusal))(draw)
    except ValueError:
        return
    code = outcome.exit_code(told)
    require(0 <= code <= 255, "no exit code", code)  # noqa: PLR2004 - what a process can exit with
    good = isinstance(told, outcome.Receipt) and told.outcome == outcome.Exited(0) and told.reason.value not in FAULTS
    require((code == 0) is good, "0 for what is no success, or none for one", told)
    require_plain(outcome.describe(told))
    require(result.cause(told), "no cause", told)
    json.dumps(result.details(told), allow_nan=False)
    require_plain(printable(draw.text()))


def _receipt(draw: Draw) -> Any:
    outcomes = {"type": "exited", "code": draw.byte()}, {"type": "signaled", "signal": draw.byte()}
    ended = draw.pick([*outcomes, {"type": "unknown", "text": draw.text()}, draw.value()])
    reason = draw.pick([*(reason.value for reason in outcome.Reason), "x"])
    keys = {"outcome": ended, "reason": reason, "detail": draw.text(), "forced": draw.chance(2)}
    times = {name: draw.pick((0, 1.5, 2**53, draw.value())) for name in ("started", "ended", "lasted")}
    return checks.build(outcome.Receipt, {"name": "web", "run_id": GOOD["run_id"], **keys, **times})


def _refusal(draw: Draw) -> Any:
    codes = [word for name, word in vars(m.Refusal).items() if name.isupper()]
    return meaning_of(m.Refused(draw.pick([*codes, draw.text()]), draw.text(), id=draw.below(4)))


# ---- words -------------------------------------------------------------------------------------------------


def words(data: bytes) -> None:
    """Read an address, a duration, a readiness or a command: only SettingsError comes out, and sense of the rest."""
    draw = Draw(data)
    which = draw.pick((_address, _listened, _duration, _ready, _command))
    text = expand(draw.rest()).decode("utf-8", "surrogateescape")
    try:
        which(text)
    except SettingsError as error:
        require_plain(str(error))


def _address(text: str) -> None:
    _sound(parse_address(text), PORTS)
    _read_again(parse_address, text)


def _listened(text: str) -> None:
    _sound(parse_listen_address(text), LISTENED)
    _read_again(parse_listen_address, text)


def _sound(address: Any, ports: Sequence[int]) -> None:
    require_plain(str(address))
    address.host.encode("ascii")
    if address.cid is not None:
        require(0 <= address.cid < 2**32 and 0 <= address.port < 2**32 - 1, "no vsock address", address)
        return
    require(address.port in ports, "no port", address)
    if ":" in address.host:
        ipaddress.IPv6Address(address.host)
    elif len(address.host) <= 253 and not address.host.startswith("_"):  # noqa: PLR2004 - of a name
        require(set(address.host).isdisjoint("/@?#[]% "), "a host that is none", address)


def _read_again(read: Callable[[str], Any], text: str) -> None:
    """Raise BreachError if an address is not written as it is read."""
    address = read(text)
    require(read(str(address)) == address, "not written as it is read", text)


def _duration(text: str) -> None:
    seconds = parse_duration(text)
    require(math.isfinite(seconds) and 0 <= seconds <= LONGEST, "no duration", text, seconds)
    require_plain(format_duration(seconds))


def _ready(text: str) -> None:
    read = parse_ready(text)
    target = target_of(read)
    require(target_of(checks.build(rules.ReadyRules, json.loads(json.dumps(plain(read))))) == target, "not said", text)
    if target is None:
        return
    require(target.hosts and target.port in PORTS, "nobody to ask", target)
    for host in target.hosts:
        ipaddress.ip_address(host)
    asked = f"GET {target.path} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n"
    require(asked.isascii() and len(asked.split("\r\n")) == len(("GET", "Host", "", "")), "more than one request", text)
    require(len(asked.splitlines()[0].split(" ")) == len(("GET", "path", "HTTP")), "a page with blanks", text)


def _command(text: str) -> None:
    read = parse_words(text)
    require(0 < len(read) <= MANY and read[0], "no command", text)
    require("\0" not in text, "a NUL in a command", text)
    require(shlex.split(text) == list(read), "other words than a shell's", text, read)
