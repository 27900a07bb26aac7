"""A libvirt domain, asked and acted upon: `python -m cmapp.vm.domain VERB URI DOMAIN [ARGUMENT...]`.

A call of libvirt waits for as long as its daemon does, and there is no taking it back, so each question is a process
of its own (see errand.py) that says on lines what libvirt said: `state`, `note`, `agent`, and at the end `done`,
`failed` (libvirt declined, and says why) or `untold` (libvirt could not be asked). The invariant: nothing is said of
the domain that libvirt has not said just now.
"""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

from cmapp.core.reading import ENDING, PANICKED, Reading, Word
from cmapp.core.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

LACKING = (
    "libvirt's own library for Python is not here: install it (pip install 'cmapp[libvirt]', or Debian's"
    " python3-libvirt)"
)
AGENT_PATIENCE = 5  # seconds for the guest's agent to answer


def argv(verb: str, uri: str, domain: str, *arguments: str) -> list[str]:
    """Return the command that does `verb` to `domain`."""
    return [sys.executable, "-P", "-m", "cmapp.vm.domain", verb, uri, domain, *arguments]


def say(*fields: str) -> None:
    """Say one line, at once."""
    print("\t".join(map(printable, fields)), flush=True)  # noqa: T201 - the pipe is where it tells


class Hypervisor:
    """One connection to libvirt, and the domain that it is about."""

    def __init__(self, libvirt: Any, uri: str, name: str) -> None:
        """Connect; raises libvirt.libvirtError."""
        self.libvirt = libvirt
        self.name = name
        self.connection = libvirt.open(uri)

    def found(self) -> Any | None:
        """Return the domain, None if there is none of that name here; raises libvirt.libvirtError."""
        try:
            return self.connection.lookupByName(self.name)
        except self.libvirt.libvirtError as error:
            if error.get_error_code() == self.libvirt.VIR_ERR_NO_DOMAIN:
                return None
            raise

    def reading(self) -> Reading:
        """Return how the domain is; raises libvirt.libvirtError."""
        domain = self.found()
        if domain is None:
            return Reading(Word.ELSEWHERE, "undefined", f"libvirt here knows no domain {self.name}")
        try:
            return self._of(domain)
        except self.libvirt.libvirtError as error:
            if error.get_error_code() == self.libvirt.VIR_ERR_NO_DOMAIN:  # a transient one has just ended
                return Reading(Word.ELSEWHERE, "undefined", f"libvirt here knows no domain {self.name} any more")
            raise

    def _of(self, domain: Any) -> Reading:
        v = self.libvirt
        state, why = domain.state()
        if state in (v.VIR_DOMAIN_RUNNING, v.VIR_DOMAIN_BLOCKED, v.VIR_DOMAIN_SHUTDOWN):
            job = self._migration(domain)
            if job:
                return Reading(Word.MIGRATING, job, f"a live migration goes on, {job}")
            ends = "its guest has ended, its QEMU not yet" if state == v.VIR_DOMAIN_SHUTDOWN else ""
            return Reading(Word.RUNNING, ENDING if ends else "", ends)
        if state == v.VIR_DOMAIN_PAUSED:
            return self._paused(domain, why)
        if state == v.VIR_DOMAIN_PMSUSPENDED:
            return Reading(Word.PAUSED, "suspended", "its guest has suspended itself")
        if state == v.VIR_DOMAIN_CRASHED:
            return Reading(Word.PAUSED, PANICKED, "its guest has crashed, and its QEMU was kept")
        if state == v.VIR_DOMAIN_SHUTOFF:
            return self._off(why)
        return Reading(Word.UNKNOWN, "", f"libvirt says state {state}, reason {why}")

    def _paused(self, domain: Any, why: int) -> Reading:
        v = self.libvirt
        migrates = (
            v.VIR_DOMAIN_PAUSED_MIGRATION,
            v.VIR_DOMAIN_PAUSED_STARTING_UP,
            getattr(v, "VIR_DOMAIN_PAUSED_POSTCOPY", -1),
        )
        if why in migrates:
            job = self._migration(domain) or ("" if why == v.VIR_DOMAIN_PAUSED_STARTING_UP else "out")
            if job:
                return Reading(Word.MIGRATING, job, f"paused for a live migration, {job}")
        detail, reason = {
            v.VIR_DOMAIN_PAUSED_USER: ("user", "paused on request"),
            v.VIR_DOMAIN_PAUSED_SAVE: ("save", "paused to be saved"),
            v.VIR_DOMAIN_PAUSED_DUMP: ("dump", "paused to be dumped"),
            v.VIR_DOMAIN_PAUSED_IOERROR: ("io-error", "paused by an I/O error of a disk"),
            v.VIR_DOMAIN_PAUSED_WATCHDOG: ("watchdog", "paused by its watchdog"),
            v.VIR_DOMAIN_PAUSED_FROM_SNAPSHOT: ("snapshot", "restored from a snapshot as paused"),
            v.VIR_DOMAIN_PAUSED_SHUTTING_DOWN: ("shutting-down", "being shut down"),
            v.VIR_DOMAIN_PAUSED_SNAPSHOT: ("snapshot", "paused for a snapshot"),
            v.VIR_DOMAIN_PAUSED_CRASHED: (PANICKED, "paused because its guest has crashed"),
            v.VIR_DOMAIN_PAUSED_STARTING_UP: ("starting", "being started"),
            getattr(v, "VIR_DOMAIN_PAUSED_POSTCOPY_FAILED", -1): ("postcopy-failed", "its migration has failed midway"),
            getattr(v, "VIR_DOMAIN_PAUSED_API_ERROR", -2): (
                "api-error",
                "paused because an operation of libvirt failed",
            ),
        }.get(why, ("", "paused, and libvirt does not know why"))
        return Reading(Word.PAUSED, detail, reason)

    def _off(self, why: int) -> Reading:
        v = self.libvirt
        if why == v.VIR_DOMAIN_SHUTOFF_MIGRATED:
            return Reading(Word.ELSEWHERE, "migrated", "it was migrated to another host")
        detail, reason = {
            v.VIR_DOMAIN_SHUTOFF_SHUTDOWN: ("shutdown", "it was shut down"),
            v.VIR_DOMAIN_SHUTOFF_DESTROYED: ("destroyed", "it was destroyed"),
            v.VIR_DOMAIN_SHUTOFF_CRASHED: ("crashed", "its QEMU ended on its own, or was killed"),
            v.VIR_DOMAIN_SHUTOFF_SAVED: ("saved", "it was saved"),
            v.VIR_DOMAIN_SHUTOFF_FAILED: ("failed", "it could not be started"),
        }.get(why, ("", "it is shut off"))
        return Reading(Word.DOWN, detail, reason)

    def _migration(self, domain: Any) -> str:
        """Return whether the domain migrates `in` or `out`, "" for neither."""
        v = self.libvirt
        try:
            operation = domain.jobStats().get("operation", 0)
        except v.libvirtError:
            return ""
        return {v.VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN: "in", v.VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT: "out"}.get(
            operation, ""
        )


