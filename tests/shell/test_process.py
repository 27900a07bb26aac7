"""What a launched process gets: exactly what it was told, and nothing of the server."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.shell.served import COMMAND, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

UP = ("sh", "-c", "echo up; sleep 1000; :")  # says that it runs, and stays
THE_LIBRARYS_OWN = 1 << 31 | 1 << 32  # signals 32 and 33, which nobody can set: glibc's posix_spawn has them ignored
STRANGE = ("", " ", "a b", "it's", '"quoted"', "$HOME `id` \\", "two\nlines", "tab\t\x1b[31m", "π, 木, 🐧", "--", "*")

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def status(pid: int) -> dict[str, str]:
    """Return what /proc/PID/status says."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def open_files(pid: int) -> dict[int, str]:
    """Return the descriptors of a process, and the names of the files that they lead to."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(path.name): path.readlink().name for path in folder.iterdir()}


def test_arguments_are_handed_over_as_they_are(call: Callable[..., Caller]) -> None:
    """No shell and no quoting stands between a manager and its application."""
    code = "import os, sys; sys.stdout.buffer.write(b'|'.join(map(os.fsencode, sys.argv[1:])))"
    ended = call().run(sys.executable, "-I", "-X", "utf8", "-c", code, *STRANGE)
    assert ended.stdout == "|".join(STRANGE).encode()


def test_first_argument_is_the_name_that_was_given(call: Callable[..., Caller]) -> None:
    """A command that was looked up still sees itself called as it was."""
    assert call().run("sh", "-c", "cat /proc/$$/cmdline; :").stdout.startswith(b"sh\0-c\0")


def test_environment_is_empty(call: Callable[..., Caller]) -> None:
    """Nothing of the server's environment reaches an application, not even PATH."""
    assert call().run("env").stdout == b""


def test_environment_is_what_was_told(call: Callable[..., Caller]) -> None:
    """An application has the variables that the launch brings, to the byte, and no other."""
    told = {"A": "", "LANG": "π", "B": "two\nlines", "C": "x=y z", "ünï": "1"}
    ended = call().run("/usr/bin/env", "-0", env=told)
    assert ended.stdout == b"".join(f"{key}={value}\0".encode() for key, value in told.items())


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o777])
def test_umask(call: Callable[..., Caller], umask: int) -> None:
    """An application has the umask that it was given, whatever the server has."""
    assert call().run("sh", "-c", "umask", umask=umask).stdout == f"{umask:04o}\n".encode()


def test_folder(call: Callable[..., Caller], tmp_path: Path) -> None:
    """An application starts in the folder that it was given, in / if in none."""
    folder = tmp_path / "two words, π"
    folder.mkdir()
    assert call().run("pwd", cwd=str(folder)).stdout == f"{folder}\n".encode()
    assert call().run("pwd").stdout == b"/\n"


def test_own_session_without_terminal(call: Callable[..., Caller], served: Served) -> None:
    """An application leads a session and a group of its own, and is the server's child."""
    pid = call().launch(*UP)
    fields = [int(word) for word in stat(pid)[1:5]]
    assert fields == [served.pid, pid, pid, 0]


def test_only_three_descriptors(call: Callable[..., Caller]) -> None:
    """An application has an empty stdin, two FIFOs of its run, and no other descriptor, and nor has its child."""
    caller = call()
    pid = caller.launch(*UP, output=True)
    caller.wrote(b"up")
    assert open_files(pid) == {0: "null", 1: f"{caller.run_id}.stdout", 2: f"{caller.run_id}.stderr"}


