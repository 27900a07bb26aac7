"""How an application is run, as settings say it: for cmappmgr, and for what a guest defines in its own file.

The keys are the same on both sides. The invariant: what a guest defines for an application is not a manager's to say:
its command, user, group, folder, environment, mask and limits always, the rest where the guest says it.
"""

from __future__ import annotations

from cmapp.core import checks, unitname, values
from cmapp.core.options import Option, duration
from cmapp.core.record import Record, field
from cmapp.core.rules import HealthRules, Kind, Probe, ReadyRules, StopRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Application(Record):
    """How an application is run; durations in seconds."""

    unit: str = field(
        unitname.full_name,
        default="",
        about=Option("NAME", "launch the guest's systemd unit NAME instead of a COMMAND", shown="default none"),
    )
    type: Kind = field(
        checks.one_of(Kind),
        default=Kind.SIMPLE,
        about=Option("TYPE", "simple, forking or notify: which its main process is", shown="default simple"),
    )
    pid_file: str = field(
        values.folder,
        default="",
        about=Option("FILE", "where a forking command leaves its main process's pid", shown="default nowhere"),
    )
    ready: str = field(
        values.ready,
        default="",
        about=Option(
            "SPEC", "notify, tcp:PORT, http:URL or command:COMMAND: when it is ready", shown="default not asked"
        ),
    )
    ready_timeout: float = field(
        duration,
        default=60.0,
        about=Option("DURATION", "time from the launch to being ready", shown="default 60s"),
    )
    health_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "run COMMAND in the guest to check its health", shown="default none"),
    )
    health_interval: float = field(
        values.interval,
        default=30.0,
        about=Option("DURATION", "time from a check of its health to the next", shown="default 30s"),
    )
    health_timeout: float = field(
        values.interval,
        default=10.0,
        about=Option("DURATION", "time that a check of its health may take", shown="default 10s"),
    )
    health_retries: int = field(
        values.tries,
        default=3,
        about=Option("NUMBER", "checks in a row that fail before it is stopped", shown="default 3"),
    )
    watchdog_timeout: float | None = field(
        values.interval,
        default=None,
        about=Option(
            "DURATION", "the longest time between two signs of life by sd_notify", shown="default none expected"
        ),
    )
    user: str | None = field(
        checks.text,
        default=None,
        about=Option("USER", "run the command as USER of the guest", shown="default the server's"),
    )
    group: str | None = field(
        checks.text,
        default=None,
        about=Option("GROUP", "run the command in GROUP of the guest", shown="default USER's"),
    )
    cwd: str = field(values.folder, default="/", about=Option("DIR", "run the command in DIR of the guest"))
    env: dict[str, str] = field(
        values.environment,
        default={},
        about=Option("NAME=VALUE", "a variable of the command's environment", many=True, shown="default none at all"),
    )
    limit: dict[str, tuple[int, int]] = field(
        values.limits,
        default={},
        about=Option(
            "NAME=SOFT[:HARD]", "a resource limit of the application", many=True, shown="default the server's"
        ),
    )
    umask: int = field(
        values.mask,
        default=0o022,
        about=Option("OCTAL", "file mode creation mask of the command", shown="default 022"),
    )
    stop_timeout: float = field(
        duration,
        default=30.0,
        about=Option("DURATION", "time from the stop signal to SIGKILL", shown="default 30s"),
    )
    stop_signal: int = field(
        values.signal,
        default=15,
        about=Option("SIGNAL", "signal that asks the application to stop", shown="default TERM"),
    )
    stop_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "run COMMAND in the guest to stop it, before the signal", shown="default none"),
    )

    def rules(self) -> dict[str, Any]:
        """Return the fields of a launch that these settings make; raises ValueError if they cannot be said."""
        health = self.health_command and HealthRules(
            self.health_command, self.health_interval, self.health_timeout, self.health_retries
        )
        return {
            "unit": self.unit,
            "user": self.user,
            "group": self.group,
            "cwd": self.cwd,
            "env": self.env,
            "umask": self.umask,
            "limits": self.limit,
            "kind": self.type,
            "pid_file": self.pid_file,
            "stop": StopRules(self.stop_signal, self.stop_timeout, self.stop_command),
            "ready": self._ready(),
            "health": health or None,
            "watchdog": self.watchdog_timeout,
        }

    def _ready(self) -> ReadyRules | None:
        """Return the rules of readiness; an application of type notify says so by itself, of a unit systemd does.

        A unit has all the time that its own file gives it to start, unless a time is said.
        """
        if self.ready:
            return values.ready_rules(self.ready, self.ready_timeout)
        timed = self.ready_timeout != type(self).fields()["ready_timeout"].default
        if self.type is Kind.NOTIFY or (self.unit and timed):
            return ReadyRules(Probe.NOTIFY, timeout=self.ready_timeout)
        return None


class Definition(Application):
    """An application that a guest defines: managers launch it by its name, and bring neither command nor unit."""

    command: tuple[str, ...] = field(values.words, default=())

    def launch_fields(self) -> dict[str, Any]:
        """Return the fields of a launch that are not the manager's to say; raises ValueError if they contradict."""
        given = {name.partition("_")[0] for name, _ in self.said()}
        rules = self.rules()
        if self.unit:
            return self._of_unit(rules)
        optional = {"kind": "type", "pid_file": "pid", "stop": "stop", "health": "health", "watchdog": "watchdog"}
        for name, key in optional.items():
            if key not in given:
                del rules[name]
        if rules["ready"] is None:
            del rules["ready"]
        return {"argv": self.command, **rules}

    def _of_unit(self, rules: dict[str, Any]) -> dict[str, Any]:
        """Return what is the guest's to say of a unit: what its file says counts, so none of that can be said here."""
        if self.command:
            raise ValueError("command and unit contradict each other: an application is one of the two")
        unitname.refuse_contradictions(self.unit, rules)
        given = {name.partition("_")[0] for name, _ in self.said()}
        for name in ("stop", "health", "ready"):
            if name not in given:
                del rules[name]
        return {"argv": (), **rules}
