"""The server becomes the version that is installed meanwhile, in place: `cmappserver --upgrade`, and SIGUSR2."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.system.commands import SERVER, run
from tests.system.fates import PATIENT, until_back
from tests.system.processes import until, until_written

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed
    from tests.system.server import Server

# Becomes the cmappserver of another folder than the wheel's; the word that it leaves out is the wheel's command.
RUN = "import sys; sys.path.insert(0, {folder!r}); del sys.argv[1]; from cmapp.cli.cmappserver import main; main()"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder in which the package is installed, to be upgraded."""
    package = run([sys.executable, "-c", "import cmapp; print(*cmapp.__path__)"]).stdout.strip()
    shutil.copytree(package, tmp_path / "installed" / "cmapp", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path / "installed"


def serve(bed: Bed, installed: Path) -> Server:
    """Start the server that is installed there."""
    return bed.serve(by=[sys.executable, "-B", "-c", RUN.format(folder=str(installed))])


def install(installed: Path, version: str, more: str = "") -> None:
    """Replace what is installed by another version."""
    file = installed / "cmapp" / "__init__.py"
    file.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', file.read_text()) + more)


def software(bed: Bed) -> str:
    """Return what the server says it is."""
    return str(json.loads(bed.cmapp("status", "--json"))["software"])


def test_other_version(bed: Bed, installed: Path) -> None:
    """The same process becomes the new version; managers are back, applications never notice."""
    server = serve(bed, installed)
    managers = [bed.start("/bin/sh", "-c", f"exec sleep 100{n}", options=PATIENT) for n in range(8)]
    applications = [manager.until_launched() for manager in managers]
    for number in range(3):
        said = [len(manager.log) for manager in managers]
        install(installed, f"99.{number}")
        server.upgrade()
        for manager, application, after in zip(managers, applications, said, strict=True):
            until_back(manager, application, after)
        assert f"99.{number}" in software(bed)
    for number, application in enumerate(applications, 1):
        os.kill(application, number)
    assert [manager.wait() for manager in managers] == [129 + number for number in range(8)]
    assert server.process.poll() is None


@pytest.mark.parametrize("broken", ["\nthis is no Python\n", "\nraise SystemExit(7)\n"], ids=["syntax", "exits"])
def test_version_that_does_not_start(bed: Bed, installed: Path, broken: str) -> None:
    """What does not start is not become: the server goes on as it is, its managers with it, and the log says why."""
    server = serve(bed, installed)
    manager = bed.start("/bin/sleep", "1000")
    application = manager.until_launched()
    before = software(bed)
    (installed / "cmapp" / "cli" / "cmappserver.py").write_text(broken)
    done = run([SERVER, "--upgrade", "--state-dir", str(server.state)])
    assert done.returncode == 0
    assert f"process {server.process.pid} was asked to become the installed version" in done.stdout
    until(lambda: "not upgraded, everything stays as it was" in server.log, "the refusal")
    assert software(bed) == before
    os.kill(application, signal.SIGUSR1)
    assert manager.wait() == 138
    assert "lost the link" not in manager.log


def test_no_server(bed: Bed, tmp_path: Path) -> None:
    """Where no server runs there is nothing to upgrade: one line."""
    server = bed.serve()
    assert server.stop() == 0
    for folder in (server.state, tmp_path / "nowhere"):
        done = run([SERVER, "--upgrade", "--state-dir", str(folder)])
        assert done.returncode in {1, 2}
        assert done.stderr.count("\n") == 1
        assert str(folder) in done.stderr


def test_amid_a_stop(bed: Bed, tmp_path: Path) -> None:
    """An application that is being stopped is stopped on, and its end is told by the next version."""
    server = bed.serve()
    script = "trap 'echo >stopping; sleep 1; exit 9' TERM; echo >ready; while :; do sleep 0.05; done"
    options = ["--cwd", str(tmp_path), "--stop-timeout", "60s", *PATIENT]
    manager = bed.start("/bin/sh", "-c", script, options=options)
    until_written(tmp_path / "ready")
    manager.process.terminate()
    until_written(tmp_path / "stopping")
    server.upgrade()
    assert manager.wait() == 9
    assert "stopped on request, the stop signal was enough" in manager.last_line


def test_amid_launches(bed: Bed) -> None:
    """Launches that meet an upgrade come through, once each."""
    server = bed.serve()
    managers = [bed.start("/bin/sh", "-c", f"exit {n}", options=PATIENT) for n in range(20)]
    for _ in range(3):
        server.upgrade()
    assert [manager.wait() for manager in managers] == list(range(20))
