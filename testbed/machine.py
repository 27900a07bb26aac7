"""A real machine for a guest: Debian with its own kernel, systemd and PostgreSQL on a disk, for QEMU without KVM.

What takes minutes, Debian itself, is made once and kept under the hash of its recipe. Each machine has a copy of that
disk, with the server from the built wheel, its unit and its keys written into it. The invariant: a kit under its final
name is whole, because it is made under another and renamed; and no machine ever writes to it.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import inspect
import py_compile
import shutil
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import rootfs
from chaos.network import PREFIX

if TYPE_CHECKING:
    from chaos.grounds import Grounds

PACKAGES: tuple[str, ...] = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "udev",
    "kmod",
    "iproute2",
    "python3",
    "initramfs-tools",
)
PACKAGES += ("linux-image-cloud-amd64", "qemu-guest-agent", "postgresql")
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "crc32c_generic")
# Software emulation starts processes some thirty times slower than this machine: each of these costs a boot a tenth of
# a second or more, and none has anything to do here.
MASKED = (
    *("serial-getty@ttyS0.service", "systemd-binfmt.service", "systemd-pstore.service", "systemd-sysusers.service"),
    *("modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service", "modprobe@fuse.service"),
    *("modprobe@loop.service", "modprobe@efi_pstore.service", "sys-kernel-config.mount", "sys-kernel-debug.mount"),
    *("sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount", "dev-hugepages.mount", "dev-mqueue.mount"),
)
GENERATORS: tuple[str, ...] = (
    "cryptsetup",
    "debug",
    "getty",
    "gpt-auto",
    "hibernate-resume",
    "integritysetup",
    "rc-local",
    "run",
)
GENERATORS += ("system-update", "sysv", "veritysetup")
DISK = "1500M"  # sparse: about 650 MB of it are used
MEMORY = 512  # MiB
STORE = f"{PREFIX}.1"  # the side of the switch where no node is, whose power nobody takes
STORE_PORT = 10809  # of NBD, by its registration
BUILD_LIMIT = 900.0  # seconds, most of it the network's
LIMIT = 60.0
NETWORK = """[Match]
Name=e*

[Network]
Address={address}/24
IPv6AcceptRA=no
# The link-local address of IPv6 stays on: its first frames teach the bridges on which port this machine is now. One
# with IPv4 alone sends nothing until it is asked, and after a failover is not found for most of a minute.
"""
OPTIONS = "mitigations=off cryptomgr.notests rcupdate.rcu_expedited=1"  # what only costs time under emulation
# No CPU is named: QEMU's own plain one boots in two thirds of the time of the one with all that can be emulated.
DOMAIN = """<domain type='qemu'>
  <name>{name}</name>
  <uuid>{uuid}</uuid>
  <memory unit='MiB'>{memory}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{kit}/vmlinuz</kernel>
    <initrd>{kit}/initrd</initrd>
    <cmdline>root=/dev/vda rw quiet console=ttyS0 {options}</cmdline>
  </os>
  <features><acpi/></features>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    <!-- Over the network and past the page cache: so libvirt sees that all hosts share it, and migrates it. -->
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none'/>
      <source protocol='nbd' name='{name}'><host name='{store}' port='{port}'/></source>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='bridge'>
      <mac address='{mac}'/>
      <source bridge='{bridge}'/>
      <model type='virtio'/>
      <rom enabled='no'/>
    </interface>
    <serial type='file'><source path='{console}' append='on'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='none'/>
  </devices>
</domain>
"""


class Machine:
    """One machine: its disk, what is on it, and how libvirt is to run it. Whoever runs it must see `folder`."""

    def __init__(self, folder: Path, name: str, address: str, bridge: str) -> None:
        """Make its disk in `folder`, which must be empty; `address` is its IPv4 address, in a network of 256."""
        self.name = name
        self.address = address
        self._kit = kit()
        self._layer = folder / "layer"
        self.disk = folder / f"{name}.img"
        self.console = folder / f"{name}.console"
        self.domain = folder / f"{name}.xml"
        self._layer.mkdir(parents=True)
        _command("cp", "--sparse=always", str(self._kit / "disk.img"), str(self.disk))
        for path in ("vmlinuz", "initrd"):
            shutil.copy(self._kit / path, folder)
        identity = hashlib.sha256(name.encode()).hexdigest()
        self.domain.write_text(
            DOMAIN.format(
                name=name,
                uuid=uuid.UUID(identity[:32]),
                memory=MEMORY,
                options=OPTIONS,
                kit=folder,
                store=STORE,
                port=STORE_PORT,
                mac=":".join(["52:54:00", identity[:2], identity[2:4], identity[4:6]]),
                bridge=bridge,
                console=self.console,
            )
        )
        self.write("etc/machine-id", f"{identity[:32]}\n")
        self.write("etc/hostname", f"{name}\n")
        self.write("etc/systemd/network/10-all.network", NETWORK.format(address=address))

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Have a file on its disk."""
        target = self._layer / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def equip(self, wheel: Path, unit: Path, keys: Path) -> None:
        """Install the server with its unit and its keys."""
        rootfs.install(wheel, unit, self._kit, self._layer)
        shutil.copytree(keys, self._layer / "etc/cmapp/keys")
        (self._layer / "etc/cmapp/keys").chmod(0o700)
        python = next((self._layer / "usr/local/lib").iterdir())
        if python.name == f"python{sys.version_info.major}.{sys.version_info.minor}":
            # Compiled here, since the machine would take seconds for it at its first boot.
            compileall.compile_dir(
                python,
                quiet=2,
                stripdir=str(self._layer),
                invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
            )

    def finish(self) -> None:
        """Write all that to the disk; raises RuntimeError if something does not arrive there."""
        paths = sorted(self._layer.rglob("*"))
        script: list[str] = []
        for path in paths:
            inside = path.relative_to(self._layer)
            if path.is_dir() and not path.is_symlink():
                script += [f"mkdir /{inside}", f"set_inode_field /{inside} mode 0{path.stat().st_mode:o}"]
                continue
            script.append(f"cd /{inside.parent}")
            link = path.is_symlink()
            script.append(f"symlink {path.name} {path.readlink()}" if link else f"write {path} {path.name}")
        commands = self._layer.with_suffix(".debugfs")
        commands.write_text("\n".join(script) + "\n")
        said = _command("debugfs", "-w", "-f", str(commands), str(self.disk), errors=True)
        wrong = [line for line in said.splitlines() if "already exists" not in line and not line.startswith("debugfs ")]
        if wrong:
            raise RuntimeError(f"not written to {self.disk}: {wrong[0]}")
        shutil.rmtree(self._layer)

    def serve(self, site: Grounds) -> None:
        """Let all nodes on these grounds have the disk, over the network, as a storage array would."""
        command = ["qemu-storage-daemon", "--blockdev", f"driver=file,node-name=disk,filename={self.disk}"]
        command += ["--nbd-server", f"addr.type=inet,addr.host={STORE},addr.port={STORE_PORT},max-connections=0"]
        command += ["--export", f"type=nbd,id=export,node-name=disk,name={self.name},writable=on"]
        site.start(site.on_host(*command), site.cgroup / "store", stdout=self.disk.with_suffix(".store"))


