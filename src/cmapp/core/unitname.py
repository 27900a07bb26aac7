"""Names of systemd's units: which of them an application may be, and what it is called then.

The invariant: a launch names a unit or brings a command, never both, and says nothing of what the unit's own file in
the guest says: whom it is run as, where, with what environment and limits, and how it is signalled.
"""

from __future__ import annotations

from cmapp.core import checks
from cmapp.core.rules import Kind, StopRules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

SUFFIX = ".service"
LENGTH = 255  # characters, systemd's own bound
CHARS = checks.NAME_CHARS | frozenset(":\\") - frozenset("+")
KINDS = ("automount", "device", "mount", "path", "scope", "slice", "socket", "swap", "target", "timer")
OWN: dict[str, Any] = {  # what the file of a unit says: fields of a launch, and what they are if nothing is said
    "argv": (),
    "user": None,
    "group": None,
    "cwd": "/",
    "env": {},
    "umask": 0o022,
    "limits": {},
    "kind": Kind.SIMPLE,
    "pid_file": "",
    "watchdog": None,
}
_OPTIONS = {"argv": "a command", "limits": "limit", "kind": "type", "watchdog": "watchdog_timeout"}


def unit(value: Any) -> str:
    """Accept the name of a service of systemd's, whole and with its suffix, or "" for none."""
    if value == "":
        return ""
    if not isinstance(value, str) or not value.endswith(SUFFIX) or len(value) > LENGTH:
        raise ValueError(f"must be the name of a unit that ends with {SUFFIX}")
    bare = value.removesuffix(SUFFIX)
    if not bare or not CHARS.issuperset(bare) or bare[0] in ".-@":
        raise ValueError("must be the name of a unit: letters, digits and :_.@-, not starting with . - or @")
    if bare.endswith("@"):
        raise ValueError(f"is a template: name an instance of it, such as {bare}main{SUFFIX}")
    return value


def full_name(value: Any) -> str:
    """Accept what systemctl does: the suffix of a service may be left away."""
    if isinstance(value, str) and value and value.rpartition(".")[2] not in ("service", *KINDS):
        value = f"{value}{SUFFIX}"
    return unit(value)


def application_name(name: str) -> str:
    """Return what an application is called that is this unit: its name without the suffix, made into a legal one."""
    bare = name.removesuffix(SUFFIX)
    return "".join(char if char in checks.NAME_CHARS else "_" for char in bare)[: checks.NAME_LIMIT]


def contradictions(said: Mapping[str, Any]) -> list[str]:
    """Return what is said of a unit although its own file says it, by the names of settings; `said` as in a launch."""
    rules: StopRules = said.get("stop", StopRules())
    found = [_OPTIONS.get(name, name) for name in OWN if said.get(name, OWN[name]) != OWN[name]]
    return [*found, "stop_signal"] if rules.signal != StopRules().signal else found


def refuse_contradictions(name: str, said: Mapping[str, Any]) -> None:
    """Raise ValueError if anything is said of the unit `name` that is for its own file to say."""
    if found := contradictions(said):
        raise ValueError(f"{', '.join(found)} cannot be said of a unit: its own file in the guest, {name}, says that")
