"""The guest package: one virtual machine and the applications in it, as one file tells it.

Responsible for what may stand in the file and what it means; reading.py finds out what does stand there. The three
records below are the tables of the file's keys, beside cmappmgr's own settings, which a service may have all the same.
The invariant: each key is checked by itself here; what several mean together is for reading.py (what cannot be) and
for lint.py (what is unwise).
"""

from __future__ import annotations

import math
import re

from cmapp.cluster.unreached import Unreached
from cmapp.core import checks, values
from cmapp.core.options import Option, duration
from cmapp.core.pursuit import KILL_MARGIN
from cmapp.core.record import Record, field
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from cmapp.net.address import parse_guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.net.address import Address

NAME_LIMIT = 39  # characters of a package's name: Serviceguard takes no more
RESTART_LIMIT = 1000  # restarts on the spot that are counted
NEVER, ALWAYS = "none", "unlimited"  # how `service_restart` is written beside a number
AGENTS = ("cmapp", "stock")
WAYS = ("restart", "migrate")
TRANSPORTS = ("ssh", "tls", "tcp", "libssh", "libssh2")  # as libvirt calls them in URIs
HERE = "qemu:///system"  # libvirt's own daemon on the host

# XML ids, names of units and Serviceguard's names all hold it.
_NAME = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def name(value: Any) -> str:
    """Accept the name of a package."""
    if not isinstance(value, str) or len(value) > NAME_LIMIT or not _NAME.fullmatch(value):
        raise ValueError(
            f"must be a name of 1 to {NAME_LIMIT} letters, digits and ._- that begins with a letter"
            " and ends with a letter or a digit"
        )
    return value


def node(value: Any) -> str:
    """Accept the name of a host as the cluster knows it."""
    if not isinstance(value, str) or len(value) > checks.NAME_LIMIT or not _NODE.fullmatch(value):
        raise ValueError("must be a list of the hosts' names in the cluster, such as n1 or host2.example.org")
    return value


def guest(value: Any) -> str:
    """Accept a guest, by the name that its certificate bears, with a port or without."""
    try:
        parse_guest(checks.text(value))
    except SettingsError as error:
        raise ValueError(f"is wrong: {error}") from None
    return str(value)


def restarts(value: Any) -> int | None:
    """Accept how often something is restarted: a number or its digits, `none` for 0, `unlimited` for None."""
    if value is None or value == ALWAYS:
        return None
    text = "0" if value == NEVER else value
    number = int(text) if isinstance(text, str) and text.isdecimal() and len(text) <= len(str(RESTART_LIMIT)) else text
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= RESTART_LIMIT:
        raise ValueError(f"must be {NEVER}, {ALWAYS} or a whole number to {RESTART_LIMIT}")
    return number


def _counted(value: Any) -> int:
    number = restarts(value)
    if number is None:
        raise ValueError(f"must be {NEVER} or a whole number to {RESTART_LIMIT}: a host may be what is wrong")
    return number


def _agent(value: Any) -> str:
    if value not in AGENTS:
        raise ValueError(f"must be {' or '.join(AGENTS)}")
    return str(value)


def _way(value: Any) -> str:
    if value not in WAYS:
        raise ValueError(f"must be {' or '.join(WAYS)}")
    return str(value)


def _transport(value: Any) -> str:
    if value not in TRANSPORTS:
        raise ValueError(f"must be {', '.join(TRANSPORTS[:-1])} or {TRANSPORTS[-1]}")
    return str(value)


def _hosts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not value:
        raise ValueError('must be a list of at least one host, such as ["n1", "n2"]')
    return checks.many(node)(value)


class Head(Record):
    """What stands at the top of the file."""

    name: str = field(
        name, default="", about=Option("NAME", "what the package is called; its resources are NAME-vm and NAME-SERVICE")
    )
    hosts: tuple[str, ...] = field(
        _hosts, default=(), about=Option("LIST", "the hosts that it may run on, in order of preference")
    )
    guest: str = field(
        guest, default="", about=Option("GUEST[:PORT]", "the guest, by the name that its certificate bears")
    )
    log: str = field(
        values.folder, default="", about=Option("FILE", "the package log of all its services", shown="default none")
    )
    keys: str = field(
        values.folder,
        default=Settings.fields()["keys"].default,
        about=Option("DIR", "folder with each host's cert.pem, key.pem and ca.pem"),
    )


