"""What applications write: never in their way, never without bound, and whole or announced to be not."""

from __future__ import annotations

import os
import re
import select
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

FLOOD = 100_000_000
LARGE_PIPE = 1 << 20
MEMORY = 150 << 20  # bytes: a server with all its libraries takes about 30 MB


def python(script: str) -> tuple[str, ...]:
    """Return the command that runs a script."""
    return sys.executable, "-I", "-S", "-c", script


def resident(pid: int, kind: str = "VmRSS") -> int:
    """Return the bytes of memory that a process has now, or at most had (VmHWM)."""
    found = re.search(rf"{kind}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found
    return int(found[1]) * 1024


def wait_for_end(pid: int, limit: float = 60) -> None:
    """Wait for the end of a process that is not ours."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], limit)[0], "it is blocked"
    finally:
        os.close(pidfd)


def test_streams_are_kept_apart(call: Callable[..., Caller]) -> None:
    """Both streams arrive to the byte, each in its order."""
    script = "import os\nfor n in range(256): os.write(1 + n % 2, bytes([n]))"
    ended = call().run(*python(script))
    assert (ended.stdout, ended.stderr) == (bytes(range(0, 256, 2)), bytes(range(1, 256, 2)))


@pytest.mark.parametrize("size", [1, 65_536, LARGE_PIPE])
def test_last_words(call: Callable[..., Caller], size: int) -> None:
    """What stands in the pipes at the end of the application, however much, comes before its end is told."""
    script = f"""
import fcntl, os
for stream in (1, 2):
    fcntl.fcntl(stream, 1031, {size})  # F_SETPIPE_SZ
    os.write(stream, b"x" * {size})
os._exit(3)
"""
    caller = call()
    ended = caller.run(*python(script))
    assert ended.outcome == Exited(3)
    for stream, text in zip(m.Stream, (ended.stdout, ended.stderr), strict=True):
        assert text == b"x" * (size - caller.dropped[stream])
    if size <= 65_536:
        assert sum(caller.dropped.values()) == 0


def test_flood_with_a_reader(served: Served, call: Callable[..., Caller]) -> None:
    """A flood arrives but for what was announced as dropped; the application never waits, the server does not grow."""
    caller = call()
    caller.launch("head", "-c", str(FLOOD), "/dev/zero", output=True)
    ended = caller.ended(limit=60)
    assert ended.outcome == Exited(0)
    assert len(ended.stdout) + caller.dropped[m.Stream.STDOUT] == FLOOD
    assert not ended.stdout.strip(b"\0")
    assert resident(served.pid, "VmHWM") < MEMORY


def test_flood_without_a_reader(served: Served, call: Callable[..., Caller]) -> None:
    """A manager that does not read holds up neither the application nor other managers, and learns what it missed."""
    caller, other = call(), call()
    pid = caller.launch("sh", "-c", f"head -c {FLOOD} /dev/zero; echo end >&2", output=True)
    other.run("true")
    wait_for_end(pid)
    assert resident(served.pid, "VmHWM") < MEMORY
    ended = caller.ended()
    dropped = caller.dropped
    assert dropped[m.Stream.STDOUT] > FLOOD // 2
    assert len(ended.stdout) + dropped[m.Stream.STDOUT] == FLOOD
    assert len(ended.stderr) + dropped[m.Stream.STDERR] == len("end\n")


def test_output_that_was_not_asked_for(call: Callable[..., Caller]) -> None:
    """Output that was not asked for is not sent, but its last part can be had as long as the run is there."""
    caller = call()
    caller.launch("sh", "-c", "head -c 200000 /dev/zero; printf last; echo other >&2; exec sleep 1000")

    def last() -> m.Output:
        return caller.ask(m.Output, m.Tail, stream=m.Stream.STDOUT, limit=6)

    until(lambda: caller.ask(m.Output, m.Tail).data, "its last word")
    until(lambda: last().data.endswith(b"last"), "what it wrote before, in the other stream")
    tail = last()
    assert (tail.offset, tail.data, tail.dropped) == (199_998, b"\0\0last", 0)
    assert len(caller.ask(m.Output, m.Tail, stream=m.Stream.STDOUT).data) == m.OUTPUT_CHUNK
    assert caller.ask(m.Output, m.Tail).data == b"other\n"
    assert caller.ask(m.Output, m.Tail, limit=0).data == b""
    ended = caller.stop()
    assert (ended.stdout, ended.stderr) == (b"", b"")


def test_tail_of_a_living_application(call: Callable[..., Caller]) -> None:
    """The last output can be had while the application runs, and before it has written any."""
    caller = call()
    caller.launch("sh", "-c", "echo up; exec sleep 1000")
    until(lambda: caller.ask(m.Output, m.Tail, stream=m.Stream.STDOUT).data == b"up\n", "it wrote")
    assert caller.ask(m.Output, m.Tail).data == b""


def test_keep_is_a_bound(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """No more is kept than the setting says."""
    caller = call(serve("--output-keep", "10"))
    caller.launch("sh", "-c", "printf 0123456789abcdef; exec sleep 1000")
    until(lambda: caller.ask(m.Output, m.Tail, stream=m.Stream.STDOUT).data == b"6789abcdef", "the last ten")


def test_application_that_closes_its_output(served: Served, call: Callable[..., Caller]) -> None:
    """An application that closes its output lives on, and the server does not look at the pipes any more."""
    caller = call()
    before = served.descriptors
    caller.launch("sh", "-c", "echo bye; exec >&- 2>&-; exec sleep 1000", output=True)
    assert caller.wrote(b"bye\n") == b"bye\n"
    until(lambda: served.descriptors <= before + 1, "only its pidfd is left")
    assert caller.report().state is m.Phase.RUNNING
    caller.stop()


def test_grandchild_that_holds_the_pipe(call: Callable[..., Caller], tmp_path: Path) -> None:
    """Who has a session of its own and holds the output of a run does not hold up its end, and ends with it."""
    os.mkfifo(tmp_path / "go")
    caller = call()
    caller.launch("sh", "-c", f"setsid sh -c 'echo $$; exec sleep 1000' & read x <{tmp_path}/go; exit 6", output=True)
    escaped = int(caller.wrote(b"\n"))
    (tmp_path / "go").write_text("\n")
    assert caller.ended().outcome == Exited(6)
    until(lambda: not alive(escaped), "who is left is killed")


def test_output_comes_as_it_is_written(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A line is pushed when it is written, not when a buffer is full or the application ends."""
    os.mkfifo(tmp_path / "go")
    caller = call()
    caller.launch("sh", "-c", f"while echo tick; do read x <{tmp_path}/go; done", output=True)
    for number in range(1, 6):
        while caller.out[m.Stream.STDOUT].count(b"tick") < number:
            caller.await_(m.Output)
        (tmp_path / "go").write_text("\n")
    caller.stop()
