"""ocf:cmapp:vm: start, stop, migrate, and the closer look of a monitor that has found no `cmapp vm run`.

That process outlives the agent, and says in its result how it ended. As long as a start has not succeeded, the mark
`starting` has its end told to nobody but that start. The invariants: only a start starts the machine, and the cluster
answers for it that it runs nowhere else; a stop succeeds when it is proven that the machine does not run here.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import time

from cmapp.agent.codes import Code
from cmapp.agent.ending import FAILED, LOG, RESULT, STARTING, is_marked, last_words, mark, unmark
from cmapp.agent.failcount import make_even
from cmapp.agent.instance import PREFIX, Instance, wait_for
from cmapp.agent.metadata import Action, metadata
from cmapp.agent.ocf import Actions, AgentError, Call, say
from cmapp.agent.vmresource import PARAMETERS, Machine
from cmapp.agent.watch import Watch
from cmapp.core.reading import Word
from cmapp.errors import CmappError
from cmapp.vm import emulator
from cmapp.vm.errand import Errand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

TITLE = "A virtual machine, watched by cmapp vm run"
ABOUT = (
    "Starts a virtual machine by libvirt or by commands, watches it by a process of its own, and stops it. Its end is"
    " told to the cluster at once; monitors look at this host only, and are a backstop. That libvirt's daemon is away"
    " is no end of the machine.\n\nWith the parameter guest, a start returns when the cmappserver in the machine"
    " answers, and a machine in which nothing answers any more is found to be hung."
)
TIMES = (
    Action("start", 200),
    Action("stop", 180),
    Action("monitor", 30, 10),
    Action("migrate_to", 600),
    Action("migrate_from", 200),
    Action("validate-all", 20),
    Action("meta-data", 5),
)
A_MOMENT = 3.0  # seconds that a monitor gives a process that it has started, to find the machine
MARGIN = 5.0  # seconds before the cluster loses its patience, in which it is told why
YOUNG = 60.0  # seconds for which a failure of an application keeps its machine from being migrated
_HERE = (Word.RUNNING, Word.PAUSED, Word.MIGRATING)
# How `cmapp vm run` says that the machine is not here, and that the cluster has nothing else to mind.
_PROVEN = ("stopped", "shut-down", "crashed", "destroyed", "gone", "absent")
_NOT_RUNNING = ("stopped", "shut-down", "absent", "elsewhere")


def start(call: Call) -> Code:
    """Have the machine run, and return when it does, and its server answers if there is one to answer."""
    machine, instance = Machine(call), Instance(call.folder, call.instance)
    for name in machine.unknown:
        call.warning(f"there is no parameter {name}: it has no effect")
    instance.take_turn()
    if instance.lives and not is_marked(instance, STARTING):
        return Code.SUCCESS
    if (pidfd := instance.signal(signal.SIGUSR1)) is not None:
        wait_for(pidfd)  # nobody has heard whether it was ready: another one finds out
    _begin(call, machine, instance, "--alone")
    return Code.SUCCESS


def stop(call: Call) -> Code:
    """Have the machine shut down in time, then forced, and return when it is proven that it does not run here."""
    machine, instance = Machine(call), Instance(call.folder, call.instance)
    instance.take_turn()
    begun = instance.told() is not None
    pidfd = instance.signal(signal.SIGTERM)
    if pidfd is not None:
        wait_for(pidfd)
    result = _result(instance)
    if begun:
        make_even(call)
    if pidfd is None or result is None or result.get("cause") not in _PROVEN:
        errand = Errand(machine.command("stop"))
        errand.wait()
        if errand.code:
            why = f"{machine.name} could not be stopped, or nobody can prove it: see the package log"
            raise AgentError(Code.GENERIC, why)
    instance.forget()
    unmark(instance, STARTING, RESULT)
    return Code.SUCCESS


def migrate_to(call: Call) -> Code:
    """Migrate the machine alive to another host; it is watched on here if that fails."""
    machine, instance = Machine(call), Instance(call.folder, call.instance)
    target = call.meta("migrate_target")
    if not target:
        raise AgentError(Code.ARGS, "the cluster does not say where it is to be migrated to")
    command, environ = machine.migration(target)
    instance.take_turn()
    if machine.failover == "restart" and (failed := _failed_in(call)):
        raise AgentError(Code.GENERIC, f"{failed} has failed in it, so it is started anew and not migrated")
    if (pidfd := instance.signal(signal.SIGUSR1)) is not None:
        wait_for(pidfd)
    errand = Errand(command, limit=0.0 if call.timeout is None else max(1.0, call.timeout - MARGIN), env=environ)
    said = errand.wait()
    if (machine.by_commands and errand.code == 0) or "done" in said:
        instance.forget()
        call.info(f"{machine.name} was migrated to {target}")
        return Code.SUCCESS
    words = " ".join(said[-1:]).rpartition("\t")[2]  # libvirt's come after what kind of word it is
    why = "it took too long" if errand.late else words or f"exit code {errand.code}"
    _watch(call, machine, instance)
    raise AgentError(Code.GENERIC, f"{machine.name} was not migrated to {target}: {why}")


def migrate_from(call: Call) -> Code:
    """Watch the machine that was migrated to this host; it is not started."""
    machine, instance = Machine(call), Instance(call.folder, call.instance)
    instance.take_turn()
    if instance.lives and not is_marked(instance, STARTING):
        return Code.SUCCESS
    _begin(call, machine, instance, "--adopt")
    return Code.SUCCESS


def look_closer(call: Call, instance: Instance) -> Code:
    """Say how it is where nobody watches it: by what was said at the end, or by a look at the machine itself."""
    instance.take_turn()
    begun = instance.told() is not None
    if instance.lives:
        return Code.SUCCESS
    try:
        return _judge(call, Machine(call), instance, begun=begun)
    except CmappError as error:
        if begun and not isinstance(error, AgentError):  # it may run, whatever is amiss here
            raise AgentError(Code.GENERIC, str(error)) from None
        raise


def _judge(call: Call, machine: Machine, instance: Instance, *, begun: bool) -> Code:
    result = _result(instance) if begun else None
    if result is not None and result.get("cause") != "left":
        call.error(f"{machine.name} {result.get('text')}")
        return Code.NOT_RUNNING if result.get("cause") in _NOT_RUNNING else Code.GENERIC
    reading = machine.state()
    if reading.how is Word.UNKNOWN and not machine.by_commands:
        seen = emulator.look(machine.settings.uri, machine.name)
        if seen.absent:
            return Code.NOT_RUNNING
    if reading.how is Word.UNKNOWN:
        raise AgentError(Code.GENERIC, f"nobody can tell how {machine.name} is: {reading.reason}")
    if reading.how not in _HERE:
        return Code.NOT_RUNNING
    if not call.probe:
        call.warning(f"{machine.name} is {reading.sentence}, but nobody watches it: it is watched again")
        _watch(call, machine, instance)
    return Code.SUCCESS


def validate_all(call: Call) -> Code:
    """Say whether the parameters can be used, and whether this host has what is needed."""
    machine = Machine(call)
    if machine.unknown:
        call.error(f"there is no parameter {', '.join(machine.unknown)}: see ocf_cmapp_vm(7)")
        return Code.CONFIGURED
    if machine.settings.guest and not os.path.exists(f"{machine.settings.keys}/cert.pem"):
        call.error(f"this host has no {machine.settings.keys}/cert.pem: cmapp keys issue makes it")
        return Code.INSTALLED
    if machine.by_commands and not os.access(machine.settings.state_command[0], os.X_OK):
        call.error(f"this host has no {machine.settings.state_command[0]} that can be executed")
        return Code.INSTALLED
    return Code.SUCCESS


def meta_data(_: Call) -> Code:
    """Say what the agent takes and does."""
    say(metadata("vm", TITLE, ABOUT, PARAMETERS, TIMES))
    return Code.SUCCESS


ACTIONS: Actions = {
    "start": start,
    "stop": stop,
    "migrate_to": migrate_to,
    "migrate_from": migrate_from,
    "validate-all": validate_all,
    "meta-data": meta_data,
}

# ---- who watches it ----------------------------------------------------------------------------------------


def _begin(call: Call, machine: Machine, instance: Instance, *more: str) -> None:
    """Have it watched, and return when it is ready; raises AgentError if that fails."""
    unmark(instance, RESULT, LOG)
    mark(instance, STARTING)
    watch = Watch(instance, _command(call, machine, instance, *more), "vm")
    if not watch.until(lambda: watch.ready):
        _explain(machine, instance)
    unmark(instance, STARTING)
    if _result(instance) is not None:  # it has ended since, and whoever was to be told found the mark
        _explain(machine, instance)


def _watch(call: Call, machine: Machine, instance: Instance) -> None:
    """Have a machine that runs watched, and give that a moment to fail."""
    unmark(instance, RESULT, STARTING)
    watch = Watch(instance, _command(call, machine, instance, "--adopt"), "vm")
    watch.until(lambda: watch.ready, A_MOMENT)


def _command(call: Call, machine: Machine, instance: Instance, *more: str) -> list[str]:
    resource, node = shlex.quote(call.instance), shlex.quote(call.node)
    starting = shlex.quote(instance.path(STARTING))
    tell = f"[ -e {starting} ] && exit; exec crm_resource --fail -r {resource} -N {node}"
    words = ("--result", instance.path(RESULT), "--on-end", shlex.join(("/bin/sh", "-c", tell)))
    return machine.command("run", *more, *words)


def _result(instance: Instance) -> dict[str, Any] | None:
    """Return what was said at the end, None if nothing was."""
    try:
        with open(instance.path(RESULT), encoding="utf-8") as file:
            result = json.load(file)
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) else None


def _explain(machine: Machine, instance: Instance) -> NoReturn:
    """Say why what was begun has ended."""
    result = _result(instance)
    if result is None:
        raise AgentError(Code.GENERIC, last_words(instance) or "cmapp vm run ended without a word")
    raise AgentError(Code.GENERIC, f"{machine.name} {result.get('text')}")


def _failed_in(call: Call) -> str:
    """Return the application's resource that has just failed in this machine, "" if none has."""
    try:
        entries = [entry for entry in os.listdir(call.folder) if entry.startswith(PREFIX)]
    except OSError:
        return ""
    for entry in entries:
        try:
            path = f"{call.folder}/{entry}/{FAILED}"
            with open(path, encoding="utf-8") as file:
                if file.read().strip() == call.instance and time.time() - os.stat(path).st_mtime < YOUNG:
                    return entry.removeprefix(PREFIX)
        except OSError:
            pass
    return ""
