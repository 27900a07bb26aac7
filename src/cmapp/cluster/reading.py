"""Reads the file of a guest package: what it says, and everything that is wrong with it, each with its line.

The invariant: a package is returned only if nothing in its file is wrong, so what a cluster gets has been checked by
the very tables that cmappmgr itself reads its settings by, and each service can be said in a launch.
"""

from __future__ import annotations

import tomllib

from cmapp.cluster.lines import find_lines, line_of_error
from cmapp.cluster.package import HERE, NAME_LIMIT, Head, Package, Rules, Service, Vm, halt_longest
from cmapp.core import checks
from cmapp.core.options import options_of, settle
from cmapp.core.record import Record
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from cmapp.host.task import new_run_id, task_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

NEEDED = ("name", "hosts", "guest")
FILE_LIMIT = 1048576  # bytes of a package's file
COMMANDS = ("start", "stop", "state")  # of a machine that is no domain
VM, SERVICE, SETTINGS = "vm", "service", "settings"  # the tables of the file
_OWN = ("name", "unit", "result", "pid_file")  # settings that two applications cannot share
_PATHS = ("keys", "log_file", "result")  # cmappmgr is started in a folder of the cluster's own


class Complaint(Record):
    """Something about a file: on which line, what, and whether it makes the file useless (or is only unwise)."""

    path: str
    line: int
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        """Say it as compilers do, so that editors find the place."""
        return f"{self.path}:{self.line}: {'error' if self.fatal else 'warning'}: {self.text}"


def read_package(path: str) -> Package:
    """Return the package that the file says; raises SettingsError if anything in it is wrong."""
    package, complaints = examine(path, read_text(path))
    if package is None:
        first = complaints[0]
        more = f" (and {len(complaints) - 1} more: see 'cmapp package check {path}')" if complaints[1:] else ""
        raise SettingsError(f"{path}:{first.line}: {first.text}{more}")
    return package


