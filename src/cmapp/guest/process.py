"""One run's process: started by the trampoline or found again, watched and signalled by its identity.

It leads a session and a process group of its own. Another process of its tree may take its place as the one that
is watched: that of a daemon whose parent has ended. The invariant: the zombie of a leader that is our child is kept
until nothing of its group is left, so its number cannot become somebody else's while we may still signal the group.
"""

from __future__ import annotations

import marshal
import os
import socket
import time
from typing import TYPE_CHECKING, NamedTuple

from cmapp.core.outcome import Unknown
from cmapp.errors import RunError
from cmapp.guest import pidfd, proc
from cmapp.guest.spawn import spawn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Self

    from cmapp.core.outcome import Outcome

_STDERR = 2
_ABOUT_TO = b"+"  # what the trampoline says right before it becomes the application
_GO = b"g"  # and what it waits for before
_PATIENCE = 10.0  # seconds that a process of somebody else's is waited for to be reaped, so that its end is told


class Handle(NamedTuple):
    """A process and a descriptor of it."""

    pid: int
    start: int
    pidfd: int


class Process:
    """A process that we watch; `trouble` and `pidfd` are descriptors to wait on, ours to close.

    `leader` is the process that was launched, `main` that whose end is the run's, `said` what the trampoline has told,
    `lingering` since when (monotonic) the main process waits to be reaped by somebody else.
    """

    __slots__ = ("leader", "lingering", "main", "said", "trouble")

    def __init__(self, plan: Mapping[str, Any], stdout: int, stderr: int, join: int | None = None) -> None:
        """Start the trampoline with `plan`; raises RunError when the machine has no room for it.

        The descriptors stay the caller's: what the application writes to, and `cgroup.procs` of its cgroup.
        """
        ours = theirs = None
        try:
            ours, theirs = socket.socketpair()
            ours.setblocking(False)
            self.leader = self.main = Handle(*spawn({"limits": {}, **plan}, theirs.fileno(), stdout, stderr, join))
            self.trouble = ours.detach()
        except OSError as error:
            raise RunError("resources", f"the guest has no room for it: {error.strerror}") from None
        finally:
            for end in (ours, theirs):
                if end is not None:
                    end.close()
        self.said = b""
        self.lingering: float | None = None

    @classmethod
    def adopt(cls, pid: int, start: int) -> Self | None:
        """Return the living process of that number and start, or None if it is gone.

        Raises OSError when there is no descriptor left. The boot must be the one in which the start was noted.
        """
        descriptor = pidfd.open_proven(pid, start)
        return None if descriptor is None else cls._of(Handle(pid, start, descriptor))

    @classmethod
    def _of(cls, leader: Handle, trouble: int = -1, said: bytes = b"") -> Self:
        process = cls.__new__(cls)
        process.leader = process.main = leader
        process.trouble = trouble
        process.said = said
        process.lingering = None
        return process

    @property
    def trouble_read(self) -> bool:
        """Whether it is known if the application was started."""
        return self.trouble < 0

    @property
    def pid(self) -> int:
        """The number of the leader, which is that of its session and group too."""
        return self.leader.pid

    @property
    def start(self) -> int:
        """When the leader was started, in ticks since the machine was booted."""
        return self.leader.start

    @property
    def pidfd(self) -> int:
        """The descriptor that is readable once the main process has ended; another one after `follow`."""
        return self.main.pidfd

    @property
    def leads_its_group(self) -> bool:
        """Whether the main process lives and leads a group, so that the group is the application's own."""
        try:
            found = proc.stat(self.main.pid)
        except OSError:  # no descriptor left to look with: mostly it does
            return self.main.pid == self.pid
        return self.main.pid == self.pid and found is not None and found.alive and found.group == self.pid

    @property
    def has_ended(self) -> bool:
        """Whether the main process has ended, which `outcome` may not be able to tell yet how."""
        return pidfd.has_ended(self.main.pidfd)

    # ---- the start -----------------------------------------------------------------------------------------

    def go(self) -> None:
        """Let the trampoline become the application."""
        try:
            os.write(self.trouble, _GO)
        except OSError:
            pass  # it has ended, which is heard

    def withhold(self) -> None:
        """Have the trampoline end without becoming the application; its end is to be waited for as any."""
        channel = socket.socket(fileno=os.dup(self.trouble))
        try:
            channel.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it has ended already
        finally:
            channel.close()

    def hear_trouble(self) -> bool:
        """Read what the trampoline has said so far; return whether it will say no more."""
        try:
            while said := os.read(self.trouble, 65536):
                self.said += said
        except BlockingIOError:
            return False
        except ConnectionResetError:
            pass  # it ended before it had heard `go`
        return True

    def take_trouble(self) -> tuple[str, str] | None:
        """Return why the application could not be started, None if it was; to be asked once, when all is said."""
        os.close(self.trouble)
        self.trouble = -1
        if self.said == _ABOUT_TO:
            return None
        told: tuple[str, str] | None = None
        if said := self.said.removeprefix(_ABOUT_TO):
            told = marshal.loads(said)  # noqa: S302 - written by our own trampoline
        return told or ("resources", "the process that was to become it ended before it could")

    # ---- the end -------------------------------------------------------------------------------------------

    def outcome(self) -> Outcome | None:
        """Return how the main process ended, without reaping it, or None while that is not known.

        None although `pidfd` is readable means that its parent, which is not us, has yet to reap it: to be asked
        again a little later. Unknown is returned when that takes long, and where the kernel cannot tell.
        """
        try:
            return pidfd.ending_of_child(self.main.pidfd)
        except ChildProcessError:
            if not pidfd.has_ended(self.main.pidfd):
                return None
        told = pidfd.ending_of_stranger(self.main.pidfd, self.main.pid, self.main.start)
        if told is None:
            now = time.monotonic()
            self.lingering = now if self.lingering is None else self.lingering
            if now - self.lingering > _PATIENCE:
                return Unknown("nobody has taken its status, and without that the kernel does not tell it")
        return told

    def follow(self, pid: int, owns: Callable[[int], bool]) -> bool:
        """Watch `pid` as the main process from here on, if it is there and `owns` says that it is the run's.

        Whoever waits on `pidfd` must stop before, and may wait on the new one after. A child of ours that has ended
        can still be followed, to learn how. Raises OSError when there is no descriptor left.
        """
        found = proc.stat(pid)
        if found is None or not (found.alive or found.parent == os.getpid()):
            return False
        if pid == self.main.pid and found.start == self.main.start:
            return True
        descriptor = pidfd.open_proven(pid, found.start, zombies=True)
        if descriptor is None:
            return False
        if not owns(pid) or pidfd.process_of(descriptor) != pid:  # asked while the descriptor holds on to it
            os.close(descriptor)
            return False
        self._forget_main()
        self.lingering = None
        self.main = Handle(pid, found.start, descriptor)
        return True

    def signal_main(self, number: int) -> None:
        """Signal the main process alone."""
        pidfd.send(self.main.pidfd, number)

    def signal_group(self, number: int) -> None:
        """Signal the leader's whole group; it must not have been reaped."""
        if pidfd.send_to_group(self.leader.pidfd, number):
            return
        found = proc.stat(self.pid)
        if found is None or found.start != self.start or found.parent != os.getpid():
            pidfd.send(self.leader.pidfd, number)  # its number may be somebody else's: its tree knows the others
            return
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            pass  # only what we may not signal is left: the caller looks again, and complains in time

    def reap(self) -> None:
        """Forget the process, which must have ended: its number is free from here on."""
        for handle in {self.leader, self.main}:
            try:
                os.waitid(os.P_PIDFD, handle.pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                pass
        self.close()

    def close(self) -> None:
        """Close what is held of the process, and leave it as it is."""
        if self.trouble >= 0:
            os.close(self.trouble)
            self.trouble = -1
        self._forget_main()
        os.close(self.leader.pidfd)

    def _forget_main(self) -> None:
        if self.main is not self.leader:
            os.close(self.main.pidfd)
        self.main = self.leader

    # ---- over an exec --------------------------------------------------------------------------------------

    @property
    def kept(self) -> set[int]:
        """The processes whose zombies are this run's to reap and nobody else's."""
        return {self.leader.pid, self.main.pid}

    def handover(self) -> dict[str, Any]:
        """Return what `take_over` needs in the program that this process becomes; plain values that JSON can tell."""
        return {
            "leader": list(self.leader),
            "main": list(self.main),
            "trouble": self.trouble,
            "said": self.said.hex(),
        }

    @property
    def descriptors(self) -> list[int]:
        """The descriptors that have to be inheritable for `take_over`."""
        held = [self.leader.pidfd, self.trouble] + [self.main.pidfd] * (self.main is not self.leader)
        return [descriptor for descriptor in held if descriptor >= 0]

    @classmethod
    def take_over(cls, told: Mapping[str, Any]) -> Self:
        """Return the process that the program before us has handed over.

        Raises OSError if the descriptors are not what they are said to be; nothing is closed then.
        """
        leader, main = Handle(*told["leader"]), Handle(*told["main"])
        for handle in (leader, main):
            if pidfd.process_of(handle.pidfd) not in (handle.pid, -1):
                raise OSError(f"descriptor {handle.pidfd} is not that of process {handle.pid}")
        process = cls._of(leader, told["trouble"], bytes.fromhex(told["said"]))
        if main != leader:
            process.main = main
        for descriptor in process.descriptors:
            os.set_inheritable(descriptor, False)
        return process


def keep_descriptors() -> None:
    """Hand no descriptor on that whoever started us may have left open; those that we open are our own anyway."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > _STDERR:
            try:
                os.set_inheritable(int(name), False)
            except OSError:
                continue  # it was the one that listed them
