"""A guest package as Serviceguard is given it: its commands and its script, started as the manuals say it does.

There is no Serviceguard here. A service's command is run without a variable and in a process group of its own by the
shell that Red Hat and SUSE have as /bin/sh, bash, which becomes the command; a halt is SIGTERM to the group.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.cluster.reading import read_package
from cmapp.cluster.serviceguard import SCRIPTS, render
from tests.system.commands import CMAPP, END_LIMIT
from tests.system.processes import alive, until_gone, until_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bed import Bed

    Start = Callable[[str], subprocess.Popen[bytes]]

PROGRAMS = str(Path(CMAPP).parent)
PACKAGE = """
name = "sg"
hosts = ["n1", "n2"]
guest = "{guest}"
keys = "{keys}"
log = "{folder}/sg.log"
[vm]
start = "/bin/false"
stop = "{folder}/machine stop"
state = "{folder}/machine state"
stop_timeout = "1s"
[settings]
syslog = false
orphan_timeout = "1s"
stop_timeout = "5s"
[service.sg-code]
command = ["/bin/sh", "-c", "exit 77"]
[service.sg-run]
command = ["{folder}/run", "a b", "", "*"]
service_restart = 2
"""
RUN = """#!/bin/sh
trap 'exit 9' TERM
printf '%s|' "$@" >{folder}/words
echo $$ >{folder}/pid
while :; do sleep 0.05; done
"""
MACHINE = """#!/bin/sh
case $1 in
    stop) echo asked >>{folder}/stops; [ -e {folder}/stuck ] || rm -f {folder}/up ;;
    state) if [ -e {folder}/up ]; then echo running; else echo down; fi ;;
esac
"""


@pytest.fixture
def files(bed: Bed, tmp_path: Path) -> dict[str, str]:
    """Return the files that are rendered of a package on the bed's server."""
    for name, text in (("run", RUN), ("machine", MACHINE)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(0o755)
    file = tmp_path / "sg.toml"
    file.write_text(PACKAGE.format(guest=bed.server.guest, keys=bed.keys.host, folder=tmp_path))
    return render(read_package(str(file)), PROGRAMS)


@pytest.fixture
def start(files: dict[str, str], tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a service of the package as Serviceguard would."""
    begun: list[subprocess.Popen[bytes]] = []

    def start(name: str) -> subprocess.Popen[bytes]:
        found = re.search(rf'^service_name +{name}\nservice_cmd +"(.*)"$', files["sg.conf"], re.MULTILINE)
        assert found
        with (tmp_path / "stderr").open("ab") as log:
            shell = ["/bin/bash", "--posix", "-c", found[1]]
            begun.append(
                subprocess.Popen(shell, env={}, cwd="/", stdin=subprocess.DEVNULL, stderr=log, process_group=0)
            )
        return begun[-1]

    yield start
    for process in begun:
        process.kill()
        process.wait()


def test_a_service_ends_as_its_application_does(start: Start) -> None:
    """The code that Serviceguard sees is the application's own."""
    assert start("sg-sg-code").wait(END_LIMIT) == 77


def test_a_halt_stops_the_application(start: Start, tmp_path: Path) -> None:
    """SIGTERM to the group: the words were the package's, and nothing is left when the service has ended."""
    service = start("sg-sg-run")
    pid = int(until_written(tmp_path / "pid"))
    assert (tmp_path / "words").read_text() == "a b||*|"
    os.killpg(service.pid, signal.SIGTERM)
    assert service.wait(END_LIMIT) == 9
    assert not alive(pid)


def test_a_halt_without_time_leaves_nothing_for_good(start: Start, tmp_path: Path) -> None:
    """A service that is killed stops nothing; the guest stops the orphan when its time is over."""
    service = start("sg-sg-run")
    pid = int(until_written(tmp_path / "pid"))
    os.killpg(service.pid, signal.SIGKILL)
    service.wait()
    assert alive(pid)
    until_gone(pid)


def run_script(files: dict[str, str], folder: Path, word: str) -> int:
    """Run the package's external script, and return its exit code."""
    script = folder / "sg-vm.sh"
    script.write_text(files["sg-vm.sh"])
    script.chmod(0o755)
    return subprocess.run([script, word], env={"SG_PACKAGE": "sg"}, cwd="/", timeout=60, check=False).returncode


@pytest.mark.parametrize("word", ["start", "validate"])
def test_the_script_does_nothing_at_a_start(files: dict[str, str], tmp_path: Path, word: str) -> None:
    """Only a halt is its business."""
    (tmp_path / "up").touch()
    assert run_script(files, tmp_path, word) == 0
    assert not (tmp_path / "stops").exists()


def test_the_script_stops_a_machine_that_nobody_watches(files: dict[str, str], tmp_path: Path) -> None:
    """Whoever watched it may have been killed: the package goes elsewhere only when it is down."""
    (tmp_path / "up").touch()
    assert run_script(files, tmp_path, "stop") == 0
    assert not (tmp_path / "up").exists()


def test_the_script_has_nothing_to_do_when_the_machine_is_down(files: dict[str, str], tmp_path: Path) -> None:
    """As after any orderly halt."""
    assert run_script(files, tmp_path, "stop") == 0


@pytest.mark.slow  # for the force has its time too
def test_a_machine_that_cannot_be_stopped_keeps_the_package_here(files: dict[str, str], tmp_path: Path) -> None:
    """1 means that the package is halted, and not run anywhere else: better no machine than two."""
    (tmp_path / "up").touch()
    (tmp_path / "stuck").touch()
    assert run_script(files, tmp_path, "stop") == 1
    assert "asked" in (tmp_path / "stops").read_text()


def test_the_script_is_where_the_package_looks_for_it(files: dict[str, str]) -> None:
    """Both files are of one rendering."""
    assert f"external_script           {SCRIPTS}/sg-vm.sh\n" in files["sg.conf"]
