"""A libvirtd of the tests' own, in a mount namespace with folders of its own, and domains of a few bytes.

A domain's disk begins with a program of some twenty bytes, which is all of its operating system, so it runs under
QEMU's emulation in 40 MB and is there at once. The invariant: the host's libvirt, if it has one, is not met, and
nothing that was started here outlives the bed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

POSSIBLE = os.geteuid() == 0 and all(map(shutil.which, ("libvirtd", "virsh", "qemu-system-x86_64", "unshare")))
URI = "qemu:///system"
SOON = 40.0  # seconds; the first domain waits until libvirt has looked at its QEMU
# Programs in 16 bits: waits to be asked to shut down by ACPI, and does it; never does; writes to the disk.
SAYS = "baf803 b021 ee "  # that it is there, on its serial line
OBEYS = SAYS + "ba0206 b80001 ef fb f4 ba0006 ed f6c401 74f5 ba0406 b80020 ef ebec"
HALTS = SAYS + "fb f4 ebfc"
WRITES = SAYS + "b80103 b92000 ba8000 bb007e cd13 f4 ebf1"
CONFIG = {
    "libvirtd.conf": ['auth_unix_rw = "none"', 'host_uuid = "00000000-0000-4000-8000-000000000001"'],
    "qemu.conf": [
        'user = "root"',
        'group = "root"',
        'security_driver = "none"',
        "cgroup_controllers = []",
        "namespaces = []",
        'stdio_handler = "file"',
    ],
}
DOMAIN = """<domain type='qemu'><name>{name}</name><memory unit='MiB'>16</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc'>hvm</type></os><features><acpi/></features><devices>
<emulator>/usr/bin/qemu-system-x86_64</emulator>
<disk type='file' device='disk'>
<driver name='qemu' type='raw' error_policy='stop'/><source file='{image}'/>
<target dev='hda' bus='ide'/></disk>
<serial type='file'><source path='{console}'/></serial><controller type='usb' model='none'/><memballoon model='none'/>
</devices></domain>"""
PREPARE = """set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mount -t tmpfs -o size=4k tmpfs "$1/small"
for place in etc:/etc/libvirt lib:/var/lib/libvirt log:/var/log/libvirt cache:/var/cache/libvirt; do
  mkdir -p "${place#*:}"; mount --bind "$1/${place%%:*}" "${place#*:}"; done
for file in passwd group; do mount --bind "$1/$file" /etc/$file; done
echo ready; exec sleep infinity
"""


# libvirt takes a QEMU for alive until somebody has reaped it, which the machine's first process may do late.
REAPER = """
import ctypes, os
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
os.posix_spawnp("libvirtd", ["libvirtd", "-d"], os.environ)
try:
    while True:
        os.wait()
except ChildProcessError:
    pass
