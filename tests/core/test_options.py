"""Settings are declared once, and the nearest source wins."""

from __future__ import annotations

from typing import Any

import pytest

from cmapp.core import checks
from cmapp.core.options import Option, duration, options_of, settle, whole
from cmapp.core.record import Record, field
from cmapp.errors import SettingsError


class Settings(Record):
    """Settings such as the two daemons have."""

    keys: str = field(checks.text, about=Option("DIR", "from where", in_file=False))
    interval: float = field(duration, default=5.0, about=Option("SECONDS", "how often"))
    most: int = field(whole, default=1000, about=Option("N", "how many"))
    internal: str = field(checks.text, default="")


def test_options_are_the_fields_that_have_one() -> None:
    """The command line, the file and the man page see the declared options, in order."""
    options = options_of(Settings)
    assert list(options) == ["keys", "interval", "most"]
    assert (options["keys"].metavar, options["keys"].in_file, options["most"].in_file) == ("DIR", False, True)


def test_last_source_wins() -> None:
    """What stands on the command line wins over the file, the file over the default."""
    file = ("/etc/cmapp.conf", {"interval": "2m", "keys": "/etc/keys", "most": 7})
    line = ("the command line", {"interval": "500ms"})
    assert settle(Settings, file, line) == Settings(interval=0.5, most=7, keys="/etc/keys")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"intervall": 5}, "f: there is no setting 'intervall'; there are internal, interval, keys, most"),
        ({"interval": "often"}, "f: interval must be a duration such as 5s, 500ms or 2m, not 'often'"),
        ({"interval": True}, "f: interval must be a duration such as 5s, 500ms or 2m, not True"),
        ({"most": 0}, "f: most must be a whole number from 1, not 0"),
        ({"keys": 5}, "f: keys must be a string, not 5"),
        ({"keys": "a\nb\0"}, r"f: keys has a NUL or a lone surrogate in it, not 'a\nb\x00'"),
    ],
    ids=["unknown", "no duration", "a flag", "no whole number", "no text", "what would act on a terminal"],
)
def test_refusal_names_source_setting_and_value(given: dict[str, Any], reason: str) -> None:
    """Whoever wrote a wrong setting reads where it stands, which it is, and what may stand there."""
    with pytest.raises(SettingsError) as refusal:
        settle(Settings, ("f", {"keys": "k", **given}))
    assert str(refusal.value) == reason


@pytest.mark.parametrize("text", ["0.05ms", "0.00001", "3650d", "1.1", "0.3ms"])
def test_checked_settings_can_be_checked_again(text: str) -> None:
    """A record of settings checks again what was checked on the way; a tiny duration once failed there."""
    settings = settle(Settings, ("f", {"interval": text, "keys": "k"}))
    assert settings.replace(most=1).interval == settings.interval == duration(text)


@pytest.mark.parametrize(("value", "number"), [(1, 1), ("1", 1), ("030", 30), (10**9, 10**9)], ids=repr)
def test_whole_accepts(value: Any, number: int) -> None:
    """A whole number is given as one, or as its digits."""
    assert whole(value) == number


NO_WHOLE = [0, "0", -1, "-1", 1.0, "1.0", True, "", " 1", "x", None, 10**9 + 1]


@pytest.mark.parametrize("value", NO_WHOLE, ids=repr)
def test_whole_refuses(value: Any) -> None:
    """What is no whole number from 1, or beyond all reason, is refused."""
    with pytest.raises(ValueError, match=r"^must be a whole number from 1$"):
        whole(value)


@pytest.mark.parametrize("value", ["x", None, -1, True, "400000d"], ids=repr)
def test_duration_refuses_as_a_check_does(value: Any) -> None:
    """A check raises ValueError, whatever reads the duration raises."""
    with pytest.raises(ValueError, match=r"^must be a duration such as 5s, 500ms or 2m$"):
        duration(value)
