"""Which hosts this host's cluster has, as far as Pacemaker can tell at once.

Responsible for asking, never for waiting: the answer is only for a warning. The invariant: where no Pacemaker runs, or
it does not say, there are no hosts, which means that nothing is known and not that none is right.
"""

from __future__ import annotations

import subprocess

LISTING_LIMIT = 5.0  # seconds in which Pacemaker answers


def known_hosts() -> frozenset[str]:
    """Return the hosts of this host's cluster, by the names that it has for them."""
    try:
        listed = subprocess.run(
            ["crm_node", "--list"],  # noqa: S607 - wherever it is installed
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LISTING_LIMIT,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    rows = [line.split() for line in listed.stdout.decode(errors="replace").splitlines()]
    return frozenset(row[1] for row in rows if len(row) > 1 and row[0].isdecimal())
