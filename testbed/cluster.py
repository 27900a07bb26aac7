"""A real cluster of Corosync and Pacemaker on this machine, a node a set of namespaces, up in about five seconds.

    with Cluster() as cluster:
        cluster.until_online()
        print(cluster.run("n1", "crm_mon", "-1").stdout)
        cluster.crash("n2")

Nodes n1, n2, ... share the machine's file system, but for /etc, /var and /run, and a switch with the guests of the
hypervisor. They are fenced by a power switch outside, which takes their guests' power too. Everything stands on
`chaos.grounds`, so that two beds never meet, and what a killed one has left is swept away by the next. The invariant:
a node that was told to be off is off, and so are its guests, before anybody hears of it.
"""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Self
from xml.etree import ElementTree as ET

from chaos import grounds
from chaos.grounds import Grounds
from chaos.guests import Guest
from testbed import papers
from testbed.counter import Counter
from testbed.hypervisor import Hypervisor
from testbed.nodes import Node
from testbed.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HERE = Path(__file__).parent
PROGRAMS = Path(sys.executable).parent
FIRST_NODE = 11  # the last part of the address of n1
FIRST_GUEST = 51  # of the first guest
ONLINE_LIMIT = 90.0  # seconds in which a cluster forms, on a slow machine
NEEDED = {
    "corosync": "corosync",
    "pacemakerd": "pacemaker",
    "crm_resource": "pacemaker-cli-utils",
    "unshare": "util-linux",
}


def what_is_missing() -> str:
    """Return in one line why a cluster cannot be had here, or nothing."""
    if missing := grounds.what_is_missing():
        return missing
    packages = [package for tool, package in NEEDED.items() if shutil.which(tool) is None]
    return f"missing Debian packages: {' '.join(packages)}" if packages else ""


