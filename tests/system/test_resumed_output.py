"""Output across losses: it goes on where it was, whatever comes and goes between, and what is missing is counted."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import alive, end, until, until_gone
from tests.system.wires import Wire

if TYPE_CHECKING:
    from tests.system.bed import Bed, Manager
    from tests.system.books import Book

COUNTS = "n=0; until [ -e go ]; do n=$((n+1)); echo line $n; echo error $n >&2; sleep 0.005; done; exit 9"
BYTES = 4_000_000
UNTIL_GO, UNTIL_END = (f"until [ -e {name} ]; do sleep 0.05; done" for name in ("go", "end"))
FLOOD = f"{UNTIL_GO}; head -c {BYTES} /dev/zero; echo >flooded; {UNTIL_END}; exit 9"


def until_more(manager: Manager) -> None:
    """Wait until more of the application's output has come."""
    size = len(manager.stdout)
    until(lambda: len(manager.stdout) > size, "more output")


def missing(manager: Manager) -> int:
    """Return how many bytes the package log says are missing."""
    return sum(int(number) for number in re.findall(r"WARNING: (\d+) bytes of its std", manager.log))


def check_lines(said: str, word: str) -> None:
    """Check that all lines are there, once each, in order."""
    lines = said.splitlines()
    assert lines == [f"{word} {number}" for number in range(1, len(lines) + 1)]


@pytest.mark.parametrize("fate", ["cut", *FATES])
def test_every_line_once(bed: Bed, book: Book, fate: str) -> None:
    """Of an application that writes all the time not one line is lost, doubled or out of order, on neither stream."""
    bed.serve()
    with Wire(bed.server.port) as wire:
        options = [*book.options, *PATIENT, "--output", "stdout"]
        manager = bed.start(*book.command(COUNTS), guest=wire.guest, options=options)
        application = manager.until_launched()
        for _ in range(3):
            until_more(manager)
            said = len(manager.log)
            if fate == "cut":
                wire.cut()
                manager.until_log("lost the link", said)
                wire.mend()
            else:
                renew(bed, fate)
            until_back(manager, application, said)
        until_more(manager)
        book.let_end()
        assert manager.wait() == 9
    check_lines(manager.stdout.decode(), "line")
    check_lines(manager.stderr, "error")
    assert missing(manager) == 0


def test_written_while_there_was_no_server(bed: Bed, book: Book) -> None:
    """What fits into the pipe while there is no server does not hold the application up, and arrives later."""
    server = bed.serve()
    script = (
        "until [ -e go ]; do sleep 0.05; done; seq 1 8000; echo >done; until [ -e end ]; do sleep 0.05; done; exit 9"
    )
    options = [*book.options, *PATIENT, "--output", "stdout"]
    manager = bed.start(*book.command(script), options=options)
    application = manager.until_launched()
    server.kill()
    book.let_end()
    until((book.folder / "done").exists, "the end of its writing")
    server.restart()
    until_back(manager, application)
    (book.folder / "end").touch()
    assert manager.wait() == 9
    assert manager.stdout.split() == [b"%d" % number for number in range(1, 8001)]


def test_nothing_kills_a_writer_without_a_server(bed: Bed, book: Book) -> None:
    """An application that writes more than a pipe holds waits for the next server, and neither loses nor doubles it."""
    server = bed.serve("--spool-limit", "100000000")
    options = [*book.options, *PATIENT, "--output", "stdout"]
    manager = bed.start(*book.command(FLOOD), options=options)
    application = manager.until_launched()
    server.kill()
    book.let_end()
    manager.until_log("lost the link")
    assert alive(application)
    server.restart()
    until_back(manager, application)
    until((book.folder / "flooded").exists, "the end of its writing")
    (book.folder / "end").touch()
    assert manager.wait() == 9
    assert len(manager.stdout) + missing(manager) == BYTES


@pytest.mark.parametrize("fate", ["none", *FATES])
def test_more_than_the_spool_holds(bed: Bed, book: Book, fate: str) -> None:
    """Of what is written while the manager is away the last part is kept, and the log tells the size of the rest."""
    bed.serve("--spool-limit", "200000")
    with Wire(bed.server.port) as wire:
        options = [*book.options, *PATIENT, "--output", "stdout"]
        manager = bed.start(*book.command(FLOOD), guest=wire.guest, options=options)
        application = manager.until_launched()
        wire.cut()
        manager.until_log("lost the link")
        book.let_end()
        until((book.folder / "flooded").exists, "the end of its writing")
        if fate != "none":
            renew(bed, fate)
        wire.mend()
        until_back(manager, application)
        (book.folder / "end").touch()
        assert manager.wait() == 9
    assert len(manager.stdout) + missing(manager) == BYTES
    assert 0 < len(manager.stdout) < BYTES


@pytest.mark.parametrize("fate", ["none", *FATES])
def test_output_of_an_end_for_the_next_manager(bed: Bed, book: Book, fate: str) -> None:
    """A manager that was killed misses the end; the next with its run id has what was written, and then the code."""
    bed.serve()
    options = [*book.options, *PATIENT, "--output", "stdout"]
    first = bed.start(*book.ends_with(9, "seq 1 2000;"), name="one", options=options)
    application = first.until_launched()
    end(first.process)
    book.let_end()
    until_gone(application)
    bed.server.until_kept(first.run_id)
    if fate != "none":
        renew(bed, fate)
    again = bed.run(*book.ends_with(99), name="one", options=[*options, "--run-id", first.run_id])
    assert again.wait() == 9
    assert again.stdout.split() == [b"%d" % number for number in range(1, 2001)]
