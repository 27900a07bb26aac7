"""Guests that boot in half a second: a real systemd as PID 1 in namespaces, with an address of its own.

A guest is a machine to those who talk to it: it is booted, freezes, loses power and is booted again from the same
disk, and its cable is cut. Its processes are the host's too, so that they are seen and signalled from here. The
invariant: a process is signalled only through a descriptor of it, opened before it was recognised.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from typing import TYPE_CHECKING

from chaos import grounds, rootfs
from chaos.network import Plug, command

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UNIT = "cmappserver.service"
BOOT_LIMIT = 30.0  # seconds
END_LIMIT = 20.0
CALL_LIMIT = 20.0
STATE_ROOM = 16 << 20  # bytes of the disk that holds the server's state folder
PAUSE = 0.01
INSIDE = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "TERM=dumb", "SYSTEMD_PAGER=")


class Guest:
    """One guest: `books` and `state` are folders that it and the host share, and that outlive its crashes."""

    def __init__(self, site: grounds.Grounds, name: str, number: int) -> None:
        """Make its disk; `number`, from 2 to 254, is the last part of its address."""
        self.name = name
        self._site = site
        self._folder = site.folder / name
        self._root = rootfs.root_file_system()
        self._disk = self._folder / "disk"
        self._merged = self._folder / "root"
        self.books = self._folder / "books"
        self.state = self._folder / "state"
        self._group = site.cgroup / name
        self._plug = Plug(site.network, number)
        self._spawned: subprocess.Popen[bytes] | None = None
        for folder in (self._disk / "etc", self._merged, self.books, self.state):
            folder.mkdir(parents=True)
        room = f"size={STATE_ROOM},mode=700"
        command("mount", "-t", "tmpfs", "-o", room, "cmapp-chaos-state", str(self.state))
        (self._disk / "etc/machine-id").write_text(f"{uuid.uuid4().hex}\n")
        (self._disk / "etc/hostname").write_text(f"{name}\n")

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self._plug.address

    @property
    def up(self) -> bool:
        """Whether it has power."""
        return self._spawned is not None and self._spawned.poll() is None

    def equip(self, wheel: Path, unit: Path, keys: Path, *files: Path) -> None:
        """Install the server with its unit and its keys, and put other files into /opt."""
        rootfs.install(wheel, unit, self._root, self._disk)
        shutil.copytree(keys, self._disk / "etc/cmapp/keys")
        (self._disk / "opt").mkdir()
        for file in files:
            shutil.copy(file, self._disk / "opt")

    def upgrade(self, wheel: Path, unit: Path) -> None:
        """Install another server with its unit while the guest is up; the one that runs stays until it is restarted."""
        rootfs.install(wheel, unit, self._root, self._merged)
        self.call("systemctl", "daemon-reload")

    def boot(self) -> None:
        """Give it power, and wait until its systemd has started all; raises RuntimeError if that takes too long."""
        self.power_on()
        deadline = time.monotonic() + BOOT_LIMIT
        while time.monotonic() < deadline and self.up:
            if self.call("systemctl", "is-system-running", "--wait").stdout.strip() in {"running", "degraded"}:
                return
            time.sleep(PAUSE)
        console = (self._folder / "console.log").read_text(errors="replace")
        raise RuntimeError(f"{self.name} does not boot: {console[-500:]}")

    def power_on(self) -> None:
        """Give it power, and do not wait for what comes of it."""
        self._wait()  # it may have shut down by itself
        work = self._folder / "work"
        shutil.rmtree(work, ignore_errors=True)  # what a crash left there would keep the layers from being mounted
        work.mkdir()
        layers = f"lowerdir={self._root},upperdir={self._disk},workdir={work}"
        command("mount", "-t", "overlay", "-o", layers, "overlay", str(self._merged))
        self._plug.plug()
        # There need be no systemd on this side, so nothing is registered with one and no unit is made; the guest is a
        # real machine as far as it can see: it may use all system calls that its systemd asks for.
        spawn = ["nice", "-n", "10", "systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit"]
        spawn += ["-M", self.name, "-D", str(self._merged), f"--network-namespace-path={self._plug.path}"]
        spawn += ["--console=pipe", "--system-call-filter=bpf", "--resolv-conf=off", "--timezone=off"]
        spawn += ["--link-journal=no", f"--bind={self.books}:/books", f"--bind={self.state}:/var/lib/cmappserver"]
        self._spawned = self._site.start(spawn, self._group, stdout=self._folder / "console.log")

    def call(self, *argv: str, limit: float = CALL_LIMIT) -> subprocess.CompletedProcess[str]:
        """Run a command in all of the guest's namespaces; what cannot be run has a return code that is not 0."""
        init = next((pid for pid in self._pids("init.scope") if _word(pid, 0).endswith("systemd")), None)
        if init is None:
            return subprocess.CompletedProcess(argv, 1, "", "it is not up")
        entered = ["nsenter", "-t", str(init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-W", "/", "--"]
        try:
            return subprocess.run(
                [*entered, "env", "-i", *INSIDE, *argv],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=limit,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return subprocess.CompletedProcess(argv, 1, "", f"no end within {limit:g} s")

    def freeze(self) -> None:
        """Let none of its processes run, as when a machine is paused; its kernel still answers."""
        self._freeze("1")

    def thaw(self) -> None:
        """Let its processes run again."""
        self._freeze("0")

    def crash(self) -> None:
        """Take its power: everything in it ends at once, without a word to anybody; its disk is kept."""
        if self._spawned is None:
            return
        self._plug.cut()  # or the ends of its processes would close their connections
        payload = self._group / "payload"
        grounds.end_group(payload if payload.is_dir() else self._group)  # none yet: it was only just switched on
        self._wait()

    def ask_to_stop(self) -> None:
        """Press its power button: it begins to stop in order."""
        if self._spawned is not None:
            self._spawned.terminate()  # which systemd-nspawn makes an orderly stop

    def shut_down(self) -> None:
        """Have it stop in order; one that takes too long loses its power."""
        self.ask_to_stop()
        self._wait()

    def discard(self) -> None:
        """Take its power, and throw its disk away, with all that it shared with the host."""
        self.crash()
        command("umount", "--lazy", str(self.state))
        shutil.rmtree(self._folder)

    def cut(self) -> None:
        """Let nothing pass on its cable."""
        self._plug.cut()

    def drop(self, *, towards_guest: bool) -> None:
        """Lose what its cable carries in one direction."""
        self._plug.drop(towards_guest=towards_guest)

    def heal(self) -> None:
        """Mend its cable."""
        if self.up:
            self._plug.heal()

    def fill(self) -> None:
        """Fill the disk with the server's state folder."""
        descriptor = os.open(self.state / ".ballast", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for size in (1 << 20, 4096):
            try:
                while os.write(descriptor, bytes(size)):
                    pass
            except OSError:
                pass  # no block of that size is left
        os.close(descriptor)

    def empty(self) -> None:
        """Free the disk again."""
        (self.state / ".ballast").unlink(missing_ok=True)

    def server(self) -> int | None:
        """Return the process id, on this side, of the server that the unit runs."""
        for pid in self._pids(f"system.slice/{UNIT}"):
            words = _words(pid)
            trial = "--check" in words  # what a server starts to try out its next version, and may leave behind
            if any(word.endswith("/cmappserver") for word in words[:3]) and not trial and _parent_is_init(pid):
                return pid
        return None

    def processes(self, word: str) -> list[int]:
        """Return its processes that have `word` in their command line, oldest first."""
        return sorted(pid for pid in self._pids("") if word in _words(pid))

    def journal(self) -> str:
        """Return what its server and its systemd have logged of the unit, all boots."""
        folder = self._disk / "var/log/journal"
        command_line = ["journalctl", "--no-pager", "-q", "-o", "short-monotonic", "-D", str(folder), f"--unit={UNIT}"]
        return subprocess.run(command_line, capture_output=True, text=True, timeout=60, check=False).stdout

    def _freeze(self, word: str) -> None:
        try:
            (self._group / "payload/cgroup.freeze").write_text(word)
        except OSError:
            pass  # it has no power

    def _pids(self, unit: str) -> Iterator[int]:
        for folder, _, files in os.walk(self._group / "payload" / unit):
            if "cgroup.procs" not in files:
                continue
            try:
                with open(f"{folder}/cgroup.procs") as file:  # noqa: PTH123 - as os.walk gives it
                    yield from [int(line) for line in file]
            except OSError:
                continue  # it went away meanwhile

    def _wait(self) -> None:
        if self._spawned is None:
            return
        try:
            self._spawned.wait(END_LIMIT)
        except subprocess.TimeoutExpired:
            grounds.end_group(self._group / "payload")
            self._spawned.kill()
            self._spawned.wait()
        self._spawned = None
        grounds.end_group(self._group)
        self._plug.unplug()
        command("umount", "--lazy", str(self._merged), check=False)


def send(pid: int, number: int, word: str) -> bool:
    """Send a signal to a process if `word` is in its command line; tell whether it was there."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not any(word in part for part in _words(pid)):
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def heeds(pid: int, number: int) -> bool:
    """Tell whether a process catches, blocks or ignores a signal, which might end it otherwise."""
    try:
        with open(f"/proc/{pid}/status") as file:  # noqa: PTH123 - as below
            lines = dict(line.split(":", 1) for line in file)
    except (OSError, ValueError):
        return False
    return any(int(lines[which], 16) >> (number - 1) & 1 for which in ("SigCgt", "SigBlk", "SigIgn"))


def _words(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123 - often
            return file.read().decode(errors="replace").split("\0")
    except OSError:
        return []


def _word(pid: int, place: int) -> str:
    words = _words(pid)
    return words[place] if place < len(words) else ""


def _parent_is_init(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - often
            parent = int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return False
    return _word(parent, 0).endswith("systemd")
