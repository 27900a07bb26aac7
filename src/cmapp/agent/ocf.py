"""How Pacemaker calls an agent, and what it hears: the environment in, a code and one line out.

An agent is a function from a `Call` to a `Code` for each action. The invariant: whatever goes wrong is one plain
sentence, as `ocf-exit-reason` on standard error, where `crm_mon` shows it; and it is told to the package log too, as
far as there is one.
"""

from __future__ import annotations

import os

from cmapp.agent.codes import Code
from cmapp.errors import CmappError, SettingsError, internal_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.host.journal import Journal

__all__ = ["FOLDER", "Actions", "AgentError", "Call", "Code", "conduct", "say"]

FOLDER = "/run/resource-agents"
PREFIX = "cmapp-"  # of a resource's folder
LOCK = "lock"  # the file in it that is empty where nothing is there
STDOUT, STDERR = 1, 2
_PARAMETER, _META = "OCF_RESKEY_", "OCF_RESKEY_CRM_meta_"
_TRUE = ("true", "yes", "on", "1", "y")
_FALSE = ("false", "no", "off", "0", "n")


class AgentError(CmappError):
    """An action cannot be done: what is said, and the code that says what the cluster may try."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


class Call:
    """One call of an agent, as its environment says it."""

    def __init__(self, action: str, environ: Mapping[str, str]) -> None:
        self.action = action
        self.instance = environ.get("OCF_RESOURCE_INSTANCE", "")
        self.folder = environ.get("HA_RSCTMP") or FOLDER
        self.environ = environ
        self._journal: Journal | None = None

    @property
    def given(self) -> dict[str, str]:
        """The parameters of the resource that are not empty, by name."""
        return {
            key.removeprefix(_PARAMETER): value
            for key, value in self.environ.items()
            if key.startswith(_PARAMETER) and not key.startswith(_META) and value
        }

    def meta(self, name: str) -> str:
        """Return what the cluster says beside the parameters, such as `interval`, or an empty string."""
        return self.environ.get(_META + name, "")

    @property
    def probe(self) -> bool:
        """Whether the cluster only wants to know what is here."""
        return self.action == "monitor" and self.meta("interval") in ("", "0")

    def broken(self) -> Code:
        """Return the code for what can only be a defect or half an installation.

        No host must be fenced for that where nothing was started since it booted; where something was, it may run.
        """
        try:
            touched = os.stat(f"{self.folder}/{PREFIX}{self.instance}/{LOCK}").st_size > 0
        except OSError:
            touched = False
        if touched:
            return Code.GENERIC
        return {"monitor": Code.NOT_RUNNING, "stop": Code.SUCCESS}.get(self.action, Code.INSTALLED)

    @property
    def timeout(self) -> float | None:
        """The seconds after which the cluster ends this call, None if that is not known."""
        given = self.meta("timeout")
        return int(given) / 1000 if given.isdecimal() and int(given) else None

    @property
    def node(self) -> str:
        """What the cluster calls this host."""
        return self.meta("on_node") or os.uname().nodename

    # ---- what is told --------------------------------------------------------------------------------------

    def info(self, text: str) -> None:
        """Tell what everybody wants to know."""
        self._tell("info", "INFO", text)

    def warning(self, text: str) -> None:
        """Tell what may go wrong."""
        self._tell("warning", "WARNING", text)

    def error(self, text: str) -> None:
        """Tell what went wrong, in the words that `crm_mon` shows."""
        self._tell("error", "ERROR", text)
        _say(f"ocf-exit-reason:{text}")

    def _tell(self, kind: str, mark: str, text: str) -> None:
        _say(f"{self.instance or 'cmappagent'}: {mark}: {text}")
        path = self.given.get("log_file", "")
        if self._journal is None and path and self.action not in ("meta-data", "usage", "validate-all"):
            from cmapp.host.journal import SYSLOG_SOCKET, Journal  # noqa: PLC0415 - a quiet monitor need not pay for it

            try:
                self._journal = Journal(path, self.instance, syslog=SYSLOG_SOCKET, tag="cmappagent")
            except SettingsError as error:
                _say(f"{self.instance}: WARNING: {error}")
                return
        if self._journal is not None:
            getattr(self._journal, kind)(text)


Actions = dict[str, "Callable[[Call], Code]"]


def conduct(action: str, environ: Mapping[str, str], actions: Actions, usage: str) -> int:
    """Carry out one action, and return the code to exit with; `usage` is the sentence for an action that is none."""
    call = Call(action, environ)
    if action not in actions:
        _say(usage)
        return Code.SUCCESS if action in ("usage", "help", "--help") else Code.UNIMPLEMENTED
    try:
        return actions[action](call)
    except AgentError as error:
        code, text = error.code, str(error)
    except SettingsError as error:
        code, text = Code.CONFIGURED, str(error)
    except CmappError as error:
        code, text = Code.GENERIC, str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        code, text = Code.GENERIC, f"{action} failed: {where}{error.strerror or error}"
    except Exception as error:  # noqa: BLE001 - a defect of ours is one line too
        code, text = call.broken(), internal_error(error)
    call.error(text)
    return code


def flag(value: str) -> Any:
    """Return what a person means by `yes` or `no`; anything else is returned as it is."""
    return True if value.lower() in _TRUE else False if value.lower() in _FALSE else value


def say(text: str) -> None:
    """Write what was asked for to standard output; raises OSError."""
    data = text.encode()
    while data:
        data = data[os.write(STDOUT, data) :]


def _say(text: str) -> None:
    try:
        os.write(STDERR, f"{text.replace(chr(10), ' ')}\n".encode())
    except OSError:  # nobody listens
        pass
