"""What the wheel installs: three commands that know themselves, their man pages where `man` looks, and no more."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.system.commands import BIN, CMAPP, MANAGER, SERVER, run

COMMANDS = {"cmapp": CMAPP, "cmappmgr": MANAGER, "cmappserver": SERVER}
PAGES = {"cmapp": "man1/cmapp.1", "cmappmgr": "man1/cmappmgr.1", "cmappserver": "man8/cmappserver.8"}
HELPS: dict[str, list[list[str]]] = {
    "cmapp": [[], ["keys"], ["keys", "init"], ["keys", "issue"], ["keys", "show"], ["status"], ["hold"], ["resume"]],
    "cmappmgr": [[]],
    "cmappserver": [[]],
}
# The options that everything around cmapp may rely on, whatever else is added.
PROMISED = {
    "cmapp": "days force san json keys address version",
    "cmappmgr": (
        "keys config name user group cwd env poll-interval poll-timeout connect-timeout stop-timeout output log-file"
        " syslog no-syslog result verbose version run-id on-existing takeover type pid-file ready ready-timeout"
        " health-command health-interval health-timeout health-retries watchdog-timeout limit link-timeout"
        " orphan-timeout orphan-action stop-command stop-signal detach-on-signal"
    ),
    "cmappserver": (
        "config keys listen state-dir log-level check version upgrade stop-on-exit cgroup spool-limit receipt-retention"
    ),
}


def help_of(command: str) -> str:
    """Return all that the command's --help says."""
    texts = []
    for words in HELPS[command]:
        done = run([COMMANDS[command], *words, "--help"])
        assert (done.returncode, done.stderr) == (0, "")
        texts.append(done.stdout)
    return "\n".join(texts)


def page_of(command: str) -> str:
    """Return the installed man page."""
    return (Path(sys.prefix) / "share" / "man" / PAGES[command]).read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_version(command: str) -> None:
    """--version says the version that was installed."""
    done = run([COMMANDS[command], "--version"])
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{command} {importlib.metadata.version('cmapp')}\n", "")


@pytest.mark.parametrize("command", COMMANDS)
def test_help(command: str) -> None:
    """--help and the man page speak of every option that is promised."""
    shown, page = help_of(command), page_of(command)
    for name in PROMISED[command].split():
        assert re.search(rf"^ +(-\S+, )?--{name}\b", shown, re.MULTILINE), name
        assert re.search(rf"^\.It .*Fl -{name}\b", page, re.MULTILINE), name


@pytest.mark.parametrize("command", COMMANDS)
def test_man_page_is_where_man_looks(command: str) -> None:
    """Beside a folder of PATH named bin, man looks in ../share/man: the page is there, and man finds it."""
    assert page_of(command).startswith((".", "'"))
    man = shutil.which("man")
    if man is not None:
        done = run([man, "-w", command], env={"PATH": f"{BIN}:/usr/bin:/bin"})
        assert done.stdout.strip().startswith(sys.prefix)


@pytest.mark.parametrize("command", COMMANDS)
def test_output_on_a_full_disk(command: str) -> None:
    """An output that takes nothing is one line and a failure, not a complaint of Python's."""
    done = run(["/bin/sh", "-c", '"$@" >/dev/full', "sh", COMMANDS[command], "--version"])
    assert done.returncode in {1, 2, 125}
    assert done.stderr.startswith(f"{command}: ")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["cmappmgr", "cmappserver"])
def test_daemons_need_nothing_but_python(tmp_path: Path, command: str) -> None:
    """The two daemons run where there is nothing but Python and this package."""
    package = run([sys.executable, "-c", "import cmapp; print(*cmapp.__path__)"]).stdout.strip()
    shutil.copytree(package, tmp_path / "cmapp")
    script = f"import sys; sys.path.append('{tmp_path}'); from cmapp.cli.{command} import main; main()"
    done = run([sys.executable, "-I", "-S", "-c", script, "--version"])
    assert (done.returncode, done.stderr) == (0, "")
