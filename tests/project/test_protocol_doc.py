"""The specification of the protocol says what the code does: each is held against the other, in both directions.

Transcripts are replayed through a session for either end. A message's table of fields is compared with its class,
key by key, default by default, and each type by values that it lets through and values that it does not.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core import checks, messages, outcome, rules, session, wire
from cmapp.core.messages import FROM_MANAGER, FROM_SERVER, Message, Unrecognized
from cmapp.core.session import Role, Session
from cmapp.errors import LocalProtocolError, RemoteProtocolError
from cmapp.guest.connection import FEATURES

if TYPE_CHECKING:
    from cmapp.core.record import Record

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
TRANSCRIPTS = re.findall(r"^(.+):\n\n```transcript\n((?:[<>] .*\n)+)```$", PAGE, re.MULTILINE)

OBJECTS: dict[str, type[Record]] = {
    "stop rules": rules.StopRules,
    "orphan rules": rules.OrphanRules,
    "ready rules": rules.ReadyRules,
    "health rules": rules.HealthRules,
    "run report": messages.RunReport,
    "receipt": outcome.Receipt,
    "exited (outcome)": outcome.Exited,
    "signaled (outcome)": outcome.Signaled,
    "unknown (outcome)": outcome.Unknown,
}
FIELD = re.compile(r"^\| `(\w+)` \| (.+?) \| (?:`(.+?)`|required) \| .* ?\|$", re.MULTILINE)

A_UUID = "9f1c2f0e-6c1b-4f43-8f0a-2f4c3b0d7a11"
A_RECEIPT = {
    "name": "web",
    "run_id": A_UUID,
    "outcome": {"type": "exited", "code": 0},
    "reason": "itself",
    "started": 1,
    "ended": 1.5,
    "lasted": 0.5,
}
A_RUN = {"name": "web", "run_id": A_UUID, "state": "running"}
MOST = checks.LARGEST
# Of each type that the page names: values that it lets through, and values that it does not.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "count": ([0, 1, MOST], [-1, MOST + 1, 1.0, True, "1", None]),
    "seconds": ([0, 0.5, MOST], [-0.1, MOST * 2.0, float("inf"), True, "1", None]),
    "flag": ([True, False], [0, "true", None]),
    "text": (["", "ü" * checks.TEXT_LIMIT], ["x" * (checks.TEXT_LIMIT + 1), "\0", "\ud800", 1, None]),
    "name": (["a", "_", "web@1.2+3-x", "x" * 64], ["", ".a", "-a", "a b", "a/b", "ü", "x" * 65, None]),
    "unit": (
        ["", "web.service", "db@15-main.service", "a\\x2db:c.service"],
        [
            *("web", "web.socket", ".service", "@a.service", "a@.service", "a b.service", f"{'a' * 256}.service"),
            1,
            None,
        ],
    ),
    "UUID": ([A_UUID], [A_UUID.upper(), A_UUID[:-1], A_UUID.replace("-", ""), "", None]),
    "base64": (["", "b25lCg=="], ["b25lCg", "b25l Cg==", "A" * 4 * (checks.BLOB_LIMIT // 3 + 1), 1, None]),
    "variables": ([{}, {"A": "b=c", "a b": ""}], [{"": "x"}, {"A=": "x"}, {"A": 1}, [], None]),
    "limits": (
        [{}, {"nofile": [1, 2]}, {"core": [0, -1]}, {"pids": [-1, -1]}],
        [{"files": [1, 2]}, {"cpu": [2, 1]}, {"cpu": [-1, 1]}, {"cpu": 1}, {"cpu": [-2, 1]}, [], None],
    ),
    "stop rules": ([{}, {"signal": 9}, {"new": 1}], [{"signal": 0}, [], None]),
    "orphan rules": ([{}, {"action": "keep"}], [{"timeout": -1}, {"action": "kill"}, None]),
    "ready rules": ([{"probe": "tcp"}], [{}, {"probe": "ping"}, []]),
    "health rules": ([{"command": ["x"]}], [{}, {"command": []}, {"command": ["x"], "retries": 0}, []]),
    "run report": ([A_RUN, {**A_RUN, "pid": 7}], [{}, {**A_RUN, "state": "odd"}, None]),
    "receipt": ([A_RECEIPT], [{}, {**A_RECEIPT, "outcome": {}}, None]),
    "outcome": (
        [{"type": "exited", "code": 255}, {"type": "signaled", "signal": 64}, {"type": "unknown", "text": "?"}],
        [{"type": "exited", "code": 256}, {"type": "signaled", "signal": 0}, {"type": "odd"}, {"code": 0}, None],
    ),
}


def section(title: str, level: int = 2) -> str:
    """Return what stands under a heading, up to the next of its level or above."""
    found = re.search(
        rf"^{'#' * level} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", PAGE, re.MULTILINE | re.DOTALL
    )
    assert found, title
    return found[1]


def values(kind: str) -> tuple[list[Any], list[Any]]:
    """Return values that the type `kind` of the page lets through, and values that it does not."""
    if kind.endswith(" or null"):
        allowed, wrong = values(kind.removesuffix(" or null"))
        return [*allowed, None], [value for value in wrong if value is not None]
    if kind.startswith("non-empty "):
        allowed, wrong = values(kind.removeprefix("non-empty "))
        return [value for value in allowed if value != []], [*wrong, []]
    if kind.startswith("list of "):
        allowed, wrong = values(kind.removeprefix("list of "))
        one, most = allowed[0], checks.LIST_LIMIT
        return [[], allowed, [one] * most], [*([value] for value in wrong), [one] * (most + 1), one, None]
    if bounds := re.fullmatch(r"whole number from (\d+) to (\d+)", kind):
        low, high = map(int, bounds.groups())
        return [low, high], [low - 1, high + 1, float(low), True, str(low), None]
    if words := re.findall(r"`([a-z-]+)`", kind):
        return list(words), ["odd", words[0].upper(), 1, None]
    return VALUES[kind]


def documented() -> dict[str, tuple[type[Record], str]]:
    """Return what the page describes field by field: the class, and the text."""
    kinds = {**FROM_MANAGER, **FROM_SERVER, **OBJECTS}
    titles = [
        title
        for above in ("What a manager says", "What a server says", "What both say", "Objects")
        for title in re.findall(r"^### (.+)$", section(above), re.MULTILINE)
    ]
    return {title: (kinds[title], section(title, 3)) for title in titles}


FIELDS = [(title, kind, *row) for title, (kind, text) in documented().items() for row in FIELD.findall(text)]


# ---- transcripts -------------------------------------------------------------------------------------------


class Replay:
    """Both ends of one link, each with its own session."""

    def __init__(self) -> None:
        self.ends = {Role.MANAGER: Session(Role.MANAGER), Role.SERVER: Session(Role.SERVER)}
        self.refused: tuple[Role, str] | None = None  # who must say bye now, and why

    def say(self, speaker: Role, line: str) -> None:
        """Have `speaker` say `line`, and the other hear it."""
        listener = Role.SERVER if speaker is Role.MANAGER else Role.MANAGER
        raw = line.encode() + b"\n"
        try:
            (heard,) = list(self.ends[listener].receive(raw))
        except RemoteProtocolError as error:
            assert self.refused is None, "nothing but a bye follows a bad line"
            self.refused = (listener, str(error))
            self._must_not_say(speaker, raw)
            return
        if isinstance(heard, Unrecognized):
            self._remember(speaker, heard)
        else:
            self._say(speaker, heard, raw)

    def _say(self, speaker: Role, heard: Message, raw: bytes) -> None:
        if self.refused is not None:
            assert heard == messages.Bye(self.refused[1])
            assert speaker is self.refused[0]
            self.refused = None
        assert self.ends[speaker].send(heard) == raw, "not the line that the code writes"

    def _remember(self, speaker: Role, heard: Unrecognized) -> None:
        """Have a newer end than ours remember what it asked."""
        if heard.id is not None:
            self.ends[speaker]._remember(heard.id, "", LocalProtocolError)

    def _must_not_say(self, speaker: Role, raw: bytes) -> None:
        """Our own speaker refuses to say what the listener refuses to hear, if it can be put into words at all."""
        kinds = FROM_MANAGER if speaker is Role.MANAGER else FROM_SERVER
        try:
            (message,) = list(wire.Decoder(kinds).feed(raw))
        except RemoteProtocolError:
            return
        assert isinstance(message, Message)
        with pytest.raises(LocalProtocolError):
            self.ends[speaker].send(message)


@pytest.mark.parametrize("transcript", [text for _, text in TRANSCRIPTS], ids=[title for title, _ in TRANSCRIPTS])
def test_transcript_is_what_the_code_says_and_hears(transcript: str) -> None:
    """Every line is legal in its place, and is byte for byte what our own encoder writes."""
    replay = Replay()
    for line in transcript.splitlines():
        assert line[:2] in ("> ", "< ")
        replay.say(Role.MANAGER if line[0] == ">" else Role.SERVER, line[2:])
    assert replay.refused is None, "a bad line is answered by bye"


def test_transcripts_end_alike_for_both() -> None:
    """At the end of every transcript the link is closed for both ends, and no request waits for its answer."""
    for title, transcript in TRANSCRIPTS:
        replay = Replay()
        for line in transcript.splitlines():
            replay.say(Role.MANAGER if line[0] == ">" else Role.SERVER, line[2:])
        for end in replay.ends.values():
            assert end.state is session.State.CLOSED, title
            assert not end._unanswered, title


def test_transcripts_show_every_message_that_this_server_says() -> None:
    """A reader finds an example of each message."""
    said = {json.loads(line[2:])["type"] for _, text in TRANSCRIPTS for line in text.splitlines()}
    assert said >= FROM_MANAGER.keys() | FROM_SERVER.keys()


def test_transcripts_show_every_field_of_a_launch() -> None:
    """A reader finds an example of each thing that a launch may ask for, but for those that are plain text."""
    said = [json.loads(line[2:]) for _, text in TRANSCRIPTS for line in text.splitlines()]
    shown = {key for line in said if line["type"] == "launch" for key in line}
    assert messages.Launch.fields().keys() - shown == {"group", "cwd", "kind", "pid_file", "stderr_from"}


@pytest.mark.parametrize("kind", [rules.Kind, rules.OnExisting, rules.Probe, outcome.Reason, messages.Phase])
def test_every_word_is_explained(kind: Any) -> None:
    """Each word that a field may hold stands in the page in its own type face."""
    assert not {word.value for word in kind if f"`{word.value}`" not in PAGE}


def test_limits_of_a_launch_are_all_named() -> None:
    """A reader finds the name of every resource that can be limited."""
    assert not {name for name in checks.LIMITS if f"`{name}`" not in section("launch", 3)}


def test_links_within_the_page_lead_somewhere() -> None:
    """Every link to a heading of the page leads to one; a heading that stands twice is numbered."""
    titles = [re.sub(r"[^a-z0-9 -]", "", title.lower()) for title in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)]
    slugs = [title.replace(" ", "-") for title in titles]
    places = {f"{slug}-{slugs[:at].count(slug)}".removesuffix("-0") for at, slug in enumerate(slugs)}
    assert not set(re.findall(r"\]\(#([^)]+)\)", PAGE)) - places


# ---- messages ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "kinds"),
    [
        ("What a manager says", FROM_MANAGER.keys() - FROM_SERVER.keys()),
        ("What a server says", FROM_SERVER.keys() - FROM_MANAGER.keys()),
        ("What both say", FROM_MANAGER.keys() & FROM_SERVER.keys()),
        ("Objects", OBJECTS.keys()),
    ],
)
def test_every_message_is_described_and_no_other(title: str, kinds: set[str]) -> None:
    """The headings are the words of the messages, each where it belongs, once."""
    assert sorted(re.findall(r"^### (.+)$", section(title), re.MULTILINE)) == sorted(kinds)


@pytest.mark.parametrize("title", documented())
def test_fields_are_those_of_the_class(title: str) -> None:
    """The table of a message has its fields, in the order in which they are written, and its defaults."""
    kind, text = documented()[title]
    told = [(name, default or None) for name, _, default in FIELD.findall(text)]
    assert told == [(name, _said(kind, name)) for name in kind.fields()]


def _said(kind: type[Record], name: str) -> str | None:
    """Return a field's default as it is written in JSON, or None if there is none."""
    default = kind.fields()[name].default
    if type(default) is object:
        return None
    return json.dumps(wire.plain(default))


