"""The network between the host and its guests: namespaces of their own, a bridge, and ways to break it.

Nothing of it is in the machine's own network: the host side is a namespace too. The invariant: whatever was cut or
dropped is whole again after `heal`.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

PREFIX = "10.78.0"
BRIDGE = "br0"
# Each card has an address of its own, as real ones have: who knew another would not reach it for up to a minute. A
# bridge without one has that of a port, and another when that port goes; a guest without one has another at each boot.
HARDWARE = "02:00:00:00:78:{:02x}"
LIMIT = 20.0  # seconds for a command that takes milliseconds


class Network:
    """The host's namespace `name`, with a bridge that guests are plugged into."""

    def __init__(self, name: str) -> None:
        self.name = name
        command("ip", "netns", "add", name)
        for words in (
            "link set lo up",
            f"link add {BRIDGE} address {HARDWARE.format(1)} type bridge",
            f"addr add {PREFIX}.1/24 dev {BRIDGE}",
            f"link set {BRIDGE} up",
        ):
            command("ip", "-n", name, *words.split())

    @property
    def path(self) -> Path:
        """Where the namespace can be entered."""
        return Path("/run/netns") / self.name

    def close(self) -> None:
        """Remove the namespace, and so the bridge."""
        command("ip", "netns", "del", self.name, check=False)


class Plug:
    """The cable of one guest: a pair of interfaces from the bridge to `host0` of the guest's namespace."""

    def __init__(self, network: Network, number: int) -> None:
        self._network = network
        self._port = f"guest{number}"
        self.address = f"{PREFIX}.{number}"
        self._hardware = HARDWARE.format(number)
        self.namespace = f"{network.name}-{number}"

    @property
    def path(self) -> Path:
        """Where the guest's namespace can be entered."""
        return Path("/run/netns") / self.namespace

    def plug(self) -> None:
        """Make the guest's namespace and its cable."""
        host, guest = ["ip", "-n", self._network.name], ["ip", "-n", self.namespace]
        command("ip", "netns", "add", self.namespace)
        pair = ["link", "add", self._port, "type", "veth", "peer", "name", "host0", "netns", self.namespace]
        command(*host, *pair)
        command(*host, "link", "set", self._port, "master", BRIDGE, "up")
        command(*guest, "link", "set", "host0", "address", self._hardware)
        command(*guest, "link", "set", "lo", "up")
        command(*guest, "addr", "add", f"{self.address}/24", "dev", "host0")
        command(*guest, "link", "set", "host0", "up")

    def unplug(self) -> None:
        """Remove the cable and the guest's namespace."""
        command("ip", "-n", self._network.name, "link", "del", self._port, check=False)
        command("ip", "netns", "del", self.namespace, check=False)

    def cut(self) -> None:
        """Let nothing pass in either direction."""
        command("ip", "-n", self._network.name, "link", "set", self._port, "down")

    def drop(self, *, towards_guest: bool) -> None:
        """Lose what goes in one direction, and let the other pass."""
        if towards_guest:
            chain = "add chain inet chaos in { type filter hook input priority 0; policy drop; }"
            self._filter(self.path, "add table inet chaos", chain)
        else:
            self._filter(self._network.path, "add table netdev chaos", self._ingress("drop"))

    def heal(self) -> None:
        """Mend whatever was cut or dropped."""
        command("ip", "-n", self._network.name, "link", "set", self._port, "up", check=False)
        self._filter(self.path, "add table inet chaos", "delete table inet chaos")
        delete = f"delete chain netdev chaos {self._port}"
        self._filter(self._network.path, "add table netdev chaos", self._ingress("accept"), delete, check=False)

    def _ingress(self, policy: str) -> str:
        hook = f"hook ingress device {self._port} priority 0"
        return f"add chain netdev chaos {self._port} {{ type filter {hook}; policy {policy}; }}"

    def _filter(self, namespace: Path, *rules: str, check: bool = True) -> None:
        if namespace.exists():
            command("nsenter", f"--net={namespace}", "nft", "; ".join(rules), check=check)


def command(*words: str, check: bool = True) -> str:
    """Run one of the system's commands and return what it printed; raises RuntimeError if it failed."""
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT, check=False)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
