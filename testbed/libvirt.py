"""A libvirtd in each node, and the machines that they run: `HOOK` starts it, `Libvirt` speaks to all of them.

As the hook of a cluster's node this file is run inside of it, before the cluster, by the plain interpreter. All that a
libvirtd writes is below the node's own /etc, /var and /run; its machines share the node's network through a bridge, so
that they are on the switch beside the nodes. The invariant: two libvirtds never take each other for themselves, since
each has a host UUID of its own, without which they would refuse to migrate anything.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from testbed.cluster import Cluster

BRIDGE = "br0"
CABLE = "host0"
NEEDED = {
    "libvirtd": "libvirt-daemon",
    "virsh": "libvirt-clients",
    "qemu-system-x86_64": "qemu-system-x86",
    "mmdebstrap": "mmdebstrap",
    "debugfs": "e2fsprogs",
}
DRIVER = Path("/usr/lib/x86_64-linux-gnu/libvirt/connection-driver/libvirt_driver_qemu.so")
CALL_LIMIT = 30.0  # seconds for a command in the machine, which may be under load
PAUSE = 0.05
# Whoever reaches a node of the bed on this port is one of its other nodes, which ask it to take a machine in.
DAEMON = """listen_tls = 0
listen_tcp = 1
auth_tcp = "none"
auth_unix_rw = "none"
listen_addr = "{address}"
host_uuid = "{identity}"
"""
# The defaults that libvirtd looks up before it reads that it is to use others; Debian makes them with a package more.
USERS = {"/etc/passwd": "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin\n", "/etc/group": "libvirt-qemu:x:64055:\n"}
QEMU = """user = "root"
group = "root"
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
"""


def start(name: str) -> None:
    """Start the libvirtd of the node in which this runs; returns when it answers."""
    configured = Path("/etc/libvirt")
    configured.mkdir(exist_ok=True)
    for path, line in USERS.items():
        with Path(path).open("r+") as file:
            if line.partition(":")[0] not in file.read():
                file.write(line)
    address = json.loads(_command("ip", "-json", "-4", "addr", "show", CABLE))[0]["addr_info"][0]["local"]
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.{address}.testbed")
    (configured / "libvirtd.conf").write_text(DAEMON.format(address=address, identity=identity))
    (configured / "qemu.conf").write_text(QEMU)
    hardware = Path(f"/sys/class/net/{CABLE}/address").read_text().strip()
    for words in (
        f"link add {BRIDGE} address {hardware} type bridge stp_state 0 forward_delay 0",
        f"addr flush dev {CABLE}",
        f"link set {CABLE} master {BRIDGE}",
        f"addr add {address}/24 dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ):
        _command("ip", *words.split())
    _command("libvirtd", "--daemon", "--listen")  # it returns when its sockets are there


class Libvirt:
    """The libvirtds of a cluster whose nodes have `HOOK` as their hook."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def virsh(self, node: str, *words: str, limit: float = CALL_LIMIT) -> str:
        """Have a node's libvirtd do something; raises RuntimeError with its complaint."""
        done = self._cluster.run(node, "virsh", "--quiet", "--connect", "qemu:///system", *words, limit=limit)
        if done.returncode:
            raise RuntimeError(f"{node}: virsh {words[0]}: {done.stderr.strip()}")
        return done.stdout.strip()

    def where(self, domain: str) -> list[str]:
        """Return the nodes with power on which a machine is running: one, or it is a scandal."""
        alive = [name for name, node in self._cluster.nodes.items() if node.alive]
        return [node for node in alive if self._state(node, domain) == "running"]

    def inside(self, domain: str, *argv: str, limit: float = CALL_LIMIT) -> str:
        """Run a command in the machine, wherever it is, and return its output; raises RuntimeError if it failed.

        It goes by the machine's own guest agent, which needs neither its network nor its cmappserver.
        """
        (node,) = self.where(domain)
        run = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        pid = self._agent(node, domain, "guest-exec", run)["pid"]
        deadline = time.monotonic() + limit
        while not (status := self._agent(node, domain, "guest-exec-status", {"pid": pid}))["exited"]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{argv[0]} in {domain} has not ended within {limit:g} s")
            time.sleep(PAUSE)
        if status.get("exitcode") != 0:
            said = base64.b64decode(status.get("err-data", "")).decode(errors="replace")
            raise RuntimeError(f"{' '.join(argv)} in {domain}: {said.strip() or status}")
        return base64.b64decode(status.get("out-data", "")).decode(errors="replace")

    def _agent(self, node: str, domain: str, what: str, arguments: dict[str, object]) -> dict[str, Any]:
        asked = json.dumps({"execute": what, "arguments": arguments})
        answer: dict[str, Any] = json.loads(self.virsh(node, "qemu-agent-command", domain, asked))["return"]
        return answer

    def _state(self, node: str, domain: str) -> str:
        try:
            return self.virsh(node, "domstate", domain)
        except RuntimeError:
            return ""  # it does not know that machine


def what_is_missing() -> str:
    """Return in one line why machines cannot be had here, or nothing."""
    packages = [package for tool, package in NEEDED.items() if shutil.which(tool) is None]
    if not DRIVER.exists():
        packages.append("libvirt-daemon-driver-qemu")
    return f"missing Debian packages: {' '.join(packages)}" if packages else ""


def _command(*argv: str) -> str:
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


HOOK = (sys.executable, "-IS", str(Path(__file__).resolve()))

if __name__ == "__main__":
    start(sys.argv[1])