def kit() -> Path:
    """Return the folder with disk.img, vmlinuz and initrd, which is made if it is not there.

    Raises RuntimeError with the reason if it cannot be made.
    """
    recipe = " ".join((rootfs.SUITE, *PACKAGES, *MODULES, *rootfs.MASKED, *MASKED, *GENERATORS, DISK))
    recipe += inspect.getsource(_debootstrap) + inspect.getsource(_settle)
    made = rootfs.cache() / f"machine-{rootfs.SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    made.parent.mkdir(parents=True, exist_ok=True)
    with (made.parent / "machine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that need it make it once
        if not made.is_dir():
            print(f"making the machines' disk in {made}, once", flush=True)
            _make(made)
    return made


def _make(final: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=final.parent))
    try:
        root, new = folder / "root", folder / "kit"
        _debootstrap(folder, root)
        _settle(root)
        python = next((root / "usr/lib").glob("python3.*")).relative_to(root)
        (new / python).mkdir(parents=True)  # what the wheel's installer asks a root file system for
        for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copy(next((root / "boot").glob(pattern)), new / name)
        _command("mke2fs", "-q", "-t", "ext4", "-d", str(root), str(new / "disk.img"), DISK)
        new.rename(final)
    finally:
        shutil.rmtree(folder)


def _debootstrap(folder: Path, root: Path) -> None:
    """Have Debian installed in `root`, with an initial file system of just what finds the disk."""
    (folder / "conf").write_text("MODULES=list\nCOMPRESS=gzip\n")
    (folder / "modules").write_text("\n".join(MODULES) + "\n")
    conf, modules = "etc/initramfs-tools/conf.d", "usr/share/initramfs-tools/modules.d"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
    command += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
    command.append(f'--essential-hook=mkdir -p "$1/{conf}" "$1/{modules}"')
    command += [f"--essential-hook=upload {folder}/conf /{conf}/machine"]
    command += [f"--essential-hook=upload {folder}/modules /{modules}/machine"]
    _command(*command, rootfs.SUITE, str(root), limit=BUILD_LIMIT)


def _settle(root: Path) -> None:
    """Leave out of a boot what nobody waits for, and make nothing of it this machine's alone."""
    units = root / "etc/systemd/system"
    for unit in (*rootfs.MASKED, *MASKED):
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    for unit in ("postgresql", "e2scrub_reap"):
        (units / f"multi-user.target.wants/{unit}.service").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    wanted = units / "multi-user.target.wants/systemd-networkd.service"
    wanted.symlink_to("/lib/systemd/system/systemd-networkd.service")
    (root / "lib/systemd/system-generators/postgresql-generator").unlink()  # its unit is for a manager to start
    generators = root / "etc/systemd/system-generators"
    generators.mkdir()
    for name in GENERATORS:
        (generators / f"systemd-{name}-generator").symlink_to("/dev/null")
    for name in ("etc/machine-id", "etc/hostname", "var/lib/dbus/machine-id"):
        (root / name).unlink(missing_ok=True)  # each machine has its own
    (root / "etc/fstab").write_text("/dev/vda / ext4 rw,noatime 0 0\n")
    (root / "var/log/journal").mkdir(exist_ok=True)  # so that the journal outlives a crash


def _command(*argv: str, limit: float = LIMIT, errors: bool = False) -> str:
    """Run a command and return its output, or what it complained of; raises RuntimeError if it failed."""
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit, check=False)
    if done.returncode:
        raise RuntimeError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stderr if errors else done.stdout
