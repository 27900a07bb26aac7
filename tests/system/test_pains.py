"""What users of such tools suffer, by the public threads in which they tell of it, and that it does not happen here.

| pain | threads | tests |
|---|---|---|
| a lost management link is taken for a dead node | ClusterLabs/pacemaker#3458, #708 | test_lost_link_... |
| a half-open connection goes unnoticed | ClusterLabs/pacemaker#1641, linkerd/linkerd2#13023 | test_half_open_... |
| a migration or a pause looks like a death | kubevirt/kubevirt#17235 | test_paused_... |
| hibernation, a clock that comes late | hashicorp/nomad#3595, #27675 | test_late_... |
| duplicates after a reconnect or a restart | hashicorp/nomad#12680, Supervisor/supervisor#600 | test_duplicate_... |
| an upgrade of the agent kills the applications | Supervisor/supervisor#1444 | test_agent_... |
| a reused pid kills a stranger | hashicorp/nomad#24538 | test_reused_pid_... |
| orphans and zombies | Supervisor/supervisor#1101, opnsense/plugins#2660 | test_orphans_..., test_zombies_... |
| the exit code is lost, or ambiguous | vmware/pyvmomi#523, ansible/ansible#18300 | test_exit_code_... |
| a signal is reported as 0 | systemd/systemd#22812 | test_exit_codes.py, test_exit_code_of_a_death_... |
| the last output is lost | Supervisor/supervisor#340 | test_last_output_... |
| rotating keys breaks links | hashicorp/nomad#4413 | test_rotated_keys_... |

Here are those of links and pauses, the others in test_pains_of_agents.py and test_pains_of_ends.py.
"""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from tests.system.bed import Manager
from tests.system.fates import PATIENT, until_back
from tests.system.processes import paused, until, until_gone
from tests.system.wires import Island, Wire, island

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.system.bed import Bed
    from tests.system.books import Book

BOUND = re.compile(r"each is given up \S+ m?s later, within ([\d.]+) s;")


@pytest.fixture(scope="module")
def far_away() -> Iterator[Island]:
    """A network for managers that can lose its packets."""
    with island() as made:
        if isinstance(made, str):
            pytest.skip(made)
        yield made


# ---- links -----------------------------------------------------------------------------------------------------


def test_lost_link_is_no_dead_application(bed: Bed, book: Book) -> None:
    """A link that is cut, and refused for a while, costs the application nothing, and its end is told in full."""
    with Wire(bed.serve().port) as wire:
        manager = bed.start(*book.ends_with(43), guest=wire.guest, options=[*book.options, *PATIENT])
        application = manager.until_launched()
        for _ in range(3):
            said = len(manager.log)
            wire.cut()
            manager.until_log("lost the link: .*the application may well go on", said)
            manager.until_log("not back yet, attempt 1", said)
            wire.mend()
            until_back(manager, application, said)
        book.let_end()
        assert manager.wait() == 43
    book.check("start", "end")
    assert "ERROR: exited with code 43" in manager.last_line


def test_half_open_connection_is_noticed_within_the_printed_bound(
    bed: Bed, book: Book, tmp_path: Path, far_away: Island
) -> None:
    """A network that swallows every packet is noticed by both sides within what each said at the start."""
    server = bed.serve(listen=f"{far_away.address}:0", keys=bed.keys.issue("guest", "far", far_away.address))
    options = ["--poll-interval", "500ms", "--poll-timeout", "500ms", "--link-timeout", "1s", *book.options]
    folder = tmp_path / "manager"
    folder.mkdir()
    command = bed.command(folder, "far", book.command(), options=options, guest=f"{far_away.address}:{server.port}")
    manager = bed.adopt(Manager(folder, "far", [*far_away.enter, *command]))
    application = manager.until_launched()
    begin = time.monotonic()
    far_away.drop()
    try:
        assert manager.wait() == 123
        took = time.monotonic() - begin
        until(lambda: "has been silent for too long" in server.log, "the server's notice")
    finally:
        far_away.mend()
    bound = BOUND.search(manager.log)
    assert bound is not None
    assert float(bound[1]) == 2
    assert 1 < took < 2 + 3  # the latter for a busy machine
    assert "no answer to a poll within 0.5 s; no way back within 1 s" in manager.last_line
    until_gone(application)  # after its orphan timeout


@pytest.mark.parametrize("ways", [("input",), ("output",), ("input", "output")], ids="-".join)
def test_half_open_connection_that_heals(
    bed: Bed, book: Book, tmp_path: Path, far_away: Island, ways: tuple[str, ...]
) -> None:
    """Whichever way packets are lost: when they pass again the manager is back at its instance, whose end is told."""
    server = bed.serve(listen=f"{far_away.address}:0", keys=bed.keys.issue("guest", "-".join(ways), far_away.address))
    options = ["--poll-interval", "200ms", "--poll-timeout", "300ms", *PATIENT, *book.options]
    folder = tmp_path / "manager"
    folder.mkdir()
    guest = f"{far_away.address}:{server.port}"
    command = bed.command(folder, "far", book.ends_with(43), options=options, guest=guest)
    manager = bed.adopt(Manager(folder, "far", [*far_away.enter, *command]))
    application = manager.until_launched()
    far_away.drop(*ways)
    try:
        manager.until_log("lost the link: no answer to a poll")
    finally:
        far_away.mend()
    until_back(manager, application)
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")


