"""What is launched: commands found and not found, arguments to the letter, and the surroundings of the application."""

from __future__ import annotations

import grp
import os
import pwd
import resource
import stat
from typing import TYPE_CHECKING

import pytest

from tests.system.commands import MANAGER, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may launch as another user")

NOT_STARTED = {
    "no-such-file": (["{folder}/nowhere"], [], 127, "there is no command"),
    "no-such-file-below-a-file": (["{folder}/plain/nowhere"], [], 127, "there is no command"),
    "not-on-the-search-path": (["cmapp-no-such-command"], [], 127, "there is no command"),
    "not-on-its-own-path": (["sh"], ["--env", "PATH=/nowhere"], 127, "there is no command"),
    "not-executable": (["{folder}/plain"], [], 126, "Permission denied"),
    "folder": (["{folder}"], [], 126, "is a folder"),
    "no-shebang": (["{folder}/no-shebang"], [], 126, "Exec format error"),
    "empty-file": (["{folder}/empty"], [], 126, "Exec format error"),
    "no-interpreter": (["{folder}/no-interpreter"], [], 126, "interpreter"),
    "no-such-user": (["/bin/true"], ["--user", "cmapp-nobody"], 126, "no user cmapp-nobody"),
    "no-such-group": (["/bin/true"], ["--group", "cmapp-nobody"], 126, "no group cmapp-nobody"),
    "no-such-folder": (["/bin/true"], ["--cwd", "{folder}/nowhere"], 126, "No such file or directory"),
    "folder-that-is-none": (["/bin/true"], ["--cwd", "{folder}/plain"], 126, "Not a directory"),
}
FILES = {
    "plain": ("#!/bin/sh\n", 0o644),
    "no-shebang": ("echo hello\n", 0o755),
    "empty": ("", 0o755),
    "no-interpreter": ("#!/nowhere/perl\n", 0o755),
}
ARGUMENTS = [
    "two words",
    "",
    "--",
    "--name",
    "-x",
    "grün → 緑 🌱",
    "$HOME `id` \\ ' \" *",
    "a\nb\tc",
    "%s%n",
    "x" * 30_000,
]


@pytest.mark.parametrize("case", NOT_STARTED)
def test_not_started(bed: Bed, tmp_path: Path, case: str) -> None:
    """A command that is not there gives 127 and one that cannot be executed 126, with the reason in log and result."""
    for name, (content, mode) in FILES.items():
        (tmp_path / name).write_text(content)
        (tmp_path / name).chmod(mode)
    argv, options, code, reason = NOT_STARTED[case]
    manager = bed.run(
        *(word.format(folder=tmp_path) for word in argv),
        options=[word.format(folder=tmp_path) for word in options],
    )
    assert manager.wait() == code
    assert reason in manager.last_line
    assert f"exit code {code} means that the command" in manager.last_line
    assert (manager.result["cause"], manager.result["exit_code"]) == ("not-started", code)


def test_search_path(bed: Bed) -> None:
    """A command without a slash is found along the server's own search path."""
    assert bed.run("sh", "-c", "exit 42").wait() == 42


def test_search_path_of_its_own(bed: Bed, tmp_path: Path) -> None:
    """A PATH that is given to the application is the one that its command is looked up along."""
    (tmp_path / "tool").write_text("#!/bin/sh\nexit 43\n")
    (tmp_path / "tool").chmod(0o755)
    assert bed.run("tool", options=["--env", f"PATH=/nowhere:{tmp_path}"]).wait() == 43


def test_command_below_its_folder(bed: Bed, tmp_path: Path) -> None:
    """A relative command with a slash is looked up from --cwd."""
    folder = tmp_path / "my tools ☕"
    folder.mkdir()
    (folder / "exit 44 ✓").write_text("#!/bin/sh\nexit 44\n")
    (folder / "exit 44 ✓").chmod(0o755)
    assert bed.run("./exit 44 ✓", options=["--cwd", str(folder)]).wait() == 44


def test_arguments_to_the_letter(bed: Bed) -> None:
    """Arguments with spaces, quotes, newlines, UTF-8, or that look like options arrive as they were."""
    manager = bed.run("/usr/bin/printf", r"<%s>\0", *ARGUMENTS, options=["--output", "stdout"])
    assert manager.wait() == 0
    assert manager.stdout.decode().split("\0") == [*(f"<{argument}>" for argument in ARGUMENTS), ""]


