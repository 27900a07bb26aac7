"""Guests with a real systemd: that they are what the tests and `./run chaos` take them for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.grounds import BASE, Grounds, cgroup_mount, what_is_missing
from chaos.guests import UNIT, Guest, send
from tests.system.keys import Keys
from tests.system.processes import stat, until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")

ROOT = Path(__file__).parents[2]
MANAGER = str(Path(sys.executable).parent / "cmappmgr")
LEFT = """
import time
from chaos.grounds import Grounds
from chaos.guests import Guest

with Grounds() as site:
    Guest(site, "left", 77).boot()
    print(site.name, flush=True)
    time.sleep(600)
"""
BOOT_ID = "/proc/sys/kernel/random/boot_id"
LISTENS = "import socket, sys; socket.create_connection((sys.argv[1], 5315), 0.5)"


@pytest.fixture(scope="module")
def site() -> Iterator[Grounds]:
    """Grounds for all guests of this file."""
    with Grounds() as grounds:
        yield grounds


@pytest.fixture(scope="module")
def host_keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """Keys of an authority of their own."""
    return Keys(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="module")
def vm(site: Grounds, host_keys: Keys) -> Guest:
    """A guest that has booted, with the server of this project."""
    guest = Guest(site, "vm9", 9)
    wheel = max((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    unit = ROOT / "packaging/cmappserver.service"
    guest.equip(wheel, unit, host_keys.issue("guest", "vm9", guest.address))
    guest.boot()
    return guest


def answers(site: Grounds, guest: Guest) -> bool:
    """Tell whether a connection to the guest's server can be made from the host."""
    command = site.on_host(sys.executable, "-c", LISTENS, guest.address)
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def until_answered(site: Grounds, guest: Guest) -> None:
    """Wait until the guest's server can be connected to."""
    until(lambda: answers(site, guest), "an answer of the guest")


def test_the_server_is_run_by_its_own_unit(site: Grounds, vm: Guest, host_keys: Keys, tmp_path: Path) -> None:
    """PID 1 is systemd, it runs the server by the project's unit, and a manager gets its application's code."""
    assert vm.call("cat", "/proc/1/comm").stdout == "systemd\n"
    assert vm.call("systemctl", "is-active", UNIT).stdout == "active\n"
    log = tmp_path / "package.log"
    command = [MANAGER, "--keys", str(host_keys.host), "--no-syslog", "--log-file", str(log)]
    command += ["--address", vm.address, "vm9", "--", "/bin/sh", "-c", "exit 42"]
    done = subprocess.run(site.on_host(*command), env={}, check=False, timeout=60)
    assert done.returncode == 42, log.read_text()


def test_a_crash_ends_all_and_keeps_the_disk(site: Grounds, vm: Guest) -> None:
    """After a loss of power nothing runs; it boots again as another boot, with what was on its disk."""
    before = vm.call("cat", BOOT_ID).stdout
    vm.call("sh", "-c", "echo kept >/var/kept")
    server = vm.server()
    assert server is not None
    vm.crash()
    assert stat(server) == []
    assert not vm.up
    assert not answers(site, vm)
    vm.boot()
    assert vm.call("cat", "/var/kept").stdout == "kept\n"
    assert vm.call("cat", BOOT_ID).stdout not in ("", before)


def test_a_frozen_guest_stands_still(site: Grounds, vm: Guest) -> None:
    """No process of a frozen guest runs, while its kernel still accepts connections; thawed, it goes on."""
    until_answered(site, vm)
    book = vm.books / "clock"
    vm.call("systemd-run", "--quiet", "sh", "-c", "while sleep 0.01; do echo >>/books/clock; done")
    until(book.exists, "the first line")
    vm.freeze()
    time.sleep(0.1)
    size = book.stat().st_size
    time.sleep(0.2)
    assert book.stat().st_size == size
    assert answers(site, vm)
    vm.thaw()
    until(lambda: book.stat().st_size > size, "another line")


@pytest.mark.parametrize("way", ["cut", "deaf", "mute"])
def test_a_cable_is_cut_and_mended(site: Grounds, vm: Guest, way: str) -> None:
    """Nothing is answered while the cable is cut, or loses what goes in one direction; healed, it is as before."""
    until_answered(site, vm)
    if way == "cut":
        vm.cut()
    else:
        vm.drop(towards_guest=way == "deaf")
    assert not answers(site, vm)
    vm.heal()
    until_answered(site, vm)


def test_the_disk_of_the_state_folder_is_filled_and_freed(vm: Guest) -> None:
    """On the full disk nothing can be written, and all that was left again when it is freed."""
    write = ("dd", "if=/dev/zero", "of=/var/lib/cmappserver/more", "bs=4096", "count=1")
    vm.fill()
    assert "No space left" in vm.call(*write).stderr
    vm.empty()
    assert vm.call(*write).returncode == 0
    vm.call("rm", "/var/lib/cmappserver/more")


def test_a_server_that_is_killed_comes_back(vm: Guest) -> None:
    """The server is known by its process id here, is killed by it, and is started again by its unit."""
    before = vm.server()
    assert before is not None
    assert not send(before, signal.SIGKILL, "another program")
    assert send(before, signal.SIGKILL, "/cmappserver")
    until(lambda: vm.server() not in (None, before), "another server")


def test_what_a_killed_use_has_left_is_swept_away() -> None:
    """A use that was killed leaves guests running; the next one ends and removes them, and nothing else."""
    with subprocess.Popen([sys.executable, "-c", LEFT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None
        name = left.stdout.readline().strip()
        left.kill()
    group = cgroup_mount() / name
    assert name
    assert group.is_dir()
    with Grounds() as other:
        assert other.folder.is_dir()
        assert not group.exists()
        assert not (BASE / name).exists()
        assert list(Path("/run/netns").glob(f"{name}*")) == []
    assert not other.folder.exists()
