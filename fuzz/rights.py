"""Target: the guest's policy, held against an evaluator of its own.

The evaluator reads the rules in the plainest way, by regular expressions and without regard to speed. The invariants:
the two agree on every launch, what was allowed is what was asked for, and no word that a wildcard fits leaves the
folder that the pattern names.
"""

from __future__ import annotations

import itertools
import os
import re
import shlex
from typing import TYPE_CHECKING

from cmapp.core import policy
from cmapp.core.messages import Launch
from cmapp.core.patterns import CommandPattern, Pattern
from cmapp.core.rules import HealthRules, Probe, ReadyRules, StopRules
from cmapp.errors import SettingsError
from fuzz.breach import require, require_plain
from fuzz.draw import Draw

if TYPE_CHECKING:
    from typing import Any

RUN = "01234567-89ab-cdef-0123-456789abcdef"
MANAGERS = ("n1", "n2", "n11", "other", "")
NAMES = ("web", "db", "web1", "w..b")
USERS = ("web", "root", "w*b", "www-data", "", "*")
WORDS = (
    *("/bin/web", "/bin/", "/bin/web/../sh", "/srv/a", "/srv", "/srv/", "/srv/../etc/x", "/srv/a/b", "...", "..", "-c"),
    *("/bin/web\n", "/bin/web\n/x", "web", "", " ", "a b", "/srv/..a", "/srv/a..", "//srv/a", "/srv//a", "*", "?"),
)
PATTERNS = (
    *(
        "/bin/web",
        "/bin/*",
        "/srv/*",
        "/srv/**",
        "/srv/?",
        "**",
        "*",
        "?",
        "***",
        "/srv/*/b",
        "/*/web",
        "-*",
        ".",
        ".?",
    ),
    *("...", "..", "/srv/../*", "/srv/..a*", "w*", "n*", "n?", "web", "", "a*b*c", "*..*", "/srv/*.", "??", "/srv/.*"),
)
COMMANDS = (("...",), ("/bin/web", "..."), ("/bin/*",), ("/srv/**", "..."), ("/bin/web", "-?"), ("**", "**"))
KEYS = ("managers", "name", "names", "commands", "applications", "users", "groups", "env", "most", "see", "x")


def rights(data: bytes) -> None:
    """Decide on launches by rules of any kind, twice; both decisions are the same."""
    draw = Draw(data)
    tables = [_rule(draw) for _ in range(draw.below(4))]
    defined = {"db": {"command": ["/bin/db", "-D"], "user": "db"}} if draw.chance(2) else {}
    run_as = [draw.pick(USERS) for _ in range(draw.below(3))]
    try:
        ours = policy.Policy(policy.rules(tables), policy.applications(defined), run_as)
    except SettingsError as error:
        require_plain(str(error))
        return
    require_plain(str(ours))
    while not draw.done:
        manager = draw.pick(MANAGERS)
        try:
            launch = _launch(draw)
        except ValueError:
            continue  # it cannot be said
        answer = ours.decide(manager, launch)
        expected = _decide(tables, run_as, manager, launch, set(defined))
        if isinstance(answer, policy.Denied):
            require(expected is None, "refused, and a rule allows it", manager, launch, answer.text)
            continue
        require(expected is not None, "allowed, and no rule does", manager, launch, tables)
        user, command = expected or ("", ())
        require((answer.launch.user, answer.launch.argv) == (user, command), "not what was asked for", answer)
        require(answer.launch == launch.replace(user=user, argv=command), "something else was changed", answer.launch)
        other = draw.pick(MANAGERS)
        seen = manager == other or any(
            _any(table.get("managers"), manager) and _any(table.get("see", []), other) for table in tables
        )
        require(ours.sees(manager, other) == seen, "sees what it may not, or not what it may", manager, other)


def pattern(data: bytes) -> None:
    """Hold a word, made up of anything, against a pattern that is: it fits as the plain reading says."""
    draw = Draw(data)
    several = [_joined(draw, PATTERNS) for _ in range(1 + draw.below(3))]
    words = [_joined(draw, WORDS) for _ in range(draw.below(5))]
    for text, word in itertools.product(several, words):
        fits = Pattern(text).fits(word)
        require(fits == _fits(text, word), "it fits, or does not", text, word)
        if fits:
            _stays(text, word)
    require(CommandPattern(several).fits(words) == _command_fits(several, words), "a command fits", several, words)


def _joined(draw: Draw, parts: tuple[str, ...]) -> str:
    return "".join(draw.pick(parts) for _ in range(1 + draw.below(3))) + (draw.text()[:40] if draw.chance(8) else "")


def _rule(draw: Draw) -> dict[str, Any]:
    table: dict[str, Any] = {"managers": draw.pick(("*", "n*", "n1", ["n1", "o?her"], "n?"))}
    for key in KEYS[2:-3]:
        if draw.chance(4):
            table[key] = [draw.pick(PATTERNS) for _ in range(1 + draw.below(3))]
    if draw.below(4):
        table["commands"] = [_words(draw) for _ in range(1 + draw.below(3))]
    if draw.chance(16):
        table[draw.pick(KEYS)] = draw.value()
    return table


