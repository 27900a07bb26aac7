"""A client that sees a machine from outside of all nodes: how long it is silent, and when it hangs up.

The invariant: times are by time.monotonic(), which all namespaces of this machine share.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from testbed.cluster import Cluster

LIMIT = 60.0  # seconds
# A client that asks fifty times a second on one connection; it prints the longest silence, and when it was closed.
SCRIPT = """import json, socket, sys, time
link = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
link.settimeout(60)
link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
answers = link.makefile("rb")
silence, last, number = 0.0, None, 0
print("connected", flush=True)
try:
    while True:
        number += 1
        link.sendall(b"%d\\n" % number)
        line = answers.readline().split()
        if len(line) != 3 or int(line[2]) != number:
            break
        now = time.monotonic()
        silence = max(silence, now - (last or now))
        last = now
        time.sleep(0.02)
except OSError:
    pass
print(json.dumps({"closed": time.monotonic(), "silence": silence, "answers": number - 1}))
"""


class Client:
    """A client beside the nodes on the switch."""

    def __init__(self, cluster: Cluster, address: str, port: int) -> None:
        """Connect; what answers there has to give back each line, with two words before it."""
        command = cluster.site.on_host("python3", "-c", SCRIPT, address, str(port))
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._said = self._process.stdout
        assert self._said.readline() == "connected\n"

    def leave(self) -> bool:
        """Hang up, and tell whether the other side had not."""
        stayed = self._process.poll() is None
        self._process.kill()
        self._process.communicate()
        return stayed

    def end(self, limit: float = LIMIT) -> dict[str, float]:
        """Wait until its connection is closed by the other side, and return when that was, and what it saw before."""
        told, _ = self._process.communicate(timeout=limit)
        return dict(json.loads(told))
