"""The bed itself: that its cluster and its hypervisor are what the stories take them for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.grounds import BASE, cgroup_mount
from testbed.cluster import Cluster, what_is_missing
from tests.cluster.stories import APPLICATION, UNIT, wheel
from tests.system.processes import alive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.guests import Guest

ROOT = Path(__file__).parents[2]
LEFT = """
import time
from testbed.cluster import Cluster

with Cluster(1, keys=False) as cluster:
    cluster.until_online()
    print(cluster.site.name, flush=True)
    time.sleep(600)
"""

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")


@pytest.fixture
def vm(cluster: Cluster) -> Iterator[Guest]:
    """A guest that is off; the nodes that a test has lost are back afterwards."""
    yield cluster.define("vm", wheel(), UNIT, APPLICATION)
    cluster.hypervisor.undefine("vm")
    cluster.until(lambda: not cluster.fencing(), "the end of fencing")
    for node in cluster.nodes.values():
        node.heal()
        node.start()
    cluster.until_online()


def guestctl(cluster: Cluster, node: str, *words: str) -> tuple[int, str]:
    """Command the hypervisor from a node."""
    done = cluster.run(node, "guestctl", *words)
    return done.returncode, (done.stdout + done.stderr).strip()


def test_a_node_sees_its_own_machine(cluster: Cluster) -> None:
    """A node's name, processes, files and keys are its own, and nothing of it is in the machine's /etc or /var."""
    assert cluster.run("n2", "hostname").stdout == "n2\n"
    assert cluster.run("n2", "pgrep", "-c", "corosync").stdout == "1\n"
    cluster.run("n2", "touch", "/etc/of-n2", "/var/of-n2", "/run/of-n2")
    for folder in ("/etc", "/var", "/run"):
        assert not Path(folder, "of-n2").exists()
        assert cluster.run("n1", "test", "-e", f"{folder}/of-n2").returncode == 1
    told = cluster.run("n2", "openssl", "x509", "-noout", "-subject", "-in", "/etc/cmapp/keys/cert.pem").stdout
    assert "n2" in told


def test_a_crashed_node_is_fenced_with_its_guests(cluster: Cluster, vm: Guest) -> None:
    """Without power neither a node nor its guest runs anything; what the node has written is there when it is back."""
    assert guestctl(cluster, "n3", "start", "vm") == (0, "running")
    cluster.run("n3", "touch", "/var/kept")
    inside = int((cluster.nodes["n3"].folder / "pid").read_text())
    cluster.crash("n3")
    assert not vm.up
    assert not alive(inside)
    cluster.until(lambda: cluster.online() == {"n1", "n2"}, "the others to notice")
    cluster.until(lambda: not cluster.fencing(), "the end of fencing")
    cluster.start("n3")
    cluster.until_online()
    assert cluster.run("n3", "test", "-e", "/var/kept").returncode == 0


def test_no_guest_runs_twice(cluster: Cluster, vm: Guest) -> None:
    """A second start is refused and written down; a migration changes who the guest belongs to, and it goes on."""
    assert guestctl(cluster, "n1", "state", "vm") == (0, "down")
    assert guestctl(cluster, "n1", "start", "vm") == (0, "running")
    assert guestctl(cluster, "n2", "start", "vm") == (1, "error: vm runs on n1")
    assert guestctl(cluster, "n2", "state", "vm") == (0, "elsewhere: it runs on n1")
    cluster.until(vm.server, "the guest's server")
    server = vm.server()
    assert guestctl(cluster, "n1", "migrate", "vm", "n2") == (0, "running")
    assert guestctl(cluster, "n1", "state", "vm") == (0, "elsewhere: it runs on n2")
    assert vm.server() == server
    assert guestctl(cluster, "n1", "stop", "vm") == (0, "elsewhere: it runs on n2")
    assert guestctl(cluster, "n2", "stop", "vm") == (0, "down")
    assert not vm.up
    assert [what for _, what, _, _ in cluster.hypervisor.events[-4:]] == ["start", "refused", "migrate", "stop"]


def test_a_paused_guest_says_so_and_a_hung_one_does_not(cluster: Cluster, vm: Guest) -> None:
    """A guest that was paused is told to be so; one that hangs seems to run."""
    guestctl(cluster, "n1", "start", "vm")
    cluster.hypervisor.pause("vm")
    assert guestctl(cluster, "n1", "state", "vm") == (0, "paused")
    cluster.hypervisor.resume("vm")
    cluster.hypervisor.pause("vm", told=False)
    assert guestctl(cluster, "n1", "state", "vm") == (0, "running")
    cluster.hypervisor.resume("vm")
    assert vm.up


def test_a_shell_has_a_cluster_too(cluster: Cluster) -> None:
    """`python -m testbed` puts one up beside another, runs commands in its nodes, and takes it down."""

    def testbed(*words: str) -> str:
        command = [sys.executable, "-m", "testbed", *words]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=90).stdout.strip()

    name = testbed("--nodes", "1", "up")
    bed = ("--bed", name)
    try:
        assert name != cluster.site.name
        assert "n1" in testbed(*bed, "exec", "n1", "crm_mon", "-1")
        assert testbed(*bed, "exec", "n1", "guestctl", "start", "vm1") == "running"
    finally:
        assert testbed(*bed, "down") == "done"
    cluster.until(lambda: not (BASE / name).exists(), "the end of the other bed")


def test_what_a_killed_bed_has_left_is_swept_away(cluster: Cluster) -> None:
    """The nodes of a bed whose owner was killed run on; the next bed ends and removes them, and no other."""
    with subprocess.Popen([sys.executable, "-c", LEFT], cwd=ROOT, stdout=subprocess.PIPE, text=True) as left:
        assert left.stdout is not None
        name = left.stdout.readline().strip()
        os.kill(left.pid, signal.SIGKILL)
    assert name
    assert (cgroup_mount() / name / "n1").is_dir()
    with Cluster(1, keys=False):
        assert not (cgroup_mount() / name).exists()
        assert not (BASE / name).exists()
    assert cluster.online() == {"n1", "n2", "n3"}
