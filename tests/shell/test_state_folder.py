"""The state folder at its worst, through the real server: no outcome is lost, none made up, and the log says why."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.ledger import encode_line
from cmapp.core.outcome import Exited, Signaled, Unknown
from tests.shell.served import COMMAND, alive, members, until
from tests.shell.small_disk import SmallDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

LEAVES = ""  # a configuration by which the applications stay when the server goes
POWERLESS = ("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner") if os.geteuid() == 0 else ()
SIZE = 4 * 1024 * 1024
RUN_ID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Return a disk that can be filled, emptied and protected."""
    (tmp_path / "disk").mkdir()
    disk = SmallDisk(tmp_path / "disk", SIZE)
    yield disk
    disk.close()


@pytest.fixture
def server(disk: SmallDisk, serve: Callable[..., Served]) -> Iterator[Served]:
    """Return a server whose state folder is on that disk, and which leaves its applications."""
    server = serve("--state-dir", str(disk.path / "state"), conf=LEAVES)
    yield server
    disk.free()
    if server.process.poll() is None:
        server.stop()
    server.close()  # while its files can still be seen


def waits(caller: Caller, folder: Path) -> Callable[[int], None]:
    """Launch an application that exits with the code that it is told; return the function that tells it."""
    gate = folder / f"gate-{len(list(folder.iterdir()))}"
    os.mkfifo(gate)
    caller.launch("sh", "-c", 'echo up; read code < "$0"; exit $code', str(gate), output=True)
    caller.wrote(b"up")

    def tell(code: int) -> None:
        gate.write_text(f"{code}\n")

    return tell


# ---- full --------------------------------------------------------------------------------------------------------


def test_launch_on_a_full_disk(server: Served, disk: SmallDisk, call: Callable[..., Caller]) -> None:
    """What cannot be recorded is not launched, and the refusal says why; when there is room again, it is."""
    caller = call(server)
    disk.fill()
    refusal = caller.refused("sleep", "1000")
    assert refusal.code == "resources"
    assert "No space left" in refusal.text
    assert members(caller.run_id) == []
    disk.free()
    assert caller.run("true", name=caller.name, run_id=caller.run_id).outcome == Exited(0)
    server.logged("ERROR: .*No space left")


def test_end_on_a_full_disk(server: Served, disk: SmallDisk, call: Callable[..., Caller], tmp_path: Path) -> None:
    """An end on a full disk is told at once, and its receipt is there after a crash: there was room reserved for it."""
    first, second = call(server), call(server)
    tells = [waits(caller, tmp_path) for caller in (first, second)]
    disk.fill()
    tells[0](5)
    assert first.await_(m.Exited).receipt.outcome == Exited(5)
    second.close()
    tells[1](6)
    until(lambda: server.runs == [], "both are recorded")
    server.kill()
    server.start()
    for before, code in ((first, 5), (second, 6)):
        again = call(server)
        again.resume(before, output=False)
        assert again.ended().outcome == Exited(code)


def test_output_on_a_full_disk(server: Served, disk: SmallDisk, call: Callable[..., Caller]) -> None:
    """Output that the disk has no room for is told all the same, and holds nobody up."""
    caller = call(server)
    caller.launch(
        "sh", "-c", "trap 'head -c 300000 /dev/zero; exit 4' USR1; echo up; while :; do sleep 0.01; done", output=True
    )
    caller.wrote(b"up\n")
    disk.fill()
    os.kill(caller.report().pid or 0, signal.SIGUSR1)
    ended = caller.ended()
    assert (ended.outcome, len(ended.stdout) + caller.dropped[m.Stream.STDOUT]) == (Exited(4), 300_003)
    disk.free()
    assert call(server).run("true").outcome == Exited(0)


def test_restart_on_a_full_disk(server: Served, disk: SmallDisk, call: Callable[..., Caller], tmp_path: Path) -> None:
    """A server starts on a full disk, finds its runs, and tells their ends."""
    first = call(server)
    tell = waits(first, tmp_path)
    until(lambda: b'"launched":true' in (server.state / "runs" / first.run_id).read_bytes(), "it is recorded")
    disk.fill()
    server.kill()
    server.start()
    second = call(server)
    second.resume(first, output=False)
    tell(7)
    assert second.ended().outcome == Exited(7)


# ---- read-only -----------------------------------------------------------------------------------------------------


