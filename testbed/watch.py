"""What the cluster says of itself, asked finely: where resources run, what has failed, who is online.

Pacemaker's own way to wait costs two seconds each time; one look with `crm_mon` costs 20 ms. The invariant: nobody is
asked who has no power, and no answer is no resource, never an old one.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from collections.abc import Callable

    from testbed.nodes import Node

LIMIT = 60.0  # seconds: generous, for a slow machine
PAUSE = 0.02


class Watch:
    """The part of a cluster that only looks."""

    nodes: dict[str, Node]

    def status(self, node: str = "") -> ET.Element:
        """Return what crm_mon says as XML, asked on `node` or on the first that answers; empty if none does."""
        for one in [self.nodes[node]] if node else list(self.nodes.values()):
            if one.alive:
                done = one.run("crm_mon", "--output-as=xml", "--group-by-node", "--inactive", "--failcounts")
                try:
                    return ET.fromstring(done.stdout)  # noqa: S314 - it is our own cluster's
                except ET.ParseError:
                    continue
        return ET.Element("nothing")

    def online(self) -> set[str]:
        """Return the nodes that are members, as all of those see it that have power and answer."""
        seen = [self._online(name) for name, node in self.nodes.items() if node.alive]
        return set.intersection(*seen) if seen else set()

    def where(self, resource: str, node: str = "") -> str:
        """Return the node on which a resource is started and not failed, or nothing."""
        for found in self.status(node).iterfind(f".//resource[@id='{resource}']"):
            on = found.find("node")
            if found.get("role") == "Started" and found.get("failed") == "false" and on is not None:
                return on.get("name", "")
        return ""

    def stopped(self, resource: str) -> bool:
        """Tell whether a resource is stopped everywhere, with nothing going on."""
        found = self.status().find(f".//resource[@id='{resource}']")
        return found is not None and found.get("role") == "Stopped" and found.get("active") == "false"

    def fencing(self) -> bool:
        """Whether a node is being fenced, or is still to be."""
        status = self.status()
        pending = any(event.get("status") == "pending" for event in status.iterfind("./fence_history/fence_event"))
        return pending or any(node.get("unclean") == "true" for node in status.iterfind("./nodes/node"))

    def fail_count(self, resource: str) -> int:
        """Return how often a resource has failed, on all nodes together."""
        histories = self.status().iterfind(f".//node_history/node/resource_history[@id='{resource}']")
        counts = [history.get("fail-count", "0") for history in histories]
        return sum(10**6 if count == "INFINITY" else int(count) for count in counts)

    def until(self, condition: Callable[[], object], what: str, limit: float = LIMIT) -> float:
        """Wait until a condition holds, and return how long that took; raises AssertionError with the status if not."""
        begun = time.monotonic()
        while not condition():
            if time.monotonic() > begun + limit:
                raise AssertionError(f"not within {limit:g} s: {what}\n{self.told()}")
            time.sleep(PAUSE)
        return time.monotonic() - begun

    def until_on(self, node: str, *resources: str, limit: float = LIMIT) -> float:
        """Wait until resources run on a node, and return how long that took."""

        def there() -> bool:
            return all(self.where(resource) == node for resource in resources)

        return self.until(there, f"{' and '.join(resources)} on {node}", limit)

    def told(self) -> str:
        """Return what crm_mon tells people."""
        alive = [node for node in self.nodes.values() if node.alive]
        return alive[0].run("crm_mon", "-1rfn").stdout if alive else "no node has power"

    def _online(self, name: str) -> set[str]:
        nodes = self.status(name).iterfind("./nodes/node[@online='true'][@pending='false']")
        return {node.get("name", "") for node in nodes}
