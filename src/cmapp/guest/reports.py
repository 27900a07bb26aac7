"""How a run is, as a report tells it: what the roster knows, with what is measured now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cmapp.core.lifecycle import State
from cmapp.core.messages import Phase, Report, RunReport
from cmapp.core.wire import encode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cmapp.core.charge import Charge
    from cmapp.guest.launching import AnyExecution

_PHASES = {
    State.STARTING: Phase.STARTING,
    State.READYING: Phase.READYING,
    State.RUNNING: Phase.RUNNING,
    State.STOPPING: Phase.STOPPING,
    State.KILLING: Phase.STOPPING,
    State.CLEARING: Phase.ENDED,
    State.ENDED: Phase.ENDED,
}


def report_of(charge: Charge, execution: AnyExecution | None) -> RunReport:
    """Return how the run is now."""
    run, now = charge.run, time.monotonic()
    measured: dict[str, Any] = {}
    if execution is not None and run.alive:
        used, care = execution.usage(), execution.care
        measured = {**used._asdict(), "health": care.health, "status": care.last_status}
    return RunReport(
        charge.launch.name,
        charge.run_id,
        _PHASES[run.state],
        pid=charge.pid if run.alive else None,
        uptime=run.uptime(now),
        held=run.held,
        ready=run.ready if run.says_ready else None,
        orphaned=None if charge.orphaned is None else max(0.0, now - charge.orphaned),
        **measured,
    )


def page_of(
    charges: Mapping[str, Charge], executions: Mapping[str, AnyExecution], after: str, room: int
) -> tuple[list[RunReport], bool]:
    """Return reports of the runs `charges`, by name from after `after`, and whether there are more.

    What is said of them takes no more than `room` bytes on the wire.
    """
    reports: list[RunReport] = []
    for name in sorted(name for name in charges if name > after):
        report = report_of(charges[name], executions.get(charges[name].run_id))
        room -= len(encode(Report(0, report)))
        if room < 0:
            return reports, True
        reports.append(report)
    return reports, False
