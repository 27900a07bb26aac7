"""The bed of the figures: a package with a real machine and two applications, on two nodes that have a libvirtd each.

What runs is asked twice: the guest's server for the run ids, and the guest itself, by its own agent, for the
processes. A client of the machine outside of all nodes sees when the web application's connection closes, which is as
near to the kill as one can come without a clock that guest and host share. The invariant: what is measured begins with
what the story did to the machine, never with what cmapp or Pacemaker say of it.
"""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from chaos.network import PREFIX
from testbed import cluster as beds
from testbed import libvirt, machine
from testbed.cluster import Cluster
from testbed.diary import Diary, Line
from testbed.libvirt import BRIDGE, Libvirt
from testbed.machine import Machine
from tests.cluster.client import Client
from tests.cluster.stories import UNIT, wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MISSING = beds.what_is_missing() or libvirt.what_is_missing()
if not MISSING and find_spec("libvirt") is None:
    MISSING = "missing the Python package libvirt-python"
NAME = "erp"
ADDRESS = f"{PREFIX}.120"
PORT = 8080
LOG = f"/var/log/cmapp/{NAME}.log"
DATABASE = "postgresql@15-main.service"
BOOT_LIMIT = 180.0  # seconds until all of the package runs: under emulation a boot takes 15 to 60
MOVE_LIMIT = 240.0  # seconds for a shutdown and a boot elsewhere
LOOK = 0.25  # seconds between two looks, each of which takes from the machine's processor
SOON = 60.0  # seconds for what happens within a running machine
KILLED = "killed by signal 9"
ENDED = (KILLED, "exited", "unreachable", "was stopped", "lost the link")  # what no log may say of one that goes on
PACKAGE = f"""name = "{NAME}"
hosts = ["n1", "n2"]
guest = "{NAME}"
log = "{LOG}"

[settings]
connect_timeout = "3m"

[vm]
domain = "{NAME}"
config = "/etc/libvirt/qemu/{NAME}.xml"
agent = "{{agent}}"
migrate = true
migration_transport = "tcp"

[service.web]
command = ["/opt/web"]
ready = "tcp:{PORT}"
service_restart = 1

[service.db]
unit = "{DATABASE}"
service_restart = 1
"""
# The web application: it writes each of its starts down, and answers each line with its boot, its pid and the line.
WEB = f"""#!/usr/bin/python3 -IS
import os, socketserver
boot = open("/proc/sys/kernel/random/boot_id").read()[:8]
with open("/var/lib/web.book", "a") as book:
    book.write(f"{{boot}} {{os.getpid()}}\\n")
    book.flush()
    os.fsync(book.fileno())
class Client(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(f"{{boot}} {{os.getpid()}} ".encode() + line)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
Server(("", {PORT}), Client).serve_forever()
"""


class Run(NamedTuple):
    """A run as the guest's server tells it, and the main process as the guest's systemd or kernel has it."""

    run_id: str
    pid: int
    boot: str


class Moved(NamedTuple):
    """Seconds: until the machine and its managers were there, of silence for a client, and until a kill was told."""

    took: float
    silence: float
    told: float


@contextmanager
def figures_in(folder: Path) -> Iterator[Figures]:
    """Put up two nodes and the machine, with all its files in `folder`; nothing of the package runs yet."""
    machine.kit()
    with Cluster(2, hook=libvirt.HOOK, names={NAME: ADDRESS}) as cluster:
        cluster.until_online()
        made = Figures(cluster, folder)
        try:
            yield made
        finally:
            made.close()
    shutil.rmtree(made.machine.disk.parent)  # it is large, and the folder is kept, for the log


