"""Lives of a pursuit whose link is lost, or left: how it comes back, and what it remembers."""

from __future__ import annotations

import pytest

from cmapp.core.outcome import Failed, Refused, Unreachable, Verdict
from cmapp.core.pursuit import Action, Event, State
from tests.core.pursuit_story import BEGIN, END, LEFT, LOSE, NO_WAY_BACK, RECEIPT, RETURN, WATCH, Step, away, tell

A, E, S = Action, Event, State
STORIES: dict[str, tuple[list[Step], Verdict]] = {
    "the link is lost for good": (
        [*WATCH, *LOSE, *away(4.1, 34)],
        Unreachable(f"the connection was reset; {NO_WAY_BACK}: no answer within 10 s"),
    ),
    "the link is lost, and the run exits while nobody looks": (
        [*WATCH, *LOSE, *RETURN, (4.5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None)],
        RECEIPT,
    ),
    "the link is lost again and again": (
        [
            *WATCH,
            *LOSE,
            *RETURN,
            (4.5, Unreachable("reset again"), S.AWAY, [A.HANG_UP], 4.7),
            (4.7, None, S.RECONNECTING, [A.CONNECT], 14.7),
            (5, Unreachable("refused"), S.AWAY, [A.HANG_UP], 5.4),
            (5.4, None, S.RECONNECTING, [A.CONNECT], 15.4),
            (6, E.CONNECTED, S.REGREETING, [A.SAY_HELLO], 15.4),
            (6, Unreachable("overloaded"), S.AWAY, [A.HANG_UP], 6.8),
            (6.8, None, S.RECONNECTING, [A.CONNECT], 16.8),
            (6.9, E.CONNECTED, S.REGREETING, [A.SAY_HELLO], 16.8),
            (7, E.WELCOMED, S.REATTACHING, [A.LAUNCH, A.POLL], 17),
            (7, E.LAUNCHED, S.WATCHING, [], 17),
            (7, E.REPORTED, S.WATCHING, [], 12),
            (12, None, S.WATCHING, [A.POLL], 22),
            (13, Unreachable("the last"), S.AWAY, [A.HANG_UP], 13.1),
            *away(13.1, 43),
        ],
        Unreachable(f"the last; {NO_WAY_BACK}: no answer within 10 s"),
    ),
    "a server that does not know the run yet takes its time to launch it": (
        [
            *BEGIN,
            *LOSE,
            *RETURN[:-2],
            (4.4, E.REPORTED, S.LAUNCHING, [], 9.4),
            (9.4, None, S.LAUNCHING, [A.POLL], 19.4),
            (9.5, E.REPORTED, S.LAUNCHING, [], 14.5),
            (14, E.LAUNCHED, S.WATCHING, [], 14.5),
            (14.2, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is asked to stop while it is away": (
        [
            *WATCH,
            *LOSE,
            (4.05, E.SIGNALED, S.AWAY, [], 4.1),
            *RETURN[:-2],
            (4.4, E.LAUNCHED, S.STOPPING, [A.STOP], 14.3),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is asked twice to stop while it is away": (
        [
            *WATCH,
            *LOSE,
            (4.05, E.SIGNALED, S.AWAY, [], 4.1),
            (4.06, E.DISMISSED, S.AWAY, [], 4.1),
            (4.07, E.SIGNALED, S.AWAY, [], 4.1),
            *RETURN[:-2],
            (4.4, E.REPORTED, S.STOPPING, [A.STOP, A.KILL], 9.4),
            (4.5, E.LAUNCHED, S.STOPPING, [], 9.4),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "loses the link while it stops, and asks again": (
        [
            *WATCH,
            (3.5, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            *LOSE,
            *RETURN[:-2],
            (4.4, E.LAUNCHED, S.STOPPING, [A.STOP], 14.3),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is left to a later manager": (
        [
            *WATCH,
            (4, E.DISMISSED, S.DETACHING, [A.DETACH], 7),
            (4.1, E.DISMISSED, S.DETACHING, [], 7),
            (4.2, E.DETACHED, S.CONCLUDED, END, None),
        ],
        LEFT,
    ),
    "is left before it is launched": (
        [*BEGIN[:2], (2, E.DISMISSED, S.CONCLUDED, END, None)],
        Failed("it was dismissed before it was launched"),
    ),
    "is left while it is launched": (
        [
            *BEGIN,
            (3, E.DISMISSED, S.LAUNCHING, [], 7),
            (4, E.LAUNCHED, S.DETACHING, [A.DETACH], 7),
            (5, E.DETACHED, S.CONCLUDED, END, None),
        ],
        LEFT,
    ),
    "is left while it is away": (
        [
            *WATCH,
            *LOSE,
            (4.05, E.DISMISSED, S.AWAY, [], 4.1),
            *RETURN[:-2],
            (4.4, E.LAUNCHED, S.DETACHING, [A.DETACH], 14.3),
            (5, E.DETACHED, S.CONCLUDED, END, None),
        ],
        LEFT,
    ),
    "ends while it is left": (
        [*WATCH, (4, E.DISMISSED, S.DETACHING, [A.DETACH], 7), (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None)],
        RECEIPT,
    ),
    "may not be left": (
        [
            *WATCH,
            (4, E.DISMISSED, S.DETACHING, [A.DETACH], 7),
            (4.1, Refused("unsupported", "no"), S.WATCHING, [], 7),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "is stopped while it is left, and gone back for": (
        [
            *WATCH,
            (3.5, E.DISMISSED, S.DETACHING, [A.DETACH], 7),
            (3.6, E.SIGNALED, S.STOPPING, [A.STOP], 7),
            (4, E.DETACHED, S.AWAY, [A.HANG_UP], 4.1),
            *RETURN[:-2],
            (4.4, E.LAUNCHED, S.STOPPING, [A.STOP], 14.3),
            (5, RECEIPT, S.CONCLUDED, [A.ACKNOWLEDGE, *END], None),
        ],
        RECEIPT,
    ),
    "somebody else has it when we are back": (
        [*WATCH, *LOSE, *RETURN[:-2], (5, Refused("name-taken", "no"), S.CONCLUDED, END, None)],
        Refused("name-taken", "no"),
    ),
}


@pytest.mark.parametrize("name", STORIES)
def test_stories(name: str) -> None:
    """What happens leads step by step to what is done, until when, and to one verdict."""
    tell(*STORIES[name])
