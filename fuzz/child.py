"""One target in a process of its own: fuzzed by atheris where it is installed, by blind changes where not.

A finding does not end the hunt: each is kept once, by where it was raised, with the bytes that show it, and told on
standard output. The invariant: what a target imports is instrumented before it is run.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import random
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.corpus import FOUND, inputs
from fuzz.mutate import mutated
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable

    from fuzz.targets import Target

WATCHED = ["cmapp", "tomllib"]  # what is instrumented
CHOICES = 40  # bytes that a blind change is drawn from
BATCH = 100  # blind runs between two looks at the clock


def guided() -> bool:
    """Tell whether coverage can guide: atheris has wheels for few interpreters."""
    return importlib.util.find_spec("atheris") is not None


class Hunt:
    """A target, and what it has found so far."""

    def __init__(self, name: str, function: Callable[[bytes], None]) -> None:
        self._name = name
        self._function = function
        self._known: set[str] = set()

    def __call__(self, data: bytes) -> None:
        """Call the target, and keep what it raises if that was not raised there before."""
        try:
            self._function(data)
        except Exception as error:  # noqa: BLE001 - anything that comes out of a target is a finding
            place = place_of(error)
            if place not in self._known:
                self._known.add(place)
                self._keep(data, error, place)

    def _keep(self, data: bytes, error: Exception, place: str) -> None:
        FOUND.mkdir(exist_ok=True)
        path = FOUND / f"{self._name}-{hashlib.sha256(place.encode()).hexdigest()[:8]}"
        path.write_bytes(data)
        path.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="backslashreplace")
        print(f"FOUND {path.name} {place}: {str(error)[:300]!r}", flush=True)


def place_of(error: BaseException) -> str:
    """Return where an error was raised and of what kind it is, by which one finding is told from another."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name != "breach.py"]
    ours = [frame for frame in frames if "cmapp" in frame.filename or "fuzz" in frame.filename] or frames
    return f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"


def main() -> None:
    """Hunt for as long as the command line says."""
    parser = argparse.ArgumentParser(prog="fuzz.child", description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options, rest = parser.parse_known_args()
    target = TARGETS[options.target]
    if guided():
        _guided(target, options.seconds, options.seed, rest)
    else:
        _blind(target, options.seconds, options.seed)


def _guided(target: Target, seconds: int, seed: int, rest: list[str]) -> None:
    atheris = importlib.import_module("atheris")  # it is not there everywhere
    with atheris.instrument_imports(include=WATCHED):
        function = target.load()
    limits = [f"-max_total_time={seconds}", f"-max_len={target.longest}", f"-seed={seed}", "-timeout=25"]
    more = ["-rss_limit_mb=1500", "-print_final_stats=1", f"-artifact_prefix={FOUND}/{target.name}-"]
    atheris.Setup([target.name, *limits, *more, *rest], Hunt(target.name, function))
    atheris.Fuzz()


def _blind(target: Target, seconds: int, seed: int) -> None:
    hunt, chance, kept = Hunt(target.name, target.load()), random.Random(seed), inputs(target.name)  # noqa: S311
    for data in kept:
        hunt(data)
    runs, begun = len(kept), time.monotonic()
    while time.monotonic() - begun < seconds:
        for _ in range(BATCH):
            hunt(mutated(target, kept, chance.randbytes(CHOICES)))
        runs += BATCH
    print(f"stat::number_of_executed_units: {runs}")
    print(f"stat::average_exec_per_sec:     {int(runs / (time.monotonic() - begun))}")


if __name__ == "__main__":
    main()
