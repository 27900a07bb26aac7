"""What is no message: every way in which a line can be bad, with the reason that both sides log."""

from __future__ import annotations

import json

import pytest

from cmapp.core import messages as m
from cmapp.core.checks import TEXT_LIMIT
from cmapp.core.wire import LINE_LIMIT, Decoder, encode
from cmapp.errors import RemoteProtocolError

KINDS = m.FROM_MANAGER | m.FROM_SERVER
RUN = "01234567-89ab-cdef-0123-456789abcdef"
LAUNCH = {"type": "launch", "id": 1, "name": "web", "run_id": RUN, "argv": ["web"]}
RECEIPT = {
    "name": "web",
    "run_id": RUN,
    "outcome": {"type": "exited", "code": 0},
    "reason": "itself",
    "started": 0,
    "ended": 0,
    "lasted": 0,
}
REPORT = {"name": "web", "run_id": RUN, "state": "running"}
TOO_LONG = "a line of more than 65536 bytes"
NOT_JSON, TOO_DEEP = "a line that is not JSON: ", "a line that is nested too deeply"
NOTHING = NOT_JSON + "Expecting value: line 1 column 1 (char 0)"
TWICE = NOT_JSON + "a key stands twice in one object"
NO_OBJECT, NO_TYPE = "a line that is not a JSON object", "a line without a type"
NO_COUNT = "must be a whole number from 0"

# Lines that are no object, or no JSON at all.
FORMLESS: list[tuple[str, bytes, str]] = [
    ("empty", b"", NOTHING),
    ("blank", b"\r", NOT_JSON + "Expecting value: line 1 column 2 (char 1)"),
    ("not UTF-8", b'{"type":"bye","reason":"\xff"}', "a line that is not UTF-8"),
    ("UTF-8 that is cut", b'{"type":"bye"}\xe2\x82', "a line that is not UTF-8"),
    ("surrogate in UTF-8", b'{"type":"bye","reason":"\xed\xa0\x80"}', "a line that is not UTF-8"),
    ("overlong UTF-8", b'{"type":"bye\xc0\x80"}', "a line that is not UTF-8"),
    ("UTF-16", '{"type":"bye"}'.encode("utf-16-le"), NOT_JSON + "Expecting property name enclosed in double quotes"),
    ("BOM", b'\xef\xbb\xbf{"type":"bye"}', NOTHING),
    ("NUL", b"\0", NOTHING),
    ("NUL after", b'{"type":"bye"}\0', NOT_JSON + "Extra data: line 1 column 15 (char 14)"),
    ("NUL in a string", b'{"type":"bye","reason":"\0"}', NOT_JSON + "Invalid control character at: line 1 column 25"),
    ("a request of HTTP", b"GET / HTTP/1.1\r", NOTHING),
    ("cut", b'{"type":"bye"', NOT_JSON + "Expecting ',' delimiter: line 1 column 14 (char 13)"),
    ("two objects", b'{"type":"bye"}{"type":"bye"}', NOT_JSON + "Extra data: line 1 column 15 (char 14)"),
    ("NaN", b'{"type":"bye","x":NaN}', NOT_JSON + "NaN is not a number"),
    ("Infinity", b'{"type":"bye","x":[Infinity]}', NOT_JSON + "Infinity is not a number"),
    ("-Infinity", b"-Infinity", NOT_JSON + "-Infinity is not a number"),
    ("endless integer", b'{"type":"poll","id":%s}' % (b"9" * 60_000), NOT_JSON + "Exceeds the limit (4300 digits)"),
    ("deep arrays", b"[" * 65_000, TOO_DEEP),
    ("deep and closed arrays", b"[" * 32_000 + b"]" * 32_000, TOO_DEEP),
    ("deep objects", b'{"a":' * 13_000, TOO_DEEP),
    ("deep objects in an unknown key", b'{"type":"bye","x":' + b'{"":' * 16_000, TOO_DEEP),
    ("same key twice", b'{"type":"bye","type":"bye"}', TWICE),
    ("same key twice, written otherwise", b'{"type":"bye","\\u0074ype":"poll"}', TWICE),
    ("same key twice below", b'{"type":"bye","x":[{"a":1,"a":1}]}', TWICE),
    ("an array", b"[]", NO_OBJECT),
    ("a string", b'"bye"', NO_OBJECT),
    ("a number", b"1", NO_OBJECT),
    ("true", b"true", NO_OBJECT),
    ("null", b"null", NO_OBJECT),
]