class Cluster(Watch):
    """A cluster; a context that leaves nothing running, or `up` and `down`."""

    def __init__(
        self,
        size: int = 3,
        *,
        hook: Sequence[str] = (),
        names: dict[str, str] | None = None,
        token: float = papers.TOKEN,
        keys: bool = True,
    ) -> None:
        """`hook` is run in each node before its cluster, with its name and its folder; `names` have those addresses.

        With `keys` there is an authority in the folder `keys`, and each node has a host's keys in /etc/cmapp/keys.
        """
        self.site = Grounds()
        self.nodes: dict[str, Node] = {}
        self.hypervisor = Hypervisor(lambda name: name in self.nodes and self.nodes[name].alive)
        self._hook = hook
        self._names = dict(names or {})
        self._size = size
        self._token = token
        self._with_keys = keys
        self._guests = 0
        self._counter: Counter | None = None
        self._workers = ThreadPoolExecutor(8)

    @property
    def folder(self) -> Path:
        """The folder of the bed, which nodes see at the same place, and as /run/testbed."""
        return self.site.folder

    @property
    def authority(self) -> Path:
        """The folder of the authority that `cmapp keys init` has made."""
        return self.folder / "keys"

    def __enter__(self) -> Self:
        """Put it up."""
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        """Take it down."""
        self.down()

    def up(self) -> None:
        """Give power to all nodes; returns before they have found each other, for which see `until_online`."""
        self.site.__enter__()
        try:
            self._counter = Counter(self.folder / "counter", {"power": self._power, "guest": self.hypervisor.command})
            self._equip()
            self._each([node.start for node in self.nodes.values()])
            if self._with_keys:
                self._issue_keys()
        except BaseException:
            self.down()
            raise

    def down(self) -> None:
        """Take the power of everything, and remove it."""
        if self._counter is not None:
            self._counter.close()
        self._workers.shutdown(cancel_futures=True)
        self.site.close()

    def until_online(self, limit: float = ONLINE_LIMIT) -> None:
        """Wait until all nodes that have power are members of one cluster, which can fence."""
        deadline = time.monotonic() + limit
        while self.online() != {name for name, node in self.nodes.items() if node.alive} or not self.where("fence"):
            if time.monotonic() > deadline:
                logs = "".join(f"\n{node.name}: {node.console()}" for node in self.nodes.values())
                raise RuntimeError(f"the cluster has not formed within {limit:g} s; {sorted(self.online())}{logs}")
            time.sleep(0.05)

    def run(self, node: str, *argv: str, limit: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command in a node, to its end."""
        return self.nodes[node].run(*argv, limit=limit)

    def start(self, node: str) -> None:
        """Give power to a node that has none."""
        self.nodes[node].start()

    def crash(self, node: str) -> None:
        """Take the power of a node and of its guests, without a word to anybody."""
        self.nodes[node].crash()
        self.hypervisor.power_lost(node)

    def cut(self, node: str) -> None:
        """Let nothing pass on the cable of a node; its guests have their own."""
        self.nodes[node].cut()

    def heal(self, node: str) -> None:
        """Mend the cable of a node."""
        self.nodes[node].heal()

    def clear(self, node: str) -> None:
        """Take everything out of the configuration but the fence device, in one change; nothing else may run."""
        found = self.run(node, "cibadmin", "--query", "--scope", "configuration").stdout
        configuration = ET.fromstring(found)  # noqa: S314 - it is our own cluster's
        for section in configuration:
            if section.tag in ("resources", "constraints", "tags"):
                section[:] = [one for one in section if one.get("id") == "fence"]
        path = self.folder / "clear.xml"
        ET.ElementTree(configuration).write(path)
        done = self.run(node, "cibadmin", "--replace", "--scope", "configuration", "--xml-file", str(path))
        if done.returncode:
            raise RuntimeError(f"the configuration cannot be cleared: {done.stderr.strip()}")

    def define(self, name: str, wheel: Path, unit: Path, *files: Path) -> Guest:
        """Make a guest known to the hypervisor: with this server and its unit, keys, and files in its /opt."""
        self._guests += 1
        guest = Guest(self.site, name, FIRST_GUEST + self._guests - 1)
        guest.equip(wheel, unit, self.issue("guest", name, "--san", guest.address), *files)
        self.name(name, guest.address)
        self.hypervisor.define(guest)
        return guest

    def name(self, name: str, address: str) -> None:
        """Let all nodes know a name."""
        self._names[name] = address
        lines = [f"{each} {one}\n" for one, each in {"localhost": "127.0.0.1", **self._names}.items()]
        (self.folder / "hosts").write_text("".join(lines))  # in place: nodes have this very file mounted

    def issue(self, role: str, name: str, *options: str) -> Path:
        """Have the authority issue keys, and return their folder."""
        self._cmapp("keys", "issue", "--force", str(self.authority), role, name, *options)
        return self.authority / role / name

    def _equip(self) -> None:
        """Make the files of all nodes."""
        names = [f"n{number}" for number in range(1, self._size + 1)]
        self.nodes = {name: Node(self.site, name, FIRST_NODE + place) for place, name in enumerate(names)}
        addresses = {node.name: node.address for node in self.nodes.values()}
        for name, address in {**self._names, **addresses}.items():
            self.name(name, address)
        overlays = self.folder / "overlays"
        vendor = overlays / "usr/lib/ocf/resource.d/cmapp"
        tools = overlays / "usr/sbin"
        for folder in (vendor, tools):
            folder.mkdir(parents=True)
        for tool in ("fence_testbed", "guestctl"):
            shutil.copy(HERE / f"{tool}.py", tools / tool)
            (tools / tool).chmod(0o755)
        key = secrets.token_bytes(256)
        for node in self.nodes.values():
            node.configure(overlays, self._hook)
            node.write("/etc/corosync/authkey", key, 0o400)
            node.write("/etc/pacemaker/authkey", key, 0o640)
            node.write("/etc/corosync/corosync.conf", papers.corosync_conf(self.site.name, addresses, self._token))
            node.write("/var/lib/pacemaker/cib/cib.xml", papers.first_cib(self.folder / "counter", names))
        linked = self.nodes["n1"].prepare(str(PROGRAMS / "cmappagent"), "link", str(vendor))
        if linked.returncode:
            raise RuntimeError(f"cmappagent link: {linked.stderr.strip()}")

    def _issue_keys(self) -> None:
        self._cmapp("keys", "init", str(self.authority))

        def issue(node: Node) -> None:
            shutil.copytree(self.issue("host", node.name), node.keys, dirs_exist_ok=True)

        self._each([lambda node=node: issue(node) for node in self.nodes.values()])  # type: ignore[misc]

    def _power(self, words: list[str]) -> str:
        """Do what the fence agent asks for: ACTION NODE."""
        action, name = words
        if action == "list":
            return "\n".join(self.nodes)
        if action == "monitor":
            return "ok"
        node = self.nodes[name]
        if action in ("off", "reboot"):
            self.crash(name)
        if action in ("on", "reboot"):
            node.start()
        if action == "status":
            return "on" if node.alive else "off"
        return "ok"

    def _each(self, steps: Sequence[Callable[[], None]]) -> None:
        for done in [self._workers.submit(step) for step in steps]:
            done.result()

    def _cmapp(self, *argv: str) -> None:
        done = subprocess.run(
            [str(PROGRAMS / "cmapp"), *argv], env={}, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise RuntimeError(f"cmapp {' '.join(argv)}: {done.stderr.strip()}")
