"""The tests themselves: which are run, and by whom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST_FIRST

ROOT = Path(__file__).parents[2]
MIXED = """import pytest

def test_quick(): pass

@pytest.mark.slow
def test_slow(): pass
"""


def test_every_folder_of_tests_has_its_turn() -> None:
    """Where processes share the tests, each folder is told how long its files take, compared with the others'."""
    assert {path.parent.name for path in (ROOT / "tests").glob("*/test_*.py")} == set(LONGEST_FIRST)


@pytest.mark.parametrize(("options", "told"), [((), "1 passed, 1 deselected in "), (("--slow",), "2 passed in ")])
def test_slow_tests_are_run_when_they_are_asked_for(tmp_path: Path, options: tuple[str, ...], told: str) -> None:
    """A test that is marked slow is left out, which is no skip, unless --slow is given."""
    file = tmp_path / "test_mixed.py"
    file.write_text(MIXED)
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-q"]
    command += [*options, "--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(file)]
    env = {**os.environ, "CI": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert told in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0
