"""What cannot be launched is refused with the right word and a sentence, and the server serves on."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from tests.shell.served import COMMAND, MAIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

WITHOUT_RIGHTS = (
    ("setpriv", "--bounding-set", "-setuid,-setgid,-dac_override,-dac_read_search") if os.geteuid() == 0 else ()
)
FEW = 24  # descriptors: enough for a server and one application
LONG = "x" * 32_000

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")


def make(path: Path, content: bytes, mode: int) -> str:
    """Write a file with this mode, and return its path."""
    path.write_bytes(content)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize("command", ["/nowhere/x", "nosuch-command", "./nosuch", "/etc/passwd/x", "", "π\n"])
def test_not_found(call: Callable[..., Caller], command: str) -> None:
    """A command that is not there is not found, with a slash or along the search path."""
    refusal = call().refused(command)
    assert refusal.code == "not-found", refusal
    assert command in refusal.text


def test_not_executable(call: Callable[..., Caller], tmp_path: Path) -> None:
    """What is there but is no program that runs is not executable, and the sentence says why."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    commands = {
        make(tmp_path / "no-right", b"#!/bin/sh\n", 0o644): "Permission denied",
        make(tmp_path / "no-shebang", b"echo\n", 0o755): "Exec format error",
        make(tmp_path / "empty", b"", 0o755): "Exec format error",
        make(tmp_path / "no-interpreter", b"#!/nowhere/sh\n", 0o755): "interpreter",
        make(tmp_path / "folder-interpreter", b"#!/etc\n", 0o755): "Permission denied",
        str(tmp_path / "folder"): "is a folder",
        str(tmp_path / "loop"): "Too many levels",
    }
    for command, why in commands.items():
        refusal = call().refused(command)
        assert (refusal.code, why in refusal.text) == ("not-executable", True), refusal


def test_not_executable_along_the_path(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A file without the right to run hides no program further along the path, and is told where it is alone."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    make(tmp_path / "one" / "tool", b"", 0o644)
    path = {"PATH": f"{tmp_path / 'one'}:{tmp_path / 'two'}"}
    assert call().refused("tool", env=path).code == "not-executable"
    make(tmp_path / "two" / "tool", b"#!/bin/sh\nexit 6\n", 0o755)
    assert call().run("tool", env=path).outcome.__dict__ == {"code": 6}


@only_root
def test_folder_of_the_path_that_is_closed(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A command that is nowhere is not found, even where the user may not look into a folder of the path."""
    tmp_path.chmod(0o700)
    assert call().refused("nosuch", user="nobody", env={"PATH": f"{tmp_path}:/bin"}).code == "not-found"


@pytest.mark.parametrize("user", ["nosuch", "4294967294", "99999999999999999999", "9" * 4000, "", "root\n", "-1", "²"])
def test_no_such_user(call: Callable[..., Caller], user: str) -> None:
    """A user or a group that is not there is told, by name or by number."""
    caller = call()
    assert caller.refused("true", user=user).code == "no-such-user"
    assert caller.refused("true", group=user).code == "no-such-user"


@pytest.mark.parametrize("folder", ["/nowhere", "/etc/passwd", "", "relative"])
def test_no_such_folder(call: Callable[..., Caller], folder: str) -> None:
    """A folder that cannot be entered is told."""
    assert call().refused("true", cwd=folder).code == "no-such-directory"


def test_not_permitted(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A server that may not change users says so, and runs what needs no change."""
    caller = call(serve(command=(*WITHOUT_RIGHTS, *COMMAND)))
    assert caller.refused("true", user="nobody").code == "not-permitted"
    assert caller.refused("true", group="nogroup").code == "not-permitted"
    assert caller.run("sh", "-c", "exit 9").outcome.__dict__ == {"code": 9}


@pytest.mark.parametrize(
    "fields", [{"argv": LONG}, {"argv": "/" + LONG}, {"cwd": LONG}, {"user": LONG}, {"group": LONG}]
)
def test_refusal_of_something_long(call: Callable[..., Caller], fields: dict[str, str]) -> None:
    """A refusal fits a line, whatever was asked for."""
    command = fields.get("argv", "true")
    rest = {key: value for key, value in fields.items() if key != "argv"}
    caller = call()
    assert len(caller.refused(command, **rest).text) < 2000
    assert caller.run("true").outcome.__dict__ == {"code": 0}


def test_refusal_of_something_long_in_many_bytes(call: Callable[..., Caller]) -> None:
    """A refusal fits a line in bytes too, also where each character takes many."""
    refusal = call().refused("π\n\x01🐧" * 1500)
    assert refusal.code in {"not-found", "not-executable"}


def test_another_attempt_on_the_same_link(call: Callable[..., Caller]) -> None:
    """A manager that was refused may ask again, by the same name too, and gets what it asks for."""
    caller = call()
    for _ in range(5):
        assert caller.refused("/nowhere", name="again").code == "not-found"
    assert caller.run("sh", "-c", "exit 8", name="again").outcome.__dict__ == {"code": 8}


def test_capacity(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """No more applications run than are allowed; when one has ended, another may."""
    server = serve("--max-applications", "2")
    first, second, third = (call(server) for _ in range(3))
    first.launch("sleep", "1000")
    second.launch("sleep", "1000")
    refusal = third.refused("sleep", "1000")
    assert (refusal.code, "max_applications" in refusal.text) == ("capacity", True)
    first.stop()
    third.launch("sleep", "1000")


def test_no_room_for_another(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Without a descriptor left a launch is refused, the runs that are there go on, and later launches succeed."""
    server = serve(command=("prlimit", f"--nofile={FEW}", *COMMAND))
    callers = []
    while True:
        callers.append(call(server))
        callers[-1].try_to_launch("sleep", "1000")
        answer = callers[-1].hear()
        if getattr(answer, "code", None) == "resources":
            break
        assert len(callers) < FEW
    assert len(callers) > 1
    assert callers[0].report().state.value == "running"
    assert callers[0].stop().receipt.forced is False
    assert callers[-1].run("true").outcome.__dict__ == {"code": 0}


def test_no_descriptor_left(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Who has connected is served when no descriptor is left, and who has not waits until there is one again."""
    server = serve(command=("prlimit", f"--nofile={FEW}", *COMMAND))
    free = FEW - server.descriptors
    filled = [call(server, greet=False) for _ in range(free)]
    filled[0].ask(m.Welcome, m.Hello, versions=m.VERSIONS)
    with socket.create_connection(("127.0.0.1", server.port)):
        server.logged("no manager can connect for now")
        assert filled[0].refused("true").code == "resources"
    for caller in filled:
        caller.close()
    assert call(server).run("true").outcome.__dict__ == {"code": 0}


def test_trampoline_that_fails(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """What ends before it could become the application is not told as the application's end."""
    broken = f"import sys; sys.executable = '/bin/false'; {MAIN}"
    caller = call(serve(command=(sys.executable, "-c", broken)))
    for _ in range(3):
        assert caller.refused("true").code == "resources"


@only_root
def test_no_room_for_another_process(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A user who may have no more processes is a lack of resources, not of a program."""
    server = serve(command=("prlimit", "--nproc=0", *COMMAND))
    first, second = call(server), call(server)
    first.try_to_launch("sleep", "1000", user="nobody")  # the kernel counts only those who were there before
    first.hear()
    assert second.refused("true", user="nobody").code == "resources"
    assert second.run("true").outcome.__dict__ == {"code": 0}
