"""`./run fuzz` as it is called: every target runs, what it says of them is a table, and a finding can be played again.

Where atheris is not installed, inputs are invented blindly; the rest is the same.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from fuzz.corpus import CORPUS
from fuzz.plants import PLANTS
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
CORPUS_LIMIT = 120_000  # bytes of all kept inputs


def fuzz(*options: str) -> subprocess.CompletedProcess[str]:
    """Call it to its end."""
    command = [sys.executable, "-m", "fuzz", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)


def test_a_target_is_run() -> None:
    """A short hunt tells its seed, how often the target was run, and that nothing was found."""
    done = fuzz("--seconds", "1", "--seed", "7", "--target", "wire")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("seed 7, 1 targets, 1 s each, ")
    row = done.stdout.splitlines()[2].split()
    assert row[0] == "wire"
    assert int(row[1]) > len(list((CORPUS / "wire").iterdir()))
    assert row[-1] == "0"


def test_a_file_is_replayed(tmp_path: Path) -> None:
    """What a file holds is given to its target once: one that finds nothing says so, one that does exits with 1."""
    kept = CORPUS / "wire" / "line-of-64-KiB-and-one"
    done = fuzz("--replay", str(kept))
    assert (done.returncode, done.stdout) == (0, f"wire finds nothing wrong with {kept}\n")
    unknown = tmp_path / "something"
    unknown.write_bytes(b"")
    done = fuzz("--replay", str(unknown))
    assert done.returncode == 1
    assert done.stderr.startswith(f"fuzz: {unknown} does not say which target it is for: give --target\n")


def test_every_target_was_seen_to_find_something() -> None:
    """A defect is planted for each target, which other tests see it find."""
    assert {target for target, *_ in PLANTS.values()} == set(TARGETS)


def test_every_target_has_kept_inputs() -> None:
    """The corpus is there for each target, is of none that is not there, and is small."""
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
    assert all(any(folder.iterdir()) for folder in CORPUS.iterdir())
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < CORPUS_LIMIT
