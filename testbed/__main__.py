"""A cluster from the shell: `python -m testbed up`, look around in it as long as you like, `python -m testbed down`.

The bed is kept by a process of its own in the background, which ends with it; the other commands ask that. The
invariant: one keeper, one bed: whatever ends the keeper, the next bed sweeps away what it has left.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from chaos.grounds import BASE
from testbed.cluster import Cluster, what_is_missing
from testbed.counter import Counter, ask
from testbed.nodes import entering

HERE = Path(__file__).parent
ROOT = HERE.parent
FAILED, SKIPPED = 1, 3
UP_LIMIT = 120.0  # seconds
USAGE = """commands:
  up                 put up a cluster and wait until it has formed; prints the name of the bed
  exec NODE COMMAND  run a command in a node; try: exec n1 crm_mon -1r
  crash NODE         take its power, and that of its guests;  start NODE: give it power again
  cut NODE           cut its network cable;  heal NODE: mend it
  pause GUEST        let a guest stand still;  resume GUEST: let it go on
  down               remove everything
In nodes, `guestctl start|stop|destroy|state|migrate GUEST [TARGET]` commands the hypervisor.
"""


def main() -> int:
    """Do what the command line asks for, and return the exit code."""
    options = _options()
    try:
        return _do(options.command, options.words, options)
    except (RuntimeError, OSError, IndexError, KeyError) as error:
        print(f"testbed: {error or type(error).__name__}", file=sys.stderr)
        return FAILED


def _do(command: str, words: list[str], options: argparse.Namespace) -> int:
    match command:
        case "up":
            return _up(options)
        case "keep":
            return _keep(options)
        case "exec":
            argv = entering(_bed(options.bed) / words[0], *words[1:])
            os.execvp(argv[0], argv)  # noqa: S606 - as asked for
        case "crash" | "start" | "cut" | "heal" | "pause" | "resume" | "down":
            print(ask(_bed(options.bed) / "keeper", "bed", command, *words))
            return 0
    raise RuntimeError(f"there is no command {command}; --help shows all")


def _up(options: argparse.Namespace) -> int:
    """Start a keeper, and wait for its bed."""
    if missing := what_is_missing():
        print(f"testbed: {missing}", file=sys.stderr)
        return SKIPPED
    command = [sys.executable, "-m", "testbed", "--nodes", str(options.nodes), "--guests", str(options.guests), "keep"]
    keeper = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, text=True
    )
    assert keeper.stdout is not None  # noqa: S101 - it is a pipe
    name = keeper.stdout.readline().strip()
    if not name:
        return keeper.wait() or FAILED
    print(name)
    return 0


def _keep(options: argparse.Namespace) -> int:
    """Keep a bed until somebody says "down"."""
    over = threading.Event()
    for ending in (signal.SIGTERM, signal.SIGINT):
        signal.signal(ending, lambda *_: over.set())
    with Cluster(options.nodes) as cluster:
        wheels = sorted((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
        for number in range(1, options.guests + 1):
            unit, application = ROOT / "packaging/cmappserver.service", ROOT / "chaos/application.py"
            cluster.define(f"vm{number}", wheels[-1], unit, application)

        def command(words: list[str]) -> str:
            if words[0] == "down":
                threading.Timer(0.1, over.set).start()  # when this was answered
            elif words[0] in ("pause", "resume"):
                getattr(cluster.hypervisor, words[0])(words[1])
            else:
                getattr(cluster, words[0])(words[1])
            return "done"

        desk = Counter(cluster.folder / "keeper", {"bed": command})
        cluster.until_online(UP_LIMIT)
        print(cluster.site.name, flush=True)
        for descriptor in (1, 2):  # whoever waits for us reads no more
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        while not over.wait(3600.0):
            pass
        desk.close()
    return 0


def _bed(name: str) -> Path:
    """Return the folder of the bed that is meant: the one of that name, or the only one."""
    beds = [path.parent for path in BASE.glob("*/keeper") if name in ("", path.parent.name)]
    if len(beds) != 1:
        raise RuntimeError(f"{len(beds)} beds are up{'' if name else ': --bed says which one is meant'}")
    return beds[0]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m testbed", epilog=USAGE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bed", default="", metavar="NAME", help="which bed, if several are up")
    parser.add_argument("--nodes", type=int, default=3, help="up: how many nodes (default 3)")
    parser.add_argument("--guests", type=int, default=1, help="up: how many guests, vm1 and so on (default 1)")
    parser.add_argument("command", help="see below")
    parser.add_argument("words", nargs=argparse.REMAINDER, help="what the command needs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