def state(hypervisor: Hypervisor) -> None:
    """Say how the domain is."""
    say(*hypervisor.reading().line().split("\t"))


def ask(hypervisor: Hypervisor) -> None:
    """Say how the domain is, and whether an agent in its guest answers: the second look."""
    domain, v = hypervisor.found(), hypervisor.libvirt
    if domain is not None:
        import libvirt_qemu  # noqa: PLC0415 - only this asks QEMU's agent

        try:
            libvirt_qemu.qemuAgentCommand(domain, '{"execute": "guest-ping"}', AGENT_PATIENCE, 0)
            say("agent", "yes", "")
        except v.libvirtError as error:
            say("agent", "no", _words(error))
    state(hypervisor)


def start(hypervisor: Hypervisor, config: str = "") -> None:
    """Start the domain, made from the XML in the file `config` if libvirt has none of that name.

    A memory image from a managed save is not restored: the disks may have been used on another host since.
    """
    domain, v = hypervisor.found(), hypervisor.libvirt
    if domain is None and config:
        with open(config, encoding="utf-8") as file:
            text = file.read()
        _check_name(text, config, hypervisor.name)
        hypervisor.connection.createXML(text)
    elif domain is None:
        say("failed", f"libvirt here knows no domain {hypervisor.name}, and no file with its XML was given (config)")
        return
    elif not domain.isActive():
        if domain.hasManagedSaveImage():
            say("note", "its saved memory image is thrown away: its disks may have been used elsewhere since")
        domain.createWithFlags(v.VIR_DOMAIN_START_FORCE_BOOT)
    say("done")


