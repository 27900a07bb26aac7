"""The server without sockets, processes and files: what each input makes it want done, to the word."""

from __future__ import annotations

from cmapp.core import effects as do
from cmapp.core import messages as m
from cmapp.core.lifecycle import Action, Event, State
from cmapp.core.outcome import Exited, Signaled
from cmapp.core.roster import Roster
from cmapp.core.wire import plain
from tests.core.roster_bed import BOOT, WALL, Bed, bed_that, run_id

A, E, S = Action, Event, State
RUN = run_id(1)
LAUNCH = m.Launch(2, "web", RUN, ("web",))
WHO = f"web (run {RUN})"


# ---- one life, effect by effect ----------------------------------------------------------------------------


def roster() -> Roster:
    """Return a server that knows one manager, on a link."""
    roster = Roster(BOOT, most=5, receipts=10, retention=100.0)
    roster.greet("link", "host1", "i", 0.0)
    return roster


def launched() -> Roster:
    """Return a server whose manager has launched its run."""
    server = roster()
    server.launch("link", LAUNCH, 1.0, WALL)
    server.prepared(RUN, 42, 7)
    for event in (E.RECORDED, E.SPAWNED):
        server.happened(RUN, event, 1.0, WALL)
    return server


def test_launch_is_prepared_recorded_executed_and_told_in_this_order() -> None:
    """Nothing is executed that is not on disk, and nothing is told that is not executed."""
    server = roster()
    assert server.launch("link", LAUNCH, 1.0, WALL) == [do.Spawn(LAUNCH)]
    header = {
        "format": 1,
        "launch": plain(LAUNCH),
        "manager": "host1",
        "boot_id": BOOT,
        "started": 1.0,
        "wall": WALL,
        "where": "/run-1",
    }
    entries = (header, {"pid": 42, "start": 7})
    assert server.prepared(RUN, 42, 7, "/run-1") == [do.Begin(RUN, entries)]
    assert server.happened(RUN, E.RECORDED, 1.0, WALL) == [do.Do(RUN, A.EXECUTE)]
    assert server.happened(RUN, E.SPAWNED, 1.0, WALL) == [
        do.Log("info", f"{WHO}: launched as process 42"),
        do.Write(RUN, {"launched": True}),
        do.Say("link", m.Launched(2, RUN, 42)),
        do.Write(RUN, {"ready": True}),
    ]


def test_end_is_told_before_it_is_written() -> None:
    """The push waits for no disk; what is written of the end outlives a loss of power, and the name is freed last."""
    server = launched()
    receipt = server.mine("link").run.receipt(9.0).replace(outcome=Exited(3))  # type: ignore[union-attr]
    assert server.happened(RUN, E.LEADER_ENDED, 9.0, WALL, outcome=Exited(3)) == [
        do.Do(RUN, A.KILL_TREE),
        do.Do(RUN, A.TELL_ENDED),
        do.Say("link", m.Exited(receipt)),
        do.Log("info", f"{WHO}: exited with code 3 after 8 s"),
        do.Write(RUN, {"receipt": plain(receipt)}, sync=True),
        do.Do(RUN, A.WATCH_TREE),
    ]
    assert server.happened(RUN, E.TREE_EMPTY, 9.0, WALL) == [do.Do(RUN, A.FREE_NAME), do.Settle(RUN)]
    assert (server.mine("link"), server.charge(RUN), server.charges) == (None, None, {})
    assert server.acknowledge("link", m.Acknowledge(5, RUN), WALL + 1) == [
        do.Write(RUN, {"acknowledged": WALL + 1}),
        do.DropOutput(RUN),
        do.Say("link", m.Done(5)),
    ]
    assert server.clock(200.0, WALL + 101) == [do.Forget(RUN)]


def test_stop_is_answered_before_it_is_done() -> None:
    """`done` comes at once, the reason is on disk before the signal is sent, the outcome before its end is told."""
    server = launched()
    assert server.stop("link", m.Stop(3), 2.0) == [
        do.Say("link", m.Done(3)),
        do.Write(RUN, {"stopping": "asked", "detail": "", "forced": False}),
        do.Do(RUN, A.ASK_TO_STOP),
    ]
    assert server.stop("link", m.Stop(4, kill=True), 3.0) == [
        do.Say("link", m.Done(4)),
        do.Write(RUN, {"stopping": "asked", "detail": "", "forced": True}),
        do.Do(RUN, A.KILL_TREE),
    ]
    assert server.happened(RUN, E.LEADER_ENDED, 4.0, WALL, outcome=Signaled(9)) == [
        do.Write(RUN, {"outcome": {"type": "signaled", "signal": 9}, "ended": 4.0}),
        do.Do(RUN, A.WATCH_TREE),
    ]
    effects = server.happened(RUN, E.TREE_EMPTY, 5.0, WALL)
    assert [type(effect) for effect in effects] == [do.Do, do.Say, do.Log, do.Write, do.Do, do.Settle]