def test_folder_that_cannot_be_written(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """Where nothing can be written nothing is launched, and the end of what runs is told, and recorded later."""
    server = serve(command=(*POWERLESS, *COMMAND), conf=LEAVES)
    first = call(server)
    tell = waits(first, tmp_path)
    for folder in ("runs", "receipts"):
        (server.state / folder).mkdir(exist_ok=True)
        (server.state / folder).chmod(0o500)
    refusal = call(server).refused("sleep", "1000")
    assert (refusal.code, "Permission denied" in refusal.text) == ("resources", True)
    tell(8)
    assert first.await_(m.Exited).receipt.outcome == Exited(8)
    server.logged("ERROR: .*Permission denied")
    for folder in ("runs", "receipts"):
        (server.state / folder).chmod(0o700)
    until((server.state / "receipts" / first.run_id).exists, "the receipt is written when that is possible")
    server.kill()
    server.start()
    again = call(server)
    again.resume(first, output=False)
    assert again.ended().outcome == Exited(8)


# ---- torn and strange ------------------------------------------------------------------------------------------------


def test_torn_file_of_a_run(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """Of a torn file what is whole counts: the run is found by its first lines, and its end is told."""
    server = serve(conf=LEAVES)
    first = call(server)
    tell = waits(first, tmp_path)
    path = server.state / "runs" / first.run_id
    until(lambda: b'"launched":true' in path.read_bytes(), "it is recorded")
    server.kill()
    content = path.read_bytes().rstrip(b" \n")
    path.write_bytes(content + b'\n0badbad0 {"receipt": {"outc')
    server.start()
    second = call(server)
    second.resume(first, output=False)
    tell(9)
    assert second.ended().outcome == Exited(9)


def test_torn_beyond_use(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A file of which nothing is whole tells nothing: it is said so, and the server serves on."""
    server = serve("--cgroup", "none", conf=LEAVES)
    first = call(server)
    pid = first.launch("sleep", "1000")
    server.kill()
    path = server.state / "runs" / first.run_id
    path.write_bytes(path.read_bytes()[20:])
    server.start()
    server.logged(f"ERROR: .*{first.run_id}")
    second = call(server)
    assert second.resume(first, output=False).attached
    assert isinstance(second.ended().outcome, Unknown)
    assert call(server).run("true").outcome == Exited(0)
    if alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_torn_receipt(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A receipt that is torn is never taken for another outcome: it is not known how that run ended."""
    server = serve(conf=LEAVES)
    first = call(server)
    first.launch("sh", "-c", "exit 6")
    assert first.await_(m.Exited).receipt.outcome == Exited(6)
    path = server.state / "receipts" / first.run_id
    until(path.exists, "it is recorded")
    server.kill()
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b'"receipt"') + 20])
    server.start()
    second = call(server)
    second.try_to_launch("false", name=first.name, run_id=first.run_id, resume=True)
    answer = second.hear()
    if isinstance(answer, m.Launched):
        assert isinstance(second.ended().outcome, Unknown)
    else:
        assert isinstance(answer, m.Refused)
        assert answer.code == "no-run"


@pytest.mark.parametrize("folder", ["runs", "receipts"])
def test_newer_file(serve: Callable[..., Served], call: Callable[..., Caller], folder: str) -> None:
    """A file of a later version is left as it is, with an error, for that version to read."""
    server = serve(conf=LEAVES)
    server.leave()
    (server.state / folder).mkdir(mode=0o700, exist_ok=True)
    path = server.state / folder / RUN_ID
    content = encode_line({"format": 2, "what": "nobody knows yet"})
    path.write_bytes(content)
    for _ in range(2):
        since = len(server.lines)
        server.start()
        server.logged(f"ERROR: .*{RUN_ID}", since=since)
        assert call(server).run("true").outcome == Exited(0)
        server.kill()
    assert path.read_bytes() == content
    server.start()


@pytest.mark.parametrize(
    "entry",
    [
        {"format": 1},
        {"format": 1, "launch": {"name": "x"}, "pid": 1},
        {"format": 1, "launch": None, "boot_id": "x", "pid": 1, "start": 1},
        {"format": 1, "pid": "x"},
    ],
    ids=["nothing", "half a launch", "no launch", "no number"],
)
def test_file_that_makes_no_sense(
    serve: Callable[..., Served], call: Callable[..., Caller], entry: dict[str, object]
) -> None:
    """A file that is whole but makes no sense keeps no server from starting, and signals nobody."""
    server = serve(conf=LEAVES)
    server.leave()
    (server.state / "runs" / RUN_ID).write_bytes(encode_line(entry))
    server.start()
    server.logged(f"ERROR: .*{RUN_ID}")
    assert call(server).run("true").outcome == Exited(0)


def test_strangers_in_the_folder(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """What is no file of a run is no trouble: empty files, folders, and what an editor left."""
    server = serve(conf=LEAVES)
    server.leave()
    for folder in ("runs", "receipts", "spool"):
        (server.state / folder).mkdir(mode=0o700, exist_ok=True)
        (server.state / folder / "README").write_text("hello")
        (server.state / folder / ".x.swp").touch()
        (server.state / folder / ("0" * 36)).mkdir()
    server.start()
    assert call(server).run("true").outcome == Exited(0)


def test_folder_is_private(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """What the server writes down of a run, its environment too, is for nobody else to read."""
    server = serve()
    caller = call(server)
    caller.launch("sleep", "1000", env={"SECRET": "x"})
    for path in server.state.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert caller.stop().outcome == Signaled(15)


def test_receipts_expire(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A receipt that was acknowledged goes after its time, one that was not stays."""
    server = serve("--receipt-retention", "1s")
    acknowledged, not_yet = call(server), call(server)
    assert acknowledged.run("true").outcome == Exited(0)
    not_yet.launch("true")
    not_yet.await_(m.Exited)
    receipts = server.state / "receipts"
    until(lambda: [entry.name for entry in receipts.iterdir()] == [not_yet.run_id], "one is left")
    again = call(server)
    again.resume(not_yet)
    assert again.ended().outcome == Exited(0)
