"""A cluster and two machines to watch applications on: a guest with cmappserver, one with Pacemaker's own daemon.

Three nodes of the test bed; `g1`, a guest whose PID 1 is a real systemd; and `r1`, a set of namespaces like a node, in
which nothing runs but pacemaker-remoted. Debian's package of that conflicts with Pacemaker's, so it is downloaded and
unpacked, not installed. The invariant: all of it is gone when the context ends.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from measure import BenchError

from chaos import rootfs
from testbed.cluster import Cluster
from testbed.nodes import Node

ROOT = Path(__file__).parents[1]
AGENTS = Path(__file__).parent / "agents"
REMOTE, REMOTE_NUMBER = "r1", 31  # its name, and the last part of its address
GUEST = "g1"


class Remotes(Cluster):
    """The cluster, up and with both machines, in a context; `answers` tells when all of it is there."""

    def _equip(self) -> None:
        super()._equip()
        agents = self.folder / "overlays/usr/lib/ocf/resource.d/bench"
        shutil.copytree(AGENTS, agents)
        self.remote = Node(self.site, REMOTE, REMOTE_NUMBER)
        self.name(REMOTE, self.remote.address)
        self.remote.configure(self.folder / "overlays", (), str(remoted()))
        self.remote.write("/etc/pacemaker/authkey", (self.folder / "n1/etc/pacemaker/authkey").read_bytes(), 0o640)

    def up(self) -> None:
        """Give power to all, and wait until the guest has booted and the nodes have found each other."""
        wheels = sorted((ROOT / ".venv/wheel").glob("*.whl"))
        if not wheels:
            raise BenchError("there is no wheel in .venv/wheel to install in a guest: ./run bench makes one")
        super().up()
        self.remote.start()
        self.guest = self.define(GUEST, wheels[-1], ROOT / "packaging/cmappserver.service")
        self.hypervisor.command(["n1", "start", GUEST])
        self.until_online()
        self.until(self.guest.server, "a server in the guest")

    def down(self) -> None:
        """Take the power of everything."""
        if self.nodes:
            self.remote.crash()
        super().down()

    def load(self, xml: str) -> None:
        """Add to the cluster's configuration, all at once."""
        done = self.run("n1", "cibadmin", "--modify", "--allow-create", "--scope", "configuration", "--xml-text", xml)
        if done.returncode:
            raise BenchError(f"Pacemaker does not take the configuration: {done.stderr.strip()}")


def remoted() -> Path:
    """Return Pacemaker's daemon for machines that are no nodes, unpacked into the cache if it is not there."""
    version = _said("dpkg-query", "-W", "-f", "${Version}", "pacemaker")
    folder = rootfs.cache() / f"pacemaker-remote-{version.replace(':', '_')}"
    program = folder / "usr/sbin/pacemaker-remoted"
    if not program.exists():
        new = folder.with_suffix(".new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        _said("apt-get", "download", "-qq", f"pacemaker-remote={version}", folder=new)
        _said("dpkg", "-x", str(next(new.glob("*.deb"))), str(new))
        new.rename(folder)
    return program


def _said(*argv: str, folder: Path | None = None) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout.strip()
