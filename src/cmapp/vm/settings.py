"""What the guest service can be told: every setting with its option and its default, in the order of the manual.

The command line of `cmapp vm run` and the parameters of the resource agent are both read off this declaration. The
invariant: each setting is checked by itself here; what several of them mean together is for means.py.
"""

from __future__ import annotations

import enum

from cmapp.core import checks, values
from cmapp.core.options import Option, duration
from cmapp.core.record import Record, field
from cmapp.core.vigil import Rules
from cmapp.host.settings import Settings as ManagerSettings
from cmapp.host.values import address as address_text
from cmapp.net.address import parse_guest
from cmapp.vm.state import URI

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEYS = ManagerSettings.fields()["keys"].default


class FaultAction(enum.Enum):
    """What becomes of a machine that is judged to be hung, stalled or not ready."""

    FORCE = "force"
    LEAVE = "leave"


def _guest(value: Any) -> str:
    """Accept a guest's name, with a port or without."""
    parse_guest(checks.text(value))
    return str(value)


class Settings(Record):
    """What a user may set; durations in seconds."""

    uri: str = field(checks.text, default=URI, about=Option("URI", "how libvirt is reached on this host"))
    config: str = field(
        values.folder,
        default="",
        about=Option(
            "FILE", "the domain's XML, to make it from where libvirt has none", shown="default what libvirt has"
        ),
    )
    start_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "start the machine by COMMAND, not by libvirt", shown="default libvirt"),
    )
    stop_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "shut it down by COMMAND; with CMAPP_FORCE=1 at once", shown="default libvirt"),
    )
    state_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "ask COMMAND how it is", shown="default libvirt"),
    )
    guest: str = field(
        _guest,
        default="",
        about=Option(
            "GUEST[:PORT]",
            "the guest, by the name that its server's certificate bears",
            shown="default no heartbeat",
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
    keys: str = field(
        values.path, default=_KEYS, about=Option("DIR", "folder with this host's cert.pem, key.pem and ca.pem")
    )
    start_timeout: float = field(
        values.interval,
        default=180.0,
        about=Option("DURATION", "time until it runs and its server answers", shown="default 3m"),
    )
    stop_timeout: float = field(
        duration,
        default=120.0,
        about=Option("DURATION", "time for an orderly shutdown, then it is forced", shown="default 2m"),
    )
    poll_interval: float = field(
        values.interval,
        default=5.0,
        about=Option("DURATION", "time from an answer of its server to the next question", shown="default 5s"),
    )
    poll_timeout: float = field(
        values.interval,
        default=10.0,
        about=Option("DURATION", "time in which a question is answered", shown="default 10s"),
    )
    link_timeout: float = field(
        duration,
        default=30.0,
        about=Option("DURATION", "how long its server may be silent beyond that", shown="default 30s"),
    )
    stall_timeout: float = field(
        values.interval,
        default=60.0,
        about=Option("DURATION", "how long an I/O error or its watchdog may keep it paused", shown="default 60s"),
    )
    doubt_timeout: float = field(
        values.interval,
        default=300.0,
        about=Option("DURATION", "how long nobody may be able to tell how it is", shown="default 5m"),
    )
    fault_action: FaultAction = field(
        checks.one_of(FaultAction),
        default=FaultAction.FORCE,
        about=Option("ACTION", "force or leave: what becomes of one that is hung or stalled", shown="default force"),
    )
    alone: bool = field(
        checks.flag,
        default=False,
        about=Option(None, "it is sure to run on no other host, so start it", shown="default off"),
    )
    adopt: bool = field(
        checks.flag, default=False, about=Option(None, "watch it if it runs, never start it", shown="default off")
    )
    state_dir: str = field(
        values.folder, default="/run/cmapp", about=Option("DIR", "where it is noted who watches which machine")
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
    verbose: bool = field(checks.flag, default=False, about=Option(None, "log every question", shown="default off"))

    @property
    def silence(self) -> float:
        """The longest time that a hung guest goes unnoticed."""
        return self.poll_interval + self.poll_timeout + self.link_timeout

    @property
    def rules(self) -> Rules:
        """What the vigil goes by."""
        return Rules(
            self.start_timeout,
            self.stop_timeout,
            self.silence,
            self.stall_timeout,
            self.doubt_timeout,
            attended=bool(self.guest),
            alone=self.alone,
            adopt=self.adopt,
            leave=self.fault_action is FaultAction.LEAVE,
        )
