"""ocf:cmapp:vm, as far as it costs nothing: who is called, and the monitor that finds all well.

The machine is watched by a `cmapp vm run` of its own, which hears of each change at once and tells the cluster; it
may die without touching the machine, and another one adopts it. A monitor looks whether it lives, by a lock that the
kernel keeps. The invariant: a monitor starts and stops no machine.
"""

from __future__ import annotations

from cmapp.agent.codes import Code
from cmapp.agent.instance import Instance
from cmapp.agent.ocf import Call, conduct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

USAGE = "usage: vm start|stop|monitor|migrate_to|migrate_from|validate-all|meta-data|usage; see ocf_cmapp_vm(7)"


def main(action: str, environ: Mapping[str, str]) -> int:
    """Carry out `action` as `environ` says, and return the code to exit with."""
    if action == "monitor":
        return conduct(action, environ, {"monitor": monitor}, USAGE)
    from cmapp.agent.vmcontrol import ACTIONS  # noqa: PLC0415 - which a monitor does not need

    return conduct(action, environ, ACTIONS, USAGE)


def monitor(call: Call) -> Code:
    """Say how it is, by what can be seen on this host."""
    instance = Instance(call.folder, call.instance)
    if instance.lives:
        return Code.SUCCESS
    from cmapp.agent.vmcontrol import look_closer  # noqa: PLC0415 - which a quiet monitor does not need

    return look_closer(call, instance)
