"""Daemons that fork by themselves and leave a pid file: Debian's nginx and redis-server, and worse ones."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import alive, session, until, until_gone, until_written
from tests.system.serving import can_listen, free_port, until_serving

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.system.bed import Bed, Manager

NGINX = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
REDIS = shutil.which("redis-server", path="/usr/bin:/usr/local/bin")
CONFIGURATION = """
worker_processes 2;
pid {folder}/daemon.pid;
error_log {folder}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/client_body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; }}
}}
"""
KINDS = [
    pytest.param("nginx", marks=pytest.mark.skipif(NGINX is None, reason="no nginx here: Debian's nginx-light")),
    pytest.param("redis", marks=pytest.mark.skipif(REDIS is None, reason="no redis-server here")),
    "script",
]
# A daemon as they were written in the last century, except that it takes its time until its pid file is there.
SCRIPT = """
setsid sh -c '
    exec >/dev/null 2>&1
    trap "exit 3" TERM
    (sleep 0.2; echo $$ >daemon.pid) &
    while :; do sleep 0.05; done
' &
exit 0
"""


class Daemon:
    """A daemon of some kind in a folder, on a port of its own unless it is the script."""

    def __init__(self, bed: Bed, kind: str, folder: Path) -> None:
        self.kind = kind
        self.port = free_port()
        self._bed = bed
        self._folder = folder
        self.pid_file = folder / "daemon.pid"
        (folder / "nginx.conf").write_text(CONFIGURATION.format(folder=folder, port=self.port))

    @property
    def command(self) -> Sequence[str]:
        """Return the command that leaves the daemon behind."""
        if self.kind == "script":
            return ["/bin/sh", "-c", SCRIPT]
        if self.kind == "nginx":
            return [NGINX or "", "-e", f"{self._folder}/error.log", "-c", f"{self._folder}/nginx.conf"]
        places = ["--dir", str(self._folder), "--pidfile", str(self.pid_file), "--logfile", f"{self._folder}/log"]
        return [REDIS or "", "--port", str(self.port), "--bind", "127.0.0.1", "--daemonize", "yes", *places]

    def launch(self, *options: str) -> tuple[Manager, int]:
        """Launch it, wait until it serves, and return its manager and its own main process."""
        fixed = ["--cwd", str(self._folder), "--type", "forking", "--pid-file", str(self.pid_file)]
        manager = self._bed.start(*self.command, options=[*fixed, "--poll-interval", "100ms", *options])
        manager.until_launched()
        if self.kind != "script":
            until_serving(self.port, manager)
        main = int(until_written(self.pid_file))
        for pid in session(main):
            self._bed.look_after(pid)
        return manager, until(lambda: self.reported(manager) == main and main, "a report of the daemon's main process")

    def reported(self, manager: Manager) -> int | None:
        """Return the main process of the run as the server tells it."""
        words = self._bed.cmapp("status", manager.name).split("\n")[1].split()
        return int(words[2]) if words[2].isdigit() else None

    def check_gone(self) -> None:
        """Check that nothing is left of it."""
        assert self.kind == "script" or can_listen(self.port)


@pytest.mark.parametrize("cgroup", ["auto", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_stop(bed: Bed, tmp_path: Path, kind: str, cgroup: str) -> None:
    """A daemon is stopped in order through its manager: it has its own exit code, and nothing of it is left."""
    bed.serve("--cgroup", cgroup)
    daemon = Daemon(bed, kind, tmp_path)
    manager, main = daemon.launch()
    assert main != manager.until_launched() or kind == "script"
    everybody = session(main)
    manager.process.terminate()
    assert manager.wait() == (3 if kind == "script" else 0)
    assert "stopped on request, the stop signal was enough" in manager.last_line
    assert [pid for pid in everybody if alive(pid)] == []
    daemon.check_gone()
    (tmp_path / "daemon.pid").unlink(missing_ok=True)
    again, _ = daemon.launch()
    again.process.terminate()
    assert again.wait() == manager.wait()


@pytest.mark.parametrize("cgroup", ["auto", "none"])
@pytest.mark.parametrize("kind", KINDS)
def test_death(bed: Bed, tmp_path: Path, kind: str, cgroup: str) -> None:
    """The death of a daemon's main process is the end of the run, with its signal, and its workers go too."""
    bed.serve("--cgroup", cgroup)
    daemon = Daemon(bed, kind, tmp_path)
    manager, main = daemon.launch()
    everybody = session(main)
    os.kill(main, signal.SIGKILL)
    assert manager.wait() == 137
    until_gone(*everybody)
    daemon.check_gone()


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("kind", KINDS)
def test_next_server(bed: Bed, tmp_path: Path, kind: str, fate: str) -> None:
    """The next server watches the daemon's main process, not the command that it came from."""
    bed.serve()
    daemon = Daemon(bed, kind, tmp_path)
    manager, main = daemon.launch(*PATIENT)
    renew(bed, fate)
    until_back(manager, main)
    assert daemon.reported(manager) == main
    manager.process.terminate()
    assert manager.wait() == (3 if kind == "script" else 0)
    assert not alive(main)
    daemon.check_gone()


def test_command_that_fails(bed: Bed, tmp_path: Path) -> None:
    """A forking command that exits with another code than 0 has left no daemon: that code is the outcome."""
    options = ["--type", "forking", "--pid-file", str(tmp_path / "daemon.pid")]
    assert bed.run("/bin/sh", "-c", "exit 43", options=options).wait() == 43


def test_port_that_is_taken(bed: Bed, tmp_path: Path) -> None:
    """A daemon that cannot start says so by the exit code of its command."""
    if NGINX is None:
        pytest.skip("no nginx here: Debian's nginx-light")
    daemon = Daemon(bed, "nginx", tmp_path)
    with socket.create_server(("127.0.0.1", daemon.port)):
        options = ["--type", "forking", "--pid-file", str(daemon.pid_file)]
        assert bed.run(*daemon.command, options=options).wait() == 1


def test_old_pid_file(bed: Bed, tmp_path: Path) -> None:
    """A pid in the file that is a stranger's, left from an earlier life, is not believed."""
    stranger = os.getpid()
    (tmp_path / "daemon.pid").write_text(f"{stranger}\n")
    options = ["--type", "forking", "--pid-file", str(tmp_path / "daemon.pid"), "--cwd", str(tmp_path)]
    script = "setsid sh -c 'echo $$ >own; while :; do sleep 0.05; done' >/dev/null 2>&1 & until [ -s own ]; do :; done"
    manager = bed.start("/bin/sh", "-c", script, options=[*options, "--ready-timeout", "2s", "--stop-timeout", "2s"])
    own = int(until_written(tmp_path / "own"))
    manager.until_launched()
    manager.process.terminate()
    manager.wait()
    assert not alive(own)
    assert alive(stranger)
