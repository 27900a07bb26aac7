"""The machine as a resource of Pacemaker's own agent, ocf:heartbeat:VirtualDomain, beside our applications.

What test_qemu_story.py tells, as far as it is another agent that starts and migrates the machine.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.cluster.figures import BOOT_LIMIT, MISSING, NAME, figures_in

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # seconds; Debian's disk is made if it is not in the cache
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "nothing is missing"),
]


def test_the_stock_agent_may_serve(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Under VirtualDomain both are launched, and a live migration keeps their processes and runs all the same."""
    with figures_in(tmp_path) as figures:
        begun = time.monotonic()
        figures.apply("stock")
        figures.until_on("n1", BOOT_LIMIT)
        launched = time.monotonic() - begun
        assert "VirtualDomain" in figures.on("n1", "crm_resource", "--resource", f"{NAME}-vm", "--query-xml")
        moved = figures.migrate("n1", "n2")
    times = [("package loaded, until machine and applications run, with the stock agent", round(launched, 3))]
    times += [("live migration asked for, until machine and managers were there", round(moved.took, 3))]
    times += [("longest silence of a client's connection that stayed", round(moved.silence, 3))]
    request.node.user_properties += [("log", str(figures.log)), *(("time", one) for one in times)]
