"""ocf:cmapp:application, as far as it costs nothing: who is called, and the monitor that finds all well.

A monitor looks at this host only: its manager lives, by a lock that the kernel keeps, and then all is well, for the
manager tells the cluster at once when it is not. Everything else is loaded when it is needed. The invariant: a
monitor connects to nobody, and starts nothing but a manager for a run that has lost its own.
"""

from __future__ import annotations

from cmapp.agent.codes import Code
from cmapp.agent.instance import Instance
from cmapp.agent.ocf import Actions, Call, conduct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE = (
    "usage: application start|stop|monitor|migrate_to|migrate_from|validate-all|meta-data|usage; see"
    " ocf_cmapp_application(7)"
)


def main(action: str, environ: Mapping[str, str]) -> int:
    """Carry out `action` as `environ` says, and return the code to exit with."""
    actions: Actions = {"monitor": monitor}
    if action == "stop":
        from cmapp.agent.stopping import stop  # noqa: PLC0415 - each has its own to load

        actions = {"stop": stop}
    elif action != "monitor":
        from cmapp.agent.actions import ACTIONS  # noqa: PLC0415 - the same

        actions = ACTIONS
    return conduct(action, environ, actions, USAGE)


def monitor(call: Call) -> Code:
    """Say how it is, by what can be seen on this host."""
    instance = Instance(call.folder, call.instance)
    if instance.lives:
        return Code.SUCCESS
    if instance.told() is None:
        return Code.NOT_RUNNING
    from cmapp.agent.control import look_closer  # noqa: PLC0415 - which a quiet monitor does not need

    return look_closer(call, instance)
