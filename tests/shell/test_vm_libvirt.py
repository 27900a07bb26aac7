"""The guest service on a real libvirtd and real QEMU: each end has its cause, and libvirt's own ends are none."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.shell import libvirt_bed
from tests.shell.libvirt_bed import HALTS, WRITES, Bed, bed_in, migration
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("libvirt", reason="needs libvirt's library for Python")
pytestmark = pytest.mark.skipif(not libvirt_bed.POSSIBLE, reason="needs root, libvirtd and QEMU")


@pytest.fixture(scope="module")
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    yield from bed_in(tmp_path_factory.mktemp("libvirt"))


@pytest.fixture
def bed(_shared: Bed) -> Iterator[Bed]:
    """Return a libvirtd in which nothing runs."""
    yield _shared
    _shared.clear()


def test_from_start_to_a_shutdown_from_inside(bed: Bed) -> None:
    """It starts the domain, says READY=1, hears of a pause, and exits with 0 when the guest shuts down."""
    service = bed.run(bed.define("a"))
    service.until_ready()
    assert bed.state("a") == "running"
    bed.virsh("suspend", "a")
    service.until("is paused, and not judged")
    assert bed.state("a") == "paused"
    bed.virsh("resume", "a")
    service.until("runs again")
    bed.virsh("undefine", "a")
    service.until("its definition was taken away")
    assert service.process.poll() is None
    bed.until_booted("a")
    bed.virsh("shutdown", "a")
    service.ends("shut-down", 0)
    assert bed.state("a") == "elsewhere"


def test_adopted_and_destroyed(bed: Bed) -> None:
    """One that runs is not started again; whoever destroys it behind our back is told."""
    bed.virsh("start", bed.define("a"))
    pid = bed.emulator("a")
    service = bed.run("a", "--adopt")
    service.until_ready()
    assert "is found running" in service.log
    assert bed.emulator("a") == pid
    bed.virsh("destroy", "a")
    service.ends("destroyed", 1)
    assert bed.state("a") == "down"


def test_killed(bed: Bed) -> None:
    """Whoever is to be told at once is told that QEMU was killed; a start right after it waits for libvirt."""
    told = bed.folder / "told"
    service = bed.run(
        bed.define("a"), "--on-end", f"/bin/sh -c 'echo $CMAPP_NAME $CMAPP_CAUSE $CMAPP_EXIT_CODE > {told}'"
    )
    service.until("its QEMU is process")
    os.kill(bed.emulator("a"), signal.SIGKILL)
    service.ends("crashed", 1)
    assert until(lambda: told.exists() and told.read_text(), "it is told") == "a crashed 1\n"
    service = bed.run("a")
    service.until_ready()
    service.close()  # who watched it is killed, too
    os.kill(bed.emulator("a"), signal.SIGKILL)
    bed.run("a").until_ready()


def test_libvirtd_comes_and_goes(bed: Bed) -> None:
    """Its daemon is killed and started again: that is no reason for anything. Then SIGTERM shuts the guest down."""
    service = bed.run(bed.define("a"))
    service.until_ready()
    bed.kill_daemon()
    service.until("nobody can tell how it is")
    assert bed.state("a") == "running"
    bed.start_daemon()
    service.until("runs again")
    bed.until_booted("a")
    service.signal(signal.SIGTERM)
    service.ends("stopped", 0)
    assert "its power is cut" not in service.log


def test_killed_while_libvirtd_is_away(bed: Bed) -> None:
    """The end of the process is seen without libvirt, whose pid file tells whoever comes later."""
    service = bed.run(bed.define("a"))
    service.until("its QEMU is process")
    bed.kill_daemon()
    service.until("nobody can tell how it is")
    os.kill(bed.emulator("a"), signal.SIGKILL)
    began = time.monotonic()
    service.ends("gone", 1)
    assert time.monotonic() - began < 1.5
    assert bed.state("a") == "down"


def test_a_guest_that_does_not_listen_is_forced(bed: Bed) -> None:
    """It has the stop timeout, and then its power is cut."""
    service = bed.run(bed.define("a", HALTS), "--stop-timeout", "1s")
    service.until_ready()
    assert bed.said("stop", "--state-dir", bed.folder / "state", "--no-syslog", "a") == (0, "")
    service.ends("stopped", 0)
    assert "its power is cut" in service.log
    assert bed.state("a") == "down"
    bed.run("a").until_ready()  # whoever was to start it again need not wait


def test_stopped_without_libvirt(bed: Bed) -> None:
    """When libvirt cannot be asked, the process that is proven to be the domain's is killed, and no other."""
    for name in ("a", "ab"):
        bed.virsh("start", bed.define(name))
    mine, other = bed.emulator("a"), bed.emulator("ab")
    bed.kill_daemon()
    stop = ("stop", "--no-syslog", "--stop-timeout", "500ms", "--state-dir", bed.folder / "state", "a")
    code, said = bed.said(*stop)
    assert code == 0, said
    assert not alive(mine)
    assert alive(other)
    assert "is killed if it is proven" in said


