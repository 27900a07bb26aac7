"""The cores of one server and many managers keep the promises in a world where everything goes wrong.

`./run simulate` searches further. In CI the schedules are always the same, so a change is judged by its own merit;
by hand they begin anywhere, and a failure tells its seed and the shortest schedule that shows it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "simulate"
sys.path.insert(0, str(FOLDER))  # a folder of scripts, like bench

from plants import PLANTS  # noqa: E402
from schedule import draw  # noqa: E402

from simulate import Failure, explain, play, search, search_all  # noqa: E402

SCHEDULES = 10_000
JOBS = 2
SEED = 1
PLANT_SEED = 4
PLANT_LIMIT = 4_000  # schedules within which each planted defect is found
SHORT = 4  # decisions that show any of the planted defects


@pytest.mark.timeout(600)  # seconds: a minute of two idle cores at most, and a busy machine may have none
def test_promises_are_kept() -> None:
    """No schedule breaks a promise, or makes a core fail."""
    seed = SEED if os.environ.get("CI") == "true" else int.from_bytes(os.urandom(8), "big")
    tally = search_all(seed, SCHEDULES, JOBS)
    if tally.failure is not None:
        pytest.fail(explain(tally.failure))
    assert tally.schedules == SCHEDULES


@pytest.mark.parametrize("plant", sorted(PLANTS))
def test_planted_defect_is_found(plant: str) -> None:
    """A core that breaks one rule is caught: a simulator that never found anything proves nothing."""
    tally = search((PLANT_SEED, 0, PLANT_LIMIT, plant))
    assert tally.failure is not None
    assert not play(draw(tally.failure.seed))[1], "what was planted is still there, or is a defect of our own"


def test_failure_is_made_short() -> None:
    """What is told of a failure is a schedule of a few decisions, which still fails, and its story."""
    failure = search((PLANT_SEED, 0, PLANT_LIMIT, "tell-early")).failure
    assert isinstance(failure, Failure)
    told = explain(failure, "tell-early").splitlines()
    decisions = told[2 : told.index("step by step:")]
    assert 0 < len(decisions) <= SHORT < len(draw(failure.seed).decisions) + SHORT
    assert told[0].startswith(f"seed {failure.seed}: P5: ")
    assert told[-1].startswith("and so: P5: ")


def test_same_seed_same_story() -> None:
    """A schedule goes the same way in every process, whatever its hashes are."""
    stories = [
        subprocess.run(
            [sys.executable, FOLDER / "simulate.py", "--play", "12345"],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    ]
    assert stories[0] == stories[1]
    assert len(stories[0].splitlines()) > len(draw(12345).decisions)