# Objects that are no message.
MISSHAPEN: list[tuple[str, dict[str, object], str]] = [
    ("no type", {}, NO_TYPE),
    ("null as type", {"type": None}, NO_TYPE),
    ("number as type", {"type": 1}, NO_TYPE),
    ("array as type", {"type": ["bye"]}, NO_TYPE),
    ("object as type", {"type": {"type": "bye"}}, NO_TYPE),
    ("unknown type, id below 0", {"type": "sing", "id": -1}, f"a bad sing: id: {NO_COUNT}"),
    ("unknown type, id too large", {"type": "sing", "id": 2**53 + 1}, f"a bad sing: id: {NO_COUNT}"),
    ("unknown type, id as string", {"type": "sing", "id": "1"}, f"a bad sing: id: {NO_COUNT}"),
    ("unknown type, id as fraction", {"type": "sing", "id": 1.0}, f"a bad sing: id: {NO_COUNT}"),
    ("unknown type, true as id", {"type": "sing", "id": True}, f"a bad sing: id: {NO_COUNT}"),
    ("unknown type that would act, bad id", {"type": "\x1b\n", "id": []}, rf"a bad \x1b\n: id: {NO_COUNT}"),
    ("no id", {"type": "poll"}, "a bad poll: Poll needs id"),
    ("null as id", {"type": "poll", "id": None}, f"a bad poll: id: {NO_COUNT}"),
    ("true as id", {"type": "poll", "id": True}, f"a bad poll: id: {NO_COUNT}"),
    ("fraction as id", {"type": "poll", "id": 1.0}, f"a bad poll: id: {NO_COUNT}"),
    ("id below 0", {"type": "poll", "id": -1}, f"a bad poll: id: {NO_COUNT}"),
    ("id too large", {"type": "poll", "id": 2**53 + 1}, f"a bad poll: id: {NO_COUNT}"),
    ("refusal of nothing", {"type": "refused", "code": "x", "text": "y"}, "a bad refused: Refused needs id"),
    ("no versions", {"type": "hello", "id": 1, "versions": []}, "a bad hello: versions: must be a list of 1 to 4096"),
    ("true as version", {"type": "hello", "id": 1, "versions": [True]}, f"a bad hello: versions: {NO_COUNT}"),
    ("no name", {**LAUNCH, "name": ""}, "a bad launch: name: must be a name of 1 to 64 characters"),
    (
        "a path as name",
        {**LAUNCH, "name": "../x"},
        "a bad launch: name: must be made of letters, digits and ._-@+ and not start with . or -",
    ),
    ("run id in capitals", {**LAUNCH, "run_id": RUN.upper()}, "a bad launch: run_id: must be a UUID in lower case"),
    ("string as argv", {**LAUNCH, "argv": "web"}, "a bad launch: argv: must be a list of 0 to 4096"),
    ("number in argv", {**LAUNCH, "argv": ["web", 1]}, "a bad launch: argv: must be a string"),
    ("NUL in argv", {**LAUNCH, "argv": ["a\0b"]}, "a bad launch: argv: has a NUL or a lone surrogate in it"),
    ("surrogate in argv", {**LAUNCH, "argv": ["\ud800"]}, "a bad launch: argv: has a NUL or a lone surrogate in it"),
    ("false as user", {**LAUNCH, "user": False}, "a bad launch: user: must be a string"),
    ("null as cwd", {**LAUNCH, "cwd": None}, "a bad launch: cwd: must be a string"),
    ("endless cwd", {**LAUNCH, "cwd": "/" * (TEXT_LIMIT + 1)}, "a bad launch: cwd: is longer than 32768 characters"),
    ("array as env", {**LAUNCH, "env": ["A=B"]}, "a bad launch: env: must be an object of at most 4096 variables"),
    ("number in env", {**LAUNCH, "env": {"A": 1}}, "a bad launch: env: must be a string"),
    ("= in env", {**LAUNCH, "env": {"A=\n": ""}}, r"a bad launch: env: 'A=\n' is not the name of a variable"),
    ("umask too large", {**LAUNCH, "umask": 512}, "a bad launch: umask: must be a whole number from 0 to 511"),
    ("umask as written", {**LAUNCH, "umask": "022"}, "a bad launch: umask: must be a whole number from 0 to 511"),
    ("array as stop", {**LAUNCH, "stop": [15, 30]}, "a bad launch: stop: must be an object"),
    ("signal 0", {**LAUNCH, "stop": {"signal": 0}}, "a bad launch: stop: signal: must be a whole number from 1 to 64"),
    (
        "text as stop command",
        {**LAUNCH, "stop": {"command": "x"}},
        "a bad launch: stop: command: must be a list of 0 to 4096",
    ),
    (
        "unknown limit",
        {**LAUNCH, "limits": {"files": [1, 2]}},
        (
            "a bad launch: limits: must be an object with limits of as, core, cpu, data, fsize, locks, memlock, "
            "memory, msgqueue, nice, nofile, nproc, pids, rss, rtprio, sigpending, stack"
        ),
    ),
    (
        "a limit that is one number",
        {**LAUNCH, "limits": {"nofile": 1024}},
        "a bad launch: limits: must be limits of [soft, hard]",
    ),
    (
        "a soft limit above the hard one",
        {**LAUNCH, "limits": {"nofile": [2, 1]}},
        "a bad launch: limits: must be limits whose soft one is not above the hard one",
    ),
    ("unknown kind", {**LAUNCH, "kind": "oneshot"}, "a bad launch: kind: must be one of simple, forking, notify"),
    (
        "unknown orphan action",
        {**LAUNCH, "orphan": {"action": "kill"}},
        "a bad launch: orphan: action: must be one of stop, keep",
    ),
    ("null as orphan", {**LAUNCH, "orphan": None}, "a bad launch: orphan: must be an object"),
    ("ready by nothing", {**LAUNCH, "ready": {}}, "a bad launch: ready: ReadyRules needs probe"),
    (
        "ready by an unknown probe",
        {**LAUNCH, "ready": {"probe": "ping"}},
        "a bad launch: ready: probe: must be one of notify, tcp, http, command",
    ),
    ("health by nothing", {**LAUNCH, "health": {}}, "a bad launch: health: HealthRules needs command"),
    (
        "health by an empty command",
        {**LAUNCH, "health": {"command": []}},
        "a bad launch: health: command: must be a list of 1 to 4096",
    ),
    (
        "health that never fails",
        {**LAUNCH, "health": {"command": ["x"], "retries": 0}},
        "a bad launch: health: retries: must be a whole number from 1 to 1000",
    ),
    ("watchdog below 0", {**LAUNCH, "watchdog": -1}, "a bad launch: watchdog: must be a number of seconds from 0"),
    (
        "unknown on_existing",
        {**LAUNCH, "on_existing": "kill"},
        "a bad launch: on_existing: must be one of replace, attach, refuse",
    ),
    ("1 as takeover", {**LAUNCH, "takeover": 1}, "a bad launch: takeover: must be true or false"),
    ("offset below 0", {**LAUNCH, "stdout_from": -1}, f"a bad launch: stdout_from: {NO_COUNT}"),
    ("hold of nothing", {"type": "hold", "id": 1}, "a bad hold: Hold needs name"),
    (
        "null as instance",
        {"type": "hello", "id": 1, "versions": [1], "instance": None},
        "a bad hello: instance: must be a string",
    ),
    (
        "true as timeout",
        {**LAUNCH, "stop": {"timeout": True}},
        "a bad launch: stop: timeout: must be a number of seconds from 0",
    ),
    ("1 as flag", {"type": "stop", "id": 1, "kill": 1}, "a bad stop: kill: must be true or false"),
    ("unknown stream", {"type": "tail", "id": 1, "stream": "x"}, "a bad tail: stream: must be one of stdout, stderr"),
    (
        "too much tail",
        {"type": "tail", "id": 1, "limit": 32769},
        "a bad tail: limit: must be a whole number from 0 to 32768",
    ),
    (
        "no base64",
        {"type": "output", "stream": "stdout", "offset": 0, "data": "a\n=="},
        "a bad output: data: must be base64",
    ),
    (
        "too much output",
        {"type": "output", "stream": "stdout", "offset": 0, "data": "AAAA" * 10923},
        "a bad output: data: is longer than 32768 bytes",
    ),
    (
        "unknown state",
        {"type": "report", "id": 1, "run": {**REPORT, "state": "asleep"}},
        "a bad report: run: state: must be one of waiting, starting, readying, running, stopping, ended",
    ),
    ("no run in runs", {"type": "runs", "id": 1, "runs": [{}]}, "a bad runs: runs: RunReport needs name"),
    ("no receipt", {"type": "exited"}, "a bad exited: Exited needs receipt"),
    (
        "unknown reason",
        {"type": "exited", "receipt": {**RECEIPT, "reason": "bored"}},
        (
            "a bad exited: receipt: reason: must be one of itself, asked, manager-lost, replaced, unhealthy, "
            "not-ready, hung, server-stopped"
        ),
    ),
    ("array as receipt", {"type": "exited", "receipt": []}, "a bad exited: receipt: must be an object"),
]

