"""The command line of a service's cmappmgr, as every cluster manager starts it.

The invariant: cmappmgr reads off it the very settings that the package says, whatever else its host's own file has;
and each word stands for itself: there is no shell, no PATH and no environment where it is started.
"""

from __future__ import annotations

import enum
import shlex

from cmapp.core.outcome import signal_name
from cmapp.host.settings import Settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.cluster.package import Package, Service

PROGRAMS = "/usr/bin"  # the folder that our programs are in on each host
_SIGNALS = ("stop_signal", "detach_on_signal")


def manager_words(package: Package, service: Service, programs: str = PROGRAMS, **also: Any) -> tuple[str, ...]:
    """Return the command line of the cmappmgr of `service`, in the folder `programs`; `also` are settings if not given.

    Settings are given as `Settings` holds them, by their keys.
    """
    words = [f"{programs}/cmappmgr"]
    for key, value in {**also, **service.given}.items():
        words += _option(key, value)
    words.append(package.guest)
    return (*words, "--", *service.command) if service.command else tuple(words)


def vm_words(package: Package, verb: str, programs: str = PROGRAMS, *, alone: bool = False) -> tuple[str, ...]:
    """Return the command line that runs the machine, or stops it; `alone` if it is sure to run on no other host."""
    vm, defaults = package.vm, package.defaults
    said = {key: value for key, value in vm.said() if key in {"uri", "config"}}
    if vm.commands:
        said |= {"start_command": vm.start, "stop_command": vm.stop, "state_command": vm.state}
    said |= {"guest": package.guest, "keys": defaults.keys, "log_file": defaults.log_file}
    said |= {key: getattr(defaults, key) for key in ("address", "allow_tls12") if getattr(defaults, key)}
    said |= {"start_timeout": vm.start_timeout, "stop_timeout": vm.stop_timeout}
    words = [word for key, value in said.items() for word in _option(key, value)]
    words += ["--alone"] if alone else []
    return (f"{programs}/cmapp", "vm", verb, *words, vm.domain or package.name)


def setting_texts(key: str, value: Any) -> tuple[str, ...]:
    """Return what stands for a settled setting on a command line: one text, one of each entry, none for a flag off."""
    if key == "umask":
        return (f"{value:03o}",)
    if value is None or value is False:
        return ()
    if key in _SIGNALS:
        return (signal_name(value),)
    if key == "limit":
        return tuple(f"{name}={soft}:{hard}" for name, (soft, hard) in value.items())
    if isinstance(value, dict):
        return tuple(f"{name}={text}" for name, text in value.items())
    if isinstance(value, enum.Enum):
        return (str(value.value),)
    if isinstance(value, tuple):
        return (shlex.join(value),) if value else ()
    if isinstance(value, float):
        return (_duration(value),)
    return (str(value),) if value != "" else ()


def _duration(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"


def _option(key: str, value: Any) -> list[str]:
    """Return the words that give `value` to the option of `key`."""
    flag = "--" + key.replace("_", "-")
    if not isinstance(value, bool):
        return [f"{flag}={text}" for text in setting_texts(key, value)]
    if Settings.fields()[key].default:  # one that is on by default has a --no- form
        return [flag if value else f"--no-{key.replace('_', '-')}"]
    return [flag] if value else []
