"""`./run chaos` as it is called: a short campaign holds, and each planted defect is found."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos import plants
from chaos.checker import judge
from chaos.evidence import read_story
from chaos.grounds import BASE, MARK, cgroup_mount, what_is_missing

if TYPE_CHECKING:
    from chaos.story import Judgement

ROOT = Path(__file__).parents[2]
needs_guests = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")
SMALL = ("--seconds", "8", "--guests", "1", "--applications", "2", "--seed", "5")
MINUTE = ("--seconds", "60", "--seed", "5")


def chaos(*options: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a campaign to its end."""
    command = [sys.executable, "-m", "chaos", *options]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a campaign has left: a minute of it in CI, some seconds by hand."""
    folder = tmp_path_factory.mktemp("chaos") / "evidence"
    done = chaos(*(MINUTE if os.environ.get("CI") == "true" else SMALL), "--keep", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 violations" in done.stdout
    assert "seed 5" in done.stdout
    return folder


def kinds(judgement: Judgement) -> set[str]:
    """Return the kinds of what was found."""
    return {violation.kind for violation in judgement.violations}


@needs_guests
@pytest.mark.timeout(300)
def test_a_campaign_holds(evidence: Path) -> None:
    """Every promise is kept under faults, and there is evidence of all kinds."""
    story = read_story(evidence)
    assert judge(story).violations == []
    assert story.instances
    assert story.receipts
    assert story.managers
    assert story.servers
    assert story.faults


@needs_guests
@pytest.mark.parametrize("name", plants.FORGERIES)
def test_forged_evidence_is_found_out(evidence: Path, tmp_path: Path, name: str) -> None:
    """A defect that is planted into what the witnesses have left is found, and called by its name."""
    folder = tmp_path / "evidence"
    shutil.copytree(evidence, folder)
    plants.FORGERIES[name](folder)
    assert kinds(judge(read_story(folder))) & set(plants.EXPECTED[name])


@needs_guests
@pytest.mark.parametrize("name", plants.TRICKS)
def test_an_application_that_breaks_a_promise_is_found_out(name: str) -> None:
    """A defect that is planted into the application itself is found in a whole campaign, which fails."""
    done = chaos(*SMALL, "--applications", "1", "--plant", name)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(f"  {kind}: " in done.stdout for kind in plants.EXPECTED[name]), done.stdout
    folder = Path(done.stdout.partition("the evidence is in ")[2].partition(";")[0])
    shutil.rmtree(folder)


@needs_guests
def test_an_interrupted_campaign_leaves_nothing(tmp_path: Path) -> None:
    """A campaign that is interrupted in the middle ends its guests and managers, and removes all that it made."""
    options = ("--seconds", "60", "--guests", "1", "--applications", "1", "--keep", str(tmp_path))
    command = [sys.executable, "-m", "chaos", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        managers = tmp_path / "managers"
        while process.poll() is None and not managers.is_dir():
            os.sched_yield()
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[0]
    name = f"{MARK}{process.pid}."
    assert process.returncode != 0, said
    assert list(BASE.glob(f"{name}*")) == []
    assert list(cgroup_mount().glob(f"{name}*")) == []
    assert list(Path("/run/netns").glob(f"{name}*")) == []


def test_where_guests_cannot_be_had_it_is_skipped() -> None:
    """Without the tools it says in one line what is missing, and exits with 3."""
    done = chaos(*SMALL, env={"PATH": "/nonexistent"})
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "chaos: skipped: " in done.stderr
