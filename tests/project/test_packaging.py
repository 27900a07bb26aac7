"""The unit for systemd says what the server is made for, and systemd understands every word of it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.guest.privilege import CLOSED, OWN, SWITCHING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

PACKAGING = Path(__file__).parents[2] / "packaging"
UNIT = PACKAGING / "cmappserver.service"
SYSTEMCTL = """#!/bin/sh
case $* in *DelegateSubgroup*) echo "$SUBGROUP" ;; *ControlGroup*) echo "$GROUP" ;; *) echo "$STATE" ;; esac
"""
SOON = 20.0  # seconds
SETTINGS = [  # what a promise hangs on, and what would be broken without it
    ("Type", "notify"),  # others would be started before the server answers
    ("KillMode", "process"),  # a stop of the server would kill the applications
    ("Restart", "always"),  # the applications would be unwatched
    ("StartLimitIntervalSec", "0"),  # the same, after five starts
    ("FileDescriptorStoreMax", "4096"),  # an end while there is no server would be unknown
    ("Delegate", "yes"),  # runs would have no control group
    ("OOMPolicy", "continue"),  # an application's death would be the server's
    ("TasksMax", "infinity"),  # many applications would share one ordinary service's limit
    ("LimitNOFILE", "1024:524288"),  # applications would begin with a limit that breaks select(2)
    ("StateDirectory", "cmappserver"),  # the server's own default
    ("StateDirectoryMode", "0700"),
]
INHERITED = re.compile(
    r"(Protect|Private|Restrict|NoNew|SystemCall(?!Error)|OOMScore|Nice|Capability|Lock|Memory|Proc|Device|IPAddress)\w*="
)
HARMFUL = {  # to applications, which inherit it
    "DeviceAllow",
    "DevicePolicy",
    "DynamicUser",
    "IPAddressDeny",
    "MemoryDenyWriteExecute",
    "Nice",
    "NoNewPrivileges",
    "OOMScoreAdjust",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateNetwork",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectProc",
    "ProtectSystem",
    "RootDirectory",
    "User",
}


def assignments(path: Path) -> list[tuple[str, str]]:
    """Return what a unit file sets, in order, each line with its continuations."""
    text = re.sub(r"\\\n\s*", "", path.read_text())
    lines = [line for line in text.splitlines() if line and line[0] not in "#;["]
    return [(key, value) for key, _, value in (line.partition("=") for line in lines)]


def exposure(unit: Path) -> float:
    """Return how exposed a service is by systemd's own count, from 0 to 10."""
    analyze = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    said = subprocess.run(
        analyze, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    ).stdout
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found[1])


def command(name: str) -> str:
    """Return the shell script of an Exec... line as the shell gets it."""
    (value,) = [value for key, value in assignments(UNIT) if key == name]
    script = re.fullmatch(r"-?/bin/sh -c '([^']*)'", value)
    assert script, value
    return script[1].replace("$$", "$")


@pytest.mark.parametrize(("key", "value"), SETTINGS, ids=[key for key, _ in SETTINGS])
def test_the_promises_are_kept(key: str, value: str) -> None:
    """What a promise hangs on is set, once, to what keeps it."""
    assert [(name, what) for name, what in assignments(UNIT) if name == key] == [(key, value)]


def test_newer_systemd_is_asked_for_more() -> None:
    """What older ones would complain of stands in a file of its own."""
    more = assignments(PACKAGING / "cmappserver.service.d" / "systemd-254.conf")
    assert more == [("DelegateSubgroup", "server"), ("FileDescriptorStorePreserve", "yes")]
    assert not {key for key, _ in more} & {key for key, _ in assignments(UNIT)}


def test_nothing_that_ordinary_applications_could_not_live_with() -> None:
    """Applications inherit each restriction: none is here that breaks databases, web servers, Java, or sudo."""
    assert not {key for key, _ in assignments(UNIT)} & HARMFUL


