"""How hypothesis runs here: no deadline anywhere, since a busy machine is no defect, and repeatable in CI.

In CI the examples are derived from the test itself: a change is judged by its own merit and not by the luck
of the day. Whoever runs the tests by hand searches on at random, with what was found kept in .hypothesis.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings

# A conversation of thirty steps is explained for minutes; that it is made as short as can be must do.
PHASES = set(Phase) - {Phase.explain}
BUSY = settings(deadline=None, phases=PHASES, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("hand", BUSY)
settings.register_profile("ci", BUSY, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "hand")