@pytest.mark.parametrize(
    ("kind", "name", "type_"), [(kind, name, type_) for _, kind, name, type_, _ in FIELDS],
    ids=[f"{title}-{name}" for title, _, name, _, _ in FIELDS],
)  # fmt: skip
def test_types_are_those_of_the_checks(kind: type[Record], name: str, type_: str) -> None:
    """What the page allows for a field passes its check, and what it does not allow is refused."""
    check = kind.fields()[name].check
    allowed, wrong = values(type_)
    for value in allowed:
        check(value)
    for value in wrong:
        with pytest.raises(ValueError, match=r".+"):
            check(value)


def test_refusals_are_all_described_and_no_other() -> None:
    """The table of refusals has every code."""
    codes = {value for name, value in vars(messages.Refusal).items() if name.isupper()}
    assert set(re.findall(r"^\| `([a-z-]+)` \|", section("Refusals"), re.MULTILINE)) == codes


# ---- order and limits --------------------------------------------------------------------------------------


def test_order_is_the_session_table() -> None:
    """The table that a client's author copies is the one that the sessions use."""
    header, _, *rows = re.findall(r"^\| (.+) \|$|^(\|---)", section("Order"), re.MULTILINE)
    states = [session.State(word) for word in header[0].split(" | ")[1:]]
    told = {}
    for row, _ in rows:
        event, *cells = row.split(" | ")
        for state, cell in zip(states, cells, strict=True):
            then = {"-": None, "same": state}.get(cell, cell)
            told[state, session.Event(event)] = session.State(then) if isinstance(then, str) else then
    assert told == session.TABLE


@pytest.mark.parametrize("module", [wire, checks, messages, session], ids=lambda module: module.__name__)
def test_limits_are_all_described(module: Any) -> None:
    """Every limit that the core names stands in the table of limits, in plain digits."""
    limits = {name: value for name, value in vars(module).items() if name.isupper() and type(value) is int}
    told = set(map(int, re.findall(r"\d+", section("Limits"))))
    assert limits
    assert not {name: value for name, value in limits.items() if value not in told}


def test_versions_are_told() -> None:
    """The page is about the versions that the code speaks."""
    assert f"There is one version so far: {messages.VERSIONS[0]}." in " ".join(PAGE.split())
    assert len(messages.VERSIONS) == 1


def test_features_are_those_that_the_server_names() -> None:
    """The table has every feature, and the transcripts show them as the server says them."""
    assert tuple(re.findall(r"^\| `([a-z]+)` \|", section("Versions"), re.MULTILINE)) == FEATURES
    said = [json.loads(line[2:]) for _, text in TRANSCRIPTS for line in text.splitlines()]
    assert {tuple(line["features"]) for line in said if line["type"] == "welcome"} == {FEATURES}