def test_the_server_keeps_what_it_needs() -> None:
    """No power that it may need is taken, no kind of socket that it listens on, and chroot, which web servers use."""
    given = dict(assignments(UNIT))
    taken = {name.removeprefix("CAP_").lower() for name in given["CapabilityBoundingSet"].removeprefix("~").split()}
    assert not taken & {*OWN, *CLOSED, *SWITCHING, "setpcap", "net_bind_service", "sys_chroot", "audit_write"}
    families = set(given["RestrictAddressFamilies"].removeprefix("~").split())
    assert not families & {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK", "AF_VSOCK", "AF_ALG", "AF_KEY", "AF_XDP"}
    assert given["SystemCallErrorNumber"] == "EPERM"  # or else whoever makes such a call would be killed
    assert "@mount" not in given["SystemCallFilter"]  # it has chroot in it


def test_one_file_gives_all_back() -> None:
    """Whatever the unit takes from applications, the drop-in gives back; it touches nothing else."""
    back = dict(assignments(PACKAGING / "open.conf"))
    taken = [key for key, _ in assignments(UNIT) if INHERITED.match(f"{key}=")]
    assert sorted(back) == sorted(taken)
    assert set(back.values()) == {"no", "", "~"}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_exposure(tmp_path: Path) -> None:
    """The unit scores under 5.0 in `systemd-analyze security`; with all given back it would not."""
    assert exposure(UNIT) < 5.0
    unit = tmp_path / UNIT.name
    text, rest = UNIT.read_text().split("[Install]")
    unit.write_text(text + "\n".join(f"{key}={value}" for key, value in assignments(PACKAGING / "open.conf")) + "\n")
    assert rest
    assert exposure(unit) > 9.0


def test_every_setting_is_explained() -> None:
    """Each setting stands below a comment, or below another that does."""
    text = re.sub(r"\\\n\s*", "", UNIT.read_text())
    bare = [
        block for block in re.split(r"\n\n", text) if re.search(r"^\w+=", block, re.MULTILINE) and "# " not in block
    ]
    assert [block.split("\n")[0] for block in bare] == ["[Unit]", "[Install]"]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    """No word of it is unknown and no line is refused; the program is one that is here."""
    text = UNIT.read_text()
    assert "ExecStart=/usr/bin/cmappserver\n" in text
    unit = tmp_path / UNIT.name
    unit.write_text(text.replace("ExecStart=/usr/bin/cmappserver", f"ExecStart={sys.executable}"))
    verify = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["ExecReload", "ExecStop", "ExecStopPost"])
def test_the_shell_understands_the_commands(name: str) -> None:
    """The scripts in the unit are scripts."""
    subprocess.run(["/bin/sh", "-n", "-c", command(name)], check=True)


# ---- what the commands do ----------------------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a command of the unit, with what systemd knows as environment.

    Control groups are files in `tmp_path`.
    """
    started: list[subprocess.Popen[str]] = []
    (tmp_path / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "systemctl").chmod(0o755)

    def start(name: str, **known: object) -> subprocess.Popen[str]:
        script = command(name).replace("/sys/fs/cgroup", str(tmp_path))
        env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"} | {key: str(value) for key, value in known.items()}
        started.append(subprocess.Popen(["/bin/sh", "-c", script], env=env, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def server() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process that stands for the server, and tells by its end which signal it got."""
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def ends_well(process: subprocess.Popen[str]) -> None:
    """Wait for the end of a command, which has nothing to complain of."""
    assert not process.communicate(timeout=SOON)[1]
    assert process.returncode == 0


def test_a_machine_that_goes_down_stops_the_applications(start: Start, server: subprocess.Popen[bytes]) -> None:
    """SIGQUIT goes to the server, and the command waits for its end: systemd's SIGTERM would overtake it."""
    stop = start("ExecStop", STATE="stopping", MAINPID=server.pid)
    os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)
    assert stop.poll() is None  # as long as the server's process is there
    assert server.wait() == -signal.SIGQUIT
    ends_well(stop)


@pytest.mark.parametrize("state", ["running", "degraded", "maintenance", "offline", ""])
def test_any_other_stop_leaves_them_running(start: Start, server: subprocess.Popen[bytes], state: str) -> None:
    """Only SIGTERM is to come then."""
    ends_well(start("ExecStop", STATE=state, MAINPID=server.pid))
    assert server.poll() is None


def test_a_server_that_has_ended_is_not_signaled(start: Start) -> None:
    """Without a pid there is nothing to do, nor to complain of."""
    ends_well(start("ExecStop", STATE="stopping", MAINPID=""))


def test_a_reload_is_a_hangup(start: Start, server: subprocess.Popen[bytes]) -> None:
    """The shell's own kill sends it."""
    ends_well(start("ExecReload", MAINPID=server.pid))
    assert server.wait() == -signal.SIGHUP


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    """Return the folder of the unit's control group, below a root group that is not ours."""
    for folder in (tmp_path, tmp_path / "unit"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.subtree_control").write_text("memory pids\n")
    return tmp_path / "unit"


def test_controllers_are_given_up(start: Start, groups: Path) -> None:
    """One by one, of the unit's own group and no other."""
    ends_well(start("ExecStopPost", GROUP="/unit"))
    assert (groups / "cgroup.subtree_control").read_text() == "-pids\n"  # the last: a file is overwritten
    assert (groups.parent / "cgroup.subtree_control").read_text() == "memory pids\n"


@pytest.mark.parametrize(
    "known", [{}, {"GROUP": "/unit", "SUBGROUP": "server"}], ids=["no group is known", "the server is one below"]
)
def test_controllers_are_kept(start: Start, groups: Path, known: dict[str, str]) -> None:
    """Nothing is touched where nothing needs to be: above all not the machine's root group."""
    ends_well(start("ExecStopPost", **known))
    for folder in (groups, groups.parent):
        assert (folder / "cgroup.subtree_control").read_text() == "memory pids\n"


def test_a_group_without_controllers_is_fine(start: Start, groups: Path) -> None:
    """As in a guest whose controllers another hierarchy has."""
    (groups / "cgroup.subtree_control").write_text("")
    ends_well(start("ExecStopPost", GROUP="/unit"))
    assert not (groups / "cgroup.subtree_control").read_text()
