"""The OCF agent as Pacemaker calls it: an installed command, an environment, a code, and one reason.

A `Node` stands for a host of the cluster: it has its own folder below what would be /run, and its own keys. The
invariant: the manager of every resource that a node has started is ended with it.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from tests.system.commands import BIN, END_LIMIT, check_for_defects
from tests.system.processes import alive, until, until_gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.bed import Bed

AGENT = str(BIN / "cmappagent")
SUCCESS, GENERIC, UNIMPLEMENTED, PERM, INSTALLED, CONFIGURED, NOT_RUNNING, DEGRADED = 0, 1, 3, 4, 5, 6, 7, 190
BRIEF = {"link_timeout": "2s", "orphan_timeout": "3s", "connect_timeout": "2s", "syslog": "false"}


class Said:
    """What an action came to: its code, how long it took, and what it said."""

    def __init__(self, code: int, seconds: float, stdout: str, stderr: str) -> None:
        self.code, self.seconds, self.stdout, self.stderr = code, seconds, stdout, stderr

    @property
    def reason(self) -> str:
        """What crm_mon would show."""
        return "; ".join(re.findall(r"^ocf-exit-reason:(.*)$", self.stderr, re.MULTILINE))


class Node:
    """A host of the cluster, with one resource of the name `resource`."""

    def __init__(self, folder: Path, keys: Path, guest: str, resource: str, *command: str) -> None:
        self.run = folder / "run"
        self.run.mkdir(parents=True)
        self.log = folder / "package.log"
        self.folder = self.run / f"cmapp-{resource}"
        self.environ = {
            "OCF_ROOT": "/usr/lib/ocf",
            "OCF_RESOURCE_INSTANCE": resource,
            "OCF_RESKEY_CRM_meta_on_node": "n1",
            "OCF_RESKEY_crm_feature_set": "3.16.2",
            "HA_RSCTMP": str(self.run),
        }
        self.given = {"guest": guest, "keys": str(keys), "name": resource, "log_file": str(self.log), **BRIEF}
        if command:
            self.given["command"] = " ".join(command)

    def environment(self, **given: str) -> dict[str, str]:
        """Return the environment of an action, with more parameters, or others."""
        return self.environ | {f"OCF_RESKEY_{key}": text for key, text in {**self.given, **given}.items()}

    def start_action(self, action: str, **given: str) -> subprocess.Popen[str]:
        """Begin an action, and return its process."""
        return subprocess.Popen(
            [AGENT, "application", action],
            env=self.environment(**given),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def act(self, action: str, **given: str) -> Said:
        """Carry out an action."""
        begin = time.monotonic()
        process = self.start_action(action, **given)
        stdout, stderr = process.communicate(timeout=END_LIMIT)
        check_for_defects(stdout, stderr)
        return Said(process.returncode, time.monotonic() - begin, stdout, stderr)

    def started(self, **given: str) -> int:
        """Start the resource, which must succeed, and return the application's process."""
        said = self.act("start", **given)
        assert said.code == SUCCESS, said.stderr
        return self.application

    @property
    def application(self) -> int:
        """The application's process, as the package log told it last."""
        return int(re.findall(r"(?:launched|found running) as pid (\d+)", self.log.read_text())[-1])

    @property
    def manager(self) -> int:
        """The manager's process, as the agent has noted it."""
        return int((self.folder / "lock").read_text().split()[0])

    @property
    def run_id(self) -> str:
        """The run, as the agent has noted it."""
        return (self.folder / "lock").read_text().split()[2]

    def kill_manager(self) -> None:
        """Kill the manager without a word."""
        manager = self.manager
        os.kill(manager, signal.SIGKILL)
        until_gone(manager)

    def until_told(self) -> None:
        """Wait until the manager has ended by itself."""
        until((self.folder / "result").exists, "the result")
        until_gone(self.manager)

    def close(self) -> None:
        """End the manager, if there is one."""
        with suppress(OSError, IndexError, ValueError):
            if self.manager and alive(self.manager):
                os.kill(self.manager, signal.SIGKILL)
                until_gone(self.manager)
        if self.log.exists():
            check_for_defects(self.log.read_text())


@contextmanager
def nodes_of(bed: Bed, folder: Path) -> Iterator[Callable[..., Node]]:
    """Yield a function that makes a node for one resource; its application is a sleep unless a command is given."""
    nodes: list[Node] = []

    def make_node(*command: str, keys: Path | None = None, name: str = "") -> Node:
        resource = name or f"{folder.name[:40]}-{len(nodes)}".strip("_-")
        place = folder / f"node-{len(nodes)}"
        node = Node(place, keys or bed.keys.host, bed.server.guest, resource, *(command or ("/bin/sleep", "1000")))
        nodes.append(node)
        return node

    yield make_node
    for node in nodes:
        node.close()
