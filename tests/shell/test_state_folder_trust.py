"""Whose the state folder is: a server believes only what nobody else can have put there; what it makes is its own."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Unknown
from cmapp.errors import SettingsError
from cmapp.guest.statefolder import lock_state, problems
from tests.shell.served import COMMAND, STOPS, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

OTHER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make what is another user's")
PARTS = ("runs", "receipts", "spool")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder as a server leaves it."""
    folder = tmp_path / "state"
    os.close(lock_state(str(folder)))
    for part in PARTS:
        (folder / part).mkdir(mode=0o700)
    return folder


def refusal(folder: Path) -> str:
    """Return why the folder is refused: by a start, and by a check in the same words."""
    with pytest.raises(SettingsError) as refused:
        os.close(lock_state(str(folder)))
    assert problems(str(folder))[0] == str(refused.value)
    return str(refused.value)


def test_a_folder_as_it_is_made_is_used(state: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is to be said of a folder that a server has made."""
    assert problems(str(state)) == []
    os.close(lock_state(str(state)))
    assert caplog.messages == []


def test_a_folder_that_is_not_there_is_made(tmp_path: Path) -> None:
    """It is the server's alone from its first instant; a check makes nothing."""
    folder = tmp_path / "new" / "state"
    assert problems(str(folder)) == []
    assert not folder.parent.exists()
    os.close(lock_state(str(folder)))
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "lock").stat().st_mode) == 0o600


@pytest.mark.parametrize("part", ["", *PARTS, "lock"])
def test_what_others_may_write_to_is_refused(state: Path, part: str) -> None:
    """Whoever may write there may have written there."""
    for bit in (0o020, 0o002):
        (state / part).chmod(0o600 | bit if part == "lock" else 0o700 | bit)
        assert f"others may write to {state / part}".rstrip("/") in refusal(state)


@pytest.mark.parametrize("part", ["", *PARTS, "lock"])
def test_what_others_may_read_is_closed(state: Path, part: str, caplog: pytest.LogCaptureFixture) -> None:
    """A folder that somebody made by hand, with the usual mode, is used, and closed, which is told."""
    (state / part).chmod(0o644 if part == "lock" else 0o755)
    assert problems(str(state)) == []
    os.close(lock_state(str(state)))
    assert stat.S_IMODE((state / part).stat().st_mode) == (0o600 if part == "lock" else 0o700)
    (message,) = caplog.messages
    assert f"{state / part} was open to others (mode 0" in message


@pytest.mark.parametrize("part", ["", *PARTS, "lock"])
def test_a_symbolic_link_is_refused(state: Path, part: str, tmp_path: Path) -> None:
    """Whatever it leads to: the folder itself, and what is in it."""
    moved = tmp_path / "elsewhere"
    (state / part).rename(moved)
    (state / part).symlink_to(moved)
    assert "is a symbolic link" in refusal(state)


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    """It is not followed to make a folder there."""
    (tmp_path / "state").symlink_to(tmp_path / "nowhere")
    assert "is a symbolic link" in refusal(tmp_path / "state")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("part", [*PARTS, "lock"])
def test_what_is_of_another_kind_is_refused(state: Path, part: str) -> None:
    """A file where a folder should be, and the reverse."""
    if part == "lock":
        (state / part).unlink()
        (state / part).mkdir()
        assert "is not a file" in refusal(state)
    else:
        (state / part).rmdir()
        (state / part).touch(mode=0o600)
        assert "is not a folder" in refusal(state)


def test_a_lock_with_another_name_is_refused(state: Path, tmp_path: Path) -> None:
    """What is written to it would be written to another file as well."""
    os.link(state / "lock", tmp_path / "other")
    assert "has 1 other names (hard links)" in refusal(state)


@as_root
@pytest.mark.parametrize("part", ["", *PARTS, "lock"])
def test_what_is_somebody_elses_is_refused(state: Path, part: str) -> None:
    """As a folder that was made in /tmp by another user before the server came."""
    os.chown(state / part, OTHER, OTHER)
    assert f"{state / part}".rstrip("/") + f" belongs to user {OTHER}" in refusal(state)


@as_root
def test_a_way_that_another_user_can_turn_is_refused(tmp_path: Path) -> None:
    """Whoever owns a folder on the way may put another in the place of what is below."""
    (tmp_path / "home").mkdir()
    os.chown(tmp_path / "home", OTHER, OTHER)
    assert f"{tmp_path / 'home'}, which leads to the state folder" in refusal(tmp_path / "home" / "a" / "state")
    (tmp_path / "way").symlink_to("home/..")
    assert f"{tmp_path / 'home'}, which leads" in refusal(tmp_path / "way" / "state")
    os.chown(tmp_path / "way", OTHER, OTHER, follow_symlinks=False)
    assert f"{tmp_path / 'way'}, which leads" in refusal(tmp_path / "way" / "state")


def test_a_way_that_is_open_to_everybody_is_refused(tmp_path: Path) -> None:
    """Everybody may rename there, unless it is a folder like /tmp, where that is for owners."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    assert "everybody may rename what is in" in refusal(tmp_path / "open" / "state")
    (tmp_path / "open").chmod(0o1777)
    os.close(lock_state(str(tmp_path / "open" / "state")))


def test_links_of_our_own_may_lead_there(tmp_path: Path) -> None:
    """An administrator may have moved /var to another disk; links in a circle are an error and not a hang."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "var").symlink_to("./disk/")
    os.close(lock_state(str(tmp_path / "var" / "state")))
    assert (tmp_path / "disk" / "state" / "lock").exists()
    (tmp_path / "round").symlink_to("round")
    assert "too many symbolic links" in refusal(tmp_path / "round" / "state")


