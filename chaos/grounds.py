"""The grounds that guests stand on: a folder, a network and a control group of our own, and their removal.

Everything that is made for one use of the grounds bears its name, and is held by a lock that ends with the process.
So what a killed earlier use has left can be told from one that goes on, and is swept away at the next start. The
invariant: nothing is ended or removed that does not bear the name of grounds whose owner is gone, or our own.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from chaos.network import Network, command

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = Path("/run/cmapp-chaos")
MARK = "cmapp-chaos-"
ROOM = "512m"
NEEDED = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
}
END_LIMIT = 10.0  # seconds
_numbers = itertools.count()


def what_is_missing() -> str:
    """Return in one line why guests cannot be had here, or nothing."""
    if os.geteuid() != 0:
        return "only root can make guests"
    packages = [package for tool, package in NEEDED.items() if shutil.which(tool) is None]
    if packages:
        return f"missing Debian packages: {' '.join(packages)}"
    try:
        mount = cgroup_mount()
        trial = mount / f"{MARK}trial-{os.getpid()}"
        trial.mkdir()
        trial.rmdir()
    except (OSError, LookupError) as error:
        return f"no control group of version 2 that can be written to: {error}"
    if not (mount / "cgroup.freeze").exists() and _kernel() < (5, 14):
        return "the kernel has no cgroup.kill: Linux 5.14 or later is needed"
    if subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, check=False).returncode:
        return "namespaces cannot be made here: a container has to be privileged"
    return ""


def cgroup_mount() -> Path:
    """Return where the control groups of version 2 are mounted."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            return Path(before.split()[4])
    raise LookupError("none is mounted")


class Grounds:
    """A context in which guests can be made; leaving it ends and removes all that was made on it."""

    def __init__(self) -> None:
        self.name = f"{MARK}{os.getpid()}.{next(_numbers)}"
        self.folder = BASE / self.name
        self.cgroup = cgroup_mount() / self.name
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        """Sweep what is left of others, and make the folder, the control group and the network."""
        BASE.mkdir(exist_ok=True)
        with (BASE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            sweep()
            self._lock = (BASE / f"{self.name}.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            try:
                self.folder.mkdir()
                command("mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=755", "cmapp-chaos", str(self.folder))
                self.cgroup.mkdir()
                self.network = Network(self.name)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        """End and remove everything."""
        self.close()

    def close(self) -> None:
        """End and remove everything."""
        remove(self.name)
        for child in self._children:
            child.wait(END_LIMIT)  # they were killed
        self._lock.close()

    def start(
        self, argv: Sequence[str], group: Path, *, stdout: Path, stderr: Path | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command as a child of ours in a control group of the grounds, with an empty environment."""
        into = ["sh", "-c", 'echo $$ >"$0" && exec "$@"', str(group / "cgroup.procs"), *argv]
        group.mkdir(exist_ok=True)
        with stdout.open("ab") as out, (stderr or stdout).open("ab") as err:
            child = subprocess.Popen(
                into,
                # Where the machine's own control groups are mixed, the guest's are of version 2 all the same.
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._children.append(child)
        return child

    def on_host(self, *argv: str) -> list[str]:
        """Return the command line that runs `argv` on the host's side of the network."""
        return ["nsenter", f"--net={self.network.path}", *argv]


def sweep() -> None:
    """Remove what grounds whose owner is gone have left."""
    for path in BASE.glob(f"{MARK}*.lock"):
        with path.open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # somebody is on them
            remove(path.stem)


def remove(name: str) -> None:
    """End and remove everything that bears the name of these grounds."""
    end_group(cgroup_mount() / name)
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    folder = BASE / name
    for mount in reversed([mount for mount in mounts if Path(mount).is_relative_to(folder)]):
        command("umount", "--lazy", mount, check=False)
    for namespace in sorted(Path("/run/netns").glob(f"{name}*"), reverse=True):
        if namespace.name == name or namespace.name.startswith(f"{name}-"):
            command("ip", "netns", "del", namespace.name, check=False)
    if folder.is_dir():
        folder.rmdir()
    (BASE / f"{name}.lock").unlink(missing_ok=True)


def end_group(group: Path) -> None:
    """Kill all that is in a control group and below, and remove it."""
    deadline = time.monotonic() + END_LIMIT
    while group.is_dir():
        try:
            (group / "cgroup.kill").write_text("1")
            for path in [*sorted(group.rglob("*/"), reverse=True), group]:
                path.rmdir()
        except FileNotFoundError:
            pass
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{group} cannot be removed: {error}") from None
            time.sleep(0.02)  # those that were killed are on their way out


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
