"""Exit codes to the letter, and sentences that say what happened, no more and no less."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any, get_args

import pytest

from cmapp.core import messages
from cmapp.core.outcome import (
    FAULTS,
    Detached,
    Exited,
    Failed,
    GuestDown,
    NotStarted,
    Outcome,
    Own,
    Reason,
    Receipt,
    Refused,
    Signaled,
    Unknown,
    Unreachable,
    Verdict,
    describe,
    exit_code,
    signal_name,
    signal_number,
)

if TYPE_CHECKING:
    from collections.abc import Callable

CODES = range(256)
SIGNALS = range(1, 65)
ENDINGS: list[Outcome] = [*map(Exited, CODES), *map(Signaled, SIGNALS), Unknown("its status was lost")]


def receipt(outcome: Outcome, reason: Reason = Reason.ITSELF, **fields: Any) -> Receipt:
    """Return the receipt of a run that lasted from 1000 to 1002.5."""
    run_id = "01234567-89ab-cdef-0123-456789abcdef"
    return Receipt(
        name="web",
        run_id=run_id,
        outcome=outcome,
        reason=reason,
        started=1000,
        ended=1002.5,
        lasted=2.5,
        **fields,
    )


@pytest.mark.parametrize("code", CODES)
def test_exited_exits_with_its_code(code: int) -> None:
    """Each of the 256 codes is passed on as it was."""
    assert exit_code(Exited(code)) == code


@pytest.mark.parametrize("number", SIGNALS)
def test_signaled_exits_as_a_shell_says_it(number: int) -> None:
    """Each signal becomes 128 and its number, whether a core was dumped or not."""
    assert exit_code(Signaled(number)) == exit_code(Signaled(number, core_dumped=True)) == 128 + number


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (Detached("it was asked for"), 0),
        (Unknown("lost"), 121),
        (Refused("capacity", "full"), 122),
        (Unreachable("gone"), 123),
        (GuestDown("switched off"), 123),
        (Failed("no keys"), 125),
        (NotStarted(found=True, text="a folder"), 126),
        (NotStarted(found=False, text="not there"), 127),
    ],
    ids=lambda value: type(value).__name__,
)
def test_our_own_codes(verdict: Verdict | Outcome, code: int) -> None:
    """What is no ending of the application has a code of cmappmgr's own."""
    assert exit_code(verdict) == code


def test_every_own_code_is_as_documented() -> None:
    """The codes that users' scripts know do not move."""
    assert {own.name: own.value for own in Own} == {
        "DETACHED": 0,
        "UNKNOWN": 121,
        "REFUSED": 122,
        "UNREACHABLE": 123,
        "UNHEALTHY": 124,
        "FAILED": 125,
        "NOT_EXECUTABLE": 126,
        "NOT_FOUND": 127,
        "SIGNAL_BASE": 128,
    }


def test_faults_are_what_the_server_finds_by_itself() -> None:
    """A run that its manager lost or wanted stopped was not at fault."""
    assert FAULTS == (Reason.UNHEALTHY, Reason.NOT_READY, Reason.HUNG)


@pytest.mark.parametrize("reason", sorted(set(Reason) - set(FAULTS), key=str))
@pytest.mark.parametrize("forced", [False, True], ids=["stopped", "killed"])
def test_receipt_exits_as_its_outcome(reason: Reason, *, forced: bool) -> None:
    """Why a run ended and what it took changes nothing of its outcome, as long as it was not at fault."""
    for ending in ENDINGS:
        assert exit_code(receipt(ending, reason, forced=forced)) == exit_code(ending)


@pytest.mark.parametrize("reason", FAULTS)
def test_fault_is_no_success_however_it_ended(reason: Reason) -> None:
    """What was stopped because something was wrong with it may exit with 0 on SIGTERM, and is 124."""
    assert {exit_code(receipt(ending, reason)) for ending in ENDINGS} == {124}


def test_only_a_known_success_is_zero() -> None:
    """Of all endings and verdicts, only a run that exited with code 0 becomes 0, or one that was left on purpose."""
    missing, broken = NotStarted(found=False, text=""), NotStarted(found=True, text="")
    others: list[Verdict] = [missing, broken, Refused("x", ""), Unreachable(""), GuestDown(""), Failed("")]
    others.append(Detached(""))
    every: list[Verdict | Outcome] = [*ENDINGS, *map(receipt, ENDINGS), *others]
    assert {type(verdict) for verdict in every} == {*get_args(Outcome), *get_args(Verdict)}
    assert [verdict for verdict in every if exit_code(verdict) == 0] == [
        Exited(0),
        receipt(Exited(0)),
        Detached(""),
    ]


@pytest.mark.parametrize(
    "stranger", [None, 0, messages.Refused("capacity", "full", id=1), messages.Done(id=1)], ids=repr
)
def test_what_is_no_verdict_is_no_success(stranger: Any) -> None:
    """Falling through the map would return None, and sys.exit(None) is 0; messages have the same names."""
    assert exit_code(stranger) == 125


def test_exit_code_is_an_exit_status() -> None:
    """Whatever ends, the code is an integer that an exit status can hold."""
    for ending in ENDINGS:
        code = exit_code(ending)
        assert isinstance(code, int)
        assert code in range(256)


