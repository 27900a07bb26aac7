"""The task of a manager: what is to be launched, where, and what the server must be able to do for it.

Responsible for what several settings mean together. The invariant: a task can be said in one `launch`, so what is
wrong with a command line or a configuration file is told before anything is connected.
"""

from __future__ import annotations

import os

from cmapp.core import checks, messages
from cmapp.core.messages import Launch, Refusal
from cmapp.core.outcome import NotStarted, Refused
from cmapp.core.record import Record
from cmapp.core.rules import Kind, OnExisting, OrphanRules
from cmapp.core.unitname import application_name, contradictions
from cmapp.core.wire import encode
from cmapp.errors import LocalProtocolError, SettingsError
from cmapp.host.values import OutputTo
from cmapp.net.address import Address, parse_address, parse_guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmapp.host.settings import Settings

LAUNCH_ID = 2  # after hello
_FOUND = {  # the refusals of a launch that mean that the command never ran, and whether it was found
    Refusal.NOT_FOUND: False,
    Refusal.NOT_EXECUTABLE: True,
    Refusal.NO_SUCH_USER: True,
    Refusal.NO_SUCH_DIRECTORY: True,
    Refusal.NOT_PERMITTED: True,
}


class Task(Record):
    """What to launch and where: `guest` is who must answer, `address` where it is called."""

    guest: Address
    address: Address
    launch: Launch


def task_of(settings: Settings, guest: str, command: Sequence[str], run_id: str) -> Task:
    """Return the task that `guest` and `command` of the command line mean; raises SettingsError."""
    if not (command or settings.unit or settings.name):
        raise SettingsError(
            "there is no command: end the command line with -- COMMAND [ARG...], or give --unit or --name"
        )
    who = parse_guest(guest)
    name = name_of(settings, command)
    try:
        checks.name(name)
    except ValueError as error:
        raise SettingsError(
            f"{name!r}, from the {'unit' if settings.unit else 'command'}, cannot name an application: it {error};"
            " give --name"
        ) from None
    _check_together(settings, command)
    try:
        launch = _launch(settings, name, command, run_id)
        encode(launch)
    except ValueError as error:
        raise SettingsError(f"the command cannot be launched: {error}") from None
    except LocalProtocolError as error:
        raise SettingsError(f"the command and its environment are too long: {error}") from None
    address = parse_address(settings.address, default_port=who.port) if settings.address else who
    return Task(who, address, launch)


def name_of(settings: Settings, command: Sequence[str]) -> str:
    """Return what the application is called, if that can be told: as is said, or as the command or the unit is."""
    if settings.name or not settings.unit:
        return settings.name or "".join(command[:1]).rpartition("/")[2]
    return application_name(settings.unit)


def lacking(launch: Launch, features: Sequence[str]) -> list[str]:
    """Return which features `launch` needs that a server with `features` does not have."""
    attaches = launch.on_existing is OnExisting.ATTACH or launch.takeover
    needs = {
        "attach": attaches,
        "definitions": not (launch.argv or launch.unit),
        "health": launch.health is not None or launch.watchdog is not None,
        "kinds": launch.kind is not Kind.SIMPLE,
        "limits": bool(launch.limits),
        "orphans": launch.orphan != OrphanRules(),
        "readiness": launch.ready is not None,
        "units": bool(launch.unit),
    }
    return [feature for feature, needed in needs.items() if needed and feature not in features]


def meaning_of(refused: messages.Refused) -> NotStarted | Refused:
    """Return what is concluded from a refusal: that the command could not be started, or that we were turned away."""
    if refused.id == LAUNCH_ID and refused.code in _FOUND:
        return NotStarted(_FOUND[refused.code], refused.text)
    return Refused(refused.code, f"{refused.text} ({refused.code})")


def new_run_id() -> str:
    """Return a random UUID, which is version 4."""
    digits = os.urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) % 4]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def _check_together(settings: Settings, command: Sequence[str]) -> None:
    """Refuse settings that contradict each other."""
    if settings.unit:
        _check_unit(settings, command)
    if settings.domain and settings.second_opinion:
        raise SettingsError("--domain and --second-opinion are two answers to one question: give one of them")
    if settings.second_opinion and not settings.second_opinion[0].startswith("/"):
        raise SettingsError(f"--second-opinion: {settings.second_opinion[0]} is no absolute path")
    if settings.on_end and not settings.on_end[0].startswith("/"):
        raise SettingsError(f"--on-end: {settings.on_end[0]} is no absolute path")
    if settings.resume and not settings.run_id:
        raise SettingsError("--resume needs the run to return to: give its --run-id")
    if settings.pid_file and settings.type is not Kind.FORKING:
        raise SettingsError("--pid-file is of use with --type forking only: another type knows its main process")


def _check_unit(settings: Settings, command: Sequence[str]) -> None:
    """Refuse what is said of a unit although its own file says it."""
    found = contradictions({**settings.rules(), "argv": tuple(command)})
    if found:
        named = " and ".join(word if word == "a command" else f"--{word.replace('_', '-')}" for word in found)
        raise SettingsError(
            f"--unit and {named} contradict each other: that is for the unit's own file in the guest to say"
            f" (systemctl edit {settings.unit}, there)"
        )


def _launch(settings: Settings, name: str, command: Sequence[str], run_id: str) -> Launch:
    """Return the launch; raises ValueError if it cannot be said."""
    return Launch(
        LAUNCH_ID,
        name,
        run_id,
        tuple(command),
        **settings.rules(),
        orphan=OrphanRules(settings.orphan_timeout, settings.orphan_action),
        on_existing=settings.on_existing,
        takeover=settings.takeover,
        output=settings.output is not OutputTo.NONE and not settings.unit,  # a unit's goes to the guest's journal
    )
