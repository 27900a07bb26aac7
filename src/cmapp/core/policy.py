"""What managers may do in this guest: the guest's own rules have the last word over what a launch asks for.

Rules are tried in their order, and the first that allows a launch as a whole allows it; what no rule allows is
refused. Applications that are defined in the guest bring their own command, user and limits, and a manager launches
them by name. Where no rule is written, every manager of the trusted authority may launch any command, as the users
that the settings name. The invariants: nothing is allowed in part; what a refusal is about is for the guest's log
only; a manager takes over another's run only if it might launch the same itself.
"""

from __future__ import annotations

from cmapp.core import checks
from cmapp.core.application import Definition
from cmapp.core.messages import Launch
from cmapp.core.patterns import REST, CommandPattern, Pattern, any_fits
from cmapp.core.record import Record, field
from cmapp.core.text import printable
from cmapp.core.values import words
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, TypeVar

    R = TypeVar("R", bound=Record)

REFUSED = "refused by policy"
EVERYBODY = "*"
BROUGHT = ("user", "group", "cwd", "env", "umask", "limits")  # what a launch must not bring for what a guest defines
RULES_LIMIT = 1000
APPLICATIONS_LIMIT = 1000
_ANY_RUN = "00000000-0000-0000-0000-000000000000"
_SHOWN = 200  # characters of a command in the log
_TOLD = 1000  # characters of a refusal in the log


def patterns(value: Any) -> tuple[Pattern, ...]:
    """Accept a pattern, or a list of them; kept as patterns."""
    several = [value] if isinstance(value, (str, Pattern)) else value
    return checks.many(lambda item: item if isinstance(item, Pattern) else Pattern(checks.text(item)))(several)


def commands(value: Any) -> tuple[CommandPattern, ...]:
    """Accept patterns of commands, each as for a shell or a list of its words."""
    return checks.many(_command)([value] if isinstance(value, str) else value)


class Rule(Record):
    """What some managers may do. Nothing is allowed that a rule does not name, but for the names of applications.

    `commands` are those that a launch may bring, also to stop and to check the application, `units` the units of
    systemd that it may name; `applications` are those defined in the guest. Of `users` the first is that of a launch
    which names none; no users means the server's own. At most `most` applications of a manager run at
    once. It may see the runs of the managers `see`, and its own.
    """

    managers: tuple[Pattern, ...] = field(patterns)
    name: str = field(checks.text, default="")
    names: tuple[Pattern, ...] = field(patterns, default=(Pattern(EVERYBODY),))
    commands: tuple[CommandPattern, ...] = field(commands, default=())
    units: tuple[Pattern, ...] = field(patterns, default=())
    applications: tuple[Pattern, ...] = field(patterns, default=())
    users: tuple[Pattern, ...] = field(patterns, default=())
    groups: tuple[Pattern, ...] = field(patterns, default=())
    env: tuple[Pattern, ...] = field(patterns, default=())
    most: int | None = field(checks.optional(checks.within(1, 10**9)), default=None)
    see: tuple[Pattern, ...] = field(patterns, default=())


class Allowed(Record):
    """A launch as it is carried out, by which rule, and how many of the manager's may run at once, if limited."""

    launch: Launch
    rule: str
    most: int | None


class Denied(Record):
    """Why a launch is refused, for the guest's log; or for all to know, if there is just no such application."""

    text: str
    unknown: bool = False


