"""The judge of `./run chaos`: each kind of broken promise is found in a story that was made up, and nothing else is."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import pytest

from chaos.checker import judge
from chaos.evidence import read_book, read_receipt
from chaos.story import Fault, Instance, Manager, Receipt, Server, Story, Told

WALL = 1000.0  # a wall-clock time is that much more than the monotonic one
RUN, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"

LIVED = Instance(
    guest="vm1",
    name="web",
    instance="a-1",
    run_id=RUN,
    boot_id="b1",
    started=100.0,
    wall_offset=WALL,
    beats=((101.0, "main"), (104.9, "helper"), (105.0, "main")),
    end=("exit", 7),
    ended=105.0,
)
EXITED = Told("exited", 7, "itself", forced=False, ended=WALL + 105.0, heard=WALL + 105.1)
SAID = "exited with code 7"
WATCHED = Manager(
    number=0,
    guest="vm1",
    name="web",
    run_id=RUN,
    began=99.0,
    ended=105.1,
    code=7,
    cause="exited",
    told=EXITED,
    exit_code=7,
    launched=True,
    last_line=f"web on vm1: {SAID}",
    text=SAID,
    told_run=RUN,
)
KEPT = Receipt("vm1", RUN, replace(EXITED, heard=None))
SERVED = Server("vm1", 90.0)
GOOD = Story((LIVED,), (WATCHED,), (KEPT,), (SERVED,), calm=200.0)
CRASH = Fault("crash", "vm1", 105.0, 106.0)
KILLED_SERVER = (Server("vm1", 90.0, 104.0), Server("vm1", 106.0))
SERVER_KILL = Fault("server-kill", "vm1", 104.0, 104.0)
NEXT = replace(LIVED, instance="a-2", run_id=OTHER, started=110.0, beats=((111.0, "main"),), ended=111.0)
NEXT_KEPT = Receipt("vm1", OTHER, replace(KEPT.told or EXITED, ended=WALL + 111.0))


def manager(**changes: object) -> Manager:
    """The manager of the good story, but for what is changed."""
    return replace(WATCHED, **changes)  # type: ignore[arg-type]


def ended_with(code: int, cause: str, **changes: object) -> Manager:
    """A manager that has no outcome to tell."""
    return manager(code=code, exit_code=code, cause=cause, told=None, **changes)


def story(**changes: object) -> Story:
    """The good story, but for what is changed."""
    return replace(GOOD, **changes)  # type: ignore[arg-type]


FORCED = replace(EXITED, way="signaled", number=9, reason="asked", forced=True)
UNKNOWN = replace(EXITED, way="unknown", number=-1)
DIED = replace(LIVED, end=None, ended=None)

GOOD_STORIES = {
    "an exit by itself": GOOD,
    "nothing at all": Story(),
    "two runs one after the other": story(instances=(LIVED, NEXT), receipts=(KEPT, NEXT_KEPT)),
    "a helper that lingers a moment": story(instances=(replace(LIVED, beats=((106.0, "helper"),)),)),
    "two runs at once in different boots": story(
        instances=(LIVED, replace(NEXT, started=104.0, boot_id="b2")), receipts=(KEPT, NEXT_KEPT)
    ),
    "SIGKILL after a stop that was not heeded": story(
        instances=(DIED,),
        managers=(manager(told=FORCED, code=137, exit_code=137),),
        receipts=(Receipt("vm1", RUN, FORCED),),
    ),
    "SIGKILL between the last line and the exit": story(
        managers=(manager(told=FORCED, code=137, exit_code=137),), receipts=(Receipt("vm1", RUN, FORCED),)
    ),
    "killed by us": story(
        instances=(DIED,),
        managers=(manager(told=replace(FORCED, reason="itself", forced=False), code=137, exit_code=137),),
        receipts=(),
        faults=(Fault("app-kill", "vm1", 105.0, 105.0, RUN, 9),),
    ),
    "unknown because the server was down": story(
        instances=(DIED,),
        managers=(manager(told=UNKNOWN, code=121, exit_code=121),),
        receipts=(),
        servers=KILLED_SERVER,
        faults=(SERVER_KILL,),
    ),
    "unknown because of a loss of power": story(
        instances=(DIED,),
        managers=(manager(told=UNKNOWN, code=121, exit_code=121),),
        receipts=(),
        faults=(CRASH,),
    ),
    "a manager killed by us, and a receipt": story(
        managers=(manager(code=-9, told=None, exit_code=None, signals=((103.0, 9),)),)
    ),
    "unreachable behind a cut": story(
        managers=(ended_with(123, "unreachable"),), faults=(Fault("cut", "vm1", 100.0, 104.0),)
    ),
    "refused beside another manager of its name": story(
        managers=(WATCHED, ended_with(122, "refused", number=1, refusal="name-taken", began=100.0, told_run=""))
    ),
    "refused on a full disk": story(
        managers=(WATCHED, ended_with(122, "refused", number=1, refusal="resources", began=110.0, ended=111.0)),
        faults=(Fault("disk-full", "vm1", 109.0, 112.0),),
    ),
    "left on purpose": story(managers=(ended_with(0, "detached", signals=((103.0, 10),)),)),
    "stopped before it was launched": story(
        managers=(ended_with(125, "failed", signals=((99.5, 15),), launched=False),)
    ),
    "told late because of a freeze": story(
        managers=(manager(ended=112.0),), faults=(Fault("freeze", "vm1", 104.0, 111.0),)
    ),
}

BAD_STORIES = {
    "two instances at once": ("overlap", story(instances=(LIVED, replace(NEXT, started=104.0)))),
    "a helper beside the next instance": (
        "overlap",
        story(instances=(replace(LIVED, beats=((110.5, "helper"),)), NEXT), receipts=(KEPT, NEXT_KEPT)),
    ),
    "one run started twice": ("twice", story(instances=(LIVED, replace(NEXT, run_id=RUN)))),
    "one run started again after a reboot": (
        "twice",
        story(instances=(LIVED, replace(NEXT, run_id=RUN, boot_id="b2"))),
    ),
    "another code in the result": (
        "altered",
        story(managers=(manager(told=replace(EXITED, number=8), exit_code=8, code=8),)),
    ),
    "a signal for an exit": (
        "altered",
        story(managers=(manager(told=replace(EXITED, way="signaled", number=9), exit_code=137, code=137),)),
    ),
    "a death by itself that was none": (
        "altered",
        story(
            instances=(DIED,),
            managers=(manager(told=replace(FORCED, forced=False, reason="itself"), exit_code=137, code=137),),
        ),
    ),
    "another exit code than the result's": ("altered", story(managers=(manager(code=8),))),
    "a result that is not what its cause means": ("altered", story(managers=(manager(code=0, exit_code=0),))),
    "a log that says something else": ("altered", story(managers=(manager(last_line="exited with code 8"),))),
    "a result of another run": (
        "altered",
        story(managers=(manager(told_run=OTHER),), instances=(LIVED, replace(NEXT, end=("exit", 7)))),
    ),
    "a receipt with another code": ("altered", story(receipts=(Receipt("vm1", RUN, replace(EXITED, number=8)),))),
    "two outcomes of one run": ("doubled", story(receipts=(Receipt("vm1", RUN, replace(EXITED, number=8)),))),
    "a damaged receipt": ("damaged", story(receipts=(replace(KEPT, damage="line 3: its checksum is wrong"),))),
    "an outcome without a book": ("invented", story(instances=())),
    "an unknown outcome that the server has seen": (
        "lost",
        story(managers=(manager(told=UNKNOWN, code=121, exit_code=121),)),
    ),
    "an unknown outcome after a crash of another guest": (
        "lost",
        story(
            managers=(manager(told=UNKNOWN, code=121, exit_code=121),),
            faults=(replace(CRASH, guest="vm2"),),
            receipts=(),
        ),
    ),
    "a run of which nobody knows": (
        "lost",
        story(managers=(manager(code=-9, told=None, exit_code=None, signals=((103.0, 9),)),), receipts=()),
    ),
    "a run whose receipt tells of no end": (
        "lost",
        story(
            managers=(manager(code=-9, told=None, exit_code=None, signals=((103.0, 9),)),),
            receipts=(Receipt("vm1", RUN),),
        ),
    ),
    "no result": ("lost", story(managers=(manager(told=None, exit_code=None),))),
    "a process alive after its stop was told": (
        "survivor",
        story(
            instances=(replace(LIVED, beats=((106.0, "helper"),)),),
            managers=(manager(told=replace(EXITED, reason="asked")),),
        ),
    ),
    "a helper alive long after an exit": (
        "survivor",
        story(instances=(replace(LIVED, beats=((130.0, "helper"),)),)),
    ),
    "a process alive at the end": ("survivor", story(calm=104.0)),
    "a manager that was killed by somebody": ("death", story(managers=(manager(code=-11),))),
    "a manager that died of another signal than ours": (
        "death",
        story(managers=(manager(code=-11, signals=((103.0, 9),)),)),
    ),
    "a server that ended by itself": ("death", story(servers=KILLED_SERVER)),
    "a server that ended twice of one fault": (
        "death",
        story(servers=(*KILLED_SERVER[:1], Server("vm1", 104.5, 105.0), Server("vm1", 106.0)), faults=(SERVER_KILL,)),
    ),
    "a manager with a defect": ("defect", story(managers=(manager(defect="internal error: KeyError"),))),
    "a server with a defect": ("defect", story(server_defects=(("vm1", "Traceback"),))),
    "a manager that did not end": ("stuck", story(managers=(manager(overdue=True, code=-9),))),
    "unreachable for no reason": ("unexplained", story(managers=(ended_with(123, "unreachable"),))),
    "unreachable long after a cut": (
        "unexplained",
        story(managers=(ended_with(123, "unreachable"),), faults=(Fault("cut", "vm1", 50.0, 51.0),)),
    ),
    "unreachable long after a cut, which it had survived": (
        "unexplained",
        story(managers=(ended_with(123, "unreachable", ended=160.0),), faults=(Fault("cut", "vm1", 101.0, 104.0),)),
    ),
    "refused for no reason": (
        "unexplained",
        story(managers=(WATCHED, ended_with(122, "refused", number=1, refusal="name-taken", began=120.0, ended=121.0))),
    ),
    "success without an outcome": ("unexplained", story(managers=(ended_with(0, "detached"),))),
    "a failure of its own": ("unexplained", story(managers=(ended_with(125, "failed"),))),
    "unhealthy, which nobody asked for": ("unexplained", story(managers=(ended_with(124, "unhealthy"),))),
    "told late for no reason": ("late", story(managers=(manager(ended=112.0),))),
}


@pytest.mark.parametrize("name", GOOD_STORIES)
def test_nothing_is_found_where_nothing_is_wrong(name: str) -> None:
    """What a fault explains, and what was in order, is no violation."""
    assert judge(GOOD_STORIES[name]).violations == []


@pytest.mark.parametrize("name", BAD_STORIES)
def test_a_planted_defect_is_found(name: str) -> None:
    """Each broken promise is found, and called by its name."""
    kind, told = BAD_STORIES[name]
    assert kind in {violation.kind for violation in judge(told).violations}


def test_a_book_is_read() -> None:
    """A book gives its instances, with the beats of all their processes; a line that was cut off gives nothing."""
    lines = [
        f"start a-1 100.5 1100.5 {RUN} b1 40",
        "beat a-1 100.6 1100.6 main",
        "beat a-1 100.7 1100.7 helper",
        "end a-1 100.8 1100.8 signal 11",
        "beat a-1 100.9 11",
    ]
    (instance,) = read_book("vm1", "web", "\n".join(lines))
    assert instance.run_id == RUN
    assert instance.beats == ((100.6, "main"), (100.7, "helper"))
    assert (instance.end, instance.ended, instance.last) == (("signal", 11), 100.8, 100.8)
    assert instance.wall_offset == pytest.approx(WALL)


def line(entry: dict[str, object]) -> bytes:
    """A line of a run's file."""
    text = json.dumps(entry).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


