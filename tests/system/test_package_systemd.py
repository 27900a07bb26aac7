"""A guest package without a cluster: the units that are rendered of it, on a real systemd, with real managers."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from chaos.grounds import what_is_missing
from cmapp.cluster.reading import read_package
from cmapp.cluster.systemd import render
from tests.system.package_host import HEAD, Host, booted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host without a cluster."""
    with booted(tmp_path_factory.mktemp("packages")) as host:
        yield host


@pytest.fixture
def verified(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that has systemd read the units of a package, and returns what it complains of."""
    for name in ("cmapp", "cmappmgr"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)

    def verify(text: str) -> str:
        (tmp_path / "package.toml").write_text(text)
        units = render(read_package(str(tmp_path / "package.toml")), str(tmp_path))
        for name, content in units.items():
            (tmp_path / name).write_text(content)
        paths = [str(tmp_path / name) for name in units]
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    return verify


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_every_word(verified: Callable[[str], str]) -> None:
    """Nothing is unknown and no line refused, whatever is in the words of a command."""
    strange = """command = ["/bin/x", "", "a b", 'q"q', "$HOME", "%h", ";", "\\\\", "é", "\\n"]"""
    rules = [
        "service_restart = 3",
        "service_restart = 'unlimited'",
        "service_fail_fast = true\nservice_halt_timeout = 0",
    ]
    services = "".join(f"[service.s{number}]\n{strange}\n{rule}\n" for number, rule in enumerate(rules))
    assert not verified(f"{HEAD.format(name='all', restart=2)}{services}")


def test_a_service_is_restarted_n_times_and_then_all_stops(host: Host) -> None:
    """Two restarts, a sibling that never notices, and after the third failure nothing of the package runs."""
    host.install("erp", db="service_restart = 2", web="service_restart = 'unlimited'")
    host.until_started("erp-web", 1)
    for start in (1, 2, 3):
        host.until_started("erp-db", start)
        assert host.state("erp-db.service", "NRestarts") == str(start - 1)
        host.kill("erp-db")
    host.until_given_up("erp", "erp-db")
    host.until(lambda: host.state("erp-web.service") == "inactive", "the sibling's stop")
    assert len(host.starts("erp-db")) == 3
    assert len(host.starts("erp-web")) == 1  # until then it ran on
    assert not host.alive("erp-web")
    assert host.alive_when_stopped("erp") == ["erp-db"]  # which was killed and could not say so; the other was stopped


def test_an_administrator_may_begin_anew(host: Host) -> None:
    """What was given up runs again after reset-failed, with all of its restarts."""
    host.call("systemctl", "reset-failed", "erp-*")
    host.call("systemctl", "start", "--no-block", "erp.target")
    host.until_started("erp-db", 4)
    host.kill("erp-db")
    host.until_started("erp-db", 5)
    host.call("systemctl", "stop", "erp.target")


def test_an_exit_with_0_counts_and_none_is_none(host: Host) -> None:
    """Without a restart, the first end is the last, whatever its code: 0 too."""
    host.install("once", codes={"job": 0}, job="service_restart = 'none'", other="")
    host.until_given_up("once", "once-job")
    assert len(host.starts("once-job")) == 1
    assert len(host.starts("once-other")) <= 1


def test_unlimited_never_gives_up(host: Host) -> None:
    """One that fails at once is started again and again, a second apart, while its sibling runs."""
    host.install("loop", codes={"bad": 5}, bad="service_restart = 'unlimited'", good="")
    host.until(lambda: len(host.starts("loop-bad")) >= 4, "four starts")
    assert host.state("loop.target") == "active"
    assert len(host.starts("loop-good")) == 1
    host.call("systemctl", "stop", "loop.target")


def test_words_arrive_as_they_are(host: Host) -> None:
    """Nothing between the package's file and the application changes a word, however strange it is."""
    words = ["", "a b", 'q"q', "it's", "$HOME", "${x}", "%h", "%%", ";", "\\", "\\n", "é", "*", "#", "a\tb", "--", "-x"]
    shown = "\x1f".join(words)
    script = "import sys; open('/books/said', 'w').write('\\x1f'.join(sys.argv[1:]))"
    command = json.dumps(["/usr/bin/python3", "-c", script, *words])
    host.install("said", commands={"say": command}, say="")
    host.until(lambda: (host.books / "said").exists() and (host.books / "said").read_text(), "what was said")
    assert (host.books / "said").read_text() == shown


def test_what_is_stopped_on_purpose_is_no_failure(host: Host) -> None:
    """Stops and restarts by hand do not count, and a code that is not 0 leaves nothing failed behind."""
    host.install("calm", db="service_restart = 'none'", web="")
    host.until_started("calm-web", 1)
    for start in (1, 2, 3):
        host.until_started("calm-db", start)
        host.call("systemctl", "restart", "calm-db.service")
    host.until_started("calm-db", 4)
    host.call("systemctl", "stop", "calm-db.service")
    assert host.state("calm-db.service", "Result") == "success"
    assert host.state("calm.target") == "active"
    assert host.alive("calm-web")
    host.call("systemctl", "stop", "calm.target")
    host.until(lambda: host.state("calm-vm.service") == "inactive", "the machine's stop")
    assert not host.call("systemctl", "list-units", "--failed", "--plain", "--no-legend", "calm-*")
    # The applications were stopped before the machine, each in order.
    assert not host.alive_when_stopped("calm")
    assert "stopped" in (host.books / "calm.log").read_text()


def test_the_end_of_the_machine_is_the_end_of_all(host: Host) -> None:
    """Without restarts of the machine, its death stops the applications, and the package is given up."""
    host.install("gone", db="service_restart = 5")
    host.until_started("gone-db", 1)
    host.end_machine()
    host.until_given_up("gone", "gone-vm")
    assert not host.alive("gone-db")
    assert len(host.starts("gone-db")) == 1


@pytest.mark.slow  # for commands are asked every few seconds only
def test_a_machine_that_is_restarted_takes_its_applications_along(host: Host) -> None:
    """With one restart, they come back with it, and its second death is the last."""
    host.install("again", restart=1, db="service_restart = 'none'")
    for start in (1, 2):
        host.until_started("again-db", start)
        host.end_machine()
    host.until_given_up("again", "again-vm")
    assert len(host.starts("again-db")) == 2


def test_a_machine_that_cannot_be_started_is_tried_again(host: Host) -> None:
    """Its applications wait for the next try, and only the last failure gives the package up."""
    (host.books / "broken").touch()
    before = (host.books / "machine").read_text().count("late starts")
    host.install("late", restart=2, db="service_restart = 'none'")
    host.until_given_up("late", "late-vm")
    assert (host.books / "machine").read_text().count("late starts") - before == 3
    assert not host.starts("late-db")
    (host.books / "broken").unlink()
    host.call("systemctl", "reset-failed", "late-*")
    host.call("systemctl", "start", "--no-block", "late.target")
    host.until_started("late-db", 1)
    host.call("systemctl", "stop", "late.target")


def test_a_killed_watcher_leaves_no_machine_behind(host: Host) -> None:
    """Whoever watches the machine is killed: it is stopped in order, and the package is given up."""
    host.install("left", db="service_restart = 5")
    host.until_started("left-db", 1)
    host.call("systemctl", "kill", "--kill-who=main", "-s", "KILL", "left-vm.service")
    host.until_given_up("left", "left-vm")
    assert not host.alive("left-db")


def test_fail_fast_takes_the_host_down(host: Host) -> None:
    """The failure after the last restart reboots the host at once. It is the last test of this host."""
    host.install("fast", db="service_restart = 1\nservice_fail_fast = true")
    for start in (1, 2):
        host.until_started("fast-db", start)
        assert host.machine.up
        host.kill("fast-db")
    host.until(lambda: not host.machine.up, "the host's reboot")  # which systemd-nspawn leaves to those that started it