class Policy:
    """The rules of a guest and the applications that it defines."""

    def __init__(
        self,
        rules: Sequence[Rule] = (),
        applications: Mapping[str, Definition] | None = None,
        run_as: Sequence[str] = (),
    ) -> None:
        """Without rules, let every manager launch any command as one of `run_as`, the server's own user if empty."""
        self.written = bool(rules)
        self._run_as = tuple(run_as)
        self._applications = {name: item.launch_fields() for name, item in (applications or {}).items()}
        self._rules = tuple(rules) or (_open_rule(run_as),)

    def __str__(self) -> str:
        """Tell in a sentence what holds, for the log."""
        if self.written:
            defined = f"applications that it defines: {len(self._applications)}"
            return f"rules of this guest's policy: {len(self._rules)}, {defined}"
        users = "any user" if EVERYBODY in self._run_as else ", ".join(self._run_as) or "the server's own user only"
        return (
            "no policy is written: every manager of the trusted authority may launch any command, as"
            f" {printable(users)}"
        )

    def decide(self, manager: str, launch: Launch) -> Allowed | Denied:
        """Tell whether `manager` may launch that, and what exactly is launched then."""
        if not (launch.argv or launch.unit or self.written or launch.name in self._applications):
            return Denied(_undefined(launch.name), unknown=True)
        reasons = []
        for number, rule in enumerate(self._rules, 1):
            if not any_fits(rule.managers, manager):
                continue
            answer = self._judged(rule, launch)
            if isinstance(answer, Launch):
                return Allowed(answer, self._title(number, rule), rule.most)
            reasons.append(f"{self._title(number, rule)}: {answer}")
        return Denied(("; ".join(reasons) or "no rule names that manager")[:_TOLD])

    def may_take(self, manager: str, launch: Launch) -> bool:
        """Tell whether `manager` might launch what another manager has, as it runs or as the guest defines it."""
        asked = [launch]
        if launch.name in self._applications:
            asked.append(Launch(launch.id, launch.name, launch.run_id))
        return any(isinstance(self.decide(manager, one), Allowed) for one in asked)

    def sees(self, manager: str, owner: str) -> bool:
        """Tell whether `manager` may see how the runs of `owner` are."""
        if manager == owner:
            return True
        return any(any_fits(rule.managers, manager) and any_fits(rule.see, owner) for rule in self._rules)

    @property
    def users(self) -> frozenset[str] | None:
        """The users that applications may run as, "" for the server's own; None if that may be any."""
        found = {str(table["user"] or "") for table in self._applications.values() if _starts(table)}
        for rule in self._rules:
            if not all(pattern.literal for pattern in rule.users):
                return None
            if rule.commands:
                found |= {pattern.text for pattern in rule.users} or {""}
        return frozenset(found)

    def _title(self, number: int, rule: Rule) -> str:
        if not self.written:
            return "no policy is written"
        return f"rule {number} ({printable(rule.name)})" if rule.name else f"rule {number}"

    def _judged(self, rule: Rule, launch: Launch) -> Launch | str:
        """Return what the rule makes of the launch, or why it does not allow it."""
        name = launch.name
        if not any_fits(rule.names, name):
            return f"it is not for an application called {name}"
        if not (launch.argv or launch.unit):
            return self._defined(rule, launch)
        if launch.unit and not any_fits(rule.units, launch.unit):
            return f"it has no such unit: {launch.unit}"
        for argv in _commands_of(launch):
            if not any(pattern.fits(argv) for pattern in rule.commands):
                return f"it has no such command: {_shown(argv)}"
        return _with_rights(rule, launch)

    def _defined(self, rule: Rule, launch: Launch) -> Launch | str:
        """Return the launch of an application that is defined in the guest."""
        table = self._applications.get(launch.name)
        if table is None:
            return _undefined(launch.name)
        if self.written and not any_fits(rule.applications, launch.name):
            return f"it is not for the application {launch.name} of this guest"
        said = dict(launch.said())
        if extra := [what for what in BROUGHT if what in said]:
            return f"{launch.name} is defined in this guest, and a launch must not bring its own {', '.join(extra)}"
        brought = launch.replace(**{what: item for what, item in _BARE.items() if what in table})
        for argv in _commands_of(brought):
            if not any(pattern.fits(argv) for pattern in rule.commands):
                return f"it has no such command: {_shown(argv)}"
        return launch.replace(**table)


def _undefined(name: str) -> str:
    return f"no application {name} is defined in this guest"


