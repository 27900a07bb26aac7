"""The parameters of an application's resource, and the command line of the cmappmgr that they make.

A parameter is a setting of cmappmgr by its key, but those that are the agent's own to say, and a few that are about the
cluster. The invariant: what the agent has checked is what cmappmgr reads, from the parameters and from the host's own
file alike.
"""

from __future__ import annotations

import os
import shlex
import sys

from cmapp.agent.codes import Code
from cmapp.agent.metadata import Parameter, parameters_of
from cmapp.agent.ocf import AgentError
from cmapp.cluster.parameters import value_of
from cmapp.cluster.unreached import Unreached
from cmapp.core.options import options_of, settle
from cmapp.core.readiness import parse_words
from cmapp.errors import SettingsError
from cmapp.host.settings import CONFIG_FILE, Settings
from cmapp.host.task import name_of, task_of
from cmapp.host.values import OutputTo
from cmapp.net.address import parse_address, parse_guest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.agent.ocf import Call
    from cmapp.net.address import Address

OURS = ("run_id", "resume", "result", "on_end", "detach_on_signal")  # settings that the agent says itself
PARAMETERS = (
    Parameter("guest", "GUEST[:PORT]: the guest, by the name that its certificate bears", required=True),
    Parameter("command", "COMMAND: the command to launch and its arguments, quoted as for a shell (default none)"),
    *parameters_of(Settings, but=OURS),
    Parameter("guest_resource", "the resource of the guest itself, which is told when the guest cannot be reached"),
    Parameter(
        "on_unreachable",
        "guest, wait or fail: what to do when the guest cannot be reached any more: fail guest_resource, go on"
        " trying, or fail (default guest with guest_resource, else wait)",
    ),
)
_NO_RUN = "00000000-0000-0000-0000-000000000000"
_CLUSTER = ("crm_feature_set", "trace_ra", "trace_dir", "trace_file")  # what Pacemaker adds by itself


class Resource:
    """What the cluster says of an application."""

    def __init__(self, call: Call) -> None:
        """Raises AgentError or SettingsError for parameters that cannot be used."""
        given = call.given
        if "guest" not in given:
            raise AgentError(Code.CONFIGURED, "the parameter guest is missing: give the name of the guest")
        self.given = {key: text for key, text in given.items() if key in options_of(Settings)}
        for key in OURS:
            if key in self.given:
                raise AgentError(Code.CONFIGURED, f"{key} is the agent's own to say: take the parameter away")
        self.guest = given["guest"]
        self.command = parse_words(given["command"]) if "command" in given else ()
        self.settings: Settings = _settings(self.given)
        self.name = name_of(self.settings, self.command)
        self.guest_resource = given.get("guest_resource", "")
        self.unreached = _unreached(given.get("on_unreachable", ""), self.guest_resource)
        self.unknown = sorted(
            given.keys() - options_of(Settings).keys() - {item.name for item in PARAMETERS} - {*_CLUSTER}
        )
        if self.settings.output is OutputTo.STDOUT or (
            self.settings.output is OutputTo.LOG and not self.settings.log_file
        ):
            raise AgentError(Code.CONFIGURED, "output can only go to a log: give output=log and log_file, or neither")
        task_of(self.settings, self.guest, self.command, _NO_RUN)

    @property
    def addresses(self) -> tuple[Address, Address]:
        """Who the guest is, and where it is called."""
        who = parse_guest(self.guest)
        where = self.settings.address
        return who, parse_address(where, default_port=who.port) if where else who

    def check_host(self) -> None:
        """Raise AgentError unless this host has what is needed, as far as that can be seen at a glance."""
        program()
        for name in ("cert.pem", "key.pem"):
            path = f"{self.settings.keys}/{name}"
            if not os.path.exists(path):
                raise AgentError(Code.INSTALLED, f"this host has no {path}: cmapp keys issue makes it")

    def manager(self, run_id: str, result: str, *more: str, on_end: tuple[str, ...] = ()) -> list[str]:
        """Return the command line of a manager for the run `run_id`, with `more` options."""
        words = [program()]
        for key, text in self.given.items():
            option, value = "--" + key.replace("_", "-"), value_of(key, text)
            if isinstance(value, bool):
                on_by_default = Settings.fields()[key].default  # only such a one can be switched off
                words += [option] if value else [option.replace("--", "--no-", 1)] if on_by_default else []
            else:
                words += [f"{option}={item}" for item in (value if isinstance(value, list) else [value])]
        words += ["--run-id", run_id, "--result", result, *more]
        words += ["--on-end", shlex.join(on_end)] if on_end else []
        words += [] if self.settings.name else ["--name", self.name]
        return [*words, self.guest, "--", *self.command] if self.command else [*words, self.guest]


def program() -> str:
    """Return the path of the cmappmgr of this very installation; raises AgentError if there is none."""
    folders = [os.path.dirname(sys.executable), os.path.dirname(os.path.realpath(sys.argv[0]))]
    for folder in folders:
        path = f"{folder}/cmappmgr"
        if os.access(path, os.X_OK):
            return path
    import sysconfig  # noqa: PLC0415 - slow, and needed only where a system's own Python is used

    path = f"{sysconfig.get_path('scripts')}/cmappmgr"
    if os.access(path, os.X_OK):
        return path
    raise AgentError(Code.INSTALLED, f"this host has no cmappmgr in {', '.join(folders)}: install cmapp again")


def _settings(given: dict[str, str]) -> Any:
    """Return the settings that cmappmgr will have."""
    file = given.get("config") or CONFIG_FILE
    return settle(
        Settings,
        (file, _table(file, required="config" in given)),
        ("the parameters", {key: value_of(key, text) for key, text in given.items()}),
    )


def _table(path: str, *, required: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            import tomllib  # noqa: PLC0415 - most hosts have no such file

            return tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise AgentError(Code.INSTALLED, f"this host has no configuration {path}") from None
        return {}
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: the configuration cannot be read: {error}") from None


def _unreached(text: str, guest_resource: str) -> Unreached:
    if not text:
        return Unreached.GUEST if guest_resource else Unreached.WAIT
    try:
        what = Unreached(text)
    except ValueError:
        raise SettingsError(f"on_unreachable must be one of guest, wait and fail, not {text!r}") from None
    if what is Unreached.GUEST and not guest_resource:
        raise SettingsError("on_unreachable=guest needs guest_resource, the guest's own resource")
    return what