RECEIPT = {
    "name": "web",
    "run_id": RUN,
    "outcome": {"type": "exited", "code": 7},
    "reason": "itself",
    "started": 1.0,
    "ended": 2.0,
    "lasted": 1.0,
}


def test_a_receipt_is_read() -> None:
    """The line with the receipt counts, among others and the blanks that are reserved."""
    content = line({"format": 1}) + line({"receipt": RECEIPT}) + line({"acknowledged": 3.0}) + b" " * 4096
    assert read_receipt("vm1", RUN, content) == Receipt("vm1", RUN, Told("exited", 7, "itself", ended=2.0))


def test_a_run_that_has_not_ended_has_no_receipt() -> None:
    """The file of a run that lives tells of no outcome, and is not damaged."""
    assert read_receipt("vm1", RUN, line({"format": 1}) + b" " * 100) == Receipt("vm1", RUN)


def test_damage_of_a_receipt_is_seen() -> None:
    """A byte that was changed, a receipt of another run and one that lacks a part are not taken for receipts."""
    good = line({"receipt": RECEIPT})
    assert "checksum" in read_receipt("vm1", RUN, good.replace(b"7", b"8")).damage
    assert OTHER in read_receipt("vm1", RUN, line({"receipt": RECEIPT | {"run_id": OTHER}})).damage
    del RECEIPT["reason"]
    assert "reason" in read_receipt("vm1", RUN, line({"receipt": RECEIPT})).damage
