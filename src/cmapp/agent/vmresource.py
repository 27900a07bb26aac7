"""The parameters of a virtual machine's resource, and the command lines that they make.

A parameter is a setting of `cmapp vm run` by its key, but those that are the agent's own to say, and what a migration
needs. The invariant: what the agent has checked is what `cmapp vm run` reads.
"""

from __future__ import annotations

import importlib.util
import os
import sys

from cmapp.agent.codes import Code
from cmapp.agent.metadata import Parameter, parameters_of
from cmapp.agent.ocf import AgentError, flag
from cmapp.core.options import options_of, settle
from cmapp.core.readiness import parse_words
from cmapp.vm import domain
from cmapp.vm.means import means_of
from cmapp.vm.settings import Settings
from cmapp.vm.state import LIMIT, state_by_command, state_of_domain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.agent.ocf import Call
    from cmapp.core.reading import Reading

OURS = ("alone", "adopt", "result", "on_end")  # settings that the agent says itself
FAILOVERS = ("restart", "migrate")
HOST = "%n"  # what stands for the host that a machine is migrated to
PARAMETERS = (
    Parameter("domain", "the domain, as libvirt calls it, or a name for the commands (default the resource's)"),
    *parameters_of(Settings, but=OURS),
    Parameter("migration_transport", "how libvirt here reaches libvirt there: ssh, tls, tcp and so on", default="ssh"),
    Parameter(
        "migration_host",
        "the host that a machine is migrated to, as it is called there; %n stands for its name in the cluster",
        default=HOST,
    ),
    Parameter(
        "migration_uri",
        "where the machine's memory is sent, such as tcp://%n-fast (default what libvirt there chooses)",
    ),
    Parameter(
        "migration_options",
        "flags of libvirt's, in words separated by blanks, such as auto_converge unsafe (default none)",
    ),
    Parameter(
        "failover",
        "restart or migrate: how it moves when an application in it has just failed; restart has it stopped here and"
        " started there",
        default="restart",
    ),
    Parameter(
        "migrate_command",
        "COMMAND: migrates it alive to the host $CMAPP_TARGET, where commands make the machine (default none)",
    ),
)
_CLUSTER = ("crm_feature_set", "trace_ra", "trace_dir", "trace_file")  # what Pacemaker adds by itself


class Machine:
    """What the cluster says of a virtual machine."""

    def __init__(self, call: Call) -> None:
        """Raises AgentError or SettingsError for parameters that cannot be used."""
        given = call.given
        table = options_of(Settings)
        for key in OURS:
            if key in given:
                raise AgentError(Code.CONFIGURED, f"{key} is the agent's own to say: take the parameter away")
        self.given = {
            key: flag(text) if table[key].metavar is None else text for key, text in given.items() if key in table
        }
        self.settings: Settings = settle(Settings, ("the parameters", self.given))
        self.by_commands = bool(self.settings.state_command)
        self.name = given.get("domain", call.instance if self.by_commands else "")
        if not self.name:
            raise AgentError(Code.CONFIGURED, "the parameter domain is missing: give the domain, as libvirt calls it")
        if not self.by_commands and importlib.util.find_spec("libvirt") is None:
            raise AgentError(Code.INSTALLED, domain.LACKING)
        means_of(self.name, self.settings)
        self.migrate_command = parse_words(given["migrate_command"]) if "migrate_command" in given else ()
        self.failover = given.get("failover", FAILOVERS[0])
        if self.failover not in FAILOVERS:
            raise AgentError(Code.CONFIGURED, f"failover must be {' or '.join(FAILOVERS)}, not {self.failover!r}")
        self._migration = {key: text for key, text in given.items() if key.startswith("migration_")}
        self.unknown = sorted(given.keys() - table.keys() - {item.name for item in PARAMETERS} - {*_CLUSTER})

    def state(self) -> Reading:
        """Return how it is on this host."""
        if self.by_commands:
            return state_by_command(self.settings.state_command, 2 * LIMIT, self.name)
        return state_of_domain(self.name, self.settings.uri)

    def command(self, verb: str, *more: str) -> list[str]:
        """Return the command line of `cmapp vm VERB`, which needs no more than the daemons do."""
        words = [sys.executable, "-I", "-m", "cmapp.cli.vmrun", verb]
        for key, value in self.given.items():
            option = "--" + key.replace("_", "-")
            if not isinstance(value, bool):
                words.append(f"{option}={value}")
            elif value != Settings.fields()[key].default:
                words.append(option if value else option.replace("--", "--no-", 1))
        return [*words, *more, self.name]

    def migration(self, target: str) -> tuple[list[str], dict[str, str]]:
        """Return the command that migrates it to the host `target`, and its environment; raises AgentError."""
        if self.by_commands:
            if not self.migrate_command:
                raise AgentError(Code.GENERIC, "it cannot be migrated: there is no migrate_command")
            return list(self.migrate_command), {"CMAPP_TARGET": target, "CMAPP_DOMAIN": self.name}
        there = self._migration.get("migration_host", HOST).replace(HOST, target)
        driver, _, path = self.settings.uri.partition("://")
        transport = self._migration.get("migration_transport", "ssh")
        uri = f"{driver.partition('+')[0]}+{transport}://{there}/{path.lstrip('/')}"
        memory = self._migration.get("migration_uri", "").replace(HOST, target)
        options = self._migration.get("migration_options", "")
        return domain.argv("migrate", self.settings.uri, self.name, uri, memory, options), dict(os.environ)