def test_descriptors_that_the_server_inherited(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """What the server was started with is not handed on to applications."""
    reading, writing = os.pipe()
    try:
        caller = call(serve(pass_fds=(reading, writing)))
    finally:
        os.close(reading)
        os.close(writing)
    pid = caller.launch(*UP, output=True)
    caller.wrote(b"up")
    assert open_files(pid).keys() == {0, 1, 2}


def test_every_signal_is_default_and_unblocked(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Neither the server's own handling of signals nor that of who started it reaches an application."""
    command = ("env", "--ignore-signal=USR1", "--ignore-signal=QUIT", "--block-signal=USR2", *COMMAND)
    lines = call(serve(command=command)).run("cat", "/proc/self/status").stdout.decode().splitlines()
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigBlk", "SigIgn", "SigPnd"))]
    assert [mask & ~THE_LIBRARYS_OWN for mask in masks] == [0, 0, 0]


def test_limit_of_open_files_is_that_of_the_start(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """The server raises its own limit of open files, but its applications get the one that it was started with."""
    server = serve(command=("prlimit", "--nofile=200:1500", *COMMAND))
    assert call(server).run("sh", "-c", "ulimit -Sn; ulimit -Hn").stdout == b"200\n1500\n"
    limits = Path(f"/proc/{server.pid}/limits").read_text()
    assert next(line.split()[3:5] for line in limits.splitlines() if "open files" in line) == ["1500", "1500"]


@only_root
def test_user(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A user is taken on with its group and its groups, in all of their three forms, and none of root's is left."""
    server = serve(command=("setpriv", "--groups", "4,24", *COMMAND))
    entry = pwd.getpwnam("nobody")
    uid, gid = entry.pw_uid, entry.pw_gid
    for user in ("nobody", str(uid)):
        caller = call(server)
        told = status(caller.launch(*UP, user=user))
        assert told["Uid"].split() == [str(uid)] * 4
        assert told["Gid"].split() == [str(gid)] * 4
        assert [int(word) for word in told["Groups"].split()] == sorted(os.getgrouplist("nobody", gid))


@only_root
def test_group(call: Callable[..., Caller]) -> None:
    """A group is taken on in place of the user's own, and by itself."""
    assert call().run("id", "-un", user="nobody", group="daemon").stdout == b"nobody\n"
    assert call().run("id", "-gn", user="nobody", group="daemon").stdout == b"daemon\n"
    assert call().run("id", "-u", group="daemon").stdout == b"0\n"
    assert call().run("id", "-G", group="1").stdout == b"1\n"


@only_root
def test_groups_of_a_user(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """A user has all groups that /etc/group lists it in."""
    (tmp_path / "group").write_text("nogroup:x:65534:\none:x:7001:nobody\ntwo:x:7002:root\nthree:x:7003:root,nobody\n")
    mount = ("unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$0" /etc/group && exec "$@"')
    if subprocess.run([*mount, tmp_path / "group", "true"], check=False).returncode != 0:
        pytest.skip("no right to mount over /etc/group")
    ended = call(serve(command=(*mount, str(tmp_path / "group"), *COMMAND))).run("id", "-G", user="nobody")
    assert ended.stdout == f"{pwd.getpwnam('nobody').pw_gid} 7001 7003\n".encode()


@only_root
def test_folder_is_entered_as_the_user(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A folder that only root may enter is no folder for another user."""
    tmp_path.chmod(0o700)
    assert call().refused("true", user="nobody", cwd=str(tmp_path)).code == "no-such-directory"


def test_report_tells_what_the_tree_uses(call: Callable[..., Caller]) -> None:
    """Memory and processes are those of the whole tree, processor time grows, and the uptime too."""
    caller = call()
    hungry = "x = bytearray(64 << 20); print('up', flush=True)\nwhile True: pass"
    pid = caller.launch("sh", "-c", '"$0" -c "$1" & wait', sys.executable, hungry, output=True)
    caller.wrote(b"up")
    first = caller.report()
    assert (first.name, first.run_id, first.state.value, first.pid) == (caller.name, caller.run_id, "running", pid)
    assert first.processes == 2
    assert 64 << 20 < first.memory < 256 << 20
    later = caller.report_until(lambda report: report.cpu > first.cpu)
    assert later.uptime > first.uptime > 0
    assert later.cpu <= later.uptime + 0.1


def test_report_counts_those_who_come_and_go(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A report follows the tree as it grows and shrinks, and keeps the time of those who have ended."""
    caller = call()
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    burn = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"
    caller.launch(
        "sh", "-c", f'sleep 1000 & one=$!; ({burn}) & wait $!; sleep 1000 & read x <"$0"; kill $one; wait', str(fifo)
    )
    caller.report_until(lambda report: report.processes == 3 and report.cpu > 0)
    with fifo.open("w") as go:
        go.write("\n")
    assert caller.report_until(lambda report: report.processes == 2).cpu > 0


def test_interpreter_of_a_script(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A script runs by its interpreter, with the arguments behind its own path."""
    script = tmp_path / "script"
    script.write_text('#!/bin/sh\necho "$0 $1"\n')
    script.chmod(0o755)
    assert call().run(str(script), "x").stdout == f"{script} x\n".encode()


def test_search_path(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """A command without a slash is looked up along PATH of its environment, or else along the server's setting."""
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        shutil.copy("/bin/sh", tmp_path / name / f"sh-{name}")
    server = serve("--search-path", f"/nowhere:{tmp_path / 'here'}")
    told = {"PATH": f"/nowhere:{tmp_path / 'there'}"}
    assert call(server).run("sh-here", "-c", "exit 4").outcome.__dict__ == {"code": 4}
    assert call(server).run("sh-there", "-c", "exit 5", env=told).outcome.__dict__ == {"code": 5}
    assert call(server).refused("sh-here", env=told).code == "not-found"
    assert call(server).refused("sh-there").code == "not-found"


def test_output_of_the_trampoline_is_nobodys(served: Served, call: Callable[..., Caller]) -> None:
    """A process that is not started leaves no trace: no zombie, no descriptor, no name."""
    before = served.descriptors
    caller = call()
    for _ in range(3):
        assert caller.refused("/nowhere", name="never").code == "not-found"
    caller.close()
    until(lambda: served.descriptors <= before, "all descriptors are closed")
