"""ocf:cmapp:application: its actions by their names, and what it says of itself."""

from __future__ import annotations

from cmapp.agent.codes import Code
from cmapp.agent.control import migrate_from, migrate_to, start
from cmapp.agent.metadata import Action, metadata
from cmapp.agent.ocf import Actions, AgentError, Call, say
from cmapp.agent.resource import PARAMETERS, Resource
from cmapp.agent.stopping import stop
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys

TITLE = "An application in a virtual machine, watched by cmappmgr"
ABOUT = (
    "Launches an application in a virtual machine through the cmappserver in it, watches it by a cmappmgr of its own,"
    " and stops it. An end of the application is told to the cluster at once; monitors look at this host only, and are"
    " a backstop.\n\nThe resource of the virtual machine itself is another one; this one is to be started after it and"
    " on its host. When the machine is migrated live, the application is handed over from host to host and goes on."
)
TIMES = (  # as the parameters' own defaults need them
    Action("start", 130),
    Action("stop", 90),
    Action("monitor", 20, 10),
    Action("migrate_to", 60),
    Action("migrate_from", 130),
    Action("validate-all", 20),
    Action("meta-data", 5),
)


def validate_all(call: Call) -> Code:
    """Say whether the parameters can be used, and whether this host has what is needed."""
    resource = Resource(call)
    if resource.unknown:
        call.error(f"there is no parameter {', '.join(resource.unknown)}: see ocf_cmapp_application(7)")
        return Code.CONFIGURED
    resource.check_host()
    problems = check_keys(resource.settings.keys, Role.HOST)
    if problems:
        raise AgentError(Code.INSTALLED, problems[0])
    return Code.SUCCESS


def meta_data(_: Call) -> Code:
    """Say what the agent takes and does."""
    say(metadata("application", TITLE, ABOUT, PARAMETERS, TIMES))
    return Code.SUCCESS


ACTIONS: Actions = {
    "start": start,
    "stop": stop,
    "migrate_to": migrate_to,
    "migrate_from": migrate_from,
    "validate-all": validate_all,
    "meta-data": meta_data,
}
