"""Play the cores of one server and many managers in a made-up world, and hold the design's promises against it.

    python simulate/simulate.py [--schedules N] [--seed S] [--jobs J] [--plant NAME]
    python simulate/simulate.py --play SEED [--plant NAME]

Every schedule follows from a seed, and can be played again. The first one that breaks a promise, or in which a
core fails, ends the search; it is made as short as it can be, and told step by step.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from plants import PLANTS, planted
from schedule import draw
from shrink import shrink
from world import Cores, World

if TYPE_CHECKING:
    from collections.abc import Iterable

    from schedule import Schedule

CHUNK = 50  # schedules that a process plays before it tells how it went
STRIDE = 0x9E3779B97F4A7C15  # between seeds, so that those of two searches do not overlap
SEEDS = 2**64
HOUR = 3600.0


class Failure(NamedTuple):
    """A schedule that fails, and why."""

    seed: int
    kind: str
    text: str


class Tally(NamedTuple):
    """What was played."""

    schedules: int
    steps: int
    decisions: Counter[str]
    failure: Failure | None


def play(schedule: Schedule, told: list[str] | None = None) -> tuple[int, tuple[str, str] | None]:
    """Play a schedule; return how many steps it took, and what failed: the kind, and the words."""
    world = World(schedule, Cores(), None if told is None else told.append)
    try:
        world.play()
    except Exception as error:  # noqa: BLE001 - a core that raises anything has failed
        promise = getattr(error, "promise", "")
        kind = promise or type(error).__name__
        return world.timeline.steps, (kind, str(error) if promise else f"{kind}: {error}")
    return world.timeline.steps, None


def search(work: tuple[int, int, int, str]) -> Tally:
    """Play `count` schedules from the `first` on of the search that began with `seed`, until one fails."""
    seed, first, count, plant = work
    steps, decisions = 0, Counter[str]()
    with planted(plant):
        for number in range(first, first + count):
            one = (seed + number * STRIDE) % SEEDS
            schedule = draw(one)
            taken, failed = play(schedule)
            steps += taken
            decisions.update(decision.what for decision in schedule.decisions)
            if failed is not None:
                return Tally(number - first + 1, steps, decisions, Failure(one, *failed))
    return Tally(count, steps, decisions, None)


def search_all(seed: int, schedules: int, jobs: int, plant: str = "") -> Tally:
    """Play many schedules in `jobs` processes; the failure, if there is one, is the first in the search's order."""
    work = [(seed, first, min(CHUNK, schedules - first), plant) for first in range(0, schedules, CHUNK)]
    if jobs == 1:
        return _add_up(map(search, work))
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return _add_up(pool.imap(search, work))


def _add_up(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of what was played, up to the first failure."""
    played, steps, decisions = 0, 0, Counter[str]()
    for tally in tallies:
        played, steps = played + tally.schedules, steps + tally.steps
        decisions.update(tally.decisions)
        if tally.failure is not None:
            return Tally(played, steps, decisions, tally.failure)
    return Tally(played, steps, decisions, None)


def explain(failure: Failure, plant: str = "") -> str:
    """Return the shortest schedule that fails like this one, and its story."""
    with planted(plant):

        def fails(schedule: Schedule) -> bool:
            _, failed = play(schedule)
            return failed is not None and failed[0] == failure.kind

        shortest = shrink(draw(failure.seed), fails)
        story: list[str] = []
        _, failed = play(shortest, story)
    tells = "" if shortest.tells else ", where the kernel does not tell how adopted processes end"
    keeps = "" if shortest.retention > HOUR else f", where receipts are kept for {shortest.retention:g} s"
    limit = "" if shortest.most > 1 else ", where one application may run"
    return "\n".join(
        [
            f"seed {failure.seed}: {failure.text}",
            f"the shortest schedule that shows it{tells}{keeps}{limit}:",
            *(f"  {decision}" for decision in shortest.decisions),
            "step by step:",
            *(f"  {line}" for line in story),
            f"and so: {failed[1] if failed else 'nothing'}",
        ]
    )


def main() -> int:
    """Search as the command line says; return 1 if anything failed."""
    parser = argparse.ArgumentParser(description="Search for schedules that break a promise.")
    parser.add_argument("--schedules", type=int, default=10_000, metavar="N", help="how many; default 10,000")
    parser.add_argument("--seed", type=int, metavar="S", help="where to begin; default anywhere")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="J", help="processes; default all cores"
    )
    parser.add_argument("--plant", choices=sorted(PLANTS), default="", help="break one rule of a core first")
    parser.add_argument("--play", type=int, metavar="SEED", help="play one schedule and tell its story")
    options = parser.parse_args()
    if options.play is not None:
        return replay(options.play, options.plant)
    seed = int.from_bytes(os.urandom(8), "big") if options.seed is None else options.seed
    print(f"{options.schedules} schedules from seed {seed}", flush=True)
    begun = time.monotonic()
    tally = search_all(seed, options.schedules, options.jobs, options.plant)
    took = time.monotonic() - begun
    told = ", ".join(f"{count} {what}" for what, count in sorted(tally.decisions.items()))
    print(
        f"{tally.schedules} played in {took:.1f} s, {tally.schedules / took:.0f} a second, {tally.steps} steps: {told}"
    )
    if tally.failure is None:
        print("no promise was broken")
        return 0
    print(explain(tally.failure, options.plant))
    return 1


def replay(seed: int, plant: str) -> int:
    """Play one schedule and tell it."""
    story: list[str] = []
    with planted(plant):
        _, failed = play(draw(seed), story)
    print("\n".join([*(str(decision) for decision in draw(seed).decisions), *story]))
    print(failed[1] if failed else "no promise was broken")
    return int(failed is not None)


if __name__ == "__main__":
    sys.exit(main())
