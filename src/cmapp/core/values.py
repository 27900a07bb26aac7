"""What settings may hold that say how an application is run: alike for cmappmgr and for what a guest defines.

A check meets a command line's words and a file's values alike, and raises ValueError with the end of a sentence
that begins with the setting's name. The invariant: what it returns can be said in a launch.
"""

from __future__ import annotations

from cmapp.core import checks
from cmapp.core.options import duration
from cmapp.core.outcome import signal_number
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.core.rules import ReadyRules

SHORTEST = 0.001  # seconds: what poll(2) can tell apart
SIZES = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
ENDLESS = ("infinity", "unlimited", "-1")


def path(value: Any) -> str:
    """Accept a path."""
    if not checks.text(value):
        raise ValueError("must be a path")
    return str(value)


def folder(value: Any) -> str:
    """Accept an absolute path."""
    if not checks.text(value).startswith("/"):
        raise ValueError("must be an absolute path")
    return str(value)


def interval(value: Any) -> float:
    """Accept a duration that poll(2) can tell from none."""
    seconds = duration(value)
    if seconds < SHORTEST:
        raise ValueError("must be a duration of at least 1ms")
    return seconds


def signal(value: Any) -> int:
    """Accept a signal's name or number."""
    try:
        return signal_number(str(value))
    except ValueError:
        raise ValueError("must be a signal such as TERM, or a number from 1 to 64") from None


def mask(value: Any) -> int:
    """Accept octal digits, or a number."""
    if isinstance(value, str) and value and set(value) <= set("01234567"):
        value = int(value, 8)
    return checks.within(0, 0o777)(value)


def environment(value: Any) -> dict[str, str]:
    """Accept a list of `NAME=VALUE`, the last of a name wins, or a table."""
    return checks.environment(_table(value, "NAME=VALUE"))


def limits(value: Any) -> dict[str, tuple[int, int]]:
    """Accept a list of `NAME=SOFT[:HARD]`, or a table of such limits."""
    return checks.limits({name.lower(): _limit(item) for name, item in _table(value, "NAME=SOFT[:HARD]").items()})


def run_id(value: Any) -> str:
    """Accept a UUID, in upper case too."""
    return checks.uuid(value.lower() if isinstance(value, str) else value)


def tries(value: Any) -> int:
    """Accept a number of tries, as a number or as its digits."""
    return checks.within(1, 1000)(int(value) if isinstance(value, str) and value.isdecimal() else value)


def ready(value: Any) -> str:
    """Accept what says when an application is ready."""
    ready_rules(checks.text(value), 0)
    return str(value)


def ready_rules(text: str, timeout: float) -> ReadyRules:
    """Return the rules that `text` means; raises ValueError."""
    from cmapp.core.readiness import parse_ready  # noqa: PLC0415 - only those pay who ask for it

    try:
        return parse_ready(text, timeout=timeout)
    except SettingsError as error:
        raise ValueError(f"is wrong: {error}") from None


def words(value: Any) -> tuple[str, ...]:
    """Accept a command as for a shell, or a list of its words."""
    if isinstance(value, (list, tuple)):
        return checks.many(checks.text, least=1)(value)
    from cmapp.core.readiness import parse_words  # noqa: PLC0415 - only those pay who ask for it

    try:
        return parse_words(checks.text(value))
    except SettingsError as error:
        raise ValueError(f"is wrong: {error}") from None


def _table(value: Any, form: str) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(isinstance(item, str) and "=" in item[1:] for item in value):
        raise ValueError(f"must be made of {form}")
    return dict(item.split("=", 1) for item in value)


def _limit(value: Any) -> tuple[int, int]:
    if isinstance(value, (list, tuple)):
        if len(value) != len(("soft", "hard")):
            raise ValueError("must be limits of [SOFT, HARD]")
        return _size(value[0]), _size(value[1])
    soft, _, hard = str(value).partition(":")
    return _size(soft), _size(hard or soft)


def _size(value: Any) -> int:
    text = str(value).strip()
    if text in ENDLESS:
        return -1
    number = text.rstrip("KMGT")
    unit = text[len(number) :]
    if isinstance(value, bool) or not (number.isascii() and number.isdecimal()) or unit not in SIZES:
        raise ValueError("must be limits such as nofile=1024, memory=512M:1G or core=infinity")
    return int(number) * SIZES[unit]
