"""A cmappmgr that an agent has started, and what it says of itself by sd_notify(3) while the agent waits.

The socket is an abstract one that goes with the agent: nothing is left behind, and a full disk is no hindrance. The
invariant: what is heard was said by that very process, for the kernel tells who speaks.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time

from cmapp.agent.instance import wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cmapp.agent.instance import Instance

LONGEST = 4096  # bytes of a datagram
_CREDENTIALS = struct.Struct("iII")  # pid, user, group


class Watch:
    """A manager of `instance`; `run_id` is the run that it watches, None before it watches any.

    `attached` tells that the run was there before, `ready` that it serves, `ended` that the manager is gone.
    """

    def __init__(self, instance: Instance, command: Sequence[str], *words: str) -> None:
        """Start `command`, for what `words` say."""
        self.run_id: str | None = None
        self.attached = self.ready = self.ended = False
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        name = f"cmapp-agent-{os.urandom(16).hex()}"
        self._socket.bind(f"\0{name}")
        self.pid = instance.begin(command, {"NOTIFY_SOCKET": f"@{name}"}, *words)
        self._pidfd = os.pidfd_open(self.pid)  # a child that nobody has waited for

    def until(self, event: Callable[[], bool], seconds: float | None = None) -> bool:
        """Wait until `event`, the manager's end, or for so many seconds; return whether it was the event."""
        deadline = None if seconds is None else time.monotonic() + seconds
        waiting = select.poll()
        waiting.register(self._socket, select.POLLIN)
        waiting.register(self._pidfd, select.POLLIN)
        while not (event() or self.ended):
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = dict(waiting.poll(None if left is None else round(left * 1000)))
            self._hear()
            if self._pidfd in ready:
                self._hear()
                self._reap()
            if not ready and left is not None:
                break
        return event()

    def wait(self) -> None:
        """Wait for its end."""
        wait_for(self._pidfd)
        self._hear()
        self._reap()

    def _reap(self) -> None:
        if not self.ended:
            self.ended = True
            os.waitpid(self.pid, 0)

    def _hear(self) -> None:
        while True:
            try:
                data, ancillary, _, _ = self._socket.recvmsg(LONGEST, socket.CMSG_SPACE(_CREDENTIALS.size))
            except BlockingIOError:
                return
            if self.pid not in [
                _CREDENTIALS.unpack(item)[0] for _, kind, item in ancillary if kind == socket.SCM_CREDENTIALS
            ]:
                continue
            said = dict(line.partition("=")[::2] for line in data.decode(errors="replace").split("\n"))
            self.ready |= said.get("READY") == "1"
            if "X_CMAPP_RUN_ID" in said:
                self.run_id, self.attached = said["X_CMAPP_RUN_ID"], said.get("X_CMAPP_ATTACHED") == "1"