def test_a_full_disk_stalls_it(bed: Bed) -> None:
    """A pause by an I/O error is told from one that somebody wants; it lasts until the disk has room."""
    service = bed.run(bed.define("a", WRITES, small=True), "--stall-timeout", "30s")
    service.until("stands still")
    assert "an I/O error of" in service.log
    assert bed.said("state", "a") == (0, "paused: paused by an I/O error of a disk")
    bed.resize("4m")
    bed.virsh("resume", "a")
    service.until("runs again")
    service.signal(signal.SIGUSR1)
    service.ends("left", 0)


@pytest.mark.slow
def test_a_stall_that_lasts_ends_it(bed: Bed) -> None:
    """Then the machine is forced down, so that it can be started where its disk has room."""
    service = bed.run(bed.define("b", WRITES, small=True), "--stall-timeout", "500ms")
    service.ends("stalled", 124)
    assert bed.state("b") == "down"


def test_what_is_not_started(bed: Bed) -> None:
    """A domain that is not here is not started without somebody's word, and one whose disk is missing cannot be."""
    service = bed.run("nobody")
    service.ends("elsewhere", 122)
    bed.define("a")
    (bed.folder / "a.img").unlink()
    service = bed.run("a")
    service.ends("not-started", 126)
    assert "a.img" in service.log
    assert bed.state("a") == "down"


@pytest.mark.slow
def test_made_from_a_file(bed: Bed) -> None:
    """Where the cluster says that it runs nowhere else, a domain is made from its XML, and is gone after its end."""
    bed.virsh("undefine", bed.define("a"))
    service = bed.run("a", "--alone", "--config", bed.folder / "a.xml")
    service.until_ready()
    bed.until_booted("a")
    service.signal(signal.SIGTERM)
    service.ends("stopped", 0)
    assert bed.state("a") == "elsewhere"
    other = bed.run("other", "--alone", "--config", bed.folder / "a.xml")
    other.ends("not-started", 126)


@pytest.mark.slow
def test_migrated_alive(bed: Bed, tmp_path: Path) -> None:
    """Whoever watches it here says that it is elsewhere, and starts nothing; there it is adopted, the same process."""
    other = Bed(tmp_path, 2)
    try:
        service = bed.run(bed.define("a"))
        service.until_ready()
        bed.until_booted("a")
        said = subprocess.run(migration(bed, other, "a"), capture_output=True, text=True, check=True).stdout
        assert said == "done\n"
        service.ends("elsewhere", 122)
        assert bed.state("a") == "elsewhere"
        assert other.state("a") == "running"
        again = bed.run("a")
        again.ends("elsewhere", 122)
        there = other.run("a", "--adopt")
        there.until_ready()
        there.signal(signal.SIGTERM)
        there.ends("stopped", 0)
        assert other.state("a") == "elsewhere"
    finally:
        other.close()


@pytest.mark.slow
def test_libvirtd_that_does_not_answer(bed: Bed) -> None:
    """A daemon that was stopped makes nobody wait, and nobody ends: the process lives."""
    service = bed.run(bed.define("a"))
    service.until("its QEMU is process")
    os.kill(bed.daemon, signal.SIGSTOP)
    began = time.monotonic()
    assert bed.state("a", "--timeout", "1s") == "running"
    assert time.monotonic() - began < 3
    service.until("nobody can tell how it is")
    assert service.process.poll() is None
    os.kill(bed.daemon, signal.SIGCONT)
    service.until("runs again")
    os.kill(bed.daemon, signal.SIGSTOP)
    os.kill(bed.emulator("a"), signal.SIGKILL)
    service.ends("gone", 1)