class Figures:
    """The machine, its package and its nodes."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        """Make the machine in `folder`, and bring its files to the nodes, which are online."""
        self.cluster = cluster
        self.libvirt = Libvirt(cluster)
        self.diary = Diary({name: node.folder / LOG.lstrip("/") for name, node in cluster.nodes.items()})
        self.folder = folder
        self.log = folder / "figures.log"
        self._pgpid = f"systemctl show --property MainPID --value {DATABASE}"
        disk = folder / "machine"
        self.machine = Machine(disk, NAME, ADDRESS, BRIDGE)
        self.machine.equip(wheel(), UNIT, cluster.issue("guest", NAME, "--san", ADDRESS))
        self.machine.write("opt/web", WEB, 0o755)
        self.machine.finish()
        self.machine.serve(cluster.site)
        for node in cluster.nodes:
            self.on(node, "install", "-D", "-m", "600", str(self.machine.domain), f"/etc/libvirt/qemu/{NAME}.xml")
            self.on(node, "mkdir", "-p", str(Path(LOG).parent))

    def apply(self, agent: str = "cmapp") -> str:
        """Load the package by the administrator's own commands, and return what they said."""
        path = self.folder / f"{NAME}-{agent}.toml"
        path.write_text(PACKAGE.format(agent=agent))
        return self.on("n1", "cmapp", "package", "check", str(path)) + self.on(
            "n1", "cmapp", "package", "apply", str(path)
        )

    def on(self, node: str, *argv: str) -> str:
        """Run a command on a node, which has to succeed, and return what it printed."""
        done = self.cluster.run(node, *argv, limit=SOON)
        assert done.returncode == 0, f"{' '.join(argv)} on {node}: {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    @property
    def host(self) -> str:
        """The one node on which the machine runs."""
        nodes = self.libvirt.where(NAME)
        assert len(nodes) < 2, f"the machine runs on {nodes}"
        return nodes[0] if nodes else ""

    def until_on(self, node: str, limit: float) -> float:
        """Wait until the machine and both applications run there by Pacemaker's account; return how long that took."""
        resources = [f"{NAME}-{part}" for part in ("vm", "web", "db")]
        return self.until(lambda: {self.cluster.where(one) for one in resources} == {node}, f"all on {node}", limit)

    def until(self, condition: Callable[[], bool], what: str, limit: float) -> float:
        """Wait until a condition holds that is not cheap to look at, and return how long that took."""

        def holds() -> bool:
            time.sleep(LOOK)
            return condition()

        return self.cluster.until(holds, what, limit)

    def runs(self) -> dict[str, Run]:
        """Return the applications' runs by name; the server and the guest itself have to agree on the process."""
        told = json.loads(self.on(self.host, "cmapp", "status", "--json", NAME))
        runs = {run["name"]: run for run in told["runs"]}
        seen = dict(
            zip(
                ("boot", "web", "db"),
                self.inside(
                    "head -c 8 /proc/sys/kernel/random/boot_id; echo; "
                    f"tail -n 1 /var/lib/web.book | cut -d' ' -f2; {self._pgpid}"
                ).split(),
                strict=True,
            )
        )
        found = {}
        for name, run in runs.items():
            assert str(run["pid"]) == seen[name], f"the server says {run}, the guest {seen}"
            found[name] = Run(run["run_id"], run["pid"], seen["boot"])
        return found

    def starts(self) -> list[str]:
        """Return the boots in which the web application was started, once for each start, by its own book."""
        return [line.split()[0] for line in self.inside("cat /var/lib/web.book").splitlines()]

    def migrate(self, here: str, there: str) -> Moved:
        """Have the machine migrated alive, kill the web application one second later, and return what was seen.

        Neither the processes nor the runs are to change, no log is to tell of an end, and the kill is told there.
        """
        before = self.runs()
        client = self.client()
        begun = time.monotonic()
        self.on(here, "crm_resource", "--move", "--resource", f"{NAME}-vm", "--node", there)
        self.until_on(there, SOON)
        arrived = time.monotonic()
        time.sleep(1)
        killed = self.kill("web", before["web"].pid)
        seen = client.end()
        told = self.until_said(killed, KILLED)
        assert told.who == there
        assert [line for line in self.diary.since(begun, *ENDED) if line.at < seen["closed"]] == []
        assert self.diary.since(begun, *ENDED, who=here) == []
        for run in before.values():
            assert any(run.run_id in line.text for line in self.diary.since(begun, "found running", who=there))
        self.until_said(told.at, "launched as pid")
        self.until_on(there, SOON)
        after = self.runs()
        assert after["db"] == before["db"]
        assert after["web"].boot == before["web"].boot
        assert after["web"].run_id != before["web"].run_id
        self.on(there, "crm_resource", "--clear", "--resource", f"{NAME}-vm")
        return Moved(arrived - begun, seen["silence"], told.at - seen["closed"])

    def until_said(self, begun: float, words: str) -> Line:
        """Wait for the first line with these words in the package log of any node, from then on, and return it."""
        self.cluster.until(lambda: self.diary.since(begun, words), f"the log to say {words!r}", SOON)
        return self.diary.since(begun, words)[0]

    def kill(self, name: str, pid: int = 0) -> float:
        """Kill the main process of an application, with nobody of cmapp involved; return when that was asked for."""
        pid = pid or self.runs()[name].pid
        begun = time.monotonic()
        self.inside(f"kill -KILL {pid}")
        return begun

    def client(self) -> Client:
        """Return a client of the web application, which has connected."""
        return Client(self.cluster, ADDRESS, PORT)

    def inside(self, script: str) -> str:
        """Run a line of shell in the machine."""
        return self.libvirt.inside(NAME, "/bin/sh", "-c", script, limit=SOON)

    def query(self, statement: str) -> str:
        """Ask the database, in the machine, and return what it answers."""
        return self.inside(f'su postgres -c "psql -Atqc \\"{statement}\\""')

    def close(self) -> None:
        """Write the diary, and what else explains it, to the log."""
        self.diary.close()
        parts = [f"==== the package logs of all nodes, by time\n{self.diary.written()}"]
        parts.append(f"==== crm_mon\n{self.cluster.told()}")
        try:
            parts.append(f"==== the guest's journal\n{self.inside('journalctl --no-pager --boot all -u cmappserver')}")
        except (RuntimeError, ValueError) as error:
            parts.append(f"==== the guest's journal cannot be had: {error}\n")
        for name, node in self.cluster.nodes.items():
            machine_log = self.cluster.run(name, "cat", f"/run/resource-agents/cmapp-{NAME}-vm/log").stdout
            parts.append(f"==== what watched the machine on {name}\n{machine_log}")
            story = node.folder / "var/log/pacemaker/pacemaker.log"
            if story.exists():
                parts.append(f"==== Pacemaker's log on {name}\n{story.read_text(errors='replace')}")
        self.log.write_text("\n".join(parts))
