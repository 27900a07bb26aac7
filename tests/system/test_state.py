"""The server's state folder: full, and damaged; outcomes are neither lost nor invented, and all is told."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import PATIENT
from tests.system.processes import end, until, until_gone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.bed import Bed
    from tests.system.books import Book


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a small file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(disk: Path) -> None:
    """Take every byte that is left."""
    subprocess.run(["dd", "if=/dev/zero", f"of={disk}/ballast", "bs=4k"], check=False, capture_output=True)


def test_outcome_on_a_full_disk(small_disk: Path, bed: Bed, book: Book) -> None:
    """A receipt finds its room on a full disk, for a manager that comes after the server was killed and restarted."""
    server = bed.serve("--state-dir", str(small_disk / "state"))
    server.state = small_disk / "state"
    manager = bed.start(*book.ends_with(43), name="one", options=[*book.options, *PATIENT])
    application = manager.until_launched()
    fill(small_disk)
    end(manager.process)
    book.let_end()
    until_gone(application)
    server.until_kept(manager.run_id)
    server.crash()
    again = bed.run(*book.ends_with(99), name="one", options=[*book.options, "--run-id", manager.run_id])
    assert again.wait() == 43
    book.check("start", "end")


def test_launch_on_a_full_disk(small_disk: Path, bed: Bed) -> None:
    """What cannot be recorded is not launched: 122, and as soon as there is room it is."""
    bed.serve("--state-dir", str(small_disk / "state"))
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
    fill(small_disk)
    refused = bed.run("/bin/sh", "-c", "exit 6")
    assert refused.wait() == 122
    assert refused.result["refusal"] == "resources"
    assert "No space left on device" in refused.last_line
    (small_disk / "ballast").unlink()
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6


def test_damaged_receipt(bed: Bed) -> None:
    """A file that was cut off gives what is whole of it: the outcome, or that it is unknown; never another."""
    server = bed.serve()
    for code, lines in enumerate((0, 1, 2, 3, 4, 5)):
        name = f"app-{code}"
        manager = bed.start("/bin/sh", "-c", f"exit {code}", name=name, options=PATIENT)
        run_id = manager.run_id
        assert manager.wait() == code
        assert server.stop() == 0
        file = server.state / "receipts" / run_id
        assert file.exists(), f"the receipt of {name}"
        whole = file.read_bytes().split(b"\n")
        assert len(whole) > lines
        file.write_bytes(b"\n".join(whole[:lines]) + b"\n" + whole[lines][:10])
        server.restart()
        again = bed.run("/bin/sh", "-c", "exit 99", name=name, options=["--run-id", run_id])
        assert again.wait() in {code, 121}, f"{lines} whole lines: {again.last_line}"


def test_damaged_file_of_a_run(bed: Bed) -> None:
    """A run whose file was destroyed under a killed server is told as unknown: its name can be used."""
    server = bed.serve()
    manager = bed.start("/bin/sleep", "1000", name="one", options=PATIENT)
    application = manager.until_launched()
    server.kill()
    for file in (server.state / "runs").iterdir():
        if file.is_file():
            file.write_bytes(b"\xff" * 100)
    server.restart()
    assert manager.wait() in {121, 123}
    until(lambda: "damaged" in server.log or "left alone" in server.log, "a word in the server's log")
    again = bed.start("/bin/sleep", "1000", name="one")
    again.until_launched()
    until_gone(application)