def test_two_servers_do_not_share_it(state: Path) -> None:
    """The second is refused as long as the first holds the lock."""
    first = lock_state(str(state))
    with pytest.raises(SettingsError, match="in use by another cmappserver"):
        lock_state(str(state))
    os.close(first)
    os.close(lock_state(str(state)))


# ---- through the real server ---------------------------------------------------------------------------------


def test_the_check_tells(state: Path, key_folders: Path) -> None:
    """`cmappserver --check` says it, and so does a start, in one sentence each."""
    (state / "runs").chmod(0o770)
    keys = ("--keys", str(key_folders / "guest"))
    for option in ("--check", "--log-level=info"):
        command = [*COMMAND, *keys, "--state-dir", str(state), "--listen", "127.0.0.1:0", option]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2
        assert f"others may write to {state / 'runs'} (mode 0770)" in done.stdout + done.stderr


@pytest.mark.parametrize("how", ["hard link", pytest.param("owner", marks=as_root)])
def test_a_receipt_that_may_be_forged_is_left_alone(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, how: str
) -> None:
    """A file that somebody else may have written is no receipt: it is named, stays as it is, and the end is unknown."""
    server = serve(conf="")
    caller = call(server)
    caller.launch("sh", "-c", "exit 7")
    caller.close()
    file = server.state / "receipts" / caller.run_id
    until(file.exists, "the receipt")
    server.kill()
    if how == "owner":
        os.chown(file, OTHER, OTHER)
    else:
        os.link(file, tmp_path / "copy")
    before = file.read_bytes()
    server.start()
    reason = f"belongs to user {OTHER}" if how == "owner" else "has 1 other names"
    server.logged(f"ERROR: .*{file.name}.* {reason}")
    again = call(server)
    again.attach(caller.name, caller.run_id)
    assert isinstance(again.ended().outcome, Unknown)
    assert file.read_bytes() == before


def test_output_that_may_be_forged_is_left_alone(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """Nothing is read from a file in the spool that has another name, and nothing is written to it."""
    server = serve(conf="")
    first = call(server)
    first.launch("sh", "-c", "echo first; read line <$0; echo second; sleep 1000", _fifo(tmp_path), output=True)
    first.wrote(b"first\n")
    file = server.state / "spool" / f"{first.run_id}.stdout.0"
    until(lambda: file.exists() and file.read_bytes() == b"first\n", "what was written is in the spool")
    server.kill()
    os.link(file, tmp_path / "copy")
    (tmp_path / "copy").write_bytes(b"other\n")
    server.start()
    again = call(server)
    again.attach(first.name, first.run_id, output=True)
    (tmp_path / "fifo").write_bytes(b"\n")
    server.logged("output is not spooled .* has 1 other names")
    assert file.read_bytes() == b"other\n"


def _fifo(folder: Path) -> str:
    os.mkfifo(folder / "fifo")
    return str(folder / "fifo")


@pytest.mark.parametrize("umask", [0, 0o022, 0o077, 0o277])
def test_modes_whatever_the_umask(
    serve: Callable[..., Served], call: Callable[..., Caller], umask: int, tmp_path: Path
) -> None:
    """Every file and folder that a server makes is its own alone, and an application has the mask that it asked for."""
    command = ("sh", "-c", f'umask {umask:04o}; exec "$@"', "sh", *COMMAND)
    state = tmp_path / "way" / "state"
    server = serve("--state-dir", str(state), command=command, conf=STOPS)
    caller = call(server)
    caller.launch("sh", "-c", "umask; sleep 1000", output=True)
    assert caller.wrote(b"\n") == b"0022\n"
    ended = call(server)
    ended.launch("echo", "bye", output=True)
    until((state / "receipts" / ended.run_id).exists, "a receipt")
    until(lambda: any((state / "spool").iterdir()), "something in the spool")
    found = {path: path.lstat().st_mode for path in (state, *state.rglob("*"))}
    assert {stat.S_IMODE(mode) for mode in found.values() if stat.S_ISDIR(mode)} == {0o700}
    assert {stat.S_IMODE(mode) for mode in found.values() if not stat.S_ISDIR(mode)} == {0o600}
    assert sum(stat.S_ISFIFO(mode) for mode in found.values()) == 2
    assert stat.S_IMODE(state.parent.stat().st_mode) == 0o755
    server.upgrade()
    ended.close()


STRACE = (
    "strace",
    "-D",
    "-f",
    "-qq",
    "-e",
    "trace=open,openat,creat,mkdir,mkdirat,mknod,mknodat,chmod,fchmod,fchmodat",
)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_modes_from_the_first_instant(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """Nothing in the state folder is made open to others and closed later: no mode is ever changed, and all are own."""
    trace = tmp_path / "trace"
    command = ("sh", "-c", 'umask 0; exec "$@"', "sh", *STRACE, "-o", str(trace), *COMMAND)
    server = serve(command=command, conf=STOPS)
    call(server).run("echo", "bye")
    server.stop()
    lines = [line for line in trace.read_text().splitlines() if str(server.state) in line and " = -1 " not in line]
    made = [line for line in lines if "O_CREAT" in line or "mkdir" in line or "mknod" in line]
    assert len(made) >= 7
    assert not [line for line in made if ", 0600" not in line and ", 0700" not in line and "|0600" not in line]
    assert not [line for line in lines if "chmod" in line]
