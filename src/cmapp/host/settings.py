"""What cmappmgr can be told: every setting with its option and its default, in the order of the manual.

One declaration serves the command line, the file and the help. The invariant: each setting is checked by itself
here; what several of them mean together is for task.py.
"""

from __future__ import annotations

import sys

from cmapp.core import checks, values
from cmapp.core.application import Application
from cmapp.core.options import Option, duration
from cmapp.core.outcome import signal_name
from cmapp.core.patience import Patience
from cmapp.core.record import field
from cmapp.core.rules import OnExisting, OrphanAction
from cmapp.host.values import OutputTo, halt
from cmapp.host.values import address as address_text

CONFIG_FILE = "/etc/cmappmgr.conf"


class Settings(Application):
    """What a user may set; durations in seconds."""

    keys: str = field(
        values.path,
        default="/etc/cmapp/keys",
        about=Option("DIR", "folder with this host's cert.pem, key.pem and ca.pem"),
    )
    config: str = field(
        values.path,
        default="",
        about=Option(
            "FILE",
            "read the settings from FILE",
            shown=f"default {CONFIG_FILE}, if it is there",
            in_file=False,
        ),
    )
    address: str = field(
        address_text,
        default="",
        about=Option(
            "HOST[:PORT]",
            "connect there; its certificate must bear GUEST all the same",
            shown="default GUEST[:PORT]",
        ),
    )
    name: str = field(
        checks.name,
        default="",
        about=Option("NAME", "what the application is called", shown="default the last part of COMMAND"),
    )
    run_id: str = field(
        values.run_id,
        default="",
        about=Option("UUID", "the identity of the run, to return to it", shown="default a new one", in_file=False),
    )
    resume: bool = field(
        checks.flag,
        default=False,
        about=Option(
            None, "launch nothing: return to --run-id, or tell how it ended", shown="default off", in_file=False
        ),
    )
    on_existing: OnExisting = field(
        checks.one_of(OnExisting),
        default=OnExisting.REPLACE,
        about=Option("HOW", "replace, attach or refuse: what to do with a run of that name", shown="default replace"),
    )
    takeover: bool = field(
        checks.flag,
        default=False,
        about=Option(None, "push another manager of it aside, even one that answers", shown="default off"),
    )
    poll_interval: float = field(
        values.interval,
        default=5.0,
        about=Option("DURATION", "time from a report to the next poll", shown="default 5s"),
    )
    poll_timeout: float = field(
        values.interval,
        default=10.0,
        about=Option("DURATION", "time in which a poll is answered", shown="default 10s"),
    )
    connect_timeout: float = field(
        values.interval,
        default=60.0,
        about=Option("DURATION", "how long a guest is tried that cannot be reached", shown="default 60s"),
    )
    link_timeout: float = field(
        duration,
        default=30.0,
        about=Option("DURATION", "how long to come back over a lost link", shown="default 30s"),
    )
    domain: str = field(
        checks.text,
        default="",
        about=Option(
            "DOMAIN", "ask libvirt about DOMAIN before the guest is given up", shown="default nobody is asked"
        ),
    )
    second_opinion: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "ask COMMAND on this host instead", shown="default nobody is asked"),
    )
    pause_timeout: float = field(
        duration,
        default=600.0,
        about=Option("DURATION", "how much longer to wait for a guest that is said to be paused", shown="default 10m"),
    )
    orphan_timeout: float = field(
        duration,
        default=60.0,
        about=Option("DURATION", "how long the application goes on without a manager", shown="default 60s"),
    )
    orphan_action: OrphanAction = field(
        checks.one_of(OrphanAction),
        default=OrphanAction.STOP,
        about=Option("ACTION", "stop or keep: what becomes of it then", shown="default stop"),
    )
    detach_on_signal: int | None = field(
        halt,
        default=None,
        about=Option("SIGNAL", "TERM, INT or HUP leaves it running, as SIGUSR1 does", shown="default only SIGUSR1"),
    )
    output: OutputTo = field(
        checks.one_of(OutputTo),
        default=OutputTo.NONE,
        about=Option("WHERE", "none, log or stdout: where the application's output goes", shown="default none"),
    )
    log_file: str = field(
        values.path,
        default="",
        about=Option("FILE", "append the package log to FILE", shown="default standard error"),
    )
    syslog: bool = field(checks.flag, default=True, about=Option(None, "log to syslog too", shown="default --syslog"))
    result: str = field(
        values.path, default="", about=Option("FILE", "write the outcome to FILE as JSON", shown="default nowhere")
    )
    on_end: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "start COMMAND on this host at an end that nobody asked for", shown="default none"),
    )
    allow_tls12: bool = field(
        checks.flag, default=False, about=Option(None, "speak TLS 1.2 too", shown="default only TLS 1.3")
    )
    verbose: bool = field(
        checks.flag,
        default=False,
        about=Option(None, "log every attempt, poll and report", shown="default off"),
    )

    @property
    def patience(self) -> Patience:
        """How long to wait for what."""
        asks = bool(self.whom_to_ask)
        return Patience(
            self.poll_interval,
            self.poll_timeout,
            self.connect_timeout,
            self.stop_timeout,
            self.link_timeout,
            asks,
            self.pause_timeout,
        )

    @property
    def whom_to_ask(self) -> tuple[str, ...]:
        """The command that knows how the guest is, or nothing; about a domain, `cmapp vm state` of our installation."""
        if self.second_opinion or not self.domain:
            return self.second_opinion
        return (sys.executable, "-I", "-m", "cmapp.cli.vmrun", "state", self.domain)

    @property
    def stop_words(self) -> str:
        """What asks the application to stop: its command, and its signal's name."""
        before = f"{self.stop_command[0]}, " if self.stop_command else ""
        if self.unit:
            return f"{before}a stop by systemd"
        return f"{before}SIG{signal_name(self.stop_signal)}"