@pytest.mark.parametrize(
    ("make", "value"),
    [(Exited, -1), (Exited, 256), (Exited, True), (Signaled, 0), (Signaled, 65), (Signaled, None)],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
def test_impossible_outcomes_cannot_be_made(make: Callable[[Any], Outcome], value: Any) -> None:
    """An outcome that no process can have is refused, wherever it comes from."""
    with pytest.raises(ValueError, match=r"must be a whole number"):
        make(value)


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (Exited(0), "exited with code 0"),
        (Signaled(9), "was killed by signal 9 (KILL)"),
        (Signaled(11, core_dumped=True), "was killed by signal 11 (SEGV) and dumped core"),
        (Signaled(35), "was killed by signal 35 (RTMIN+1)"),
        (Unknown("its status was lost"), "ended, but how is not known: its status was lost"),
        (NotStarted(found=False, text="there is no x"), "was not started: there is no x"),
        (Refused("capacity", "30 applications run"), "was refused: 30 applications run"),
        (Unreachable("no answer"), "cannot be reached: no answer"),
        (GuestDown("off"), "is gone with its guest, which is down: off"),
        (Failed("there are no keys"), "is not watched: there are no keys"),
        (Detached("as was asked for"), "was left running: as was asked for"),
        (receipt(Exited(3)), "exited with code 3 after 2.5 s"),
        (
            receipt(Signaled(15), Reason.ASKED),
            "was killed by signal 15 (TERM) after 2.5 s (stopped on request, the stop signal was enough)",
        ),
        (
            receipt(Exited(1), Reason.MANAGER_LOST, forced=True),
            "exited with code 1 after 2.5 s (stopped because its manager was lost, SIGKILL was needed)",
        ),
        (
            receipt(Exited(0), Reason.SERVER_STOPPED, forced=True),
            "exited with code 0 after 2.5 s (stopped because the server was stopped, SIGKILL was needed)",
        ),
        (
            receipt(Exited(0), Reason.REPLACED),
            "exited with code 0 after 2.5 s (stopped because another run took its place, the stop signal was enough)",
        ),
        (
            receipt(Exited(0), Reason.UNHEALTHY, detail="3 of 3 checks failed: no answer"),
            (
                "exited with code 0 after 2.5 s "
                "(stopped because it was unhealthy: 3 of 3 checks failed: no answer, the stop signal was enough)"
            ),
        ),
        (
            receipt(Exited(0), Reason.NOT_READY, forced=True),
            "exited with code 0 after 2.5 s (stopped because it did not become ready, SIGKILL was needed)",
        ),
        (
            receipt(Signaled(9), Reason.HUNG, forced=True),
            (
                "was killed by signal 9 (KILL) after 2.5 s "
                "(stopped because its watchdog was not heard, SIGKILL was needed)"
            ),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_describes(verdict: Verdict | Outcome, sentence: str) -> None:
    """What happened is said so that it completes a sentence about the application."""
    assert describe(verdict) == sentence


@pytest.mark.parametrize(
    "verdict",
    [
        Unknown("a\nb\x1b"),
        receipt(Unknown("a\nb\x1b")),
        NotStarted(found=True, text="a\nb\x1b"),
        Refused("x", "a\nb\x1b"),
        Unreachable("a\nb\x1b"),
        Failed("a\nb\x1b"),
        Detached("a\nb\x1b"),
        receipt(Exited(0), Reason.UNHEALTHY, detail="a\nb\x1b"),
    ],
    ids=lambda verdict: type(verdict).__name__,
)
def test_description_cannot_be_forged(verdict: Verdict | Outcome) -> None:
    """A peer's text cannot end a log line or colour a terminal through a description."""
    assert r"a\nb\x1b" in describe(verdict)
    assert describe(verdict).isprintable()


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_names_round_trip(number: int) -> None:
    """A signal is found again under each of the names that we and others give it."""
    name = signal_name(number)
    for spelling in (name, f"SIG{name}", name.lower(), f"sig{name}".lower(), str(number)):
        assert signal_number(spelling) == number


def test_signal_names_are_those_of_the_system() -> None:
    """The names are those that Linux gives; real-time ones count from the first that programs may use."""
    named = {name.removeprefix("SIG"): number for name, number in signal.Signals.__members__.items()}
    ours = {signal_name(number): number for number in range(1, 32)}
    assert {name: named[name] for name in ours if name in named} == {
        name: number for name, number in ours.items() if name in named
    }
    assert set(ours) - set(named) <= {"STKFLT"}
    assert [signal_name(number) for number in (32, 33, 34, 35, 64)] == [
        "32",
        "33",
        "RTMIN",
        "RTMIN+1",
        "RTMIN+30",
    ]


@pytest.mark.parametrize(
    "name", ["", "SIG", "0", "65", "-1", "TERMINATE", "RTMIN+31", "RTMIN+0", "1.0", " TERM", "015"]
)
def test_what_is_no_signal_is_refused(name: str) -> None:
    """A name that is none is refused in a sentence that says what to write."""
    with pytest.raises(ValueError, match=r"is not a signal: write a name such as TERM or a number from 1 to 64$"):
        signal_number(name)
