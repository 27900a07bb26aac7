"""Network services on the loopback: free ports, and when one is served."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from tests.system.processes import until

if TYPE_CHECKING:
    from tests.system.bed import Manager

LOOPBACK = "127.0.0.1"


def free_port(host: str = LOOPBACK) -> int:
    """Return a port that nobody listens on; raises OSError if the machine does not have that address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def can_listen(port: int) -> bool:
    """Tell whether nobody listens on the port."""
    try:
        socket.create_server((LOOPBACK, port)).close()
    except OSError:
        return False
    return True


def is_served(port: int) -> bool:
    """Tell whether somebody listens on the port."""
    try:
        socket.create_connection((LOOPBACK, port), 20).close()
    except OSError:
        return False
    return True


def until_serving(port: int, manager: Manager) -> None:
    """Wait until the port is served, as long as the manager runs."""

    def ready() -> bool:
        assert manager.process.poll() is None, manager.log
        return is_served(port)

    until(ready, f"a service on port {port}")