def test_name_by_default(bed: Bed) -> None:
    """Without --name the application is called after its command, by whatever path that is given."""
    options = ["--no-syslog", "--keys", str(bed.keys.host), bed.server.guest]
    done = run([MANAGER, *options, "--", "/usr/bin/../bin/false"])
    assert done.returncode == 1
    assert " false on 127.0.0.1: ERROR: exited with code 1 " in done.stderr


def test_environment_is_what_was_given(bed: Bed) -> None:
    """The application's environment is exactly what --env says, whatever cmappmgr's and the server's own are."""
    given = ["A=1", "EMPTY=", "EQUAL=a=b", "GRÜN=☕", "TWO=first", "TWO=last"]
    options = [word for item in given for word in ("--env", item)]
    manager = bed.run("/usr/bin/env", options=[*options, "--output", "stdout"], env={"LEAK": "1", "PATH": "/bin"})
    assert sorted(manager.stdout.decode().splitlines()) == ["A=1", "EMPTY=", "EQUAL=a=b", "GRÜN=☕", "TWO=last"]


def test_no_environment_at_all(bed: Bed) -> None:
    """Without --env the application's environment is empty."""
    assert bed.run("/usr/bin/env", options=["--output", "stdout"]).stdout == b""


def test_clean_surroundings(bed: Bed) -> None:
    """The application leads a session, reads /dev/null, inherits no descriptor and no ignored or blocked signal."""
    signals = "grep -E '^Sig(Blk|Ign):' /proc/self/status"
    script = f"cat /proc/self/stat; readlink /proc/$$/fd/0; ls -x /proc/$$/fd; {signals}; umask; ulimit -n"
    manager = bed.run("/bin/sh", "-c", script, options=["--output", "stdout"])
    process, reads, descriptors, blocked, ignored, umask, limit = manager.stdout.decode().splitlines()
    leader = str(manager.until_launched())
    assert process.rpartition(")")[2].split()[2:4] == [leader, leader]
    assert reads == "/dev/null"
    assert descriptors.split() == ["0", "1", "2"]
    assert int(blocked.split()[1], 16) == 0
    assert int(ignored.split()[1], 16) & ~(0b11 << 31) == 0  # the C library has what it spawns ignore 32 and 33
    assert umask == "0022"
    assert int(limit) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_umask(bed: Bed, tmp_path: Path) -> None:
    """Files of the application get the rights that --umask leaves."""
    made = tmp_path / "made"
    assert bed.run("/usr/bin/touch", str(made), options=["--umask", "077"]).wait() == 0
    assert stat.S_IMODE(made.stat().st_mode) == 0o600


@needs_root
@pytest.mark.parametrize("word", ["name", "number"])
def test_user(bed: Bed, word: str) -> None:
    """The application runs as --user, with that user's group and all its groups, and nothing of root's."""
    user = pwd.getpwnam("nobody")
    options = ["--user", user.pw_name if word == "name" else str(user.pw_uid), "--output", "stdout", "--cwd", "/"]
    manager = bed.run("/bin/sh", "-c", "id -u; id -G; grep CapEff /proc/self/status", options=options)
    uid, groups, capabilities = manager.stdout.decode().splitlines()
    assert int(uid) == user.pw_uid
    assert {int(group) for group in groups.split()} == set(os.getgrouplist(user.pw_name, user.pw_gid))
    assert int(capabilities.split()[1], 16) == 0


@needs_root
def test_group(bed: Bed) -> None:
    """The application runs in --group."""
    group = grp.getgrnam("daemon")
    manager = bed.run("/usr/bin/id", "-g", options=["--user", "nobody", "--group", "daemon", "--output", "stdout"])
    assert manager.stdout.decode() == f"{group.gr_gid}\n"


@needs_root
def test_folder_that_the_user_may_not_enter(bed: Bed, tmp_path: Path) -> None:
    """The working folder is entered with the user's rights, not with the server's."""
    (tmp_path / "private").mkdir(mode=0o700)
    manager = bed.run("/bin/true", options=["--user", "nobody", "--cwd", str(tmp_path / "private")])
    assert manager.wait() == 126
    assert "Permission denied" in manager.last_line
