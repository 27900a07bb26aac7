"""The QEMU process of a libvirt domain, seen without libvirt: the second look when its daemon cannot tell.

libvirt keeps the number in a pid file, and gives QEMU the domain's name and UUID on its command line. The invariant:
a process is the domain's only if all of that fits and it is still the same one after its descriptor was opened; who
is not proven is never signaled, and what cannot be seen is None and not gone.
"""

from __future__ import annotations

import itertools
import os
import select
import signal

from cmapp.core.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEM, SESSION = "qemu:///system", "qemu:///session"
FOLDER = "/run/libvirt/qemu"
_SHORTEST = 2  # of the words of a status line


class Emulator:
    """A proven QEMU process; its descriptor is readable once it has ended."""

    __slots__ = ("descriptor", "pid", "start")

    def __init__(self, pid: int, start: int, descriptor: int) -> None:
        self.pid = pid
        self.start = start
        self.descriptor = descriptor

    def fileno(self) -> int:
        """Return the pidfd."""
        return self.descriptor

    @property
    def ended(self) -> bool:
        """Whether the process has ended, of which there is no doubt."""
        poll = select.poll()
        poll.register(self.descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def kill(self) -> None:
        """Kill it: nobody else can be hit."""
        try:
            signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def close(self) -> None:
        """Forget it."""
        os.close(self.descriptor)


class Look(Record):
    """What a look at this host's processes gave: the one that lives, or whether one was there and is gone."""

    emulator: Emulator | None = None
    absent: bool = False
    left_behind: bool = False
    text: str = ""


def look(uri: str, name: str) -> Look:
    """Return what there is of the domain's QEMU; neither alive nor `absent` is what cannot be seen from here.

    `left_behind` tells of a pid file whose process has ended without libvirt.
    """
    folder = _folder(uri)
    if folder is None:
        return Look(text=f"the processes behind {uri} cannot be seen from here")
    pid = _number(_read(f"{folder}/{name}.pid"))
    uuid = _between(_read(f"{folder}/{name}.xml"), b"<uuid>", b"</uuid>")
    if pid is not None and _is(pid, name, uuid) and (found := _open(pid, name, uuid)) is not None:
        return Look(found, text=f"its QEMU lives as process {found.pid}")
    stranger = next((other for other in _processes() if _is(other, name, uuid)), None)
    if stranger is not None:
        return Look(text=f"process {stranger} may be its QEMU, but is none that libvirt here has noted")
    if pid is not None:
        return Look(absent=True, left_behind=True, text=f"its QEMU, process {pid}, has ended")
    return Look(absent=True, text="no QEMU of it runs here")


def _folder(uri: str) -> str | None:
    if uri == SYSTEM or uri.startswith(SYSTEM + "?"):
        return FOLDER
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime}/libvirt/qemu/run" if uri == SESSION and runtime else None


def _open(pid: int, name: str, uuid: bytes) -> Emulator | None:
    """Return the process with a descriptor, if it still is who it was when that was opened."""
    before = _start(pid)
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if before is not None and _start(pid) == before and _is(pid, name, uuid):
        return Emulator(pid, before, descriptor)
    os.close(descriptor)
    return None


def _is(pid: int, name: str, uuid: bytes) -> bool:
    """Tell whether the process says on its command line that it is the domain's."""
    words = _read(f"/proc/{pid}/cmdline").split(b"\0")
    # libvirt doubles the commas of a name; an option that follows the name begins with one.
    escaped = b"guest=" + name.replace(",", ",,").encode()
    named = any(
        option == b"-name" and (value == escaped or value.startswith(escaped + b",debug-threads="))
        for option, value in itertools.pairwise(words)
    )
    known = not uuid or any(pair == (b"-uuid", uuid) for pair in itertools.pairwise(words))
    return named and known


def _processes() -> Iterator[int]:
    """Yield all processes, the youngest last; none are seen where there is no /proc."""
    try:
        entries = os.listdir("/proc")
    except OSError:
        entries = []
    yield from sorted(int(entry) for entry in entries if entry.isdecimal())


def _start(pid: int) -> int | None:
    """Return when the process started, in the kernel's ticks since boot, None if it is gone or a zombie."""
    fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    return None if len(fields) < _SHORTEST or fields[0] in (b"Z", b"X") else int(fields[19])


def _number(text: bytes) -> int | None:
    return int(text) if text.strip().isdigit() else None


def _between(text: bytes, before: bytes, after: bytes) -> bytes:
    return text.partition(before)[2].partition(after)[0].strip() if after in text else b""


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(1 << 20)
    except OSError:
        return b""