def test_moved_main_process_is_written() -> None:
    """The next server looks for the process that is the main one now."""
    server = launched()
    assert server.moved(RUN, 77, 9) == [do.Write(RUN, {"pid": 77, "start": 9, "moved": True})]
    charge = server.charge(RUN)
    assert charge is not None
    assert (charge.pid, charge.start) == (77, 9)


# ---- what does not start -----------------------------------------------------------------------------------


def test_no_process_at_all() -> None:
    """What cannot even be prepared is refused with its reason, leaves no file, and the name is free at once."""
    bed = bed_that(unprepared=("resources", "no more processes"))
    assert bed.launch("one", 1) == "refused resources: no more processes"
    assert (bed.files, bed.roster.charges) == ({}, {})
    bed.unprepared = None
    assert bed.launch("one", 2) == "launched 2"


def test_command_that_cannot_be_executed() -> None:
    """A command that is not there is refused, has no receipt, and its name is free when what tried it is gone."""
    bed = bed_that(refusal=("not-found", "there is no command web"))
    assert bed.launch("one", 1) == "refused not-found: there is no command web"
    assert bed.launch("one", 2) == ""
    bed.refusal = None
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(1))
    bed.happen(1, E.TREE_EMPTY)
    assert bed.hears("one") == "launched 2"
    assert 1 not in bed.files
    assert len(bed.roster.archive) == 0


def test_file_that_cannot_be_written() -> None:
    """On a full disk nothing is executed, and the launch is refused with what the shell says of it."""
    bed = bed_that(full=True)
    assert bed.launch("one", 1) == ""
    assert bed.actions() == [A.KILL_TREE]
    bed.happen(1, E.SPAWN_FAILED, refusal=("resources", "its record cannot be written"))
    assert bed.hears("one") == "refused resources: its record cannot be written"
    bed.end(1, Signaled(9))
    assert (bed.started, bed.roster.charges, bed.files) == ([], {}, {})


def test_capacity() -> None:
    """As many applications run as there may, whoever launched them; one that is being cleared up does not count."""
    bed = Bed(most=2)
    bed.connect("one", "two", "three", manager="host1")
    assert bed.launch("one", 1, name="a") == "launched 1"
    assert bed.launch("two", 2, name="b") == "launched 2"
    full = "refused capacity: 2 applications run, which is max_applications of this guest"
    assert bed.launch("three", 3, name="c") == full
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
    assert bed.launch("three", 3, name="c") == "launched 3"


# ---- the server is stopped ---------------------------------------------------------------------------------


def test_end_all_stops_and_then_kills() -> None:
    """All runs are stopped by their rules, at a second word by SIGKILL, and each end is told."""
    bed = Bed()
    bed.connect("one", "two")
    bed.launch("one", 1, name="a")
    bed.launch("two", 2, name="b")
    bed.actions()
    bed.end_all()
    assert bed.actions() == [A.ASK_TO_STOP] * 2
    bed.end_all()
    assert bed.actions() == [A.KILL_TREE] * 2
    bed.end(1, Signaled(9))
    assert bed.hears("one") == "exited 1 server-stopped: was killed by signal 9 (KILL)"


def test_end_all_launches_no_more() -> None:
    """Who waits for a name, or comes, is refused; who returns to its run still sees its end."""
    bed = Bed()
    bed.connect("one", "two")
    bed.launch("one", 1)
    bed.launch("two", 2)
    bed.lose("one")
    bed.end_all()
    assert bed.hears("two") == "refused stopped: web was not launched: the server is being stopped"
    bed.connect("three", "again")
    assert bed.launch("three", 3, name="db") == "refused stopped: the server is being stopped"
    assert bed.launch("again", 1) == "launched 1 attached"
    bed.end(1)
    assert bed.started == [1]


def test_leaving_touches_nothing() -> None:
    """A server that makes room for the next hangs up on all: no newcomer gets a name for that, nobody is an orphan."""
    bed = Bed()
    bed.connect("one", "two")
    bed.launch("one", 1)
    bed.launch("two", 2)
    before = list(bed.files[1])
    bed.actions()
    bed.roster.leave()
    bed.lose("one", "two")
    assert (bed.actions(), bed.started, bed.run(1).deadline) == ([], [1], None)
    assert bed.files[1] == before


def test_what_is_late_is_ignored() -> None:
    """An event of a run that is gone, a beat, a stop or a word on a link without a run do nothing."""
    bed = bed_that()
    bed.happen(9, E.READY, E.UNHEALTHY)
    bed.roster.beat(run_id(9), 1.0)
    assert (bed.answer("one"), bed.stop("one"), bed.detach("one")) == ("", "done", "done")
    assert (bed.done, bed.files) == ([], {})
