"""Attacks of a manager whose key is good on the runs of another manager, whose run ids and names it has learned.

It hears nothing of them, and changes nothing about them.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from attack.hostile import HELLO, ask, context, launch, secure, shown, what_is

if TYPE_CHECKING:
    from attack.hostile import Target


def others_runs(target: Target) -> Counter[str]:
    """Ask for, hold, acknowledge, poll, stop, replace and attach to a run of another manager."""
    run: dict[str, Any] = {"name": target.name, "run_id": target.run_id, "argv": ["/bin/false"]}
    deeds: dict[str, bytes] = {
        "status": ask("status"),
        "hold": ask("hold", name=target.name),
        "resume": ask("hold", name=target.name, on=False),
        "acknowledge": ask("acknowledge", run_id=target.run_id),
        "poll": ask("poll"),
        "stop": ask("stop"),
        "kill": ask("stop", kill=True),
        "launch the same run": launch(**run),
        "resume the same run": launch(**run, resume=True),
        "attach by name": launch(name=target.name, on_existing="attach"),
        "replace by name": launch(name=target.name),
        "refuse by name": launch(name=target.name, on_existing="refuse"),
        "its run id for another name": launch(run_id=target.run_id),
    }
    outcomes: Counter[str] = Counter()
    for what, line in deeds.items():
        outcomes[f"{what}: {_answer(target, line)}"] += 1
    return outcomes


def _answer(target: Target, line: bytes) -> str:
    try:
        with secure(target, context(target.rogue)) as tls, tls.makefile("rb") as lines:
            tls.sendall(HELLO + line)
            lines.readline()
            message: dict[str, Any] = json.loads(lines.readline() or b'{"type":"nothing"}')
    except OSError as error:
        return what_is(error)
    if message.get("type") == "runs" and (runs := message.get("runs")):
        mine = [run for run in runs if not run["name"].startswith("evil")]
        return f"told of {len(mine)} runs of others" if mine else "said: runs"
    return shown(message)