def read_text(path: str) -> str:
    """Return the text of a package's file; raises SettingsError."""
    try:
        with open(path, "rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except OSError as error:
        raise SettingsError(f"{path}: the package cannot be read: {error.strerror}") from None
    if len(content) > FILE_LIMIT:
        raise SettingsError(f"{path}: is larger than {FILE_LIMIT} bytes, so it is no package")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{path}:{line}: the package is not in UTF-8") from None


def examine(path: str, text: str) -> tuple[Package | None, list[Complaint]]:
    """Return the package that `text`, from the file `path`, says, or None and what is wrong with it."""
    try:
        document = tomllib.loads(text)
    except RecursionError:
        return None, [Complaint(path, 1, "the package is nested too deeply")]
    except ValueError as error:
        return None, [Complaint(path, line_of_error(error, text), f"the package is not valid TOML: {error}")]
    reading = _Reading(path, find_lines(text))
    package = reading.package(document)
    complaints = sorted(reading.complaints, key=lambda complaint: complaint.line)
    return (None if complaints else package), complaints


class _Reading:
    """One look at a document, which complains of whatever it meets."""

    def __init__(self, path: str, lines: dict[tuple[str, ...], int]) -> None:
        self.complaints: list[Complaint] = []
        self._path = path
        self._lines = lines

    def package(self, document: dict[str, Any]) -> Package | None:
        tables = {key: self._table(document, key) for key in (VM, SERVICE, SETTINGS)}
        top = {key: value for key, value in document.items() if key not in tables}
        head = self._record(Head, top, (), needed=NEEDED)
        vm = self._vm(tables[VM]) if isinstance(document.get(VM), dict) else None
        if head is not None and len(set(head.hosts)) < len(head.hosts):
            self._complain(("hosts",), "a host is there twice: its place in the order could be either")
        if VM not in document:
            self._complain((), "there is no [vm]: say which domain it is, or which commands start and stop it")
        if not tables[SERVICE] and document.get(SERVICE, {}) == {}:
            self._complain((SERVICE,), "there is no service: add a [service.NAME] for each application")
        shared = self._settings(tables[SETTINGS], (SETTINGS,), refused=(*_OWN, *Rules.fields()))
        services = list(self._services(tables[SERVICE], head, vm, shared))
        if self.complaints or head is None or vm is None:
            return None
        defaults = settle(Settings, (self._path, _inherited(head, vm, shared)), (self._path, shared))
        known = {key: getattr(head, key) for key in Head.fields()}
        return Package(**known, vm=vm, services=tuple(services), defaults=defaults, path=self._path, lines=self._lines)

    # ---- the tables ----------------------------------------------------------------------------------------

    def _vm(self, table: dict[str, Any]) -> Vm | None:
        vm: Vm | None = self._record(Vm, table, (VM,), line=self._line((VM,)))
        if vm is not None:
            for key, text in _wrong_with_domain(vm) if vm.domain else _wrong_with_commands(vm, table):
                self._complain((VM, key), text)
        return vm

    def _services(
        self, tables: Mapping[str, Any], head: Head | None, vm: Vm | None, shared: Mapping[str, Any]
    ) -> Iterator[Service]:
        named: dict[str, str] = {}
        for name in tables:
            where = (SERVICE, name)
            table = self._table(tables, name, (SERVICE,))
            if text := _wrong_with_name(name):
                self._complain(where, text)
                continue
            rules = self._record(Rules, {key: table[key] for key in Rules.fields() if key in table}, where)
            own = self._settings({key: table[key] for key in table if key not in Rules.fields()}, where)
            if rules is None or head is None or vm is None:
                continue
            if rules.command and own.get("unit"):
                self._complain((*where, "unit"), "a service is a unit or a command, not both: remove one of them")
                continue
            said = {**shared, **own}
            given = {"name": name, **_inherited(head, vm, said), **said}
            called = given["name"]
            if called in named:
                self._complain((*where, "name"), f"the application {called} is that of service {named[called]} too")
            named[called] = name
            service = self._service(name, rules, given, head.guest)
            if service is not None:
                yield service

    def _service(self, name: str, rules: Rules, given: dict[str, Any], guest: str) -> Service | None:
        try:
            settings: Settings = settle(Settings, (self._path, given))
            task_of(settings, guest, rules.command, new_run_id())
        except SettingsError as error:
            self._complain((SERVICE, name), str(error).removeprefix(f"{self._path}: "))
            return None
        order = {key: getattr(settings, key) for key in Settings.fields() if key in given}
        halt = halt_longest(settings) if rules.service_halt_timeout is None else rules.service_halt_timeout
        return Service(
            name,
            settings,
            order,
            rules.command,
            settings.unit,
            rules.service_restart,
            rules.service_fail_fast,
            halt,
            self._line((SERVICE, name)),
            rules.on_unreachable,
        )

    def _settings(
        self, table: Mapping[str, Any], where: tuple[str, ...], refused: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Return the settings of cmappmgr in a table that are allowed, as they were written."""
        options = options_of(Settings)
        allowed = {key: value for key, value in table.items() if key not in refused}
        for key in table.keys() & set(refused):
            self._complain((*where, key), f"{key} is each application's own: move it into its [service.NAME]")
        for key, value in list(allowed.items()):
            if key in options and not options[key].in_file:
                self._complain((*where, key), f"{key} is not for a package: cmappmgr is given it by the cluster alone")
            elif key in _PATHS and isinstance(value, str) and not value.startswith("/"):
                self._complain((*where, key), f"{key} must be an absolute path, not {value!r}")
            elif self._fits(Settings, key, value, where):
                continue
            del allowed[key]
        return allowed

    # ---- keys ----------------------------------------------------------------------------------------------

    def _table(self, above: Mapping[str, Any], key: str, where: tuple[str, ...] = ()) -> dict[str, Any]:
        table = above.get(key, {})
        if isinstance(table, dict):
            return table
        self._complain((*where, key), f"must be a table: write [{'.'.join((*where, key))}]")
        return {}

    def _record(
        self,
        kind: type[Record],
        table: Mapping[str, Any],
        where: tuple[str, ...],
        *,
        needed: Sequence[str] = (),
        line: int = 0,
    ) -> Any:
        """Return the record of `kind` that a table says, None if something in it is wrong or missing."""
        before = len(self.complaints)
        kept = {key: value for key, value in table.items() if self._fits(kind, key, value, where)}
        for key in needed:
            if key not in table:
                self._complain(where, f"there is no {key}: {kind.fields()[key].about.help}")
        if len(self.complaints) > before:
            return None
        record = settle(kind, (self._path, kept))
        return record.replace(line=line) if line else record

    def _fits(self, kind: type[Record], key: str, value: Any, where: tuple[str, ...]) -> bool:
        """Tell whether a value is allowed for a key, and complain if it is not."""
        if key not in kind.fields():
            self._complain((*where, key), f"there is no key {key!r} here; there are {_there(kind, where)}")
            return False
        try:
            settle(kind, ("", {key: value}))
        except SettingsError as error:
            self._complain((*where, key), str(error).removeprefix(": "))
            return False
        return True

    def _line(self, keys: tuple[str, ...]) -> int:
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)

    def _complain(self, keys: tuple[str, ...], text: str) -> None:
        self.complaints.append(Complaint(self._path, self._line(keys), text))


def _wrong_with_name(name: str) -> str:
    """Return why a service cannot be called so, or nothing."""
    if name == VM:
        return f"a service cannot be called {VM}: that is the machine's resource"
    try:
        Head.fields()["name"].check(f"s{name}")
        checks.name(name)
    except ValueError:
        return f"{name!r} cannot name a service: use letters, digits and ._-, at most {NAME_LIMIT - 1} of them"
    return ""


def _wrong_with_domain(vm: Vm) -> Iterator[tuple[str, str]]:
    """Yield the keys of a machine that cannot be as they are, and why."""
    for key in (*COMMANDS, "migrate_command"):
        if getattr(vm, key):
            yield key, "a domain is started and stopped by libvirt: give it or commands, not both"
            return
    if vm.agent == "stock" and not vm.config:
        yield "agent", "the stock agent needs config: the file with the domain's XML, on each host"


def _wrong_with_commands(vm: Vm, table: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the same of a machine that is no domain."""
    missing = [key for key in COMMANDS if not getattr(vm, key)]
    if len(missing) == len(COMMANDS):
        yield "", "says neither which domain the machine is, nor its start, stop and state commands"
        return
    for key in missing:
        yield "", f"there is no {key}: a machine that is no domain needs start, stop and state commands"
    if vm.migrate and not vm.migrate_command:
        yield "migrate", "cannot be: give migrate_command, which moves the machine to $CMAPP_TARGET"
    if vm.agent == "stock":
        yield "agent", "the stock agent knows domains of libvirt only: make it cmapp"
    for key in (*COMMANDS, "migrate_command"):
        words = getattr(vm, key)
        if words and not words[0].startswith("/"):
            yield key, f"{words[0]} is no absolute path, and a cluster has no PATH to find it by"
    for key in ("uri", "config", "migration_transport"):
        if key in table:
            yield key, f"{key} is for a domain of libvirt, and there is none"


def _there(kind: type[Record], where: tuple[str, ...]) -> str:
    """Return the keys that there are in the table `where`, in words."""
    keys = set(kind.fields())
    if kind is Head:
        keys |= {f"[{VM}]", f"[{SERVICE}.NAME]", f"[{SETTINGS}]"}
    elif kind is Settings:
        keys = {key for key, option in options_of(Settings).items() if option.in_file}
        keys = keys | set(Rules.fields()) if where[0] == SERVICE else keys - set(_OWN)
    return ", ".join(sorted(keys))


def _inherited(head: Head, vm: Vm, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that each service has from the package, unless its `own` say otherwise."""
    given: dict[str, Any] = {"keys": head.keys, "log_file": head.log}
    if not own.keys() & {"domain", "second_opinion"}:
        # `cmappmgr --domain` asks the libvirt of its host, and knows of no other.
        given |= {"domain": vm.domain if vm.uri == HERE else "", "second_opinion": vm.state}
    return {key: value for key, value in given.items() if value}
