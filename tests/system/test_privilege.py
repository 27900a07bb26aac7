"""As little privilege as it needs: the installed server as root, as an ordinary user, and under its unit in a guest."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmapp
from chaos.grounds import Grounds, what_is_missing
from chaos.guests import UNIT, Guest
from tests.system.bed import Manager, manager_files
from tests.system.commands import SERVER, run
from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.system.bed import Bed
    from tests.system.keys import Keys

ROOT = Path(__file__).parents[2]
MANAGER = str(Path(sys.executable).parent / "cmappmgr")
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
RUNS_IT = f"import os, sys; sys.exit(not os.access({SERVER!r}, os.X_OK) or not os.access(sys.executable, os.X_OK))"
DEBIANS = "/usr/bin/python3"  # anybody's, where the one that runs the tests is in somebody's home
BY_COPY = "import sys; sys.path.insert(0, {!r}); del sys.argv[1]; from cmapp.cli.cmappserver import main; main()"
CAP_SYS_ADMIN = 1 << 21
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def effective(pid: int | None) -> int:
    """Return the capabilities that a process may use."""
    found = re.search(r"^CapEff:\t(\w+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1], 16)


# ---- without a unit ------------------------------------------------------------------------------------------


@as_root
def test_the_server_of_root_is_no_root(bed: Bed) -> None:
    """It may use less than its own applications, which have all that root has here."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000")
    application = manager.until_launched()
    assert effective(application) == effective(os.getpid())
    assert effective(server.process.pid) < effective(application)
    assert effective(server.process.pid) & CAP_SYS_ADMIN == 0
    other = bed.start("/bin/sleep", "1000", options=["--user", "nobody"])
    assert effective(other.until_launched()) == 0
    other.process.terminate()
    assert other.wait() == 143


@as_root
def test_a_server_where_root_never_runs(bed: Bed) -> None:
    """Everything works there as another user: a launch, a restart of the server, an upgrade, and a stop."""
    server = bed.serve(run_as=("nobody",))
    assert "no application may run as root" in server.log
    manager = bed.start("/bin/sleep", "1000", options=["--link-timeout", "30s"])
    manager.until_launched()
    server.crash()
    until(lambda: "back after" in manager.log, "the way back after a crash")
    server.upgrade()
    until(lambda: manager.log.count("back after") > 1, "the way back after an upgrade")
    manager.process.terminate()
    assert manager.wait() in {121, 143}  # before Linux 6.15 nobody tells how one ended that was found again


@as_root
def test_a_server_of_an_ordinary_user(bed: Bed, tmp_path: Path) -> None:
    """It runs applications as its user, and another user's is refused with the reason."""
    command = list(NOBODY)
    if run([*NOBODY, sys.executable, "-c", RUNS_IT]).returncode:
        shutil.copytree(Path(cmapp.__file__).parent, tmp_path / "copy" / "cmapp")
        command += [DEBIANS, "-c", BY_COPY.format(str(tmp_path / "copy"))]
    for outer in (tmp_path, *tmp_path.parents[:-2]):
        outer.chmod(outer.stat().st_mode | 0o711)
    keys = tmp_path / "keys"
    shutil.copytree(bed.keys.guest, keys)
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    for path in (state, keys, *keys.iterdir()):
        os.chown(path, 65534, 65534)
    server = bed.serve("--state-dir", str(state), keys=keys, by=command)
    server.state = state
    done = bed.run("/usr/bin/id", "-u", options=["--output", "stdout"])
    assert (done.wait(), done.stdout) == (0, b"65534\n")
    refused = bed.run("/usr/bin/id", options=["--user", "root"])
    assert refused.wait() == 126
    assert "the server may not run it as user root: it is not run by root" in refused.last_line


@pytest.mark.parametrize("umask", [0, 0o077])
def test_the_files_of_a_manager(bed: Bed, umask: int) -> None:
    """The package log is for its group too, the result for all, and neither is ever more than that."""
    folder = bed.folder / "by-shell"
    folder.mkdir()
    command = bed.command(folder, "by-shell", ["/bin/true"])
    manager = bed.adopt(Manager(folder, "by-shell", ["/bin/sh", "-c", f'umask {umask:04o}; exec "$@"', "sh", *command]))
    assert manager.wait() == 0
    modes = [path.stat().st_mode & 0o7777 for path in manager_files(folder)]
    assert modes == [0o640 & ~umask, 0o644 & ~umask]


# ---- under the unit, in a guest ------------------------------------------------------------------------------

in_guests = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")


@pytest.fixture(scope="module")
def site() -> Iterator[Grounds]:
    """Grounds for the guest."""
    with Grounds() as grounds:
        yield grounds


@pytest.fixture(scope="module")
def vm(site: Grounds, keys: Keys) -> Guest:
    """A guest with the server under its unit."""
    guest = Guest(site, "vm8", 8)
    wheel = max((ROOT / ".venv/wheel").glob("*.whl"), key=lambda path: path.stat().st_mtime)
    guest.equip(wheel, ROOT / "packaging" / UNIT, keys.issue("guest", "vm8", guest.address))
    guest.boot()
    until(lambda: guest.call("systemctl", "is-active", UNIT).stdout == "active\n", "the server")
    return guest


