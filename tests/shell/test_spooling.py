"""What applications write, over lost links and lost servers: each byte once, in order, or told to be lost."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Signaled
from tests.shell.restart_bed import recorded
from tests.shell.served import alive, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

PYTHON = (sys.executable, "-I", "-S", "-c")
# Writes its lines in steps: as many as each number says that it reads from the gate, and ends with -1.
WRITES = """
import os, sys
at, gate = 0, os.fdopen(os.open(sys.argv[1], os.O_RDWR), "r+b", buffering=0)
os.write(1, b"up\\n")
while (count := int(gate.readline())) >= 0:
    data = b"".join(b"%09d\\n" % number for number in range(at, at + count))
    at += count
    while data:
        data = data[os.write(1, data):]
    os.write(2, b"%d\\n" % at)
os._exit(3)
"""
LINE = 10  # bytes


def writer(caller: Caller, folder: Path, **fields: object) -> Callable[[int], None]:
    """Launch an application that writes when it is told; return the function that tells it, how many lines."""
    gate = folder / f"gate-{caller.welcome.id}-{len(list(folder.iterdir()))}"
    os.mkfifo(gate)
    caller.launch(*PYTHON, WRITES, str(gate), output=True, **fields)
    caller.wrote(b"up\n")
    pipe = os.open(gate, os.O_RDWR)

    def tell(count: int) -> None:
        os.write(pipe, b"%d\n" % count)
        if count < 0:
            os.close(pipe)

    return tell


def lines(first: int, last: int) -> bytes:
    """Return the lines from one number to another."""
    return b"".join(b"%09d\n" % number for number in range(first, last))


def test_output_after_a_reconnect(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A manager that comes back gets what was written meanwhile, from the byte on that it has not got."""
    first = call()
    tell = writer(first, tmp_path)
    tell(100)
    first.wrote(lines(99, 100))
    first.close()
    tell(5000)
    second = call()
    second.resume(first)
    assert second.wrote(lines(5099, 5100)) == b"up\n" + lines(0, 5100)
    tell(-1)
    ended = second.ended()
    assert (ended.outcome, ended.stderr.split()) == (Exited(3), [b"100", b"5100"])
    assert not any(second.dropped.values())


