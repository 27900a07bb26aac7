#!/usr/bin/env python3
"""Measure cmappserver and cmappmgr beside what could be done at best, in the same run on the same machine.

    python bench/bench.py [NAME...] [--quick] [--json FILE]

The names are latency, manager, connections and polls, and by request only recovery, which needs root and the packages
of a cluster; each has a file that tells how it measures and what error bars to expect. A floor is the least that C or
bare Python needs for the same work, or a peer. Trust ratios, not absolutes. Nothing leaves the loopback interface and
the namespaces of the test bed, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import signal
import ssl
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import connections
import latency
import managers
import polls
from measure import BenchError, nobody_left
from stage import Stage, set_up
from table import Row, draw, failed

if TYPE_CHECKING:
    from collections.abc import Callable

BENCHMARKS: dict[str, Callable[..., list[Row]]] = {
    "latency": latency.measure,
    "manager": managers.measure,
    "connections": connections.measure,
    "polls": polls.measure,
}
ROOT = Path(__file__).parents[1]


def measure_recovery(stage: Stage, *, quick: bool) -> list[Row]:
    """Return the rows of the one that takes the project's test bed."""
    sys.path.append(str(ROOT))
    import recovery  # noqa: PLC0415 - nobody else needs what it imports

    return recovery.measure(stage, quick=quick)


ALL = {**BENCHMARKS, "recovery": measure_recovery}


def main() -> int:
    """Run what was asked for; return 1 if any of it could not be carried out."""
    parser = argparse.ArgumentParser(description="Measure cmapp beside its floors and peers.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}; default: all but the last")
    parser.add_argument("--quick", action="store_true", help="fewer rounds: under 40 s, wider error bars")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results as JSON")
    parser.add_argument("--keys", type=Path, metavar="DIR", help="keys made before: guest/bench, host/bench")
    options = parser.parse_args()
    if unknown := set(options.names) - set(ALL):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    about = machine()
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    begun, rows = time.monotonic(), []
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="cmapp-bench-"))
        stack.enter_context(nobody_left())
        stage = set_up(stack, Path(folder), options.keys and options.keys.resolve())
        for name in options.names or BENCHMARKS:
            print(f"measuring {name} ...", file=sys.stderr, flush=True)
            rows += run(stage, name, quick=options.quick)
    print(f"\n{draw(rows)}\n\nmeasured in {time.monotonic() - begun:.0f} s")
    if options.json:
        results = {"machine": about, "rows": [row.plain() for row in rows]}
        options.json.write_text(json.dumps(results, indent=2) + "\n")
    return int(any(row.how.startswith("failed") for row in rows))


def run(stage: Stage, name: str, *, quick: bool) -> list[Row]:
    """Return the rows of one benchmark, or one that says why it could not be carried out: others go on."""
    try:
        return ALL[name](stage, quick=quick)
    except (BenchError, OSError) as error:
        return [failed(name, " ".join(str(error).split()))]


def machine() -> dict[str, Any]:
    """Return what the numbers depend on."""
    model = "unknown"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), model)
    return {
        "processors": f"{os.cpu_count()} x {model}",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()} ({sys.executable})",
        "openssl": ssl.OPENSSL_VERSION,
        "load before": os.getloadavg()[0],
    }


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BenchError as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
