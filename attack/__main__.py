"""`./run attack`: hostile peers by the thousand, what honest managers notice of them, and a verdict.

Exit code 0: every invariant held. 1: one did not, or the campaign itself failed. All of it is on the loopback and
bounded in number and time. Rounds are drawn one under the other as they come to their end. "let in" is how long the
slowest honest manager waited that came in the middle of the attack, until its application ran; "memory" is what the
server has grown by since the quiet run, "log" what it wrote.
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
from pathlib import Path

from attack import impostors, plants, table
from attack.arena import Arena, ArenaError
from attack.campaign import Campaign
from attack.catalogue import ATTACKS
from attack.judge import Meeting, Round, judge

FAILED, INTERRUPTED = 1, 130
QUIET_SHARE = 3  # times an attack's seconds: how long it is watched in peace


def main() -> int:
    """Run a campaign as the command line asks for it, and return the exit code."""
    options = _options()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(FAILED))
    folder = options.keep or Path(tempfile.mkdtemp(prefix="cmapp-attack-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {options.seed}, {options.handshakes} handshakes, {options.managers} + {options.managers} managers")
    begun = time.monotonic()
    rounds: list[Round] = []
    meetings: list[Meeting] = []
    try:
        _campaign(options, folder, rounds, meetings)
    except (ArenaError, RuntimeError, OSError, subprocess.SubprocessError, TimeoutError) as error:
        print(f"attack: the campaign itself failed: {error}; what there is of it is in {folder}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print("attack: interrupted", file=sys.stderr)
        return INTERRUPTED
    plants.forge(options.plant, rounds, meetings)
    violations = judge(rounds, meetings)
    if rounds:
        print(table.of_rounds(rounds))
    if meetings:
        print(table.of_meetings(meetings))
    for violation in violations:
        print(f"  {violation.kind}: {violation.text}")
    if violations or options.keep:
        print(f"the logs are in {folder}")
    else:
        shutil.rmtree(folder)
    verdict = "FAIL" if violations else "PASS"
    print(
        f"{verdict}: {len(violations)} violations in {len(rounds) + len(meetings)} rounds, seed {options.seed}, ",
        end="",
    )
    print(f"{time.monotonic() - begun:.0f} s in all")
    return FAILED if violations else 0


def _campaign(options: argparse.Namespace, folder: Path, rounds: list[Round], meetings: list[Meeting]) -> None:
    chosen = options.only or [*ATTACKS, *impostors.IMPOSTORS]
    hostile = [name for name in chosen if name in ATTACKS]
    with Arena(folder, options.programs, ",".join(name for name in options.plant if name in plants.TRICKS)) as arena:
        if hostile:
            how = {"managers": options.managers, "handshakes": options.handshakes, "seed": options.seed}
            with Campaign(arena, folder, **how) as campaign:
                rounds.append(campaign.quiet(QUIET_SHARE * options.seconds))
                for names in batched(hostile, options.at_once):
                    rounds.append(campaign.attack(names, options.seconds))
                    print(f"attack: {table.one(rounds[-1])}", file=sys.stderr, flush=True)
                    if not rounds[-1].same_server:
                        return
                rounds.append(campaign.conclude())
        servers = [name for name in chosen if name in impostors.IMPOSTORS]
        meetings += impostors.meet_all(servers, arena.keys, options.programs, folder / "meetings")


def batched(names: list[str], count: int) -> list[list[str]]:
    """Return the names in groups of at most `count`, as even as can be; those that take long are together."""
    groups = -(-len(names) // count)
    slow = [name for name in names if ATTACKS[name].slow and groups > 1 and count > 1]
    dealt: list[list[str]] = [slow, *([] for _ in range(groups - 1))]
    for name in names:
        if name not in slow:
            min(dealt, key=len).append(name)
    return dealt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./run attack", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2, help="how long each attack lasts at least (default 2)")
    parser.add_argument("--handshakes", type=int, default=5000, help="how many peers are a crowd (default 5000)")
    parser.add_argument("--managers", type=int, default=20, help="honest managers, of each of two kinds (default 20)")
    parser.add_argument("--at-once", type=int, default=1, help="how many attacks at the same time (default 1)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="what is drawn")
    known = [*ATTACKS, *impostors.IMPOSTORS]
    parser.add_argument("--only", action="append", choices=known, metavar="NAME", help="this attack; may be repeated")
    parser.add_argument("--list", action="version", version="\n".join(known), help="print the names of the attacks")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the logs there")
    planted = sorted({*plants.TRICKS, *plants.FORGERIES})
    parser.add_argument(
        "--plant", action="append", choices=planted, default=[], help="plant a defect, which has to be found"
    )
    parser.add_argument(
        "--programs", type=Path, default=Path(sys.executable).parent, help="where cmapp, cmappmgr and cmappserver are"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