@pytest.fixture
def app(site: Grounds, vm: Guest, keys: Keys) -> Callable[..., tuple[int, str]]:
    """Return a function that runs an application in the guest, and returns its code and what it said."""

    def app(*argv: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        command = [MANAGER, "--keys", str(keys.host), "--no-syslog", "--log-file", "/dev/null", "--output", "stdout"]
        command += ["--address", vm.address, *options, "vm8", "--", *argv]
        done = subprocess.run(site.on_host(*command), env={}, check=False, timeout=60, capture_output=True, text=True)
        return done.returncode, done.stdout

    return app


WORKS = {
    "su": ("su", "-s", "/bin/sh", "nobody", "-c", "test $(id -u) = 65534"),
    "chroot": ("chroot", "/", "true"),
    "a core dump": ("sh", "-c", "ulimit -c unlimited; cd /tmp; sh -c 'kill -SEGV $$'; ls core* || ls /var/lib/systemd"),
    "oom_score_adj": ("sh", "-c", "echo 100 >/proc/self/oom_score_adj"),
    "files of the system": (
        "sh",
        "-c",
        "touch /usr/x /etc/x /root/x /tmp/x /home/x && rm /usr/x /etc/x /root/x /home/x",
    ),
    "another owner": ("sh", "-c", "touch /tmp/y && chown nobody /tmp/y && rm /tmp/y"),
    "a raw socket": ("python3", "-c", "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)"),
    "memory to be executed": ("python3", "-c", "import mmap; mmap.mmap(-1, 4096, prot=7)"),
    "a low port": ("python3", "-c", "import socket; socket.create_server(('', 80))"),
    "signals to others": ("sh", "-c", "setpriv --reuid=1 sleep 100 & sleep 0.1; kill $!"),
}
REFUSED = {
    "mounting": ("mount", "-t", "tmpfs", "none", "/mnt"),
    "namespaces": ("unshare", "--user", "true"),
    "the clock": ("date", "-s", "2020-01-01"),
    "settings of the kernel": ("sh", "-c", "echo 1 >/proc/sys/vm/overcommit_memory"),
    "setuid bits": ("sh", "-c", "cp /bin/true /tmp/z && chmod u+s /tmp/z"),
    "packets": ("python3", "-c", "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)"),
    "devices": ("mknod", "/root/null", "c", "1", "3"),
}


@in_guests
@pytest.mark.parametrize("what", WORKS)
def test_what_applications_need_works(app: Callable[..., tuple[int, str]], what: str) -> None:
    """The unit takes nothing from ordinary applications, those of root too."""
    assert app(*WORKS[what])[0] == 0


@in_guests
@pytest.mark.parametrize("what", REFUSED)
def test_what_the_unit_says_is_forbidden(app: Callable[..., tuple[int, str]], what: str) -> None:
    """What is said to be forbidden is, and it is an error for the application and not its death."""
    assert 0 < app(*REFUSED[what])[0] < 121


@in_guests
def test_what_is_made_in_tmp_is_seen_by_all(app: Callable[..., tuple[int, str]], vm: Guest) -> None:
    """Clients find an application by what it puts there."""
    assert app("sh", "-c", "echo here >/tmp/it")[0] == 0
    assert vm.call("sh", "-c", "cat /tmp/it").stdout == "here\n"


@in_guests
def test_the_server_under_its_unit(vm: Guest) -> None:
    """It is no root there either; a reload, an upgrade and restarts of it work in what the unit leaves it."""
    assert effective(vm.server()) & CAP_SYS_ADMIN == 0
    for command in (
        ("systemctl", "reload", UNIT),
        ("cmappserver", "--upgrade"),
        ("systemctl", "restart", UNIT),
        ("systemctl", "restart", UNIT),
    ):
        assert vm.call(*command).returncode == 0
        until(lambda: vm.call("systemctl", "is-active", UNIT).stdout == "active\n", "the server")
    assert vm.call("systemctl", "show", "--property=Result", UNIT).stdout == "Result=success\n"
    assert "219/CGROUP" not in vm.journal()


@in_guests
def test_all_is_given_back(app: Callable[..., tuple[int, str]], vm: Guest) -> None:
    """With open.conf nothing is forbidden any more."""
    folder = f"/etc/systemd/system/{UNIT}.d"
    text = (ROOT / "packaging/open.conf").read_text()
    vm.call("mkdir", folder)
    vm.call("python3", "-c", f"import sys; open('{folder}/open.conf', 'w').write(sys.argv[1])", text)
    assert vm.call("systemctl", "daemon-reload").returncode == 0
    assert vm.call("systemctl", "restart", UNIT).returncode == 0
    for what in ("mounting", "namespaces", "setuid bits", "packets"):
        assert app(*REFUSED[what])[0] == 0, what
