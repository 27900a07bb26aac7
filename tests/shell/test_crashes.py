"""A server that is killed takes nothing along of what it has read from an application."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cmapp.guest.stage import Stage

KILLS = 300


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_by_hundreds_of_crashes(tmp_path: Path, seed: int) -> None:
    """Every byte is in the spool, once and at its place, whenever servers are killed, and though the disk may hang."""
    command = [sys.executable, "-m", "tests.shell.crash_bed", str(tmp_path), str(KILLS), str(seed)]
    env = {"PYTHONPATH": os.pathsep.join([str(Path.cwd()), *filter(None, sys.path)])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["killed"] == KILLS, "a server has seen a byte that did not belong to its offset"
    assert found["total"] > KILLS * 1000
    assert not list(Stage(str(tmp_path), wanted=True).found)
