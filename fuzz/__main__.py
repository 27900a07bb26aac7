"""`./run fuzz`: invented bytes for everything that reads bytes, each target in a process of its own.

Exit code 0: nothing was found. 1: something was; it is in fuzz/found, and `./run fuzz --replay FILE` shows it again.
The invariant: every process that was started is ended, and the seed is said first.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from fuzz import corpus
from fuzz.child import guided
from fuzz.minimise import best
from fuzz.targets import TARGETS

FAILED, INTERRUPTED = 1, 130
GRACE = 90  # seconds that a process has beyond its share, to import and to end
NO_ATHERIS = (
    "fuzz: there is no atheris for this interpreter (it has wheels for CPython 3.11 to 3.14 on x86_64):"
    " inputs are invented blindly, no coverage guides them"
)


class Tally(NamedTuple):
    """What became of one target."""

    target: str
    runs: int
    rate: int
    edges: int
    inputs: int
    found: list[str]


def main() -> int:
    """Do what the command line asks for, and return the exit code."""
    options = _options()
    if options.replay:
        return _replay(options.replay, options.target)
    names = [options.target] if options.target else list(TARGETS)
    if not guided():
        print(NO_ATHERIS, file=sys.stderr)
    share = max(1, round(options.seconds * options.jobs / len(names)))
    share = share if len(names) > 1 else max(1, round(options.seconds))
    print(f"seed {options.seed}, {len(names)} targets, {share} s each, {options.jobs} at once", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))
    children: list[subprocess.Popen[bytes]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        try:
            tallies = list(pool.map(lambda name: _hunt(name, share, options.seed, children), names))
        except (KeyboardInterrupt, SystemExit):
            pool.shutdown(wait=False, cancel_futures=True)
            for child in children:
                child.kill()
            return INTERRUPTED
    _print(tallies)
    if options.keep:
        for name in names:
            _keep(name)
    return FAILED if any(tally.found for tally in tallies) else 0


def _hunt(name: str, seconds: int, seed: int, children: list[subprocess.Popen[bytes]]) -> Tally:
    """Run a target for its share of the time, and return what became of it."""
    grown = corpus.GROWN / name
    grown.mkdir(parents=True, exist_ok=True)
    corpus.FOUND.mkdir(exist_ok=True)
    before = len(list(grown.iterdir()))
    with tempfile.TemporaryDirectory(prefix="cmapp-fuzz-") as folder:
        words = Path(folder) / "words"
        words.write_text("".join(f'"{_quoted(token)}"\n' for token in TARGETS[name].tokens or ("cmapp",)))
        kept = [str(path) for path in (corpus.CORPUS / name,) if path.is_dir()]
        said = _run(name, [f"--seconds={seconds}", f"--seed={seed}", f"-dict={words}", str(grown), *kept],
                    seconds + GRACE, children)  # fmt: skip
    found = [line.removeprefix("FOUND ") for line in said.splitlines() if line.startswith("FOUND ")]
    died = re.findall(r"Test unit written to (\S+)|^(\S*Error: .*)|deadly signal", said, re.MULTILINE)
    if died or "number_of_executed_units" not in said:
        account = corpus.FOUND / f"{name}-process.txt"
        account.write_text(said)
        found.append(f"{account.name}: the process, or a thread of it, has failed")
    return Tally(
        name,
        _number(r"number_of_executed_units: (\d+)", said),
        _number(r"average_exec_per_sec: +(\d+)", said),
        _number(r" cov: (\d+)", said),
        len(list(grown.iterdir())) - before,
        found,
    )


def _run(name: str, arguments: list[str], limit: float, children: list[subprocess.Popen[bytes]]) -> str:
    """Run the child of a target to its end, and return what it said."""
    command = [sys.executable, "-m", "fuzz.child", name, *arguments]
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(command, cwd=corpus.HERE.parent, stdout=output, stderr=subprocess.STDOUT)
        children.append(child)
        try:
            child.wait(limit)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        output.seek(0)
        return output.read().decode(errors="replace")


def _quoted(token: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token.encode("latin-1"))


def _number(pattern: str, said: str) -> int:
    return int((re.findall(pattern, said) or ["0"])[-1])


def _print(tallies: list[Tally]) -> None:
    print(f"{'target':<14}{'runs':>12}{'runs/s':>10}{'edges':>8}{'new inputs':>12}{'findings':>10}")
    for tally in tallies:
        edges = tally.edges or "-"
        print(f"{tally.target:<14}{tally.runs:>12}{tally.rate:>10}{edges:>8}{tally.inputs:>12}{len(tally.found):>10}")
    for tally in tallies:
        for finding in tally.found:
            print(f"  {finding}")
    if any(tally.found for tally in tallies):
        print(f"what was found is in {corpus.FOUND}; ./run fuzz --replay FILE shows it again")


def _keep(name: str) -> None:
    """Commit the inputs that reach most, of the committed ones and those of runs here."""
    folders = corpus.CORPUS / name, corpus.GROWN / name
    several = {path.read_bytes() for folder in folders if folder.is_dir() for path in folder.iterdir()}
    print(f"{name}: {corpus.keep(name, best(TARGETS[name].load(), several, corpus.MOST))} inputs are kept", flush=True)


def _replay(path: Path, target: str | None) -> int:
    """Call a target once with what a file holds, and print what comes of it."""
    name = target or corpus.target_of(path.resolve(), list(TARGETS))
    if not name:
        print(f"fuzz: {path} does not say which target it is for: give --target", file=sys.stderr)
        return FAILED
    try:
        TARGETS[name].load()(path.read_bytes())
    except OSError as error:
        print(f"fuzz: {path} cannot be read: {error.strerror}", file=sys.stderr)
        return FAILED
    except Exception:  # noqa: BLE001 - that is what is asked for
        traceback.print_exc()
        return FAILED
    print(f"{name} finds nothing wrong with {path}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long, shared by the targets (default 60)")
    parser.add_argument("--target", choices=sorted(TARGETS), help="only that one")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1, 10**6), help="what is drawn")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many at once (default one a core)")
    parser.add_argument(
        "--keep", action="store_true", help="put what reached something new into fuzz/corpus, minimised"
    )
    parser.add_argument("--replay", type=Path, metavar="FILE", help="call the target once with what FILE holds")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