def _words(draw: Draw) -> list[str]:
    if draw.below(3):
        return list(draw.pick(COMMANDS))
    return [draw.pick(PATTERNS) for _ in range(1 + draw.below(3))]


def _launch(draw: Draw) -> Launch:
    def command() -> tuple[str, ...]:
        return tuple(_joined(draw, WORDS) if draw.chance(8) else draw.pick(WORDS) for _ in range(draw.below(4)))

    more: dict[str, Any] = {}
    what = draw.byte()
    if what & 1:
        more["user"] = draw.pick(USERS)
    if what & 2:
        more["group"] = draw.pick(USERS)
    if what & 4:
        more["env"] = {draw.pick(("PATH", "LD_PRELOAD", "A", "w")): draw.pick(WORDS)}
    if what & 8:
        more["stop"] = StopRules(command=command())
    if what & 16:
        more["health"] = HealthRules(command() or ("/bin/web",))
    if what & 32:
        more["ready"] = ReadyRules(Probe.COMMAND, command=command())
    return Launch(1, draw.pick(NAMES), RUN, command(), **more)


# ---- the plain reading -----------------------------------------------------------------------------------------


def _fits(text: str, word: str) -> bool:
    """Tell whether a pattern fits, as its description says."""
    if not re.search(r"[*?]", text):
        return text == word
    if len(word) > 4096 or word.count("..") > text.count(".."):  # noqa: PLR2004 - as the manual says
        return False
    parts = re.split(r"(\*{2,}|\*|\?)", text)
    means = {"*": "[^/]*", "?": "[^/]"}
    expression = "".join(means.get(part, ".*" if part.startswith("**") else re.escape(part)) for part in parts if part)
    return re.fullmatch(expression, word, re.DOTALL) is not None


def _command_fits(patterns: list[str], words: list[str] | tuple[str, ...]) -> bool:
    if not words:
        return False
    if patterns[-1] == "...":
        patterns = patterns[:-1]
        words = words[: len(patterns)]
    return len(words) == len(patterns) and all(map(_fits, patterns, words))


def _stays(text: str, word: str) -> None:
    """Raise BreachError if what a wildcard fits is outside of the folder that is written before it."""
    folder = re.split(r"[*?]", text)[0].rpartition("/")[0]
    if text.startswith("/") and not text.startswith("//") and ".." not in text and folder and text != word:
        there = os.path.normpath(word)
        require(there == folder or there.startswith(os.path.normpath(folder)), "it climbs out", text, word)


def _any(several: Any, word: str) -> bool:
    return any(_fits(text, word) for text in ([several] if isinstance(several, str) else several or []))


def _decide(
    tables: list[dict[str, Any]], run_as: list[str], manager: str, launch: Launch, defined: set[str]
) -> tuple[str | None, tuple[str, ...]] | None:
    """Return the user and the command that a launch is carried out with, None if it is refused."""
    if not tables:
        tables = [{"managers": "**", "commands": [["..."]], "users": run_as, "env": "**"}]
        tables[0]["groups"] = run_as if "*" in run_as else []
        tables[0]["applications"] = "**"
    more = [launch.stop.command, launch.ready and launch.ready.command, launch.health and launch.health.command]
    for table in tables:
        if not _any(table["managers"], manager) or not _any(table.get("names", "*"), launch.name):
            continue
        if all(_allowed(table, command) for command in more if command):
            made = _defined(table, launch, defined) if not launch.argv else _brought(table, launch)
            if made is not None:
                return made
    return None


def _allowed(table: dict[str, Any], command: tuple[str, ...]) -> bool:
    several = table.get("commands", [])
    several = [several] if isinstance(several, str) else several
    return any(_command_fits(shlex.split(one) if isinstance(one, str) else list(one), command) for one in several)


def _defined(table: dict[str, Any], launch: Launch, defined: set[str]) -> tuple[str | None, tuple[str, ...]] | None:
    if launch.name not in defined or not _any(table.get("applications"), launch.name):
        return None
    if launch.user is not None or launch.group is not None or launch.env:
        return None
    return "db", ("/bin/db", "-D")


def _brought(table: dict[str, Any], launch: Launch) -> tuple[str | None, tuple[str, ...]] | None:
    users = table.get("users") or []
    users = [users] if isinstance(users, str) else users
    user = launch.user
    if user is None and users and users[0] != "*":
        user = users[0]
        if re.search(r"[*?]", user):
            return None
    elif user is not None and not _any(users, user):
        return None
    if launch.group is not None and not _any(table.get("groups"), launch.group):
        return None
    if not _allowed(table, launch.argv) or not all(_any(table.get("env"), name) for name in launch.env):
        return None
    return user, launch.argv