NO_OUTCOME = "outcome: must be an object with a type of exited, signaled, unknown"
OUTCOMES: list[tuple[str, object, str]] = [
    ("null", None, NO_OUTCOME),
    ("number", 0, NO_OUTCOME),
    ("no type", {"code": 0}, NO_OUTCOME),
    ("array as type", {"type": ["exited"], "code": 0}, NO_OUTCOME),
    ("unknown type", {"type": "vanished"}, NO_OUTCOME),
    ("no code", {"type": "exited"}, "outcome: Exited needs code"),
    ("code 256", {"type": "exited", "code": 256}, "outcome: code: must be a whole number from 0 to 255"),
    ("false as code", {"type": "exited", "code": False}, "outcome: code: must be a whole number from 0 to 255"),
    ("signal 65", {"type": "signaled", "signal": 65}, "outcome: signal: must be a whole number from 1 to 64"),
    ("no text", {"type": "unknown"}, "outcome: Unknown needs text"),
]
MISSHAPEN += [
    (
        f"outcome: {name}",
        {"type": "exited", "receipt": {**RECEIPT, "outcome": value}},
        f"a bad exited: receipt: {reason}",
    )
    for name, value, reason in OUTCOMES
]
NUMBERS = b'{"type":"hello","id":1,"versions":[1],"silence":%s}'
NO_SECONDS = "a bad hello: silence: must be a number of seconds from 0"
BAD = [
    *FORMLESS,
    *((name, json.dumps(keys).encode(), reason) for name, keys, reason in MISSHAPEN),
    *(
        (f"silence of {text.decode()}", NUMBERS % text, NO_SECONDS)
        for text in (b"1e999", b"-1e999", b"-1", b"1e16", b'"5"')
    ),
    ("silence of an endless integer", NUMBERS % (b"9" * 4000), NO_SECONDS),
    ("id of 1e999", b'{"type":"poll","id":1e999}', f"a bad poll: id: {NO_COUNT}"),
]

