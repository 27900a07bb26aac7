"""Debian's nginx as the application: a master with workers serves, is ended in every way, and can be launched again."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.request
from typing import TYPE_CHECKING

import pytest

from tests.system.processes import alive, session, until
from tests.system.serving import can_listen, free_port, until_serving

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx here: Debian's package nginx-light")

WORKERS = 2
CONFIGURATION = """
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    {paths}
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "served by $pid"; }}
    }}
}}
"""
PATHS = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]


class Nginx:
    """An nginx under a manager."""

    def __init__(self, bed: Bed, folder: Path) -> None:
        self.port = free_port()
        self._bed = bed
        self._configuration = folder / "nginx.conf"
        paths = "\n".join(f"{name}_temp_path {folder}/{name};" for name in PATHS)
        self._configuration.write_text(
            CONFIGURATION.format(workers=WORKERS, folder=folder, port=self.port, paths=paths)
        )

    def launch(self) -> Manager:
        """Launch it, and wait until all its workers are there and it serves."""
        assert NGINX is not None
        manager = self._bed.start(NGINX, "-e", "stderr", "-c", str(self._configuration), options=["--output", "log"])
        master = manager.until_launched()
        until_serving(self.port, manager)
        until(lambda: len(session(master)) == 1 + WORKERS, "its workers")
        self.check_served(master)
        return manager

    def check_served(self, master: int) -> None:
        """Check that one of the workers answers a request."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=20) as answer:
            words = answer.read().decode().split()
        assert words[:2] == ["served", "by"]
        assert int(words[2]) in session(master)


ENDS = {
    "SIGKILL": (signal.SIGKILL, 137, "was killed by signal 9 (KILL)"),
    "SIGTERM": (signal.SIGTERM, 0, "exited with code 0"),
    "SIGQUIT": (signal.SIGQUIT, 0, "exited with code 0"),
    "SIGSEGV": (signal.SIGSEGV, 139, "was killed by signal 11 (SEGV)"),
    "graceful-stop": (None, 0, "exited with code 0"),
}


@pytest.mark.parametrize("way", ENDS)
def test_every_end(bed: Bed, tmp_path: Path, way: str) -> None:
    """However nginx's master ends, its outcome is told, no worker is left, and it can be launched again on its port."""
    how, code, words = ENDS[way]
    nginx = Nginx(bed, tmp_path)
    manager = nginx.launch()
    master = manager.until_launched()
    if how is None:
        manager.process.terminate()
    else:
        os.kill(master, how)
    assert manager.wait(20) == code
    assert words in manager.last_line
    until(lambda: not session(master), "the end of its processes")
    assert can_listen(nginx.port)
    again = nginx.launch()
    again.process.terminate()
    assert again.wait() == 0


def test_worker_killed(bed: Bed, tmp_path: Path) -> None:
    """The death of a worker is nginx's own affair: the master makes a new one, and the run goes on."""
    nginx = Nginx(bed, tmp_path)
    manager = nginx.launch()
    master = manager.until_launched()
    workers = [pid for pid in session(master) if pid != master]
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    until(lambda: not any(map(alive, workers)) and len(session(master)) == 1 + WORKERS, "new workers")
    nginx.check_served(master)
    assert manager.process.poll() is None
    manager.process.terminate()
    assert manager.wait() == 0


def test_killed_manager_takes_the_workers_along(bed: Bed, tmp_path: Path) -> None:
    """When its manager is killed, nginx is stopped with all its workers, and the next manager finds the port free."""
    nginx = Nginx(bed, tmp_path)
    manager = nginx.launch()
    master = manager.until_launched()
    manager.process.kill()
    until(lambda: not session(master), "the end of its processes")
    again = nginx.launch()
    again.process.terminate()
    assert again.wait() == 0


def test_port_that_is_taken(bed: Bed, tmp_path: Path) -> None:
    """A second nginx on the same port gives up by itself: its own exit code comes back, and why is in the log."""
    nginx = Nginx(bed, tmp_path)
    nginx.launch()
    assert NGINX is not None
    second = bed.run(NGINX, "-e", "stderr", "-c", str(tmp_path / "nginx.conf"), options=["--output", "log"])
    assert second.wait() == 1
    assert "Address already in use" in second.log
