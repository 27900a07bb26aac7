"""What holds keys leaves no core dump, however it ends and whatever limit it was started with; applications may."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Signaled
from tests.shell.served import COMMAND, STOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.shell.caller import Caller
    from tests.shell.served import Served

PATTERN = Path("/proc/sys/kernel/core_pattern").read_text().strip()
HARD = resource.getrlimit(resource.RLIMIT_CORE)[1]
FATAL = [signal.SIGSEGV, signal.SIGABRT, signal.SIGQUIT]
ENV = {"PYTHONPATH": os.pathsep.join(os.path.realpath(path) for path in sys.path)}
DUMPS = ("sh", "-c", 'ulimit -c "$(ulimit -H -c)"; exec "$@"', "sh")

pytestmark = [
    pytest.mark.skipif("/" in PATTERN or PATTERN.startswith("|"), reason="cores go elsewhere on this machine"),
    pytest.mark.skipif(HARD == 0, reason="this process may leave no core dumps"),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where cores would be found."""
    (tmp_path / "cores").mkdir()
    return tmp_path / "cores"


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port where somebody listens who says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def test_others_leave_one_here(folder: Path) -> None:
    """Or else these tests would show nothing."""
    process = subprocess.Popen([*DUMPS, "sleep", "1000"], cwd=folder)
    while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
        pass
    process.send_signal(signal.SIGSEGV)
    assert process.wait(30) == -signal.SIGSEGV
    assert list(folder.iterdir())


@pytest.mark.parametrize("number", FATAL[:2])
def test_the_server_leaves_none(serve: Callable[..., Served], folder: Path, number: int) -> None:
    """Its memory holds the guest's key."""
    server = serve(command=(*DUMPS, *COMMAND), cwd=folder, env=ENV)
    server.signal(number)
    assert server.wait() == -number
    assert list(folder.iterdir()) == []


def test_the_server_leaves_none_after_an_upgrade(serve: Callable[..., Served], folder: Path) -> None:
    """What it has become forbids it again."""
    server = serve(command=(*DUMPS, *COMMAND), cwd=folder, env=ENV)
    server.upgrade()
    server.signal(signal.SIGSEGV)
    assert server.wait() == -signal.SIGSEGV
    assert list(folder.iterdir()) == []


def test_applications_are_as_they_would_be(
    serve: Callable[..., Served], call: Callable[..., Caller], folder: Path
) -> None:
    """An application has the limit that the server was started with, may be dumped, and is told to have been."""
    server = serve(command=(*DUMPS, *COMMAND), conf=STOPS)
    limit = "unlimited" if HARD == resource.RLIM_INFINITY else str(HARD // 1024)
    assert call(server).run("bash", "-c", "ulimit -S -c").stdout.decode().strip() == limit
    ended = call(server).run("sh", "-c", "kill -SEGV $$", cwd=str(folder))
    assert ended.outcome == Signaled(signal.SIGSEGV, core_dumped=True)
    assert list(folder.iterdir())


@pytest.mark.parametrize("number", FATAL)
def test_the_manager_leaves_none(key_folders: Path, folder: Path, silent: int, number: int) -> None:
    """Its memory holds the host's key."""
    main = "from cmapp.cli.cmappmgr import main; main()"
    command = [*DUMPS, sys.executable, "-c", main, "--keys", str(key_folders / "host"), "--no-syslog"]
    command += [f"127.0.0.1:{silent}", "--", "true"]
    with subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, env={**os.environ, **ENV}) as process:
        assert process.stderr is not None
        assert process.stderr.readline()  # it has read its keys
        process.send_signal(number)
        assert process.wait(30) == -number
    assert list(folder.iterdir()) == []


def test_the_administrators_tool_leaves_none(key_folders: Path, folder: Path) -> None:
    """It makes and reads keys."""
    main = "from cmapp.cli.cmapp import main; main()"
    command = [*DUMPS, sys.executable, "-c", main, "status", "--keys", str(key_folders / "host")]
    with (
        socket.create_server(("127.0.0.1", 0)) as listening,
        subprocess.Popen(
            [*command, f"127.0.0.1:{listening.getsockname()[1]}"], cwd=folder, env={**os.environ, **ENV}
        ) as process,
    ):
        listening.settimeout(30)
        link, _ = listening.accept()  # it has read its keys
        process.send_signal(signal.SIGSEGV)
        assert process.wait(30) == -signal.SIGSEGV
        link.close()
    assert list(folder.iterdir()) == []
