"""ocf:cmapp:application: start, move, and the closer look of a monitor that has found no manager.

The manager of a run is a process of its own that outlives the agent; what it says at its end stands in its result. As
long as a start has not succeeded, the mark `starting` has the end of the run told to nobody but that start. The
invariant: a manager that takes the place of one that was killed launches nothing, so a run that the guest no longer
knows is an unknown end and not a second beginning.
"""

from __future__ import annotations

import shlex
import signal

from cmapp.agent.codes import Code, code_of, code_of_start
from cmapp.agent.ending import (
    FAILED,
    LOG,
    RESULT,
    STARTING,
    is_marked,
    is_told_gone,
    last_words,
    mark,
    result_of,
    unmark,
)
from cmapp.agent.failcount import failing
from cmapp.agent.instance import Instance, wait_for
from cmapp.agent.ocf import AgentError, Call
from cmapp.agent.resource import Resource
from cmapp.agent.watch import Watch
from cmapp.cluster.unreached import Unreached
from cmapp.errors import CmappError
from cmapp.host.task import new_run_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

A_MOMENT = 2.0  # seconds that a monitor gives a manager it has started, to fail
MARGIN = 2.0  # seconds before the cluster loses its patience, in which it is told why


def start(call: Call) -> Code:
    """Have the application run, and return when it is ready."""
    resource, instance = Resource(call), Instance(call.folder, call.instance)
    for name in resource.unknown:
        call.warning(f"there is no parameter {name}: it has no effect")
    resource.check_host()
    instance.take_turn()
    words = instance.told()
    if instance.lives and words and not is_marked(instance, STARTING):
        return Code.SUCCESS
    run_id = new_run_id()
    if words and (pidfd := instance.signal(signal.SIGUSR1)) is not None:
        wait_for(pidfd)  # nobody has heard whether it was ready: another one of the same run is told so
        run_id = words[0]
    return _serve(_begin(call, resource, instance, run_id), instance, run_id)


def migrate_to(call: Call) -> Code:
    """Leave the run to a manager on another host."""
    instance = Instance(call.folder, call.instance)
    instance.take_turn()
    words, pidfd = instance.told(), instance.signal(signal.SIGUSR1)
    if words is None or pidfd is None:
        raise AgentError(Code.GENERIC, "nothing is watched here that could be left to another host")
    if not wait_for(pidfd, None if call.timeout is None else max(0.0, call.timeout - MARGIN)):
        raise AgentError(Code.GENERIC, "the guest does not let the application run without us: see the package log")
    result = result_of(instance, words[0]) or {}
    if result.get("cause") != "detached":
        raise AgentError(code_of_start(result), f"it could not be left: it {result.get('text', 'is gone')}")
    return Code.SUCCESS


def migrate_from(call: Call) -> Code:
    """Watch the run that another host has left to us; one that is not there is not launched anew."""
    resource, instance = Resource(call), Instance(call.folder, call.instance)
    resource.check_host()
    instance.take_turn()
    if instance.lives and not is_marked(instance, STARTING):
        return Code.SUCCESS
    run_id = new_run_id()
    watch = _begin(call, resource, instance, run_id, "--on-existing", "attach")
    if not watch.until(lambda: watch.run_id is not None):
        _explain(instance, run_id)
    if not watch.attached:
        instance.signal(signal.SIGTERM)
        watch.wait()
        if is_told_gone(result_of(instance, run_id)):
            instance.forget()
        raise AgentError(Code.GENERIC, f"{resource.name} did not run any more when it was to be watched from here")
    run_id = watch.run_id or run_id
    instance.note(run_id)
    return _serve(watch, instance, run_id)


def look_closer(call: Call, instance: Instance) -> Code:
    """Say how it is where no manager lives: by what it has said at its end, or by another manager in its place."""
    instance.take_turn()
    words = instance.told()
    if instance.lives:
        return Code.SUCCESS
    if not words:
        return Code.NOT_RUNNING
    try:
        return _judge(call, Resource(call), instance, words[0])
    except CmappError as error:  # whatever it is, something may run, so it is none of the codes for what is amiss here
        raise AgentError(Code.GENERIC, str(error)) from None


def _judge(call: Call, resource: Resource, instance: Instance, run_id: str) -> Code:
    result = result_of(instance, run_id)
    if result is None and is_marked(instance, STARTING):
        raise AgentError(Code.GENERIC, f"it did not start: {last_words(instance) or 'the start was ended'}")
    if result is None:
        call.warning(f"the cmappmgr of run {run_id} is gone without a word: another one takes its place")
        return _replace(call, resource, instance, run_id)
    code = code_of(result, resource.unreached)
    if code is Code.DEGRADED:
        call.warning(f"{resource.name} {result.get('text')}; it is tried again")
        _replace(call, resource, instance, run_id)
    elif result.get("cause") != "detached":
        call.error(f"{resource.name} {result.get('text')}")
    return code


def _replace(call: Call, resource: Resource, instance: Instance, run_id: str) -> Code:
    """Have another manager watch the run, and say what that says at once, if anything."""
    unmark(instance, RESULT)
    command = resource.manager(run_id, instance.path(RESULT), "--resume", on_end=_on_end(call, resource, instance))
    watch = Watch(instance, command, run_id)
    watch.until(lambda: watch.run_id is not None, A_MOMENT)
    if not watch.ended:
        return Code.SUCCESS
    result = result_of(instance, run_id)
    if result is None:
        raise AgentError(Code.GENERIC, f"nobody watches {resource.name}: {last_words(instance)}")
    code = code_of(result, resource.unreached)
    if code is not Code.DEGRADED:
        call.error(f"{resource.name} {result.get('text')}")
    return code


def _begin(call: Call, resource: Resource, instance: Instance, run_id: str, *more: str) -> Watch:
    """Start the first manager of a run."""
    unmark(instance, RESULT, FAILED, LOG)
    mark(instance, STARTING)
    on_end = _on_end(call, resource, instance)
    return Watch(instance, resource.manager(run_id, instance.path(RESULT), *more, on_end=on_end), run_id)


def _serve(watch: Watch, instance: Instance, run_id: str) -> Code:
    """Return when the application is ready; from then on its end is told to the cluster at once."""
    if not watch.until(lambda: watch.ready):
        _explain(instance, run_id)
    unmark(instance, STARTING)
    if result_of(instance, run_id):  # it has ended since, and whoever was to be told found the mark
        _explain(instance, run_id)
    return Code.SUCCESS


def _on_end(call: Call, resource: Resource, instance: Instance) -> tuple[str, ...]:
    """Return the command that tells the cluster at once that the run has ended, if it was ever told that it runs."""
    ours, guests = failing(call.instance, call.node), failing(resource.guest_resource, call.node)
    unreached = {
        Unreached.GUEST: guests,
        Unreached.WAIT: "exit",
        Unreached.FAIL: ours,
    }
    down = guests if resource.guest_resource else ours
    script = (
        f"[ -e {shlex.quote(instance.path(STARTING))} ] && exit; case $CMAPP_CAUSE in"
        f" unreachable) {unreached[resource.unreached]} ;; guest-down) {down} ;; esac; {ours}"
    )
    return ("/bin/sh", "-c", script)


def _explain(instance: Instance, run_id: str) -> NoReturn:
    """Say why a manager that was to start something has ended."""
    result = result_of(instance, run_id)
    if result is None:
        raise AgentError(Code.GENERIC, last_words(instance) or "cmappmgr ended without a word")
    raise AgentError(code_of_start(result), f"{result.get('name')} {result.get('text')}")
