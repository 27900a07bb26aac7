"""`./run chaos`: real managers, real guests, random faults, and a verdict on what was told of it.

Exit code 0: every promise held. 1: one did not, or the campaign itself failed. 3: guests cannot be had here. The
invariant: whatever happens, what was started is ended, and the seed is said first.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from chaos import plants, rootfs
from chaos.campaign import Campaign, Shape
from chaos.checker import judge
from chaos.evidence import read_account, read_story
from chaos.grounds import Grounds, what_is_missing

HERE = Path(__file__).resolve().parent
FAILED, SKIPPED, INTERRUPTED = 1, 3, 130
SHOWN = 40  # violations that are printed


def main() -> int:
    """Run a campaign as the command line asks for it, and return the exit code."""
    options = _options()
    if missing := what_is_missing():
        print(f"chaos: skipped: {missing}", file=sys.stderr)
        return SKIPPED
    try:
        wheel = options.wheel or max(HERE.parent.glob(".venv/wheel/*.whl"), key=lambda path: path.stat().st_mtime)
    except ValueError:
        print("chaos: there is no wheel in .venv/wheel: './run chaos' builds it", file=sys.stderr)
        return FAILED
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(FAILED))
    folder = options.keep or Path(tempfile.mkdtemp(prefix="cmapp-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, {options.seconds:g} s, {options.guests} guests, {options.applications} applications")
    print("clocks are not stepped: guests share the machine's one clock, which is not ours to set", flush=True)
    begun = time.monotonic()
    try:
        _campaign(options, folder, wheel)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"chaos: the campaign itself failed: {error}; what there is of it is in {folder}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("chaos: interrupted", file=sys.stderr)
        return INTERRUPTED
    if options.plant in plants.FORGERIES:
        plants.FORGERIES[options.plant](folder)
    violations = _report(folder, time.monotonic() - begun)
    if violations or options.keep:
        print(f"the evidence is in {folder}; seed {options.seed}")
    else:
        shutil.rmtree(folder)
    return FAILED if violations else 0


def _campaign(options: argparse.Namespace, folder: Path, wheel: Path) -> None:
    trick = options.plant if options.plant in plants.TRICKS else ""
    shape = Shape(options.seed, options.guests, options.applications, trick)
    rootfs.root_file_system()
    with Grounds() as site, Campaign(site, folder, shape) as campaign:
        campaign.prepare(options.programs, wheel, options.unit)
        campaign.rage(options.seconds)
        campaign.rest()
        campaign.collect()


def _report(folder: Path, seconds: float) -> int:
    """Print what happened and what is wrong with it, and return the number of violations."""
    account, story = read_account(folder), read_story(folder)
    judgement = judge(story)
    faults = Counter(fault.kind for fault in account.faults)
    print(f"{sum(faults.values())} faults: {_counts(faults)}")
    print(f"{len(story.managers)} managers: {_counts(judgement.outcomes)}")
    beats = sum(len(instance.beats) for instance in story.instances)
    print(f"{len(story.instances)} instances with {beats} heartbeats, {len(story.receipts)} receipts, ", end="")
    print(f"{len(story.servers)} servers; {seconds:.0f} s in all")
    kinds = Counter(violation.kind for violation in judgement.violations)
    print(f"{len(judgement.violations)} violations" + (f": {_counts(kinds)}" if kinds else ""))
    for violation in judgement.violations[:SHOWN]:
        print(f"  {violation.kind}: {violation.text}")
    return len(judgement.violations)


def _counts(counts: dict[str, int] | Counter[str]) -> str:
    return ", ".join(f"{number} {what}" for what, number in sorted(counts.items(), key=lambda item: -item[1]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long faults are inflicted (default 60)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="what is drawn")
    parser.add_argument("--guests", type=int, default=3, help="how many guests (default 3)")
    parser.add_argument("--applications", type=int, default=6, help="how many applications (default 6)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the evidence there")
    planted = sorted({*plants.TRICKS, *plants.FORGERIES})
    parser.add_argument("--plant", choices=planted, help="plant a defect, which has to be found")
    parser.add_argument("--wheel", type=Path, help="what is installed in the guests (default .venv/wheel/*.whl)")
    parser.add_argument(
        "--programs", type=Path, default=Path(sys.executable).parent, help="where cmapp and cmappmgr are"
    )
    unit = HERE.parent / "packaging/cmappserver.service"
    parser.add_argument("--unit", type=Path, default=unit, help="the server's unit (default that in packaging/)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
