"""The codec: one table of lines that are messages, one of lines that are not, and any bytes at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import messages as m
from cmapp.core import outcome
from cmapp.core.rules import HealthRules, Kind, OnExisting, OrphanAction, OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.wire import Decoder, encode

KINDS = m.FROM_MANAGER | m.FROM_SERVER
RUN = "01234567-89ab-cdef-0123-456789abcdef"

RECEIPT = outcome.Receipt(
    name="web",
    run_id=RUN,
    outcome=outcome.Exited(0),
    reason=outcome.Reason.ITSELF,
    started=1000.0,
    ended=1002.5,
    lasted=2.5,
)
KILLED = RECEIPT.replace(
    outcome=outcome.Signaled(11, core_dumped=True), reason=outcome.Reason.MANAGER_LOST, forced=True
)
SICK = RECEIPT.replace(reason=outcome.Reason.UNHEALTHY, detail="3 of 3 checks failed")
LOST = RECEIPT.replace(outcome=outcome.Unknown("no status"), reason=outcome.Reason.SERVER_STOPPED)
ENDED = f'"name":"web","run_id":"{RUN}"'
TIMES = '"started":1000.0,"ended":1002.5,"lasted":2.5'
CARED_FOR = m.RunReport(
    *("web", RUN, m.Phase.READYING),
    held=True,
    ready=False,
    health="1 of 3 checks failed",
    status="loading",
    orphaned=0.0,
)
BUSY = m.RunReport("web", RUN, m.Phase.RUNNING, 42, 60.5, 1.25, 4096, 3)

# What is said, and the one line that says it.
CASES: list[tuple[m.Message, str]] = [
    (m.Hello(1, (1,)), '{"type":"hello","id":1,"versions":[1]}'),
    (
        m.Hello(0, (2, 1), "cmapp/1", "node1", 15.0, "i"),
        ('{"type":"hello","id":0,"versions":[2,1],"software":"cmapp/1","node":"node1","silence":15.0,"instance":"i"}'),
    ),
    (
        m.Launch(1, "web", RUN, ("/bin/web",)),
        f'{{"type":"launch","id":1,"name":"web","run_id":"{RUN}","argv":["/bin/web"]}}',
    ),
    (
        m.Launch(
            *(1, "w", RUN, ("w", ""), "u", "g", "/ü", {"A": "=\n"}, 0, {"nofile": (1024, -1)}),
            *(Kind.FORKING, "/run/w.pid", StopRules(2, 5.0, ("w", "stop"))),
            OrphanRules(5.0, OrphanAction.KEEP),
            ReadyRules(Probe.TCP, "8080", timeout=9.0),
            HealthRules(("w", "ping"), 1.0, 2.0, 4),
            *(30.0, OnExisting.ATTACH),
            takeover=True,
            resume=True,
            output=True,
            stdout_from=7,
            stderr_from=8,
        ),
        (
            f'{{"type":"launch","id":1,"name":"w","run_id":"{RUN}","argv":["w",""],"user":"u","group":"g","cwd":"/ü",'
            '"env":{"A":"=\\n"},"umask":0,"limits":{"nofile":[1024,-1]},"kind":"forking","pid_file":"/run/w.pid",'
            '"stop":{"signal":2,"timeout":5.0,"command":["w","stop"]},"orphan":{"timeout":5.0,"action":"keep"},'
            '"ready":{"probe":"tcp","target":"8080","timeout":9.0},'
            '"health":{"command":["w","ping"],"interval":1.0,"timeout":2.0,"retries":4},"watchdog":30.0,'
            '"on_existing":"attach","takeover":true,"resume":true,"output":true,"stdout_from":7,"stderr_from":8}'
        ),
    ),
    (
        m.Launch(1, "web", RUN, ("web",), ready=ReadyRules(Probe.COMMAND, command=("w",)), watchdog=0.0),
        (
            f'{{"type":"launch","id":1,"name":"web","run_id":"{RUN}","argv":["web"],'
            '"ready":{"probe":"command","command":["w"]},"watchdog":0.0}'
        ),
    ),
    (m.Poll(2**53), '{"type":"poll","id":9007199254740992}'),
    (m.Stop(3), '{"type":"stop","id":3}'),
    (m.Stop(3, kill=True), '{"type":"stop","id":3,"kill":true}'),
    (m.Detach(4), '{"type":"detach","id":4}'),
    (m.Hold(4, "web"), '{"type":"hold","id":4,"name":"web"}'),
    (m.Hold(4, "web", on=False), '{"type":"hold","id":4,"name":"web","on":false}'),
    (m.Acknowledge(5, RUN), f'{{"type":"acknowledge","id":5,"run_id":"{RUN}"}}'),
    (m.Status(6), '{"type":"status","id":6}'),
    (m.Status(6, "web"), '{"type":"status","id":6,"after":"web"}'),
    (m.Tail(7), '{"type":"tail","id":7}'),
    (m.Tail(7, m.Stream.STDOUT, 0), '{"type":"tail","id":7,"stream":"stdout","limit":0}'),
    (m.Welcome(1, 1), '{"type":"welcome","id":1,"version":1}'),
    (
        m.Welcome(1, 1, "cmapp/1", "vm1", "b", ("tail",)),
        '{"type":"welcome","id":1,"version":1,"software":"cmapp/1","guest":"vm1","boot_id":"b","features":["tail"]}',
    ),
    (m.Launched(1, RUN, 42), f'{{"type":"launched","id":1,"run_id":"{RUN}","pid":42}}'),
    (
        m.Launched(1, RUN, 42, attached=True),
        f'{{"type":"launched","id":1,"run_id":"{RUN}","pid":42,"attached":true}}',
    ),
    (m.Ready(RUN), f'{{"type":"ready","run_id":"{RUN}"}}'),
    (
        m.Report(2, m.RunReport("web", RUN, m.Phase.STARTING)),
        f'{{"type":"report","id":2,"run":{{{ENDED},"state":"starting"}}}}',
    ),
    (
        m.Report(2, BUSY),
        (
            f'{{"type":"report","id":2,"run":{{{ENDED},"state":"running","pid":42,"uptime":60.5,"cpu":1.25,'
            '"memory":4096,"processes":3}}'
        ),
    ),
    (
        m.Report(2, CARED_FOR),
        (
            f'{{"type":"report","id":2,"run":{{{ENDED},"state":"readying","held":true,"ready":false,'
            '"health":"1 of 3 checks failed","status":"loading","orphaned":0.0}}'
        ),
    ),
    (
        m.Output(m.Stream.STDERR, 10, b"\x00\xff\n"),
        '{"type":"output","stream":"stderr","offset":10,"data":"AP8K"}',
    ),
    (
        m.Output(m.Stream.STDOUT, 0, b"", dropped=3, id=7),
        '{"type":"output","stream":"stdout","offset":0,"data":"","dropped":3,"id":7}',
    ),
    (
        m.Exited(RECEIPT),
        f'{{"type":"exited","receipt":{{{ENDED},"outcome":{{"type":"exited","code":0}},"reason":"itself",{TIMES}}}}}',
    ),
    (
        m.Exited(KILLED),
        (
            f'{{"type":"exited","receipt":{{{ENDED},"outcome":{{"type":"signaled","signal":11,"core_dumped":true}},'
            f'"reason":"manager-lost",{TIMES},"forced":true}}}}'
        ),
    ),
    (
        m.Exited(SICK),
        (
            f'{{"type":"exited","receipt":{{{ENDED},"outcome":{{"type":"exited","code":0}},"reason":"unhealthy",{TIMES},'
            '"detail":"3 of 3 checks failed"}}'
        ),
    ),
    (
        m.Exited(LOST),
        (
            f'{{"type":"exited","receipt":{{{ENDED},"outcome":{{"type":"unknown","text":"no status"}},'
            f'"reason":"server-stopped",{TIMES}}}}}'
        ),
    ),
    (m.Done(3), '{"type":"done","id":3}'),
    (m.Runs(6), '{"type":"runs","id":6}'),
    (
        m.Runs(6, (m.RunReport("web", RUN, m.Phase.ENDED),), more=True),
        f'{{"type":"runs","id":6,"runs":[{{{ENDED},"state":"ended"}}],"more":true}}',
    ),
    (
        m.Refused("capacity", 'no "room"', id=1),
        '{"type":"refused","code":"capacity","text":"no \\"room\\"","id":1}',
    ),
    (m.Bye(), '{"type":"bye"}'),
    (m.Bye("漢\u2028\x7f\x1b\U0001f600"), '{"type":"bye","reason":"漢\u2028\x7f\\u001b\U0001f600"}'),
]

cases = pytest.mark.parametrize(
    ("message", "line"), [(message, line.encode() + b"\n") for message, line in CASES], ids=lambda case: repr(case)[:60]
)


def heard(*pieces: bytes) -> list[m.Message | m.Unrecognized]:
    """Return what a fresh decoder makes of the pieces."""
    decoder = Decoder(KINDS)
    return [message for piece in pieces for message in decoder.feed(piece)]


def test_every_message_has_a_case() -> None:
    """No message is left out of the table."""
    assert {type(message) for message, _ in CASES} == set(KINDS.values())


@cases
def test_encodes(message: m.Message, line: bytes) -> None:
    """A message is said by exactly this line."""
    assert encode(message) == line


@cases
def test_decodes_whole(message: m.Message, line: bytes) -> None:
    """The line is the message, in every field and type."""
    assert heard(line) == [message]
    assert repr(heard(line)) == repr([message])


@cases
def test_decodes_byte_by_byte(message: m.Message, line: bytes) -> None:
    """The message comes with the last byte and not before, and only until then something is pending."""
    decoder = Decoder(KINDS)
    for at in range(len(line) - 1):
        assert not list(decoder.feed(line[at : at + 1]))
        assert decoder.pending
    assert list(decoder.feed(line[-1:])) == [message]
    assert not decoder.pending


@cases
def test_decodes_with_trailing_bytes(message: m.Message, line: bytes) -> None:
    """The beginning of the next line waits for its end."""
    decoder = Decoder(KINDS)
    assert list(decoder.feed(line + line[:9])) == [message]
    assert decoder.pending
    assert list(decoder.feed(line[9:])) == [message]


@cases
def test_decodes_two_in_one_piece(message: m.Message, line: bytes) -> None:
    """Two lines that come together are two messages."""
    assert heard(line + line) == [message, message]


@given(st.lists(st.sampled_from(CASES), max_size=6), st.data())
def test_splits_make_no_difference(said: list[tuple[m.Message, str]], data: st.DataObject) -> None:
    """Wherever the stream is cut into pieces, it is the same messages."""
    stream = b"".join(line.encode() + b"\n" for _, line in said)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert heard(*pieces) == [message for message, _ in said]


LENIENT: list[tuple[str, bytes, m.Message | m.Unrecognized]] = [
    ("CRLF", b'{"type":"bye"}\r\n', m.Bye()),
    ("spaces around and within", b' { "type" : "bye" }\t\n', m.Bye()),
    ("ASCII only", b'{"type":"bye","reason":"\\u6f22\\ud83d\\ude00"}\n', m.Bye("漢\U0001f600")),
    ("unknown keys", b'{"type":"bye","colour":[{"deep":1e999}],"id":-1,"self":0}\n', m.Bye()),
    ("lone surrogate in an unknown key", b'{"type":"bye","\\ud800":"\\ud800"}\n', m.Bye()),
    ("null for a default that is none", b'{"type":"hello","id":1,"versions":[1],"silence":null}\n', m.Hello(1, (1,))),
    ("whole number for seconds", b'{"type":"hello","id":1,"versions":[1],"silence":5}\n', m.Hello(1, (1,), silence=5)),
    ("default written out", b'{"type":"stop","kill":false,"id":1}\n', m.Stop(1)),
    ("unknown type", b'{"type":"sing"}\n', m.Unrecognized("sing")),
    ("unknown type with an id", b'{"type":"sing","id":7}\n', m.Unrecognized("sing", 7)),
    ("unknown type with null as id", b'{"type":"sing","id":null}\n', m.Unrecognized("sing")),
    ("empty type", b'{"type":"","id":7}\n', m.Unrecognized("", 7)),
    ("type in capitals", b'{"type":"Bye"}\n', m.Unrecognized("Bye")),
    ("endless type", b'{"type":"%s"}\n' % (b"x" * 60_000), m.Unrecognized("x" * 40)),
    ("type that would act on a terminal", b'{"type":"\\u001b[2J\\n"}\n', m.Unrecognized(r"\x1b[2J\n")),
    ("type of lone surrogates", b'{"type":"\\ud800"}\n', m.Unrecognized(r"\ud800")),
]


@pytest.mark.parametrize(("line", "message"), [pytest.param(line, message, id=name) for name, line, message in LENIENT])
def test_takes_what_others_may_write(line: bytes, message: m.Message | m.Unrecognized) -> None:
    """What JSON allows, and what a newer version may add, is understood or passed by."""
    assert heard(line) == [message]
