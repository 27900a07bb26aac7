"""What cmappmgr is to do: every setting with its option and its default, and the task that they make.

The invariant: what passes here can be said in one `launch`, so that what is wrong with a command line or a
configuration file is told before anything is connected.
"""

from __future__ import annotations

import enum
import os

from cmapp.core import checks
from cmapp.core.messages import Launch, StopRules
from cmapp.core.options import Option, duration
from cmapp.core.outcome import signal_name, signal_number
from cmapp.core.pursuit import Patience
from cmapp.core.record import Record, field
from cmapp.core.wire import encode
from cmapp.errors import LocalProtocolError, SettingsError
from cmapp.net.address import Address, parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

CONFIG_FILE = "/etc/cmappmgr.conf"
SHORTEST = 0.001  # seconds: what poll(2) can tell apart
LAUNCH_ID = 2  # after hello


class OutputTo(enum.Enum):
    """Where the application's output goes."""

    NONE = "none"
    LOG = "log"
    STDOUT = "stdout"


def _path(value: Any) -> str:
    if not checks.text(value):
        raise ValueError("must be a path")
    return str(value)


def _folder(value: Any) -> str:
    if not checks.text(value).startswith("/"):
        raise ValueError("must be an absolute path")
    return str(value)


def _address(value: Any) -> str:
    try:
        parse_address(checks.text(value))
    except SettingsError:
        raise ValueError("must be an address such as 192.0.2.7, vm1.example.org:5315 or [2001:db8::1]") from None
    return str(value)


def _interval(value: Any) -> float:
    seconds = duration(value)
    if seconds < SHORTEST:
        raise ValueError("must be a duration of at least 1ms")
    return seconds


def _signal(value: Any) -> int:
    try:
        return signal_number(str(value))
    except ValueError:
        raise ValueError("must be a signal such as TERM, or a number from 1 to 64") from None


def _umask(value: Any) -> int:
    if isinstance(value, str) and value and set(value) <= set("01234567"):
        value = int(value, 8)
    return checks.within(0, 0o777)(value)


def _environment(value: Any) -> dict[str, str]:
    """Accept a list of `NAME=VALUE`, the last of a name wins, or a table."""
    if isinstance(value, dict):
        return checks.environment(value)
    if not isinstance(value, list) or not all(isinstance(item, str) and "=" in item[1:] for item in value):
        raise ValueError("must be made of NAME=VALUE")
    return checks.environment(dict(item.split("=", 1) for item in value))


class Settings(Record):
    """What a user may set; durations in seconds."""

    keys: str = field(
        _path,
        default="/etc/cmapp/keys",
        about=Option("DIR", "folder with this host's cert.pem, key.pem and ca.pem"),
    )
    config: str = field(
        _path,
        default="",
        about=Option(
            "FILE",
            "read the settings from FILE",
            shown=f"default {CONFIG_FILE}, if it is there",
            in_file=False,
        ),
    )
    address: str = field(
        _address,
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
    cwd: str = field(_folder, default="/", about=Option("DIR", "run the command in DIR of the guest"))
    env: dict[str, str] = field(
        _environment,
        default={},
        about=Option("NAME=VALUE", "a variable of the command's environment", many=True, shown="default none at all"),
    )
    umask: int = field(
        _umask,
        default=0o022,
        about=Option("OCTAL", "file mode creation mask of the command", shown="default 022"),
    )
    poll_interval: float = field(
        _interval,
        default=5.0,
        about=Option("DURATION", "time from a report to the next poll", shown="default 5s"),
    )
    poll_timeout: float = field(
        _interval,
        default=10.0,
        about=Option("DURATION", "time in which a poll is answered", shown="default 10s"),
    )
    connect_timeout: float = field(
        _interval,
        default=60.0,
        about=Option("DURATION", "how long a guest is tried that cannot be reached", shown="default 60s"),
    )
    stop_timeout: float = field(
        duration,
        default=30.0,
        about=Option("DURATION", "time from the stop signal to SIGKILL", shown="default 30s"),
    )
    stop_signal: int = field(
        _signal,
        default=15,
        about=Option("SIGNAL", "signal that asks the application to stop", shown="default TERM"),
    )
    output: OutputTo = field(
        checks.one_of(OutputTo),
        default=OutputTo.NONE,
        about=Option("WHERE", "none, log or stdout: where the application's output goes", shown="default none"),
    )
    log_file: str = field(
        _path,
        default="",
        about=Option("FILE", "append the package log to FILE", shown="default standard error"),
    )
    syslog: bool = field(checks.flag, default=True, about=Option(None, "log to syslog too", shown="default --syslog"))
    result: str = field(
        _path, default="", about=Option("FILE", "write the outcome to FILE as JSON", shown="default nowhere")
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
        return Patience(self.poll_interval, self.poll_timeout, self.connect_timeout, self.stop_timeout)

    @property
    def stop_words(self) -> str:
        """The stop signal's name."""
        return f"SIG{signal_name(self.stop_signal)}"


class Task(Record):
    """What to launch and where: `guest` is who must answer, `address` where it is called."""

    guest: Address
    address: Address
    launch: Launch


def task_of(settings: Settings, guest: str, command: Sequence[str], run_id: str) -> Task:
    """Return the task that `guest` and `command` of the command line mean; raises SettingsError."""
    if not command:
        raise SettingsError("there is no command: end the command line with -- COMMAND [ARG...]")
    who = parse_address(guest)
    name = settings.name or command[0].rpartition("/")[2]
    try:
        checks.name(name)
    except ValueError as error:
        raise SettingsError(
            f"{name!r}, from the command, cannot name an application: it {error}; give --name"
        ) from None
    try:
        launch = Launch(
            LAUNCH_ID,
            name,
            run_id,
            tuple(command),
            user=settings.user,
            group=settings.group,
            cwd=settings.cwd,
            env=settings.env,
            umask=settings.umask,
            stop=StopRules(settings.stop_signal, settings.stop_timeout),
            output=settings.output is not OutputTo.NONE,
        )
        encode(launch)
    except ValueError as error:
        raise SettingsError(f"the command cannot be launched: {error}") from None
    except LocalProtocolError as error:
        raise SettingsError(f"the command and its environment are too long: {error}") from None
    address = parse_address(settings.address, default_port=who.port) if settings.address else who
    return Task(who, address, launch)


def new_run_id() -> str:
    """Return a random UUID, which is version 4."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
