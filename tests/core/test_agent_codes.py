"""What a run's end is to the cluster: one code for each cause, and no cause without one."""

from __future__ import annotations

import pytest

from cmapp.agent.codes import CAUSES, REFUSALS, Code, code_of, code_of_start
from cmapp.cluster.unreached import Unreached
from cmapp.core.messages import Refusal
from cmapp.core.outcome import (
    SIGNAL_LAST,
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
    exit_code,
)
from cmapp.host import result

RUN = "9f1c2f0e-6c1b-4f43-8f0a-2f4c3b0d7a11"
WORDS = {value for name, value in vars(Refusal).items() if name.isupper()}


def told(verdict: Verdict) -> dict[str, object]:
    """Return the part of cmappmgr's result that a code depends on."""
    return {"cause": result.cause(verdict), "exit_code": exit_code(verdict), **result.details(verdict)}


def receipt(outcome: Outcome, reason: Reason = Reason.ITSELF) -> Receipt:
    """Return a receipt."""
    return Receipt("web", RUN, outcome, reason, 1.0, 2.0, 1.0)


@pytest.mark.parametrize("code", range(256))
def test_every_exit_code(code: int) -> None:
    """0 is an end, anything else a failure, also where it is one of our own codes."""
    assert code_of(told(receipt(Exited(code))), Unreached.WAIT) is (Code.GENERIC if code else Code.NOT_RUNNING)
    assert code_of_start(told(receipt(Exited(code)))) is Code.GENERIC


@pytest.mark.parametrize("number", range(1, SIGNAL_LAST + 1))
def test_every_signal(number: int) -> None:
    """A death is a failure."""
    assert code_of(told(receipt(Signaled(number))), Unreached.WAIT) is Code.GENERIC


@pytest.mark.parametrize(
    ("verdict", "code"),
    [
        (receipt(Exited(0), Reason.UNHEALTHY), Code.GENERIC),
        (receipt(Exited(0), Reason.NOT_READY), Code.GENERIC),
        (receipt(Signaled(15), Reason.HUNG), Code.GENERIC),
        (receipt(Unknown("x")), Code.GENERIC),
        (Unknown("x"), Code.GENERIC),
        (NotStarted(found=False, text="x"), Code.CONFIGURED),
        (NotStarted(found=True, text="x"), Code.CONFIGURED),
        (GuestDown("x"), Code.GENERIC),
        (Failed("x"), Code.GENERIC),
        (Refused("trust", "x"), Code.PERM),
        (Refused("policy", "x"), Code.PERM),
        (Refused("unsupported", "x"), Code.CONFIGURED),
        (Refused("capacity", "x"), Code.GENERIC),
        (Refused("name-taken", "x"), Code.GENERIC),
        (Refused("something-new", "x"), Code.GENERIC),
    ],
    ids=str,
)
def test_every_other_end(verdict: Verdict, code: Code) -> None:
    """A start that ends so and a monitor that finds it say the same."""
    assert code_of(told(verdict), Unreached.WAIT) is code
    assert code_of_start(told(verdict)) is code


@pytest.mark.parametrize(
    ("unreached", "code"),
    [(Unreached.GUEST, Code.DEGRADED), (Unreached.WAIT, Code.DEGRADED), (Unreached.FAIL, Code.GENERIC)],
)
def test_unreachable_is_what_the_administrator_says(unreached: Unreached, code: Code) -> None:
    """Nothing is known of the application, so it is no failure of it; a start that never reached it is one."""
    assert code_of(told(Unreachable("x")), unreached) is code
    assert code_of_start(told(Unreachable("x"))) is Code.GENERIC


def test_what_was_left_runs_elsewhere() -> None:
    """The old host of a migration says that it does not run there."""
    assert code_of(told(Detached("x")), Unreached.WAIT) is Code.NOT_RUNNING


def test_every_refusal_is_in_the_table() -> None:
    """A word that is added to the protocol needs its code; those of a launch's outcome are no refusals."""
    not_started = {"not-found", "not-executable", "no-such-user", "no-such-directory", "not-permitted"}
    assert set(REFUSALS) == (WORDS - not_started) | {"trust"}


def test_every_cause_is_in_the_table() -> None:
    """A cause that is added to the result needs its code."""
    verdicts: list[Verdict] = [receipt(Exited(1)), receipt(Signaled(1)), receipt(Exited(1), Reason.HUNG)]
    verdicts += [Unknown("x")]
    verdicts += [NotStarted(found=True, text="x"), GuestDown("x"), Refused("x", "x"), Detached("x"), Failed("x")]
    assert set(CAUSES) == {result.cause(verdict) for verdict in verdicts}
    assert "unreachable" not in CAUSES


@pytest.mark.parametrize("broken", [{}, {"cause": None}, {"cause": "of tomorrow"}, {"cause": "refused"}, {"cause": []}])
def test_what_is_not_understood_is_no_success(broken: dict[str, object]) -> None:
    """A result of another version, or none at all, is a failure."""
    assert code_of(broken, Unreached.WAIT) is Code.GENERIC
    assert code_of({"cause": "exited", "exit_code": None}, Unreached.WAIT) is Code.GENERIC


def test_no_code_of_cmappmgr_is_one_of_ocf() -> None:
    """What cmappmgr exits with is never passed on as it is: the two mean different things by a number."""
    assert not {int(own) for own in Own if own} & {int(code) for code in Code}
