"""Pains of ends (the table is in test_pains.py): exit codes that are lost or invented, last words that nobody hears.

Whatever was cut, killed or paused while an application ended, its exit code is its own or is said to be unknown.
"""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.fates import FATES, PATIENT, renew, until_back
from tests.system.processes import end, until_gone
from tests.system.wires import Wire

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed
    from tests.system.books import Book

# From this version on the kernel tells how a process ended that is not our child.
TELLS = tuple(int(word) for word in os.uname().release.split("-")[0].split(".")[:2]) >= (6, 15)
UNKNOWN = 121


@pytest.mark.parametrize("code", [0, 43, 121])
@pytest.mark.parametrize("fate", ["none", *FATES])
def test_exit_code_of_an_end_without_a_manager(bed: Bed, book: Book, fate: str, code: int) -> None:
    """The manager is killed, the application ends: the next with its run id is told how, and the one after it too."""
    bed.serve()
    first = bed.start(*book.ends_with(code), name="one", options=[*book.options, *PATIENT])
    application = first.until_launched()
    end(first.process)
    book.let_end()
    until_gone(application)
    bed.server.until_kept(first.run_id)
    if fate != "none":
        renew(bed, fate)
    for _ in range(2):
        again = bed.run(*book.ends_with(99), name="one", options=[*book.options, "--run-id", first.run_id])
        assert again.wait() == code
        assert (again.result["cause"], again.result["code"]) == ("exited", code)
        assert again.result["run_id"] == first.run_id
    book.check("start", "end")


@pytest.mark.parametrize("how", ["cut", "stalled"])
def test_exit_code_of_an_end_without_a_link(bed: Bed, book: Book, how: str) -> None:
    """The application ends while the link is cut, or nothing comes through it: its manager has the code in the end."""
    bed.serve()
    with Wire(bed.server.port) as wire:
        options = [*book.options, *PATIENT, "--poll-interval", "200ms", "--poll-timeout", "300ms"]
        manager = bed.start(*book.ends_with(43), guest=wire.guest, options=options)
        application = manager.until_launched()
        (wire.cut if how == "cut" else wire.stall)()
        book.let_end()
        until_gone(application)
        manager.until_log("lost the link")
        (wire.mend if how == "cut" else wire.flow)()
        assert manager.wait() == 43
    assert manager.result["cause"] == "exited"
    book.check("start", "end")


@pytest.mark.parametrize("code", [0, 43])
def test_exit_code_of_an_end_without_a_server(bed: Bed, book: Book, code: int) -> None:
    """An end that nobody could see is unknown, and said to be: 121, never 0, and nothing is started in its place."""
    server = bed.serve()
    manager = bed.start(*book.ends_with(code), options=[*book.options, *PATIENT])
    application = manager.until_launched()
    server.kill()
    book.let_end()
    until_gone(application)
    server.restart()
    assert manager.wait() == UNKNOWN
    assert manager.result["cause"] == "unknown"
    assert "ended, but how is not known" in manager.last_line
    assert manager.last_line.endswith("exit code 121 means that its outcome is unknown")
    book.check("start", "end")


def test_exit_code_of_an_end_amid_a_crash(bed: Bed, tmp_path: Path) -> None:
    """When application and server end at the same moment the code is the true one, or unknown."""
    server = bed.serve()
    for number in range(10):
        go = tmp_path / f"go-{number}"
        os.mkfifo(go)
        manager = bed.start("/bin/sh", "-c", f"read line <{go}; exit 43", options=PATIENT)
        application = manager.until_launched()
        with go.open("w") as told:  # which waits until the application reads
            told.write("\n")
        time.sleep(number / 2000)
        server.crash()
        assert manager.wait() in {43, UNKNOWN}
        until_gone(application)


@pytest.mark.parametrize("how", [9, 6, 11, 15, "exit"])
@pytest.mark.parametrize("fate", FATES)
def test_exit_code_of_a_death_under_the_next_server(bed: Bed, book: Book, fate: str, how: int | str) -> None:
    """A server that did not start the application itself tells its end to the letter, where the kernel tells it."""
    bed.serve()
    manager = bed.start(*book.ends_with(43), options=[*book.options, *PATIENT])
    application = manager.until_launched()
    book.check("start")
    renew(bed, fate)
    until_back(manager, application)
    if isinstance(how, int):
        os.kill(application, how)
    else:
        book.let_end()
    code = 128 + how if isinstance(how, int) else 43
    assert manager.wait() == (code if TELLS or fate == "upgrade" else UNKNOWN)


def test_exit_code_when_all_of_ours_were_killed(bed: Bed, book: Book) -> None:
    """Server and manager are killed; both are started again; then the application ends: its code is told."""
    server = bed.serve()
    first = bed.start(*book.ends_with(43), name="one", options=[*book.options, *PATIENT])
    application = first.until_launched()
    end(first.process)
    server.crash()
    again = bed.start(*book.ends_with(99), name="one", options=[*book.options, "--run-id", first.run_id])
    assert again.until_launched() == application
    book.let_end()
    assert again.wait() == (43 if TELLS else UNKNOWN)
    book.check("start", "end")


def test_exit_code_of_a_stop_while_the_link_is_lost(bed: Bed, book: Book) -> None:
    """A manager that is asked to stop while its link is lost passes that on when it is back, and has the outcome."""
    with Wire(bed.serve().port) as wire:
        script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
        manager = bed.start(*book.command(script), guest=wire.guest, options=[*book.options, *PATIENT])
        manager.until_launched()
        book.check("start")
        wire.cut()
        manager.until_log("lost the link")
        manager.process.send_signal(signal.SIGTERM)
        manager.until_log("asked to stop by SIGTERM: .*, as soon as it is back")
        wire.mend()
        assert manager.wait() in {7, 143}  # the latter if it had not set its trap yet
    assert "stopped on request" in manager.last_line


# ---- the last output -------------------------------------------------------------------------------------------

LAST_WORDS = "seq 1 30000; echo last words;"  # 169 KB: more than the server keeps in memory, less than its spool
LAST_BYTES = b"".join(b"%d\n" % number for number in range(1, 30001)) + b"last words\n"


@pytest.mark.parametrize("fate", ["cut", "manager-paused", *FATES])
def test_last_output_is_not_lost(bed: Bed, book: Book, fate: str) -> None:
    """What the application writes right before it ends, while its manager is away, arrives whole, and then its code."""
    bed.serve()
    with Wire(bed.server.port) as wire:
        options = [*book.options, *PATIENT, "--output", "stdout"]
        manager = bed.start(*book.ends_with(43, LAST_WORDS), guest=wire.guest, options=options)
        application = manager.until_launched()
        if fate == "manager-paused":
            manager.process.send_signal(signal.SIGSTOP)
        else:
            wire.cut()
            manager.until_log("lost the link")
        book.let_end()
        until_gone(application)
        bed.server.until_kept(manager.run_id)
        if fate in FATES:
            renew(bed, fate)
        wire.mend()
        manager.process.send_signal(signal.SIGCONT)
        assert manager.wait() == 43
    assert manager.stdout == LAST_BYTES
    assert "missing" not in manager.log
    assert "dropped" not in manager.log
