"""libvirt's events about one domain, as lines: the part of domain.py that listens.

The invariant: whatever happens is followed by a look at the domain, so a listener who missed an event still hears how
the domain is; and a daemon that stops answering makes this process silent, which is told by nobody but its listener.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cmapp.core.reading import Reading, Word

if TYPE_CHECKING:
    from collections.abc import Callable

    from cmapp.vm.domain import Hypervisor

BEAT = 2000  # milliseconds from one look to the next
KEEPALIVE = (5, 2)  # seconds between two questions to the daemon, and how many it may leave unanswered


class Listener:
    """Hears libvirt, and says lines."""

    def __init__(self, hypervisor: Hypervisor, say: Callable[..., None]) -> None:
        self._hypervisor = hypervisor
        self._say = say
        self.lost = ""

    def look(self, *_: object) -> None:
        """Say how the domain is."""
        try:
            self._say(*self._hypervisor.reading().line().split("\t"))
        except self._hypervisor.libvirt.libvirtError as error:
            self.lost = error.get_error_message() or str(error)

    def lifecycle(self, _connection: Any, domain: Any, event: int, detail: int, _opaque: object) -> None:
        """Hear of a start, a pause, an end."""
        v = self._hypervisor.libvirt
        if domain.name() != self._hypervisor.name:
            return
        if event == v.VIR_DOMAIN_EVENT_STOPPED:
            self._say(*self._stopped(detail).line("event").split("\t"))
        elif event == v.VIR_DOMAIN_EVENT_UNDEFINED:
            self._say("note", "its definition was taken away; it runs on, but could not be started again")
        else:
            self.look()

    def io_error(self, _connection: Any, domain: Any, *about: Any) -> None:
        """Hear of a disk that fails."""
        path, alias, action, reason = about[:4]
        if domain.name() == self._hypervisor.name:
            did = {0: "nothing was done", 1: "it was paused", 2: "the guest was told"}.get(action, f"action {action}")
            self._say("note", f"an I/O error of {path or alias}{reason and f' ({reason})'}: {did}")
            self.look()

    def rebooted(self, _connection: Any, domain: Any, _opaque: object) -> None:
        """Hear of a reboot from inside."""
        if domain.name() == self._hypervisor.name:
            self._say("note", "its guest restarts itself")

    def closed(self, _connection: Any, _reason: int, _opaque: object) -> None:
        """Hear that the daemon is gone."""
        self.lost = "it hung up: libvirt's daemon was stopped, restarted or killed, or does not answer"

    def _stopped(self, detail: int) -> Reading:
        v = self._hypervisor.libvirt
        if detail == v.VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
            return Reading(Word.ELSEWHERE, "migrated", "it was migrated to another host")
        why, reason = {
            v.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN: ("shutdown", "it was shut down"),
            v.VIR_DOMAIN_EVENT_STOPPED_DESTROYED: ("destroyed", "it was destroyed"),
            v.VIR_DOMAIN_EVENT_STOPPED_CRASHED: ("crashed", "its guest has crashed"),
            v.VIR_DOMAIN_EVENT_STOPPED_SAVED: ("saved", "it was saved"),
            v.VIR_DOMAIN_EVENT_STOPPED_FAILED: ("crashed", "its QEMU ended on its own, or was killed"),
        }.get(detail, ("", "it has stopped"))
        return Reading(Word.DOWN, why, reason)


def listen(hypervisor: Hypervisor, say: Callable[..., None]) -> None:
    """Say what libvirt says of the domain until libvirt is lost; raises libvirt.libvirtError, or OSError."""
    v, connection = hypervisor.libvirt, hypervisor.connection
    listener = Listener(hypervisor, say)
    connection.setKeepAlive(*KEEPALIVE)
    connection.registerCloseCallback(listener.closed, None)
    for event, callback in (
        (v.VIR_DOMAIN_EVENT_ID_LIFECYCLE, listener.lifecycle),
        (v.VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, listener.io_error),
        (v.VIR_DOMAIN_EVENT_ID_REBOOT, listener.rebooted),
    ):
        connection.domainEventRegisterAny(None, event, callback, None)
    domain = hypervisor.found()
    if domain is not None and domain.isPersistent() and domain.autostart():
        say("note", "libvirt starts it by itself when this host boots (autostart), whoever else runs it then")
    listener.look()
    v.virEventAddTimeout(BEAT, listener.look, None)
    while not listener.lost:
        v.virEventRunDefaultImpl()
    say("untold", listener.lost)
