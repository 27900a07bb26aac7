"""Durations as people write them: `5`, `5s`, `500ms`, `2m`, `1h`. Inside, a duration is a float of seconds."""

from __future__ import annotations

from cmapp.errors import SettingsError

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
FEW = 120  # of a unit, up to which a duration is told in it
LATE = 3.0  # seconds: a clock that is looked at later than that tells of us, who stood still, and judges nobody
LONGEST = 10 * 365 * 86400.0


def parse_duration(text: str | float) -> float:
    """Return the seconds that `text` means, itself if it is a float; raises SettingsError for what is no duration."""
    if isinstance(text, int) and abs(text) > LONGEST:  # Python does not write numbers of thousands of digits
        raise SettingsError(f"a duration may be {LONGEST / 86400:.0f} days at most")
    number = str(text).strip()
    unit = number.lstrip("0123456789.")
    digits = number[: len(number) - len(unit)]
    try:
        seconds = text if isinstance(text, float) and text >= 0 else float(digits) * UNITS[unit.strip()]
    except (ValueError, KeyError):
        raise SettingsError(f"{text!r} is not a duration: write 5, 5s, 500ms, 2m or 1h") from None
    if seconds > LONGEST:
        raise SettingsError(f"{text!r} is too long a duration: at most {LONGEST / 86400:.0f} days")
    return seconds


def format_duration(seconds: float) -> str:
    """Return `seconds` for a log line: exact enough to be compared with a setting, no more."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < FEW:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < FEW:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"
