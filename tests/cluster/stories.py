"""A story of the cluster: one guest package on the real cluster, what befalls it, and what comes of it.

The package is a file as an administrator writes it, loaded by `cmapp package apply`; its guest is a container with a
systemd that runs the installed server by its own unit. The applications keep books of their lives. The invariant: a
story ends with the package stopped in order, all nodes back, and the proof that no application ever lived twice.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.guests import send
from tests.cluster.lives import lives, overlaps
from tests.system.commands import check_for_defects

if TYPE_CHECKING:
    from chaos.guests import Guest
    from chaos.story import Instance
    from testbed.cluster import Cluster

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "packaging/cmappserver.service"
APPLICATION = ROOT / "chaos/application.py"
LINK_TIMEOUT = 6.0  # seconds that a manager waits for its guest in these stories
# What is asked of every service, unless a story says otherwise.
PATIENCE = {
    "link_timeout": f"{LINK_TIMEOUT:g}s",
    "poll_interval": "500ms",
    "poll_timeout": "1500ms",
    "stop_timeout": "300ms",  # their helpers do not heed SIGTERM
}
TELLING = re.compile(r"notice|warning|error|crit|output|stderr")


def wheel() -> Path:
    """Return the wheel that was built from this tree."""
    return max((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)


class Story:
    """A package called `name`, its guest, and the cluster that it runs on."""

    def __init__(self, cluster: Cluster, name: str, folder: Path, times: list[tuple[str, object]]) -> None:
        """`folder` is for files that nodes read; `times` are the properties of the test's report."""
        self.cluster = cluster
        self.name = name
        self.guest: Guest = cluster.define(name, wheel(), UNIT, APPLICATION)
        self.services: list[str] = []
        self._folder = folder
        self._times = times
        self._began = len(cluster.hypervisor.events)

    @property
    def machine(self) -> str:
        """The resource of the guest."""
        return f"{self.name}-vm"

    def resource(self, service: str) -> str:
        """Return the resource of a service."""
        return f"{self.name}-{service}"

    @property
    def resources(self) -> list[str]:
        """All resources of the package."""
        return [self.machine, *(self.resource(service) for service in self.services)]

    @property
    def host(self) -> str:
        """The node that the guest runs on."""
        return self.cluster.hypervisor.owner(self.name)

    @property
    def other(self) -> str:
        """The node of the package that the guest does not run on."""
        return "n2" if self.host == "n1" else "n1"

    @property
    def file(self) -> str:
        """The package's file."""
        return str(self._folder / f"{self.name}.toml")

    # ---- the package -----------------------------------------------------------------------------------------

    def apply(self, vm: dict[str, object] | None = None, **services: dict[str, object]) -> None:
        """Write the package's file and load it; an application that has neither command nor unit keeps a book."""
        lines = [
            f'name = "{self.name}"',
            'hosts = ["n1", "n2"]',
            f'guest = "{self.name}"',
            f'log = "/var/log/cmapp/{self.name}.log"',
            "[vm]",
        ]
        control = {verb: ["/usr/sbin/guestctl", verb, self.name] for verb in ("start", "stop", "state")}
        more = {"start_timeout": "30s", "stop_timeout": "5s", "migrate": True, **(vm or {})}
        control["migrate_command"] = ["/usr/sbin/guestctl", "migrate", self.name]
        lines += [f"{key} = {_toml(value)}" for key, value in {**control, **more}.items()]
        for service, settings in services.items():
            lines.append(f"[service.{service}]")
            own = {} if "unit" in settings else {"command": self.command(service)}
            lines += [f"{key} = {_toml(value)}" for key, value in {**PATIENCE, **own, **settings}.items()]
        Path(self.file).write_text("\n".join([*lines, ""]))
        self.cmapp("package", "apply", self.file)
        self.services = list(services)

    def command(self, service: str) -> list[str]:
        """Return the command of an application that keeps a book, and ends when it is made to."""
        return [
            "/usr/bin/python3",
            "-IS",
            "/opt/application.py",
            f"/books/{service}.book",
            service,
            "forever",
            "default",
        ]

    def cmapp(self, *argv: str) -> str:
        """Run the administrator's tool on a node that has power; it has to succeed."""
        node = next(name for name, node in self.cluster.nodes.items() if node.alive)
        done = self.cluster.run(node, "cmapp", *argv)
        check_for_defects(done.stdout, done.stderr)
        assert done.returncode == 0, f"cmapp {' '.join(argv)}: {done.stderr}{done.stdout}"
        return done.stdout

    def begin(self, vm: dict[str, object] | None = None, **services: dict[str, object]) -> None:
        """Load the package, and wait until all of it runs on the first node."""
        begun = time.monotonic()
        self.apply(vm, **services)
        self.until_on("n1")
        self.time("package loaded, until all of it runs", begun)

    def until_on(self, node: str) -> float:
        """Wait until the whole package runs on a node."""
        return self.cluster.until_on(node, *self.resources)

    # ---- the applications ------------------------------------------------------------------------------------

    def book(self, service: str) -> list[Instance]:
        """Return the lives of an application, as it has written them down itself."""
        return lives(self.guest.books / f"{service}.book")

    def pid(self, service: str) -> int:
        """Return the main process of an application, as it is seen from outside; 0 if there is none.

        It is the one that wrote the last "started" into the book, and no helper of it or of its predecessor.
        """
        book = self.book(service)
        inside = book[-1].instance.split("-")[1] if book else ""
        return next((pid for pid in self.guest.processes(f"/books/{service}.book") if _inside(pid) == inside), 0)

    def run_id(self, service: str, node: str) -> str:
        """Return the run of an application that its manager on a node has told of last, by the package's log there."""
        found = re.findall(rf"\b{service} on {self.name}: .*?\brun ([0-9a-f-]{{36}})", self.log(node))
        return str(found[-1]) if found else ""

    def managers(self, service: str, node: str) -> list[int]:
        """Return the managers of an application on a node, by the process ids that they have there."""
        told = self.cluster.run(node, "pgrep", "-f", f"cmappmgr.*/books/{service}.book").stdout.split()
        return [int(pid) for pid in told]

    def kill(self, service: str) -> float:
        """Kill the main process of an application, and return when."""
        now = time.monotonic()
        assert send(self.pid(service), signal.SIGKILL, f"/books/{service}.book")
        return now

    def order(self, service: str, order: str) -> float:
        """Have an application end once, as its order says: `exit CODE` or `signal NUMBER`; return when it did."""
        path = self.guest.books / f"{service}.book.order"
        lived = len(self.book(service))
        path.write_text(f"{service} {order}\n")
        self.cluster.until(lambda: self.book(service)[lived - 1].end, f"the end of {service}")
        path.unlink()
        return self.book(service)[lived - 1].ended or 0.0

    def until_alive(self, service: str, *, after: int) -> int:
        """Wait for a main process that is not `after`, and return it."""
        self.cluster.until(lambda: self.pid(service) not in (0, after), f"another process of {service}")
        return self.pid(service)

    def unit_pid(self, unit: str) -> str:
        """Return the main process of a unit in the guest, as the guest knows it."""
        return self.guest.call("systemctl", "show", "--value", "--property=MainPID", unit).stdout.strip()

    def kill_unit(self, unit: str) -> None:
        """Kill the main process of a unit in the guest."""
        self.guest.call("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)

    def asked(self, query: str) -> str:
        """Return what the guest's PostgreSQL answers, nothing if it does not."""
        return self.guest.call("su", "postgres", "-c", f"psql -Atqc '{query}'").stdout.strip()

    def boots(self) -> int:
        """Return how often the guest was started."""
        return sum(what == "start" for _, what, name, _ in self.cluster.hypervisor.events if name == self.name)

    def log(self, node: str) -> str:
        """Return the package's log on a node."""
        path = self.cluster.nodes[node].folder / f"var/log/cmapp/{self.name}.log"
        return path.read_text() if path.exists() else ""

    def said(self, pattern: str, node: str) -> bool:
        """Tell whether the package's log on a node has a line that matches."""
        return re.search(pattern, self.log(node), re.MULTILINE) is not None

    def evidence(self) -> list[tuple[str, str]]:
        """Return what all who take part have said, under headings; the cluster's own logs are kept in the folder."""
        told = [("Pacemaker", self.cluster.told()), ("guest", "\n".join(map(str, self.cluster.hypervisor.events)))]
        for node in self.cluster.nodes.values():
            told.append((f"package log on {node.name}", self.log(node.name)[-5000:]))
            shutil.copytree(node.folder / "var/log", self._folder / "logs" / node.name, dirs_exist_ok=True)
            pacemaker = (node.folder / "var/log/pacemaker/pacemaker.log").read_text(errors="replace")
            lines = [line for line in pacemaker.splitlines() if self.name in line and TELLING.search(line)]
            told.append((f"Pacemaker on {node.name}", "\n".join(lines[-40:])))
        return [*told, ("journal of the guest", self.guest.journal()[-3000:])]

    # ---- its end ---------------------------------------------------------------------------------------------

    def time(self, what: str, begun: float, ended: float = 0.0) -> None:
        """Note for the table at the end of the run how long something took."""
        self._times.append(("time", (what, round((ended or time.monotonic()) - begun, 3))))

    def close(self) -> None:
        """Mend everything, stop the package in order, forget it, and check what the books say."""
        self.restore()
        cluster, node = self.cluster, "n1"
        try:
            if self.services:
                cluster.run(node, "crm_resource", "--meta", "-r", self.machine, "-p", "target-role", "-v", "Stopped")
                cluster.until(lambda: all(map(cluster.stopped, self.resources)), f"the orderly end of {self.name}")
        finally:
            self.guest.crash()
            cluster.clear(node)
        try:
            self._judge()
        finally:
            cluster.hypervisor.undefine(self.name)

    def _judge(self) -> None:
        cluster = self.cluster
        assert overlaps(self.guest.books) == []
        refused = [event for event in cluster.hypervisor.events[self._began :] if event[1] == "refused"]
        assert refused == []
        for name in cluster.nodes:
            check_for_defects(self.log(name))
        check_for_defects(self.guest.journal())

    def restore(self) -> None:
        """Mend everything, and start the nodes that have no power."""
        cluster = self.cluster
        if self.guest.up:
            self.guest.heal()
            cluster.hypervisor.resume(self.name)
        lost = [name for name, node in cluster.nodes.items() if not node.alive]
        if lost:
            cluster.until(lambda: not cluster.fencing(), "the end of fencing")
        for node in cluster.nodes.values():
            node.heal()
            node.start()
        cluster.until_online()


def _inside(pid: int) -> str:
    """Return the process id that a process of a guest has there."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return ""
    return text.partition("\nNSpid:")[2].partition("\n")[0].split()[-1]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
