"""Draws the parts of the documentation that follow from code: `python docs/build.py [--check]`.

These are the diagrams of the state machines. A part stands between two comments, `<!-- drawn: NAME -->` and
`<!-- end -->`. With `--check` nothing is written, and pages that differ from what the code draws make the
command fail.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmapp.core import checkup, course, lifecycle, session, vm

if TYPE_CHECKING:
    from collections.abc import Mapping

DOCS = Path(__file__).parent
PART = re.compile(r"(?P<open>^<!-- drawn: (?P<name>\S+) -->\n).*?(?P<close>^<!-- end -->)", re.MULTILINE | re.DOTALL)


def mermaid(table: Mapping[tuple[Any, Any], Any]) -> str:
    """Return the state diagram of a machine, with one arrow for all events that do the same.

    An entry of the table is the next state, or that and the actions, or None for what cannot happen. Of a machine
    with actions, an event that changes nothing and has nothing done is not drawn: it came too late, or too early.
    """
    arrows: dict[tuple[Any, Any, tuple[Any, ...]], list[str]] = defaultdict(list)
    for (state, event), entry in table.items():
        if entry is not None:
            target, actions = entry if isinstance(entry, tuple) else (entry, ())
            if isinstance(entry, tuple) and state is target and not actions:
                continue
            arrows[state, target, actions].append(event.value)
    first = next(iter(table))[0]
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {first.value}"]
    for (state, target, actions), events in arrows.items():
        done = f" / {', '.join(action.value for action in actions)}" if actions else ""
        lines.append(f"    {state.value} --> {target.value}: {', '.join(events)}{done}")
    left = {state for state, target, _ in arrows if state is not target}
    lines += [f"    {state.value} --> [*]" for state in type(first) if state not in left]
    return "\n".join([*lines, "```", ""])


PARTS = {
    "checkup": mermaid(checkup.TABLE),
    "lifecycle": mermaid(lifecycle.TABLE),
    "pursuit": mermaid(course.TABLE),
    "session": mermaid(session.TABLE),
    "vm": mermaid(vm.TABLE),
}


def main() -> int:
    """Redraw, or compare, every page; return the exit code."""
    parser = argparse.ArgumentParser(description="Draw the parts of the documentation that follow from code.")
    parser.add_argument("--check", action="store_true", help="only fail if a page differs from what the code draws")
    check = parser.parse_args().check
    wrong: list[str] = []
    placed: set[str] = set()
    for page in sorted(DOCS.glob("*.md")):
        old = page.read_text()
        new = PART.sub(lambda part: part["open"] + PARTS[part["name"]] + part["close"], old)
        placed |= {part["name"] for part in PART.finditer(old)}
        if new != old and check:
            wrong.append(f"{page}: not what the code draws; ./run docs redraws it")
        elif new != old:
            page.write_text(new)
    wrong += [f"no page has a place for {name}" for name in PARTS if name not in placed]
    print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