def test_output_from_the_beginning(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A manager that knows nothing of it may have it all again; one that has it all gets nothing twice."""
    first = call()
    tell = writer(first, tmp_path)
    tell(1000)
    first.wrote(lines(999, 1000))
    first.close()
    new = call()
    new.attach(first.name, first.run_id, output=True)
    assert new.wrote(lines(999, 1000)) == b"up\n" + lines(0, 1000)
    new.close()
    third = call()
    third.resume(new)
    tell(-1)
    assert third.ended().stdout == b"up\n" + lines(0, 1000)


def test_output_that_nobody_wants(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A manager that wants no output gets none, whether it launched the run or came back to it."""
    first = call()
    tell = writer(first, tmp_path)
    first.close()
    second = call()
    second.resume(first, output=False)
    tell(1000)
    tell(-1)
    assert second.await_(m.Exited).receipt.outcome == Exited(3)
    assert second.out == first.out


@pytest.mark.parametrize("way", ["kill", "leave", "upgrade"])
def test_output_over_a_restart(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, way: str
) -> None:
    """What is written before, while and after there is no server arrives once and in order, by the same offsets."""
    server = serve(conf="")
    first = call(server)
    tell = writer(first, tmp_path)
    tell(3000)
    first.wrote(lines(2999, 3000))
    until(lambda: spooled(server, first.run_id) >= 3000 * LINE, "the disk has it")
    if way == "upgrade":
        server.upgrade()
        tell(4000)
    else:
        first.close()
        getattr(server, way)()
        tell(4000)  # which is more than fits in its pipe before somebody reads again, or nearly
        server.start()
    second = call(server)
    second.resume(first)
    assert second.wrote(lines(6999, 7000)) == b"up\n" + lines(0, 7000)
    tell(1000)
    tell(-1)
    ended = second.ended()
    assert (ended.outcome, ended.stdout) == (Exited(3), b"up\n" + lines(0, 8000))
    assert not any(second.dropped.values())


def spooled(server: Served, run_id: str) -> int:
    """Return how many bytes of output the disk has of a run."""
    return sum(entry.stat().st_size for entry in (server.state / "spool").glob(f"{run_id}*"))


def test_server_that_crashes_with_unspooled_output(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """A crash takes nothing of what was read and neither told nor spooled yet, and nothing comes twice or askew."""
    server = serve(conf="")
    caller = call(server)
    tell = writer(caller, tmp_path)
    total = 0
    for count in (50, 5000, 1, 20_000):
        tell(count)
        total += count
        server.kill()
        server.start()
        before, caller = caller, call(server)
        caller.resume(before)
    tell(-1)
    ended = caller.ended()
    assert ended.outcome == Exited(3)
    assert caller.dropped[m.Stream.STDOUT] == 0
    assert ended.stdout == b"up\n" + lines(0, total)


def test_application_does_not_wait_without_a_manager(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """A flood that nobody takes holds nobody up; what did not fit in the spool is told, with its size."""
    server = serve("--spool-limit", "100000")
    first = call(server)
    tell = writer(first, tmp_path)
    first.close()
    tell(500_000)
    stderr = server.state / "spool" / f"{first.run_id}.stderr.0"
    until(lambda: stderr.exists() and stderr.read_bytes() == b"500000\n", "all is written")
    second = call(server)
    second.attach(first.name, first.run_id, output=True)
    second.wrote(b"500000\n", m.Stream.STDERR)
    tell(3)
    tell(-1)
    ended = second.ended()
    dropped = second.dropped[m.Stream.STDOUT]
    assert dropped > 0
    assert len(ended.stdout) + dropped == 500_003 * LINE + len(b"up\n")
    assert ended.stdout.endswith(lines(500_000, 500_003))
    assert ended.outcome == Exited(3)


def test_output_of_a_run_that_ended_meanwhile(call: Callable[..., Caller], tmp_path: Path) -> None:
    """A manager that comes back after the end gets the rest of the output, and then the end."""
    first, asks = call(), call()
    tell = writer(first, tmp_path)
    tell(10)
    first.wrote(lines(9, 10))
    first.close()
    tell(2000)
    tell(-1)
    until(lambda: first.name not in {run.name for run in asks.ask(m.Runs, m.Status).runs}, "it has ended")
    second = call()
    second.resume(first)
    ended = second.ended()
    assert (ended.outcome, ended.stdout) == (Exited(3), b"up\n" + lines(0, 2010))


@pytest.mark.parametrize("way", ["kill", "upgrade"])
def test_output_of_a_run_that_ended_before_a_restart(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, way: str
) -> None:
    """The rest of the output is there for the manager even if the server was restarted after the end."""
    server = serve(conf="")
    first, asks = call(server), call(server)
    tell = writer(first, tmp_path)
    first.close()
    tell(2000)
    tell(-1)
    until(lambda: asks.ask(m.Runs, m.Status).runs == (), "it has ended")
    until(lambda: spooled(server, first.run_id) >= 2000 * LINE and server.runs == [], "the disk has it")
    if way == "upgrade":
        server.upgrade()
    else:
        server.kill()
        server.start()
    second = call(server)
    second.resume(first)
    ended = second.ended()
    assert (ended.outcome, ended.stdout) == (Exited(3), b"up\n" + lines(0, 2000))


def test_drained_before_the_end(call: Callable[..., Caller]) -> None:
    """All that an application wrote before it ended is told before its end, however much it is."""
    for _ in range(10):
        caller = call()
        ended = caller.run("sh", "-c", "head -c 200000 /dev/zero; head -c 70000 /dev/zero >&2; exit 2")
        assert (ended.outcome, len(ended.stdout), len(ended.stderr)) == (Exited(2), 200_000, 70_000)


def test_flood_to_the_end(call: Callable[..., Caller]) -> None:
    """A flood that goes on to the very end is told with every drop, and its total is right."""
    caller = call()
    caller.launch("sh", "-c", "head -c 30000000 /dev/zero; exit 2", output=True)
    ended = caller.ended()
    assert ended.outcome == Exited(2)
    assert len(ended.stdout) + caller.dropped[m.Stream.STDOUT] == 30_000_000


def test_writer_outlives_its_server(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """An application that writes while there is no server gets no SIGPIPE, and goes on when there is one again."""
    server = serve(conf="")
    first = call(server)
    tell = writer(first, tmp_path)
    recorded(server, first.run_id, launched=True)
    first.close()
    server.kill()
    tell(100_000)  # far more than fits in a pipe
    server.start()
    second = call(server)
    pid = second.resume(first).pid
    second.wrote(b"100000\n", m.Stream.STDERR)
    assert alive(pid)
    assert second.stop(kill=True).outcome == Signaled(9)


def test_nothing_is_left_of_it(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """When the end is acknowledged no output is kept on disk any more, nor anything but the receipt."""
    server = serve()
    caller = call(server)
    tell = writer(caller, tmp_path)
    tell(20_000)
    tell(-1)
    assert caller.ended().outcome == Exited(3)
    until(lambda: not spooled(server, caller.run_id) and not server.runs, "it is cleared away")
    assert [entry.name for entry in (server.state / "receipts").iterdir()] == [caller.run_id]


def test_tail_after_a_restart(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """The last lines are kept over a restart for whoever asks."""
    server = serve(conf="")
    first = call(server)
    tell = writer(first, tmp_path)
    tell(10_000)
    first.wrote(lines(9999, 10_000))
    until(lambda: spooled(server, first.run_id) >= 10_000 * LINE, "the disk has it")
    first.close()
    server.kill()
    server.start()
    second = call(server)
    second.resume(first, output=False)
    answer = second.ask(m.Output, m.Tail, stream=m.Stream.STDOUT, limit=50)
    assert (answer.data, answer.offset) == (lines(9995, 10_000), 3 + 9995 * LINE)
