"""What settings of cmappmgr alone may hold; how an application is run is said by those of core/values.py.

A check raises ValueError with the end of a sentence that begins with the setting's name.
"""

from __future__ import annotations

import enum

from cmapp.core import checks
from cmapp.core.values import signal
from cmapp.errors import SettingsError
from cmapp.net.address import parse_address

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HALTS = (15, 2, 1)  # TERM, INT, HUP: what asks for a stop


class OutputTo(enum.Enum):
    """Where the application's output goes."""

    NONE = "none"
    LOG = "log"
    STDOUT = "stdout"


def address(value: Any) -> str:
    """Accept an address, with a port or without."""
    try:
        parse_address(checks.text(value))
    except SettingsError:
        raise ValueError("must be an address such as 192.0.2.7, vm1.example.org:5315 or [2001:db8::1]") from None
    return str(value)


def halt(value: Any) -> int:
    """Accept one of the signals that ask for a stop."""
    number = signal(value)
    if number not in HALTS:
        raise ValueError("must be one of TERM, INT and HUP")
    return number
