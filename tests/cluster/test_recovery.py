"""`./run bench recovery` as it is called: what is told at once is noticed before what is looked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.cluster import what_is_missing

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")
def test_an_end_is_told_before_a_monitor_finds_it(tmp_path: Path) -> None:
    """Beside monitors every second and every 10 s, of the same application on the same cluster in the same run."""
    results = tmp_path / "results.json"
    command = [sys.executable, str(ROOT / "bench/bench.py"), "recovery", "--quick", "--json", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["name"]: row for row in json.loads(results.read_text())["rows"]}
    assert len(rows) == 6
    for stage in ("noticed", "begun"):
        assert rows[f"{stage} / monitored every 1 s"]["ratio"] < 1, done.stdout
        assert rows[f"{stage} / monitored every 10 s"]["ratio"] < 1, done.stdout