def test_half_open_connection_that_is_seldom_polled(bed: Bed, tmp_path: Path, far_away: Island) -> None:
    """However seldom it is polled, the kernels notice that nothing comes through, within what was printed."""
    server = bed.serve(listen=f"{far_away.address}:0", keys=bed.keys.issue("guest", "seldom", far_away.address))
    options = ["--poll-interval", "10m", "--poll-timeout", "10m", "--link-timeout", "1s"]
    folder = tmp_path / "manager"
    folder.mkdir()
    guest = f"{far_away.address}:{server.port}"
    command = bed.command(folder, "far", ["/bin/sleep", "1000"], options=options, guest=guest)
    manager = bed.adopt(Manager(folder, "far", [*far_away.enter, *command]))
    application = manager.until_launched()
    assert "a link that is cut within 20 s" in manager.log
    begin = time.monotonic()
    far_away.drop()
    try:
        assert manager.wait() == 123
        assert time.monotonic() - begin < 20 + 1 + 10  # the latter for a busy machine
        until(lambda: "its manager is lost" in server.log, "the server's notice")
    finally:
        far_away.mend()
    until_gone(application)


def test_half_open_connection_of_a_stalled_relay(bed: Bed, book: Book) -> None:
    """A relay that holds everything back is left for another connection; what it held back does no harm later."""
    server = bed.serve()
    with Wire(server.port) as wire:
        options = ["--poll-interval", "200ms", "--poll-timeout", "300ms", *PATIENT, *book.options]
        manager = bed.start(*book.ends_with(43), guest=wire.guest, options=options)
        application = manager.until_launched()
        wire.stall()
        manager.until_log("lost the link: no answer to a poll")
        wire.flow()
        until_back(manager, application)
        book.let_end()
        assert manager.wait() == 43
    book.check("start", "end")


# ---- pauses ----------------------------------------------------------------------------------------------------


def test_paused_server_is_no_death(bed: Bed, book: Book) -> None:
    """A guest that stands still, as in a migration, past all polls, is found as it was when it goes on."""
    server = bed.serve()
    options = ["--poll-interval", "200ms", "--poll-timeout", "300ms", *PATIENT, *book.options]
    manager = bed.start(*book.ends_with(43), options=options)
    application = manager.until_launched()
    server.process.send_signal(signal.SIGSTOP)
    manager.until_log("lost the link: no answer to a poll")
    server.process.send_signal(signal.SIGCONT)
    until_back(manager, application)
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")


def test_paused_manager_is_no_death(bed: Bed, book: Book) -> None:
    """A manager that stood still for so long that the server gave its link up comes back to the same instance."""
    server = bed.serve()
    options = ["--poll-interval", "100ms", "--poll-timeout", "100ms", *PATIENT, *book.options]
    manager = bed.start(*book.ends_with(43), options=options)
    application = manager.until_launched()
    manager.process.send_signal(signal.SIGSTOP)
    until(lambda: "has been silent for too long" in server.log, "the server's notice")
    manager.process.send_signal(signal.SIGCONT)
    until_back(manager, application)
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")


def test_paused_application_is_no_death(bed: Bed, book: Book) -> None:
    """An application that stands still is reported as running, and nothing is done about it that nobody asked for."""
    manager = bed.start(*book.ends_with(43), options=["--verbose", "--poll-interval", "100ms", *book.options])
    application = manager.until_launched()
    book.check("start")
    os.kill(application, signal.SIGSTOP)
    until(lambda: paused(application), "its pause")
    for _ in range(3):
        manager.until_log(rf"running, pid {application}, ", len(manager.log))
    os.kill(application, signal.SIGCONT)
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")


def test_late_tick_ends_nothing(bed: Bed, book: Book) -> None:
    """Where all stood still at once, as in a hibernation, nobody judges by a clock that went on without them."""
    server = bed.serve()
    options = ["--poll-interval", "100ms", "--poll-timeout", "1s", "--link-timeout", "200ms", *book.options]
    manager = bed.start(*book.ends_with(43), options=[*options, "--orphan-timeout", "1s"])
    application = manager.until_launched()
    everybody = (manager.process.pid, server.process.pid, application)
    for pid in everybody:
        os.kill(pid, signal.SIGSTOP)
    until(lambda: all(map(paused, everybody)), "the pause")
    time.sleep(5)  # more than a poll may take, and the 3 s that a look at the clock may come late
    for pid in reversed(everybody):
        os.kill(pid, signal.SIGCONT)
    until(lambda: "stood still for" in server.log, "a word in the server's log")
    assert manager.process.poll() is None
    book.let_end()
    assert manager.wait() == 43
    book.check("start", "end")
    assert "silent" not in server.log
    assert "lost the link" not in manager.log
