"""How a virtual machine is, in one look: what `cmapp vm state` prints, and what others take as a second opinion.

libvirt is asked first, within a bound, by a process that can be killed. If it cannot tell, the QEMU process is looked
at. The invariant: `down` is said only by libvirt, by the user's own command, or by a pid file whose process has ended.
"""

from __future__ import annotations

import os

from cmapp.core.duration import format_duration
from cmapp.core.reading import Reading, Word, read, read_command
from cmapp.vm import domain, emulator
from cmapp.vm.errand import Errand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

URI = "qemu:///system"
LIMIT = 5.0  # seconds for libvirt, or the state command, to tell


def state_of_domain(name: str, uri: str = URI, limit: float = LIMIT) -> Reading:
    """Return how the libvirt domain is, within `limit` seconds and what the second look takes."""
    reading = ask_libvirt(name, uri, limit)
    return second_look(name, uri, reading.reason) if reading.how is Word.UNKNOWN else reading


def ask_libvirt(name: str, uri: str, limit: float) -> Reading:
    """Return what libvirt says, UNKNOWN if it could not be asked."""
    try:
        errand = Errand(domain.argv("state", uri, name), limit=limit, env=os.environ)
    except OSError as error:
        return Reading(Word.UNKNOWN, "", f"libvirt could not be asked: {error.strerror}")
    said = errand.wait()
    for line in said:
        if line.startswith("state\t"):
            return read(line)
    if errand.late:
        return Reading(Word.UNKNOWN, "", f"libvirt did not answer within {format_duration(limit)}")
    return Reading(Word.UNKNOWN, "", "; ".join(line.partition("\t")[2] for line in said) or "libvirt said nothing")


def second_look(name: str, uri: str, reason: str) -> Reading:
    """Return what this host's processes say where libvirt did not, for `reason`."""
    seen = emulator.look(uri, name)
    text = f"{reason}; {seen.text}"
    if seen.emulator is not None:
        seen.emulator.close()
        return Reading(Word.RUNNING, "", text)
    return Reading(Word.DOWN if seen.left_behind else Word.UNKNOWN, "", text)


def state_by_command(command: Sequence[str], limit: float, name: str) -> Reading:
    """Return what the user's own command says of the machine `name`."""
    try:
        errand = Errand(command, limit=limit, env={"CMAPP_DOMAIN": name})
    except OSError as error:
        return Reading(Word.UNKNOWN, "", f"the state command {command[0]} cannot be run: {error.strerror}")
    said = "\n".join(errand.wait())
    if errand.late:
        return Reading(Word.UNKNOWN, "", f"the state command did not end within {format_duration(limit)}")
    return read_command(said, errand.code)