lines = pytest.mark.parametrize(("line", "reason"), [pytest.param(line, reason, id=name) for name, line, reason in BAD])


def said_of(stream: bytes) -> str:
    """Return the reason for which a fresh decoder refuses the stream."""
    with pytest.raises(RemoteProtocolError) as refusal:
        list(Decoder(KINDS).feed(stream))
    return str(refusal.value)


@lines
def test_bad_line_is_refused(line: bytes, reason: str) -> None:
    """A bad line is refused in one short printable sentence, of which JSON's own reader may word the end."""
    assert len(line) < LINE_LIMIT
    said = said_of(line + b"\n")
    assert said == reason or (reason.startswith(NOT_JSON) and said.startswith(reason))
    assert said.isprintable()
    assert len(said) < 300


def test_what_came_before_a_bad_line_counts() -> None:
    """An outcome that stands before a bad line in one piece is not lost: it once was, with the whole piece."""
    heard = Decoder(KINDS).feed(encode(m.Done(1)) + b"no JSON\n" + encode(m.Done(2)))
    assert next(heard) == m.Done(1)
    with pytest.raises(RemoteProtocolError):
        next(heard)


@pytest.mark.parametrize("word", sorted(KINDS))
def test_every_message_refuses_a_wrong_type_in_every_field(word: str) -> None:
    """No field of any message takes what it is not made for: an object with a number in it fits nowhere."""
    for name in KINDS[word].fields():
        assert said_of(json.dumps({"type": word, name: {"x": 0}}).encode() + b"\n").startswith(f"a bad {word}: ")
