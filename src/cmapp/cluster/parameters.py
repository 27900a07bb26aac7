"""A setting as the parameter of a Pacemaker resource, and back: one text for each.

The resource agent is given what the package's file says and nothing else, so its defaults stay cmappmgr's own. The
invariant: for each setting that a package can say, settling what `value_of` makes of `text_of` gives the setting again.
"""

from __future__ import annotations

import shlex

from cmapp.cluster.command import setting_texts
from cmapp.core.options import options_of
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_ESCAPED = frozenset("\"'&<>")  # what XML has to write otherwise


def text_of(key: str, value: Any) -> str:
    """Return the parameter that says `value`, a settled value of the setting `key` other than None."""
    if isinstance(value, bool):
        return "true" if value else "false"
    texts = setting_texts(key, value)
    return shlex.join(texts) if isinstance(value, dict) else "".join(texts)


def value_of(key: str, text: str) -> Any:
    """Return what `settle` takes for the setting `key` from a parameter; raises SettingsError if it cannot be read."""
    option = options_of(Settings)[key]
    if option.metavar is None:
        try:
            return _FLAGS[text.lower()]
        except KeyError:
            raise SettingsError(f"{key} must be true or false, not {text!r}") from None
    if not option.many:
        return text
    try:
        return shlex.split(text)
    except ValueError as error:
        raise SettingsError(f"{key} cannot be read as words, each quoted as for a shell: {error}") from None


def check_text(text: str) -> str:
    """Return `text` if Pacemaker keeps it as it is; raises ValueError with the end of a sentence.

    Pacemaker 2.1 turns a line break into a backslash and an n, and a tab into blanks; and once it has met a character
    outside of ASCII it does not escape quotes and brackets any more, so that its own next reader finds broken XML.
    """
    if not text.isprintable():
        raise ValueError(
            "has a line break, a tab or another character that cannot be printed, which Pacemaker does not keep"
        )
    plain = text.isascii()
    tail = "" if plain else text[next(at for at, char in enumerate(text) if not char.isascii()) :]
    if _ESCAPED & set(tail):
        raise ValueError(
            "has a quote, & or an angle bracket after a character outside of ASCII, which Pacemaker does not keep"
        )
    return text