class Vm(Record):
    """The virtual machine: a domain of libvirt, or a set of commands `start`, `stop`, `state` (and `migrate_command`).

    Durations in seconds; `line` is where the table begins in the file.
    """

    domain: str = field(
        checks.text, default="", about=Option("NAME", "the domain, as libvirt calls it", shown="default none")
    )
    uri: str = field(checks.text, default=HERE, about=Option("URI", "how libvirt is reached on the host"))
    config: str = field(
        values.folder,
        default="",
        about=Option("FILE", "the domain's XML, the same on each host", shown="default what libvirt has"),
    )
    start: tuple[str, ...] = field(
        values.words, default=(), about=Option("COMMAND", "starts the machine", shown="default none")
    )
    stop: tuple[str, ...] = field(
        values.words, default=(), about=Option("COMMAND", "shuts it down", shown="default none")
    )
    state: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "says in a word how it is", shown="default none"),
    )
    migrate_command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "moves it, alive, to the host $CMAPP_TARGET", shown="default none"),
    )
    agent: str = field(
        _agent,
        default="cmapp",
        about=Option("WHICH", "cmapp (ocf:cmapp:vm) or stock (ocf:heartbeat:VirtualDomain, of a domain only)"),
    )
    start_timeout: float = field(
        duration,
        default=180.0,
        about=Option("DURATION", "time until it runs and its cmappserver answers", shown="default 3m"),
    )
    stop_timeout: float = field(
        duration,
        default=120.0,
        about=Option("DURATION", "time for an orderly shutdown, then it is forced", shown="default 2m"),
    )
    migrate: bool = field(
        checks.flag, default=False, about=Option(None, "whether it may be migrated alive", shown="default false")
    )
    migration_transport: str = field(
        _transport,
        default="ssh",
        about=Option("HOW", "ssh, tls, tcp, libssh or libssh2: how libvirt here reaches libvirt there, to migrate it"),
    )
    failover: str = field(
        _way,
        default="restart",
        about=Option(
            "HOW", "restart or migrate: how it moves when an application was given up, if it may be migrated alive"
        ),
    )
    restart: int = field(
        _counted, default=0, about=Option("NUMBER", "restarts on the spot before it moves", shown="default none")
    )
    line: int = 0

    @property
    def commands(self) -> bool:
        """Whether commands make the machine, not libvirt."""
        return not self.domain


class Rules(Record):
    """What a service's table says beside cmappmgr's settings."""

    command: tuple[str, ...] = field(
        values.words,
        default=(),
        about=Option("COMMAND", "what is launched in the guest", shown="default what the guest defines by that name"),
    )
    service_restart: int | None = field(
        restarts,
        default=0,
        about=Option("NUMBER", "none, unlimited, or how often it is restarted on the spot", shown="default none"),
    )
    service_fail_fast: bool = field(
        checks.flag,
        default=False,
        about=Option(None, "whether its last failure takes the host down at once", shown="default false"),
    )
    on_unreachable: Unreached = field(
        checks.one_of(Unreached),
        default=Unreached.GUEST,
        about=Option(
            "WHAT",
            "guest, wait or fail: what follows, on Pacemaker, when the guest cannot be reached any more",
            shown="default guest",
        ),
    )
    service_halt_timeout: float | None = field(
        checks.optional(duration),
        default=None,
        about=Option(
            "DURATION", "time from the request to halt it to SIGKILL for cmappmgr", shown="default what a halt may take"
        ),
    )


class Service(Record):
    """One application, watched by one cmappmgr.

    `name` is the service's, `settings.name` the application's, which is the same unless the file says otherwise.
    `given` holds the settled settings that the package says, by key, which are those that cmappmgr has to be told:
    the others are its defaults. `restart` None is unlimited. `line` is where its table begins in the file.
    """

    name: str
    settings: Settings
    given: dict[str, Any]
    command: tuple[str, ...] = ()
    unit: str = ""
    restart: int | None = 0
    fail_fast: bool = False
    halt_timeout: float = 0.0
    line: int = 0
    unreached: Unreached = Unreached.GUEST


class Package(Record):
    """A guest package as its file tells it.

    `defaults` are cmappmgr's settings as [settings] has them, with `keys` and `log`; `lines` tells where what stands,
    by its keys from the top, such as ("service", "db", "user").
    """

    name: str
    hosts: tuple[str, ...]
    guest: str
    log: str
    keys: str
    vm: Vm
    services: tuple[Service, ...]
    defaults: Settings
    path: str = ""
    lines: dict[tuple[str, ...], int] = {}  # noqa: RUF012 - a record never changes

    @property
    def address(self) -> Address:
        """The guest's name, as its certificate bears it, and the port of its server."""
        return parse_guest(self.guest)

    def service(self, name: str) -> Service:
        """Return the service of that name; raises SettingsError if there is none."""
        for service in self.services:
            if service.name == name:
                return service
        there = ", ".join(service.name for service in self.services) or "none"
        raise SettingsError(f"{self.path}: there is no service {name!r} in {self.name}; there are {there}")

    def line(self, *keys: str) -> int:
        """Return the line of what stands below `keys`, or of the nearest table above it; 1 if there is none."""
        while keys and keys not in self.lines:
            keys = keys[:-1]
        return self.lines.get(keys, 1)


def halt_longest(settings: Settings) -> float:
    """Return how long a cmappmgr may take to halt, in seconds: with its guest, or with one that does not answer."""
    return math.ceil(max(settings.stop_timeout + KILL_MARGIN, settings.patience.bound))