"""


class Bed:
    """The namespace, its libvirtd, and the guest services that are started in it."""

    def __init__(self, folder: Path, number: int = 1) -> None:
        """Start it in `folder`; libvirts that migrate to each other have a `number` each."""
        self.folder = folder
        for name in ("etc", "lib", "log", "cache", "small"):
            (folder / name).mkdir()
        for name, lines in CONFIG.items():
            text = "\n".join(lines).replace("000000000001", f"{number:012}")
            (folder / "etc" / name).write_text(text + "\n")
        # Debian's libvirt-daemon wants a user that another package makes.
        users = {"passwd": "libvirt-qemu:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"}
        users["group"] = "libvirt-qemu:x:64055:\nkvm:x:64056:\n"
        for name, more in users.items():
            (folder / name).write_text(Path("/etc", name).read_text() + more)
        prepare = ["unshare", "-m", "sh", "-c", PREPARE, "sh", str(folder)]
        self._holder = subprocess.Popen(prepare, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n"
        self.root = Path(f"/proc/{self._holder.pid}/root")
        self.services: list[Service] = []
        self._reapers: list[subprocess.Popen[bytes]] = []
        self.names: list[str] = []
        self.start_daemon()

    def inside(self, *command: object) -> list[str]:
        """Return the command line that does `command` in the namespace."""
        return ["nsenter", "-t", str(self._holder.pid), "-m", "--", *map(str, command)]

    def virsh(self, *words: object, check: bool = True) -> str:
        """Ask libvirt by its own tool."""
        command = self.inside("virsh", "-q", "-c", URI, *words)
        return subprocess.run(command, check=check, capture_output=True, text=True).stdout.strip()

    def start_daemon(self) -> None:
        """Start libvirtd, and wait until it answers."""
        self._reapers.append(subprocess.Popen(self.inside(sys.executable, "-c", REAPER)))
        asked = self.inside("virsh", "-q", "-c", URI, "list")
        until(lambda: subprocess.run(asked, capture_output=True, check=False).returncode == 0, "libvirtd answers", SOON)

    @property
    def daemon(self) -> int:
        """The pid of libvirtd."""
        return int((self.root / "run/libvirtd.pid").read_text())

    def kill_daemon(self) -> None:
        """Kill libvirtd, and wait until it is gone."""
        pid = self.daemon
        os.kill(pid, signal.SIGKILL)
        until(lambda: not alive(pid), "libvirtd is gone")

    def define(self, name: str, program: str = OBEYS, *, small: bool = False) -> str:
        """Define a domain whose disk begins with `program`, and return its name."""
        self.resize("4k")
        shown = self.folder / ("small" if small else ".") / f"{name}.img"
        image = Path(f"{self.root}{shown}")
        image.write_bytes(bytes.fromhex(program).ljust(510, b"\0") + b"\x55\xaa")
        os.truncate(image, 1 << 20)
        xml = self.folder / f"{name}.xml"
        (self.folder / f"{name}.console").unlink(missing_ok=True)
        xml.write_text(DOMAIN.format(name=name, image=shown, console=self.folder / f"{name}.console"))
        self.virsh("define", xml)
        self.names.append(name)
        return name

    def resize(self, size: str) -> None:
        """Give the file system of small disks another size."""
        subprocess.run(self.inside("mount", "-o", f"remount,size={size}", self.folder / "small"), check=True)

    def until_booted(self, name: str) -> None:
        """Wait until the program on the domain's disk runs: before, nothing hears a request to shut down."""
        console = self.folder / f"{name}.console"
        until(lambda: console.exists() and console.stat().st_size > 0, f"{name} has booted", SOON)

    def emulator(self, name: str) -> int:
        """Return the pid of the domain's QEMU."""
        return int((self.root / f"run/libvirt/qemu/{name}.pid").read_text())

    def command(self, *arguments: object) -> list[str]:
        """Return the command line of the guest service in the namespace."""
        return self.inside(sys.executable, "-P", "-m", "cmapp.cli.vmrun", *arguments)

    def said(self, *arguments: object) -> tuple[int, str]:
        """Run the guest service's command to its end; return its code and what it printed."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)
        return done.returncode, (done.stdout + done.stderr).strip()

    def state(self, name: str, *options: str) -> str:
        """Return the word for how the domain is."""
        return self.said("state", *options, name)[1].partition(":")[0]

    def run(self, name: str, *options: object) -> Service:
        """Start a guest service of the domain."""
        self.services.append(Service(self.folder, self.command, name, *options))
        return self.services[-1]

    def clear(self) -> None:
        """End what a test has left, and have libvirtd answer again."""
        for service in self.services:
            service.close()
        self.services.clear()
        with suppress(OSError, ValueError):
            os.kill(self.daemon, signal.SIGCONT)
        pid = self._daemon_or_none()
        if pid is None:
            self.start_daemon()
        for name in {*self.names, *self.virsh("list", "--name", check=False).split()}:  # what was migrated here, too
            self.virsh("destroy", name, check=False)
            self.virsh("undefine", name, check=False)
            for image in (self.folder / f"{name}.img", Path(f"{self.root}{self.folder}/small/{name}.img")):
                image.unlink(missing_ok=True)
        self.names.clear()

    def close(self) -> None:
        """Take everything down."""
        self.clear()
        os.kill(self.daemon, signal.SIGTERM)
        for reaper in self._reapers:
            reaper.wait(SOON)
        self._holder.kill()
        self._holder.communicate()

    def _daemon_or_none(self) -> int | None:
        with suppress(OSError, ValueError):
            pid = self.daemon
            return pid if alive(pid) else None
        return None


class Service:
    """A guest service that runs; `code` waits for its end."""

    def __init__(self, folder: Path, command: Any, name: str, *options: object) -> None:
        number = len(list(folder.glob("service-*")))
        self.folder = folder / f"service-{number}"
        self.folder.mkdir()
        self.log_file, self.result_file = self.folder / "log", self.folder / "result"
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        address = f"cmapp-vm-{os.getpid()}-{self.folder.parent.name}-{number}"
        self._notices.bind("\0" + address)
        self._notices.setblocking(False)
        own = [
            "--no-syslog",
            "--log-file",
            self.log_file,
            "--result",
            self.result_file,
            "--state-dir",
            folder / "state",
        ]
        env = {**os.environ, "NOTIFY_SOCKET": "@" + address}
        self.process = subprocess.Popen(command("run", *own, *options, name), env=env)

    @property
    def log(self) -> str:
        """What it has told so far."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def until(self, words: str) -> None:
        """Wait until it has told something, unless it ends before."""
        until(lambda: words in self.log or self.process.poll() is not None, f"{words!r} in {self.log_file}", SOON)
        assert words in self.log, self.log

    def until_ready(self) -> None:
        """Wait until it says READY=1."""
        until(lambda: self._says("READY=1") or self.process.poll() is not None, "READY=1", SOON)
        assert self.process.poll() is None, self.log

    def _says(self, word: str) -> bool:
        try:
            return word in self._notices.recv(4096).decode().split("\n")
        except BlockingIOError:
            return False

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(SOON)

    @property
    def result(self) -> dict[str, Any]:
        """What it has written at its end."""
        return dict(json.loads(self.result_file.read_text()))

    def ends(self, cause: str, code: int) -> None:
        """Wait for its end, which is that."""
        assert (self.code, self.result["cause"], self.result["exit_code"]) == (code, cause, code), self.log
        assert "internal error" not in self.log

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()
        self._notices.close()


def migration(source: Bed, target: Bed, name: str) -> list[str]:
    """Return the command that migrates a domain from one bed to the other, which share this machine's network."""
    there = f"qemu+unix:///system?socket={target.root}/run/libvirt/libvirt-sock"
    words = (sys.executable, "-P", "-m", "cmapp.vm.domain", "migrate", URI, name, there)
    return source.inside(*words, "tcp://127.0.0.1:49731", "unsafe")


def bed_in(folder: Path) -> Iterator[Bed]:
    """Yield a bed in `folder`, and take it down."""
    bed = Bed(folder)
    try:
        yield bed
    finally:
        bed.close()


def script(path: Path, lines: Sequence[str]) -> Path:
    """Write a script for the shell."""
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path
