"""Lives of a pursuit whose link holds, or is given up: told step by step."""

from __future__ import annotations

import pytest

from cmapp.core.outcome import Failed, NotStarted, Refused, Unreachable, Verdict
from cmapp.core.pursuit import Action, Event, State
from tests.core.pursuit_story import BEGIN, END, GONE, NO_WAY_BACK, RECEIPT, WATCH, Step, away, tell

A, E, S = Action, Event, State
STORIES: dict[str, tuple[list[Step], Verdict]] = {
    "the application exits": (
        [*WATCH, (4, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None)],
        RECEIPT,
    ),
    "the command is not there": (
        [*BEGIN, (3, NotStarted(found=False, text="no x"), S.CONCLUDED, END, None)],
        NotStarted(found=False, text="no x"),
    ),
    "the launch is refused": (
        [*BEGIN, (3, Refused("capacity", "full"), S.CONCLUDED, END, None)],
        Refused("capacity", "full"),
    ),
    "the version is refused": (
        [*BEGIN[:2], (3, Refused("version", "old"), S.CONCLUDED, END, None)],
        Refused("version", "old"),
    ),
    "polls are answered, then one is not": (
        [
            *WATCH,
            (6.9, None, S.WATCHING, [], 7),
            (7, None, S.WATCHING, [A.POLL], 17),
            (16.9, E.REPORTED, S.WATCHING, [], 21.9),
            (21.9, None, S.WATCHING, [A.POLL], 31.9),
            (31.8, None, S.WATCHING, [], 31.9),
            (31.9, None, S.AWAY, [A.HANG_UP], 32),
            *away(32, 61.9),
        ],
        Unreachable(f"no answer to a poll within 10 s; {NO_WAY_BACK}: no answer within 10 s"),
    ),
    "the server goes silent while it launches": (
        [*BEGIN, (7, None, S.LAUNCHING, [A.POLL], 17), (17, None, S.AWAY, [A.HANG_UP], 17.1), *away(17.1, 47)],
        Unreachable(f"no answer to a poll within 10 s; {NO_WAY_BACK}: no answer within 10 s"),
    ),
    "a report that nobody waited for changes nothing": (
        [*WATCH, (5, E.REPORTED, S.WATCHING, [], 7), (7, None, S.WATCHING, [A.POLL], 17)],
        GONE,
    ),
    "a poll waits over the launch": (
        [*BEGIN, (7, None, S.LAUNCHING, [A.POLL], 17), (8, E.LAUNCHED, S.WATCHING, [], 17)],
        GONE,
    ),
    "the guest still boots": (
        [
            (0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10),
            (1, Unreachable("connection refused"), S.WAITING, [A.HANG_UP], 1.1),
            (1.1, None, S.CONNECTING, [A.CONNECT], 11.1),
            (2.1, Unreachable("connection refused"), S.WAITING, [A.HANG_UP], 2.3),
            (2.3, None, S.CONNECTING, [A.CONNECT], 12.3),
            (12.3, None, S.WAITING, [A.HANG_UP], 12.7),
            (12.7, None, S.CONNECTING, [A.CONNECT], 22.7),
            (13, E.CONNECTED, S.GREETING, [A.SAY_HELLO], 22.7),
            (14, E.WELCOMED, S.LAUNCHING, [A.LAUNCH], 19),
        ],
        GONE,
    ),
    "a guest that accepts and says nothing": (
        [*BEGIN[:2], (10, None, S.WAITING, [A.HANG_UP], 10.1), (60, None, S.CONCLUDED, [A.CONNECT, *END], None)],
        Unreachable("no connection within 60 s: no answer within 10 s"),
    ),
    "trust is denied": (
        [(0, E.BEGUN, S.CONNECTING, [A.CONNECT], 10), (1, Refused("trust", "no"), S.CONCLUDED, END, None)],
        Refused("trust", "no"),
    ),
    "is stopped before it is launched": (
        [*BEGIN[:2], (2, E.SIGNALED, S.CONCLUDED, END, None)],
        Failed("it was stopped before it was launched"),
    ),
    "is stopped while it is launched": (
        [
            *BEGIN,
            (3, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (4, E.LAUNCHED, S.STOPPING, [], 7),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is stopped and takes its time": (
        [
            *WATCH,
            (4, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (7, None, S.STOPPING, [A.POLL], 17),
            (8, E.REPORTED, S.STOPPING, [], 13),
            (13, None, S.STOPPING, [A.POLL], 23),
            (14, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "the guest hangs while it is stopped": (
        [
            *WATCH,
            (4, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (7, None, S.STOPPING, [A.POLL], 17),
            (17, None, S.AWAY, [A.HANG_UP], 17.1),
            *away(17.1, 47),
        ],
        Unreachable(f"no answer to a poll within 10 s; {NO_WAY_BACK}: no answer within 10 s"),
    ),
    "breaks by a defect of its own": (
        [*WATCH, (4, Failed("a defect"), S.CONCLUDED, END, None), (5, RECEIPT, S.CONCLUDED, [], None)],
        Failed("a defect"),
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """What happens leads step by step to what is done, until when, and to one verdict."""
    tell(*STORIES[name])
