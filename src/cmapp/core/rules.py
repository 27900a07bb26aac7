"""What a launch may ask for beyond the command: how it is made ready, checked, stopped, and left alone.

The invariant: every rule has a default, so that a manager that asks for nothing gets a run by itself.
"""

from __future__ import annotations

import enum

from cmapp.core import checks
from cmapp.core.record import Record, field


class OnExisting(enum.Enum):
    """What a launch does with a run of its name that is there, and has no manager who answers."""

    REPLACE = "replace"
    ATTACH = "attach"
    REFUSE = "refuse"


class OrphanAction(enum.Enum):
    """What becomes of a run whose manager did not return in time."""

    STOP = "stop"
    KEEP = "keep"


class Kind(enum.Enum):
    """How the main process of an application is known: it is what was launched, or what that leaves behind.

    With `notify` it is what was launched until it names another by sd_notify's MAINPID.
    """

    SIMPLE = "simple"
    FORKING = "forking"
    NOTIFY = "notify"


class Probe(enum.Enum):
    """How readiness is found out: the application says so, a port answers, a page is served, a command succeeds."""

    NOTIFY = "notify"
    TCP = "tcp"
    HTTP = "http"
    COMMAND = "command"


class StopRules(Record):
    """How a run is stopped: `command` if there is one, then `signal` to the main process's group, SIGKILL to all.

    SIGKILL comes `timeout` seconds after the stop began; what leaves the group gets the signal when the main
    process is gone.
    """

    signal: int = field(checks.within(1, 64), default=15)
    timeout: float = field(checks.seconds, default=30.0)
    command: tuple[str, ...] = field(checks.many(checks.text), default=())


class OrphanRules(Record):
    """What is done with a run whose manager is lost for `timeout` seconds."""

    timeout: float = field(checks.seconds, default=60.0)
    action: OrphanAction = field(checks.one_of(OrphanAction), default=OrphanAction.STOP)


class ReadyRules(Record):
    """When a run is ready: `target` is what the probe asks, a port or an address; `command` what it runs.

    A run that is not ready `timeout` seconds after its launch is stopped.
    """

    probe: Probe = field(checks.one_of(Probe))
    target: str = field(checks.text, default="")
    command: tuple[str, ...] = field(checks.many(checks.text), default=())
    timeout: float = field(checks.seconds, default=60.0)


class HealthRules(Record):
    """How a ready run is checked: `command` every `interval` seconds, which has `timeout` seconds to exit with 0.

    A run whose check fails `retries` times in a row is stopped.
    """

    command: tuple[str, ...] = field(checks.many(checks.text, least=1))
    interval: float = field(checks.seconds, default=30.0)
    timeout: float = field(checks.seconds, default=10.0)
    retries: int = field(checks.within(1, 1000), default=3)
