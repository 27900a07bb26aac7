"""Every setting of cmappserver, each with its option, its default and what it may be."""

from __future__ import annotations

from cmapp.core import checks
from cmapp.core.messages import OUTPUT_CHUNK
from cmapp.core.options import Option, duration, whole
from cmapp.core.policy import Policy, Rule, applications, rules
from cmapp.core.record import Record, field
from cmapp.core.unitname import full_name
from cmapp.errors import SettingsError
from cmapp.net.address import Address, parse_listen_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.core.application import Definition

CONFIG_FILE = "/etc/cmappserver.conf"
LOG_LEVELS = ("error", "warning", "info", "debug")


def _address(value: Any) -> Address:
    try:
        return value if isinstance(value, Address) else parse_listen_address(checks.text(value))
    except SettingsError as error:
        raise ValueError(f"must be an address ({error})") from None


def _addresses(value: Any) -> tuple[Address, ...]:
    """Accept one address, or a list of them."""
    addresses: tuple[Address, ...]
    addresses = checks.many(_address, least=1)([value] if isinstance(value, str) else value)
    return addresses


def _kept(value: Any) -> int:
    if whole(value) > OUTPUT_CHUNK:  # more could not be told in one answer
        raise ValueError(f"must be at most {OUTPUT_CHUNK} bytes")
    return whole(value)


def _cgroup(value: Any) -> str:
    if value not in ("auto", "none") and not checks.text(value).startswith("/"):
        raise ValueError("must be auto, none or an absolute path")
    return str(value)


def _users(value: Any) -> tuple[str, ...]:
    """Accept one user, or a list of them."""
    users: tuple[str, ...] = checks.many(checks.text, least=1)([value] if isinstance(value, str) else value)
    return users


def _level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise ValueError(f"must be one of {', '.join(LOG_LEVELS)}")
    return str(value)


class Settings(Record):
    """What an administrator may set; durations in seconds, sizes in bytes."""

    config: str | None = field(
        checks.text,
        default=None,
        about=Option(
            "FILE",
            "read the settings from FILE",
            shown=f"default {CONFIG_FILE}, if it is there",
            in_file=False,
        ),
    )
    keys: str = field(
        checks.text,
        default="/etc/cmapp/keys",
        about=Option("DIR", "folder with this guest's cert.pem, key.pem and ca.pem"),
    )
    listen: tuple[Address, ...] = field(
        _addresses,
        default=(parse_listen_address("*"),),
        about=Option("ADDRESS", "address to listen on, may be repeated", many=True, shown="default *:5315"),
    )
    state_dir: str = field(
        checks.text,
        default="/var/lib/cmappserver",
        about=Option("DIR", "folder for the server's own files"),
    )
    log_level: str = field(
        _level, default="info", about=Option("LEVEL", f"least level that is logged: {', '.join(LOG_LEVELS)}")
    )
    check: bool = field(
        checks.flag,
        default=False,
        about=Option(
            None,
            "say what is wrong with the settings and the keys, line by line, and exit",
            shown="",
            in_file=False,
        ),
    )
    as_: str = field(
        checks.text,
        default="",
        about=Option(
            "HOST",
            "with --check: say whether the manager HOST may launch what follows --",
            shown="default not asked",
            in_file=False,
        ),
    )
    name: str = field(
        checks.name,
        default="",
        about=Option(
            "NAME",
            "with --as: as the application NAME",
            shown="default the last part of the command",
            in_file=False,
        ),
    )
    user: str = field(
        checks.text,
        default="",
        about=Option("USER", "with --as: as USER", shown="default none is named", in_file=False),
    )
    unit: str = field(
        full_name,
        default="",
        about=Option("NAME", "with --as: the unit NAME, not a command", shown="default none", in_file=False),
    )
    upgrade: bool = field(
        checks.flag,
        default=False,
        about=Option(
            None,
            "have the server that runs with these settings become the installed version, and exit",
            shown="",
            in_file=False,
        ),
    )
    stop_on_exit: bool = field(
        checks.flag,
        default=False,
        about=Option(
            None,
            "stop the applications when the server is stopped",
            shown="default they run on, for the next server",
        ),
    )
    cgroup: str = field(
        _cgroup,
        default="auto",
        about=Option("WHERE", "auto, none or the folder of a cgroup: where each application gets a cgroup of its own"),
    )
    run_as: tuple[str, ...] = field(
        _users,
        default=(),
        about=Option(
            "USER",
            "user that launches may name where no policy is written, the first one if they name none; * for any",
            many=True,
            shown="default the server's own",
        ),
    )
    max_applications: int = field(
        whole,
        default=1000,
        about=Option("N", "applications that may run at once; a launch beyond is refused"),
    )
    max_connections: int = field(
        whole,
        default=4000,
        about=Option("N", "managers that may be connected at once; one beyond is turned away"),
    )
    max_connections_per_manager: int = field(
        whole,
        default=2000,
        about=Option("N", "connections that one host's certificate may have; one beyond is turned away"),
    )
    max_handshakes: int = field(
        whole,
        default=64,
        about=Option("N", "TLS handshakes that may be under way at once; those beyond wait for their turn"),
    )
    max_handshakes_per_address: int = field(
        whole,
        default=16,
        about=Option("N", "the same of one address; those beyond wait behind each other"),
    )
    handshake_timeout: float = field(
        duration,
        default=10.0,
        about=Option("DURATION", "time in which a connection must prove itself", shown="default 10s"),
    )
    output_keep: int = field(
        _kept,
        default=OUTPUT_CHUNK,
        about=Option("BYTES", f"output that is kept of each stream of an application, at most {OUTPUT_CHUNK}"),
    )
    spool_limit: int = field(
        whole,
        default=1024 * 1024,
        about=Option("BYTES", "output that is kept on disk of each stream, for a manager that is behind or away"),
    )
    receipt_retention: float = field(
        duration,
        default=7 * 86400.0,
        about=Option("DURATION", "how long a receipt is kept after it was acknowledged", shown="default 7d"),
    )
    search_path: str = field(
        checks.text,
        default="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        about=Option("PATH", "where a command without a slash is looked up, if the launch brings no PATH"),
    )
    allow_tls12: bool = field(
        checks.flag, default=False, about=Option(None, "accept TLS 1.2 too", shown="default only TLS 1.3")
    )
    allow: tuple[Rule, ...] = field(rules, default=())
    application: dict[str, Definition] = field(applications, default={})

    def policy(self) -> Policy:
        """Return what managers may do by these settings."""
        return Policy(self.allow, self.application, self.run_as)
