"""The daemon: several addresses, its configuration file, a reload, an orderly end, and life without root."""

from __future__ import annotations

import os
import re
import shutil
import signal
import ssl
from typing import TYPE_CHECKING

import pytest

from tests.system.keys import Keys
from tests.system.peers import LOOPBACK, Client, client_context
from tests.system.processes import until
from tests.system.serving import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed


def test_several_addresses(bed: Bed) -> None:
    """--listen may be repeated, and each address serves."""
    ports = [free_port(), free_port()]
    bed.serve("--listen", f"{LOOPBACK}:{ports[0]}", listen=f"{LOOPBACK}:{ports[1]}")
    assert [bed.run("/bin/sh", "-c", "exit 6", guest=f"{LOOPBACK}:{port}").wait() for port in ports] == [6, 6]


def test_configuration_file(bed: Bed, tmp_path: Path) -> None:
    """What the configuration file sets holds."""
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "tool").write_text("#!/bin/sh\nexit 43\n")
    (tmp_path / "tools" / "tool").chmod(0o755)
    config = tmp_path / "cmappserver.conf"
    config.write_text(f'search_path = "{tmp_path}/tools"\nmax_applications = 1\nlog_level = "warning"\n')
    server = bed.serve("--config", str(config), "--log-level", "info")
    assert bed.run("tool").wait() == 43
    assert bed.run("sh", "-c", "exit 0").wait() == 127
    bed.start("/bin/sleep", "1000").until_launched()
    assert bed.run("/bin/true").wait() == 122
    assert "launched as process" in server.log


def test_reload(bed: Bed, tmp_path: Path) -> None:
    """SIGHUP re-reads keys and settings: who is there stays, and who comes meets the new ones."""
    old, new = Keys(tmp_path / "old"), Keys(tmp_path / "new")
    keys, config = tmp_path / "keys", tmp_path / "cmappserver.conf"
    shutil.copytree(old.guest, keys)
    config.write_text("max_applications = 5\n")
    server = bed.serve("--config", str(config), keys=keys)
    there = bed.start("/bin/sleep", "1000", keys=old.host)
    application = there.until_launched()
    shutil.copytree(new.guest, keys, dirs_exist_ok=True)
    config.write_text("max_applications = 1\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: " reloaded: " in server.log, "the reload")
    assert bed.run("/bin/true", keys=old.host).wait() == 122
    full = bed.run("/bin/true", keys=new.host)
    assert (full.wait(), full.result["refusal"]) == (122, "capacity")
    os.kill(application, signal.SIGUSR1)
    assert there.wait() == 138
    assert bed.run("/bin/sh", "-c", "exit 6", keys=new.host).wait() == 6


def test_reload_of_something_broken(bed: Bed, tmp_path: Path) -> None:
    """A reload that cannot be is told, and all stays as it was."""
    keys = tmp_path / "keys"
    shutil.copytree(bed.keys.guest, keys)
    server = bed.serve(keys=keys)
    (keys / "cert.pem").write_text("junk\n")
    server.process.send_signal(signal.SIGHUP)
    until(lambda: "not reloaded, everything stays as it was" in server.log, "the refusal")
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_end(bed: Bed, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end the server in order, with 0, and its port is free for the next at once."""
    server = bed.serve()
    assert bed.run("/bin/true").wait() == 0
    server.process.send_signal(number)
    assert server.process.wait(20) == 0
    assert server.log.rstrip().endswith("stopped")
    server.restart()
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6


def test_second_signal(bed: Bed, tmp_path: Path) -> None:
    """A server that is asked to stop all a second time kills what does not heed its stop signal, and ends."""
    server = bed.serve()
    script = "trap '' TERM; echo >ready; while :; do sleep 0.05; done"
    manager = bed.start("/bin/sh", "-c", script, options=["--cwd", str(tmp_path), "--stop-timeout", "10m"])
    until((tmp_path / "ready").exists, "its start")
    server.process.send_signal(signal.SIGQUIT)
    until(lambda: "stopping with SIGTERM" in server.log, "the stop")
    server.process.send_signal(signal.SIGQUIT)
    assert server.process.wait(20) == 0
    assert manager.wait() == 137
    assert "stopped because the server was stopped, SIGKILL was needed" in manager.last_line


def test_log_lines(bed: Bed) -> None:
    """Each line of the server's log has a time and a level, and what strangers write cannot forge one."""
    server = bed.serve()
    client = Client(server.port, bed.keys.host)
    client.greet()
    refused = client.launch("x", "/nowhere\nNov 22 10:00:00 ERROR: forged")
    assert refused["code"] == "not-found"
    client.close()
    lines = server.log.splitlines()
    assert len(lines) >= 3
    assert all(re.match(r"[A-Z][a-z]{2} \d\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR): ", line) for line in lines)
    assert not any(" ERROR: " in line for line in lines if " WARNING: " not in line)


def test_tls_versions(bed: Bed) -> None:
    """TLS 1.2 is spoken only where both sides allow it."""

    def speaks_tls12(*options: str) -> bool:
        server = bed.serve(*options)
        context = client_context(bed.keys.host)
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        try:
            Client(server.port, bed.keys.host, context).close()
        except OSError:
            return False
        return True

    assert not speaks_tls12()
    assert speaks_tls12("--allow-tls12")


def test_without_root(bed: Bed) -> None:
    """A server that may not change users serves as its own, and refuses to run anything as another."""
    rootless = ["setpriv", "--bounding-set=-setuid,-setgid"] if os.getuid() == 0 else []
    bed.serve(by=["/usr/bin/env", f"PATH={os.defpath}", *rootless])
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
    other = bed.run("/bin/true", options=["--user", "daemon"])
    assert other.wait() == 126
    assert "the server may not run it as user daemon" in other.last_line