def shutdown(hypervisor: Hypervisor) -> None:
    """Ask the guest to shut down, by its agent or by ACPI."""
    domain = hypervisor.found()
    if domain is not None and domain.isActive():
        domain.shutdown()
    say("done")


def destroy(hypervisor: Hypervisor) -> None:
    """End the domain at once, as if its power were cut."""
    domain = hypervisor.found()
    if domain is not None and domain.isActive():
        domain.destroy()
    state(hypervisor)
    say("done")


def migrate(hypervisor: Hypervisor, target: str, uri: str = "", options: str = "") -> None:
    """Migrate the domain alive to the libvirt at `target`; `uri` is where its memory goes, "" for libvirt's choice."""
    v, domain = hypervisor.libvirt, hypervisor.found()
    if domain is None:
        say("failed", f"libvirt here knows no domain {hypervisor.name}")
        return
    flags = v.VIR_MIGRATE_LIVE
    for option in options.split():
        flags |= getattr(v, "VIR_MIGRATE_" + option.upper().replace("-", "_"))
    there = v.open(target)
    domain.migrate3(there, {v.VIR_MIGRATE_PARAM_URI: uri} if uri else {}, flags)
    say("done")


def watch(hypervisor: Hypervisor) -> None:
    """Say how the domain is, at each change and every BEAT, until libvirt is lost or nobody listens."""
    from cmapp.vm.events import listen  # noqa: PLC0415 - only this listens

    listen(hypervisor, say)


VERBS: dict[str, Callable[..., None]] = {
    "state": state,
    "ask": ask,
    "start": start,
    "shutdown": shutdown,
    "destroy": destroy,
    "migrate": migrate,
    "watch": watch,
}


def main(arguments: list[str]) -> None:
    """Do what the arguments say, and tell of it."""
    verb, uri, name, *rest = arguments
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # whom nobody listens to ends, without a word
    try:
        import libvirt  # noqa: PLC0415 - the extra `libvirt`
    except ImportError:
        say("untold", LACKING)
        return
    libvirt.registerErrorHandler(lambda *_: None, None)
    try:
        if verb == "watch":
            libvirt.virEventRegisterDefaultImpl()  # before the connection, or it hears nothing
        hypervisor = Hypervisor(libvirt, uri, name)
    except libvirt.libvirtError as error:
        say("untold", f"libvirt at {uri} cannot be reached: {_words(error)}")
        return
    try:
        VERBS[verb](hypervisor, *rest)
    except libvirt.libvirtError as error:
        lost = not hypervisor.connection.isAlive() or error.get_error_domain() == libvirt.VIR_FROM_RPC
        say("untold" if lost else "failed", _words(error))
    except (OSError, ValueError) as error:
        say("failed", str(error))


def _words(error: Any) -> str:
    """Return libvirt's own sentence."""
    return " ".join((error.get_error_message() or str(error)).split())


def _check_name(text: str, config: str, name: str) -> None:
    """Refuse XML of another domain; raises ValueError."""
    from xml.etree import ElementTree as ET  # noqa: PLC0415 - only a start reads XML, and it is the administrator's own

    try:
        there = ET.fromstring(text).findtext("name", "").strip()  # noqa: S314
    except ET.ParseError as error:
        raise ValueError(f"{config} is not XML: {error}") from None
    if there != name:
        raise ValueError(f"{config} describes the domain {there or 'without a name'}, not {name}")


if __name__ == "__main__":
    main(sys.argv[1:])