def _open_rule(run_as: Sequence[str]) -> Rule:
    """Return the rule that holds where none is written."""
    users = patterns(list(run_as))
    groups = users if any(pattern.text == EVERYBODY for pattern in users) else ()
    everything = (Pattern("**"),)
    # Whoever may have units started may have anything done as root: only who may be root anyway.
    units = everything if not users or any(pattern.text in (EVERYBODY, "root", "0") for pattern in users) else ()
    return Rule(everything, commands=(CommandPattern([REST]),), units=units, users=users, groups=groups, env=everything)


_BARE: dict[str, Any] = {"stop": Launch.fields()["stop"].default, "ready": None, "health": None}


def _starts(table: Mapping[str, Any]) -> bool:
    """Tell whether the server itself starts anything for an application that is defined so: a unit systemd starts."""
    kept = {name: item for name, item in table.items() if name in ("argv", "stop", "ready", "health")}
    return not table["unit"] or bool(_commands_of(Launch(0, "x", _ANY_RUN, **kept)))


def _with_rights(rule: Rule, launch: Launch) -> Launch | str:
    if launch.unit and not _commands_of(launch):
        return launch  # whom it runs as is for its own file to say
    user = launch.user
    if user is None and rule.users and rule.users[0].text != EVERYBODY:
        if not rule.users[0].literal:
            return f"the launch must name one of its users, {_list(rule.users)}"
        user = rule.users[0].text
    elif user is not None and not any_fits(rule.users, user):
        return f"user {user} is not among its users, {_list(rule.users) or 'which are none but the server itself'}"
    if launch.group is not None and not any_fits(rule.groups, launch.group):
        return f"group {launch.group} is not among its groups, {_list(rule.groups) or 'which are none'}"
    for variable in launch.env:
        if not any_fits(rule.env, variable):
            return f"variable {variable} is not among those of its env, {_list(rule.env) or 'which are none'}"
    return launch.replace(user=user)


def _commands_of(launch: Launch) -> list[tuple[str, ...]]:
    """Return all that the launch would have the server execute."""
    commands = [launch.argv, launch.stop.command]
    commands += [rules.command for rules in (launch.ready, launch.health) if rules is not None]
    return [command for command in commands if command]


def _command(value: Any) -> CommandPattern:
    if isinstance(value, CommandPattern):
        return value
    return CommandPattern(words(value))


def _list(several: Sequence[Pattern]) -> str:
    return ", ".join(pattern.text for pattern in several)


def _shown(argv: Sequence[str]) -> str:
    text = " ".join(argv)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


# ---- as a configuration file has them ------------------------------------------------------------------------


def rules(value: Any) -> tuple[Rule, ...]:
    """Accept the tables `[[allow]]`, or what was made of them; raises SettingsError, which names the rule."""
    if not isinstance(value, (list, tuple)) or len(value) > RULES_LIMIT:
        raise SettingsError(f"allow must be at most {RULES_LIMIT} tables, each under [[allow]]")
    return tuple(_table(Rule, item, f"allow, rule {number}") for number, item in enumerate(value, 1))


def applications(value: Any) -> dict[str, Definition]:
    """Accept the tables `[application.NAME]`, or what was made of them; raises SettingsError, which names it."""
    if not isinstance(value, dict) or len(value) > APPLICATIONS_LIMIT:
        raise SettingsError(f"application must be at most {APPLICATIONS_LIMIT} tables, each under [application.NAME]")
    found: dict[str, Definition] = {}
    for name, item in value.items():
        try:
            found[checks.name(name)] = _table(Definition, item, f"application {name}")
        except ValueError as error:
            raise SettingsError(f"application {name!r}: the name {error}") from None
        if not (found[name].command or found[name].unit):
            raise SettingsError(f"application {name}: there is neither a command nor a unit")
    return found


def _table(kind: type[R], value: Any, title: str) -> R:
    if isinstance(value, kind):
        return value
    if not isinstance(value, dict):
        raise SettingsError(f"{title}: must be a table")
    fields = kind.fields()
    for key in value:
        if key not in fields:
            raise SettingsError(f"{title}: there is no key {key!r}; there are {', '.join(sorted(fields))}")
    try:
        made = kind(**value)
        if isinstance(made, Definition):
            made.launch_fields()
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{title}: {error}") from None
    return made
