"""A run that is a unit, when a server comes back; whatever is seen of one; and what systemd's properties say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.core import unitlife as life
from cmapp.core.outcome import Signaled, Unknown
from cmapp.core.unitstate import UnitState, ending, state_of, why_failed
from tests.core.unit_looks import AGAIN, FREE, KILLED, ONE, RUNNING, TWO, adopted, begun, end_of, kinds

# ---- a server comes back -----------------------------------------------------------------------------------


def test_what_is_still_the_same_start_goes_on() -> None:
    """Nothing is told, and its end is exact, also if it came meanwhile."""
    run = adopted(ONE)
    assert run.see(RUNNING) == []
    assert end_of(run.see(KILLED)) == (Signaled(9), "")
    assert end_of(adopted(ONE).see(KILLED)) == (Signaled(9), "")


@pytest.mark.parametrize(
    ("known", "state", "text"),
    [
        (ONE, FREE, life.GONE),
        (ONE, KILLED.replace(invocation=TWO), life.GONE),
        (ONE, RUNNING.replace(invocation=TWO), life.STARTED_ANEW),
        ("", FREE, life.UNSURE),
    ],
)
def test_what_nobody_knows_is_unknown(known: str, state: UnitState, text: str) -> None:
    """What was started by somebody else is not taken for ours, and no outcome is made up."""
    run = adopted(known)
    assert end_of(run.see(state)) == (Unknown(text), "")


def test_what_systemd_restarted_meanwhile_goes_on() -> None:
    """The count tells that it was systemd; but nothing goes on whose end was told."""
    run = adopted(ONE)
    told = run.see(AGAIN)
    assert kinds(told) == ["Identified", "Noted"]
    assert kinds(adopted("").see(RUNNING)) == ["Identified"]
    assert end_of(adopted(ONE, over=True).see(AGAIN)) == (Unknown(life.STARTED_ANEW), "")


# ---- anything at all ---------------------------------------------------------------------------------------

STATES = st.builds(
    UnitState,
    name=st.just("db.service"),
    load=st.just("loaded"),
    active=st.sampled_from(["active", "activating", "deactivating", "inactive", "failed", "reloading", ""]),
    sub=st.sampled_from(["running", "exited", "dead"]),
    result=st.sampled_from(["success", "signal", "timeout", ""]),
    main=st.sampled_from([0, 42, 43]),
    control=st.sampled_from([0, 41]),
    last=st.sampled_from([0, 42]),
    code=st.integers(0, 3),
    status=st.sampled_from([0, 1, 9, 255]),
    restarts=st.integers(0, 2),
    invocation=st.sampled_from(["", ONE, TWO]),
    job=st.sampled_from([0, 3]),
)


@given(st.lists(STATES, max_size=8), st.sampled_from(["start", "adopt", "adopt unknown"]))
def test_whatever_is_seen_is_told_in_order(looks: list[UnitState], how: str) -> None:
    """Launched comes first and once, the end last and once, and no code is claimed that systemd has not told."""
    run = begun() if how == "start" else adopted(ONE if how == "adopt" else "")
    told: list[str] = []
    for look in looks:
        for one in run.see(look):
            told.append(type(one).__name__)
            if isinstance(one, life.Ended) and not isinstance(one.outcome, Unknown):
                assert ending(look.code, look.status) == one.outcome
    assert told.count("Launched") == (how == "start" and any(word in told for word in ("Ready", "Ended", "Launched")))
    assert told.count("Ended") + told.count("Refused") <= 1
    if "Launched" in told:
        assert told[:2] == ["Identified", "Launched"]
    for last in ("Ended", "Refused"):
        assert last not in told[:-1]


# ---- properties --------------------------------------------------------------------------------------------


def test_properties_are_read() -> None:
    """What a unit of Debian's PostgreSQL looks like after its main process was killed."""
    exec_start = ("/usr/bin/pg_ctlcluster", ["pg_ctlcluster"], False, 1, 1, 2, 2, 40, 1, 0)
    told: dict[str, Any] = {
        "Id": "postgresql@15-main.service",
        "LoadState": "loaded",
        "LoadError": ("", ""),
        "ActiveState": "failed",
        "SubState": "failed",
        "Result": "signal",
        "MainPID": 0,
        "ExecMainPID": 42,
        "ExecMainCode": 2,
        "ExecMainStatus": 9,
        "NRestarts": 0,
        "InvocationID": bytes.fromhex(ONE),
        "Job": (0, "/"),
        "ControlGroup": "/system.slice/x",
        "UnitFileState": "enabled-runtime",
        "Restart": "no",
        "ExecStart": [exec_start],
        "ConditionResult": True,
        "AssertResult": False,
        "AssertTimestamp": 0,
    }
    state = state_of(told)
    assert state.over
    assert state.outcome == Signaled(9)
    assert (state.invocation, state.job, state.masked, state.unmet, state.command) == (ONE, 0, False, "", (0, 0, 0))
    assert why_failed(state) == ""


@given(
    st.dictionaries(
        st.sampled_from(["Job", "LoadError", "ConsistsOf", "ExecStart", "Conditions", "MainPID", "Id"]),
        st.one_of(
            st.none(),
            st.integers(),
            st.text(max_size=3),
            st.lists(st.integers(), max_size=2),
            st.tuples(st.text(max_size=2)),
            st.just(()),
        ),
    )
)
def test_any_properties_are_a_state_that_claims_nothing(told: dict[str, Any]) -> None:
    """What is of another type than systemd's says nothing."""
    state = state_of(told)
    assert isinstance(state.outcome, Unknown)
    assert not state.over
    assert not state.runs


@pytest.mark.parametrize(("code", "status"), [(0, 0), (1, 256), (1, -1), (2, 0), (2, 65), (3, 0), (4, 1)])
def test_what_is_no_ending_is_none(code: int, status: int) -> None:
    """Numbers that no process can end with are not made into a code."""
    assert ending(code, status) is None
