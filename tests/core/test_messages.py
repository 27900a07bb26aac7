"""The messages fit together: with each other, with their own defaults, and with a line."""

from __future__ import annotations

from typing import Any

import pytest

from cmapp.core import checks, lifecycle, pursuit, session, wire
from cmapp.core import messages as m
from cmapp.core.outcome import Receipt
from cmapp.core.record import REQUIRED, Record
from cmapp.core.rules import HealthRules, Kind, OnExisting, OrphanAction, OrphanRules, ReadyRules, StopRules
from cmapp.core.wire import LINE_LIMIT, encode

RUN = "01234567-89ab-cdef-0123-456789abcdef"


def subclasses(kind: type[Any]) -> set[type[Any]]:
    """Return all classes below `kind`."""
    return {below for child in kind.__subclasses__() for below in {child, *subclasses(child)}}


SAID = {kind for kind in subclasses(m.Message) if kind.__module__ == m.__name__} - {m.Request}
RULES = [StopRules, OrphanRules, ReadyRules, HealthRules]
ALL = [*sorted(SAID, key=repr), *RULES, m.RunReport, Receipt]

messages = pytest.mark.parametrize("kind", sorted(SAID, key=repr), ids=lambda kind: kind.__name__)


def test_every_message_is_said_by_somebody() -> None:
    """No message is forgotten in the two directions, only `bye` goes both ways."""
    manager, server = set(m.FROM_MANAGER.values()), set(m.FROM_SERVER.values())
    assert manager | server == SAID
    assert manager & server == {m.Bye}


@messages
def test_word_is_unique_and_the_name_of_the_class(kind: type[m.Message]) -> None:
    """A message is called on the wire what it is called in code."""
    assert kind.word == kind.__name__.lower()
    assert [other for other in SAID if other.word == kind.word] == [kind]


@messages
def test_word_is_an_event_of_the_session(kind: type[m.Message]) -> None:
    """The session's table knows every message by its word."""
    assert session.Event(kind.word)


def test_requests_are_what_a_manager_says_and_have_an_answer() -> None:
    """All that a manager says but `bye` has an id, and a kind of answer that has one too."""
    requests = set(m.FROM_MANAGER.values()) - {m.Bye}
    assert requests == {kind for kind in SAID if issubclass(kind, m.Request)}
    assert set(session.ANSWERS) == {kind.word for kind in requests}
    answers: list[type[m.Message]] = [*session.ANSWERS.values(), m.Refused]
    for answer in answers:
        assert answer in m.FROM_SERVER.values()
        assert "id" in answer.fields()


def test_only_tail_output_is_a_push_and_an_answer() -> None:
    """What a server pushes has no id, what answers must have one; `output` may be either."""
    ids = {kind: kind.fields()["id"].default for kind in m.FROM_SERVER.values() if "id" in kind.fields()}
    assert {kind for kind, default in ids.items() if default is not REQUIRED} == {m.Output}
    assert set(m.FROM_SERVER.values()) - set(ids) == {m.Ready, m.Exited, m.Bye}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_field_is_checked_and_its_default_passes(kind: type[Record]) -> None:
    """Nothing is taken from a peer unchecked, and what is meant by an absent key could be said."""
    assert kind.fields().keys() == kind._fields.keys()
    for item in kind.fields().values():
        if item.default is not REQUIRED:
            assert item.check(item.default) == item.default


def test_largest_output_fits_a_line() -> None:
    """A full chunk of output can be said, with the longest numbers beside it."""
    most = checks.LARGEST
    line = encode(m.Output(m.Stream.STDOUT, most, b"\xff" * m.OUTPUT_CHUNK, dropped=most, id=most))
    assert len(line) <= LINE_LIMIT


def test_longest_refusal_and_bye_fit_a_line() -> None:
    """A sentence of any allowed length can be said, as long as it is not made of rarer letters."""
    longest = "x" * checks.TEXT_LIMIT
    assert len(encode(m.Bye(longest))) <= LINE_LIMIT
    assert len(encode(m.Refused(m.Refusal.RESOURCES, longest, id=checks.LARGEST))) <= LINE_LIMIT


def test_refusal_codes_are_words_of_their_own() -> None:
    """Each code of a refusal is one word, and no two are the same."""
    codes = [code for name, code in vars(m.Refusal).items() if name.isupper()]
    assert len(codes) == len(set(codes)) > 0
    assert all(code.replace("-", "").isalpha() and code.islower() for code in codes)


def test_silence_of_a_patience_can_be_said() -> None:
    """A manager tells the server in its hello when it may be taken for lost."""
    patience = pursuit.Patience()
    assert m.Hello(1, m.VERSIONS, silence=patience.silence).silence == 15.0


def test_phases_are_states_that_an_administrator_knows() -> None:
    """A report tells the states of the lifecycle, but for how it kills and clears, and one before them."""
    states = {state.value for state in lifecycle.State} - {"killing", "clearing"}
    assert {phase.value for phase in m.Phase} == states | {"waiting"}


def test_launch_defaults_are_the_safe_ones() -> None:
    """Unless told otherwise, an application has no environment, is in / and lets nobody else write its files."""
    launch = m.Launch(1, "web", RUN, ["/bin/true"])  # type: ignore[arg-type]  # what JSON gives
    assert (launch.argv, launch.env, launch.cwd, launch.umask) == (("/bin/true",), {}, "/", 0o022)
    assert (launch.user, launch.group, launch.output) == (None, None, False)
    assert launch.stop == StopRules(signal=15, timeout=30.0, command=())


def test_launch_defaults_take_nothing_from_anybody() -> None:
    """Unless told otherwise, a launch pushes no manager aside, a lost run is stopped, and nothing judges it."""
    launch = m.Launch(1, "web", RUN, ("/bin/true",))
    assert (launch.on_existing, launch.takeover, launch.resume) == (OnExisting.REPLACE, False, False)
    assert launch.orphan == OrphanRules(timeout=60.0, action=OrphanAction.STOP)
    assert (launch.ready, launch.health, launch.watchdog, launch.limits) == (None, None, None, {})
    assert (launch.kind, launch.stdout_from, launch.stderr_from) == (Kind.SIMPLE, 0, 0)


@pytest.mark.parametrize("kind", RULES, ids=lambda kind: kind.__name__)
def test_rules_are_told_apart_from_none(kind: type[Record]) -> None:
    """Rules that say nothing but the defaults are an empty object, and null means that there are none."""
    least: dict[str, Any] = {"probe": "tcp"} if kind is ReadyRules else {}
    least |= {"command": ["true"]} if kind is HealthRules else {}
    rules = checks.build(kind, least)
    said = wire.plain(m.Launch(1, "web", RUN, ("web",), **{_key_of(kind): rules}))
    assert said.get(_key_of(kind), {}) == least


def _key_of(kind: type[Record]) -> str:
    return kind.__name__.removesuffix("Rules").lower()


@pytest.mark.parametrize(
    ("versions", "agreed"), [((1,), 1), ((1, 2), 1), ((2, 1, 0), 1), ((2,), None), ((0,), None)], ids=repr
)
def test_version_is_the_newest_that_both_speak(versions: tuple[int, ...], agreed: int | None) -> None:
    """A server chooses the newest version that both know, or none."""
    assert session.agree(versions) == agreed
