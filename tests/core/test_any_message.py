"""The codec, with messages that nobody thought of: whatever can be made can be said, and is heard unchanged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import checks, outcome
from cmapp.core import messages as m
from cmapp.core.rules import HealthRules, Kind, OnExisting, OrphanAction, OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.wire import Decoder, encode

if TYPE_CHECKING:
    from cmapp.core.record import Record

KINDS = m.FROM_MANAGER | m.FROM_SERVER

NAMES = st.text(sorted(checks.NAME_CHARS), min_size=1, max_size=64).filter(lambda name: name[0] not in ".-")
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
VARIABLES = TEXTS.filter(lambda name: name != "" and "=" not in name)
COUNTS = st.integers(0, checks.LARGEST)
SECONDS = st.floats(0, checks.LARGEST) | COUNTS
UUIDS = st.uuids().map(str)
FLAGS = st.booleans()
OUTCOMES = st.one_of(
    st.builds(outcome.Exited, st.integers(0, 255)),
    st.builds(outcome.Signaled, st.integers(1, 64), FLAGS),
    st.builds(outcome.Unknown, TEXTS),
)
RECEIPTS = st.builds(
    outcome.Receipt, NAMES, UUIDS, OUTCOMES, st.sampled_from(outcome.Reason), SECONDS, SECONDS, SECONDS, FLAGS, TEXTS
)
REPORTS = st.builds(
    m.RunReport,
    *(NAMES, UUIDS, st.sampled_from(m.Phase), st.none() | COUNTS, SECONDS, SECONDS, COUNTS, COUNTS),
    *(FLAGS, st.none() | FLAGS, TEXTS, TEXTS, st.none() | SECONDS),
)
STREAMS = st.sampled_from(m.Stream)
UNITS = st.just("") | st.from_regex(
    r"[a-z0-9_:\\\\][a-zA-Z0-9:_.\\\\-]{0,40}(@[a-z0-9:_.-]+)?\.service", fullmatch=True
)
SOME_TEXTS = st.lists(TEXTS, max_size=5)
COMMANDS = st.lists(TEXTS, min_size=1, max_size=5)
NUMBERS = st.tuples(COUNTS, COUNTS).map(sorted) | st.tuples(COUNTS, st.just(-1)) | st.just((-1, -1))
RULES: dict[type[Record], tuple[st.SearchStrategy[Any], ...]] = {
    StopRules: (st.integers(1, 64), SECONDS, SOME_TEXTS),
    OrphanRules: (SECONDS, st.sampled_from(OrphanAction)),
    ReadyRules: (st.sampled_from(Probe), TEXTS, SOME_TEXTS, SECONDS),
    HealthRules: (COMMANDS, SECONDS, SECONDS, st.integers(1, 1000)),
}
SOME_RULES = {kind: st.builds(kind, *fields) for kind, fields in RULES.items()}
MESSAGES: dict[type[m.Message], tuple[st.SearchStrategy[Any], ...]] = {
    m.Hello: (COUNTS, st.lists(COUNTS, min_size=1, max_size=5), TEXTS, TEXTS, st.none() | SECONDS, TEXTS),
    m.Launch: (
        *(COUNTS, NAMES, UUIDS, COMMANDS, st.none() | TEXTS, st.none() | TEXTS, TEXTS),
        *(st.dictionaries(VARIABLES, TEXTS, max_size=5), st.integers(0, 0o777)),
        *(st.dictionaries(st.sampled_from(sorted(checks.LIMITS)), NUMBERS), st.sampled_from(Kind), TEXTS),
        *(SOME_RULES[StopRules], SOME_RULES[OrphanRules]),
        *(st.none() | SOME_RULES[ReadyRules], st.none() | SOME_RULES[HealthRules], st.none() | SECONDS),
        *(st.sampled_from(OnExisting), FLAGS, FLAGS, FLAGS, COUNTS, COUNTS),
        UNITS,
    ),
    m.Poll: (COUNTS,),
    m.Stop: (COUNTS, FLAGS),
    m.Detach: (COUNTS,),
    m.Hold: (COUNTS, NAMES, FLAGS),
    m.Acknowledge: (COUNTS, UUIDS),
    m.Status: (COUNTS, TEXTS),
    m.Tail: (COUNTS, STREAMS, st.integers(0, m.OUTPUT_CHUNK)),
    m.Welcome: (COUNTS, COUNTS, TEXTS, TEXTS, TEXTS, SOME_TEXTS),
    m.Launched: (COUNTS, UUIDS, COUNTS, FLAGS),
    m.Ready: (UUIDS,),
    m.Report: (COUNTS, REPORTS),
    m.Output: (STREAMS, COUNTS, st.binary(max_size=100), COUNTS, st.none() | COUNTS),
    m.Exited: (RECEIPTS,),
    m.Done: (COUNTS,),
    m.Runs: (COUNTS, st.lists(REPORTS, max_size=3), FLAGS),
    m.Refused: (TEXTS, TEXTS, COUNTS),
    m.Bye: (TEXTS,),
}


def test_every_message_is_made_up_in_every_field() -> None:
    """The made-up messages leave out no class and no field."""
    assert {kind: len(fields) for kind, fields in MESSAGES.items()} == {
        kind: len(kind.fields()) for kind in KINDS.values()
    }
    assert all(len(fields) == len(kind.fields()) for kind, fields in RULES.items())


@given(st.sampled_from(list(MESSAGES)).flatmap(lambda kind: st.builds(kind, *MESSAGES[kind])))
def test_any_message_survives(message: m.Message) -> None:
    """Whatever can be made can be said on one line, and is heard unchanged."""
    line = encode(message)
    assert line.index(b"\n") == len(line) - 1
    assert list(Decoder(KINDS).feed(line)) == [message]
