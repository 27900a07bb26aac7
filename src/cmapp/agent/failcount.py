"""Failures, as Pacemaker is told of them and counts them: made even, whoever has found one.

A failure that was told from outside, by `crm_resource --fail`, counts twice in Pacemaker 2.1 (seen with Debian's 2.1.5:
once for each of the two entries of its history that it leaves), one that a monitor has found, or a start that failed,
once. So the thresholds of a package are written for two each, and the stop after a failure adds what is missing. The
invariant: an even count is left alone, and so is one that is infinite, or cannot be read.
"""

from __future__ import annotations

import shlex

from cmapp.host.child import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.agent.ocf import Call

SETTLED = 0.2  # seconds from the failure, after which it is surely counted


def failing(resource: str, node: str) -> str:
    """Return the words, for a shell, that tell Pacemaker at once that `resource` has failed on `node`."""
    return f"exec crm_resource --fail -r {shlex.quote(resource)} -N {shlex.quote(node)}"


def evening(resource: str, node: str) -> tuple[str, ...]:
    """Return the command that makes the count of failures of `resource` on `node` even."""
    name = shlex.quote(f"fail-count-{resource}#asyncmon_0")
    where = f"-N {shlex.quote(node)}"
    script = (
        f"exec >/dev/null 2>&1; sleep {SETTLED}; case $(crm_failcount -q -G -r {shlex.quote(resource)} {where}) in"
        f" *[13579]) exec attrd_updater -n {name} {where} -U value++ ;; esac"
    )
    return ("/bin/sh", "-c", script)


def make_even(call: Call) -> None:
    """Start that command, and do not wait for it: a recovery is under way."""
    try:
        spawn(evening(call.instance, call.node))
    except OSError as error:
        call.warning(f"the count of failures cannot be looked at: {error.strerror}")
