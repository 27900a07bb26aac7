"""The search for what is left of a run in its guest, where no end of it says that nothing is.

The server in the guest is asked; what it still has gets a manager once more, which stops it. The invariant: it is over
when the server has said that nothing is left, when somebody who knows says that the guest is down, or when the guest
was out of reach for as long as a link may be lost. Then the server will stop by itself what has no manager, and lets
no second run of the name begin before; while a failed stop would have a host fenced which may be well.
"""

from __future__ import annotations

import signal
import time

from cmapp.agent.codes import Code
from cmapp.agent.ending import RESULT, unmark
from cmapp.agent.failcount import failing
from cmapp.agent.ocf import AgentError
from cmapp.agent.remains import find, guest_is_down
from cmapp.agent.resource import Resource
from cmapp.agent.watch import Watch
from cmapp.cluster.unreached import Unreached
from cmapp.core.messages import Phase
from cmapp.errors import LinkError, SettingsError, TrustError
from cmapp.host.child import spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.agent.instance import Instance
    from cmapp.agent.ocf import Call

ASK_EVERY = 0.2  # seconds between two questions
GONE_WITHIN = 60.0  # seconds for a run to be gone that is being stopped, where the cluster does not say how long
MARGIN = 2.0  # seconds before the cluster loses its patience, in which it is told why
CLOCKS = 1.0  # seconds by which two hosts' measures of one time may differ


class Search:
    """The search of `call` for the run `run_id`, whose last manager has left `result`."""

    def __init__(self, call: Call, instance: Instance, run_id: str, result: dict[str, Any]) -> None:
        self._call = call
        self._instance = instance
        self._run_id = run_id
        self._cause = result.get("cause", "")
        self._left = time.time() - float(result.get("concluded", 0.0))
        self._resource = Resource(call)
        self._begun = time.monotonic()

    def go_on(self) -> None:
        """Return when nothing is left, or nobody can be asked for too long; raises AgentError if it stays."""
        while self._cause != "guest-down":
            try:
                run = find(self._resource, self._run_id)
            except LinkError as error:
                if self._gives_up(str(error)):
                    return
            except (TrustError, SettingsError) as error:
                self._warn(str(error))
                return
            else:
                if run is None or not self._is_ours(run.orphaned):
                    return
                if run.state not in (Phase.STOPPING, Phase.ENDED):
                    self._end()
                elif self._waited > self._patience:
                    self._fail_guest()
                    return
            time.sleep(ASK_EVERY)

    @property
    def _waited(self) -> float:
        return time.monotonic() - self._begun

    @property
    def _patience(self) -> float:
        return GONE_WITHIN if self._call.timeout is None else self._call.timeout - MARGIN

    def _is_ours(self, orphaned: float | None) -> bool:
        """Tell whether a run is to be stopped that is there: not if it was left to another host, and that has it."""
        if self._cause != "detached":
            return True
        return orphaned is not None and orphaned + CLOCKS >= self._left + self._waited

    def _end(self) -> None:
        """Have the run stopped, as its own rules say."""
        unmark(self._instance, RESULT)
        command = self._resource.manager(self._run_id, self._instance.path(RESULT), "--resume")
        watch = Watch(self._instance, command, self._run_id)
        watch.until(lambda: watch.run_id is not None)
        self._instance.signal(signal.SIGTERM)
        watch.wait()

    def _fail_guest(self) -> None:
        """Have the guest itself started again, whose kernel cannot end a process; raises AgentError if nobody may."""
        resource = self._resource
        text = f"{resource.name} cannot be stopped: something of it is still there in the guest after SIGKILL"
        if resource.unreached is not Unreached.GUEST:
            raise AgentError(Code.GENERIC, text)
        self._call.warning(f"{text}; {resource.guest_resource} is told to have failed")
        spawn(("/bin/sh", "-c", f"{failing(resource.guest_resource, self._call.node)} >/dev/null 2>&1"))

    def _gives_up(self, why: str) -> bool:
        """Tell whether a guest that does not answer need not be waited for any longer."""
        if down := guest_is_down(self._resource):
            self._call.info(f"nothing is left of {self._resource.name}: {down}")
            return True
        # A manager that has given the guest up has waited already, and nobody waits for what was left to another host.
        patience = 0.0 if self._cause in ("unreachable", "detached") else self._resource.settings.link_timeout
        if self._waited < patience:
            return False
        self._warn(why)
        return True

    def _warn(self, why: str) -> None:
        rules = self._resource.settings
        if self._cause != "detached":
            self._call.warning(
                f"nobody can say whether anything is left of {self._resource.name} in the guest: {why}; the server"
                f" there is to {rules.orphan_action.value} it {rules.orphan_timeout:g} s after the link was lost, and"
                " lets no second run of it begin before"
            )
