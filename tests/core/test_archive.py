"""The receipts that are kept: how many, for how long, for whom, and which has to go."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from cmapp.core.archive import EXPIRED_AT_ONCE, Archive
from cmapp.core.lifecycle import Event
from cmapp.core.outcome import Exited, Reason, Receipt
from tests.core.roster_bed import Bed, bed_that, run_id

E = Event
HOST = "host1"


def receipt(number: int) -> Receipt:
    """Return the receipt of that run."""
    run_id = f"01234567-89ab-cdef-0123-{number:012d}"
    return Receipt("web", run_id, Exited(number % 256), Reason.ITSELF, started=0, ended=0, lasted=0)


def archive_of(*numbers: int, limit: int = 10, retention: float = 100.0) -> Archive:
    """Return an archive that keeps the receipts of these runs."""
    archive = Archive(limit, retention)
    for number in numbers:
        archive.keep(HOST, receipt(number), 42)
    return archive


def kept(archive: Archive, upto: int = 20) -> list[int]:
    """Return the runs whose receipts are kept."""
    return [number for number in range(upto) if archive.find(receipt(number).run_id)]


def test_keeps_what_it_was_given() -> None:
    """A receipt is found by its run id, with its manager and its process, and no other is."""
    archive = archive_of(1)
    found = archive.find(receipt(1).run_id)
    assert found is not None
    assert (found.manager, found.receipt, found.pid, found.acknowledged) == (HOST, receipt(1), 42, None)
    assert archive.find(receipt(2).run_id) is None
    assert len(archive) == 1


@pytest.mark.parametrize(
    ("manager", "number", "taken"), [(HOST, 1, True), ("host2", 1, False), (HOST, 2, False)], ids=repr
)
def test_acknowledgement_is_taken_from_its_manager(manager: str, number: int, *, taken: bool) -> None:
    """Only the manager that it is for can acknowledge it, once."""
    archive = archive_of(1)
    assert archive.acknowledge(manager, receipt(number).run_id, 5.0) is taken
    assert archive.acknowledged(receipt(1).run_id) is taken
    assert archive.acknowledge(manager, receipt(number).run_id, 6.0) is False
    assert len(archive) == 1 - taken


def test_receipt_is_given_to_who_was_told() -> None:
    """A manager that returns in another's name may acknowledge what it was told, and the first no longer."""
    archive = archive_of(1)
    archive.give(receipt(1).run_id, "host2")
    assert not archive.acknowledge(HOST, receipt(1).run_id, 5.0)
    assert archive.acknowledge("host2", receipt(1).run_id, 5.0)


@pytest.mark.parametrize(("passed", "gone"), [(0.0, False), (99.9, False), (100.0, True), (1e9, True)])
def test_retention_begins_with_the_acknowledgement(passed: float, *, gone: bool) -> None:
    """What was acknowledged is kept for a while, and no longer."""
    archive = archive_of(1)
    archive.acknowledge(HOST, receipt(1).run_id, 1000.0)
    assert archive.expire(1000.0 + passed, ()) == ([receipt(1).run_id] if gone else [])
    assert kept(archive) == ([] if gone else [1])


@pytest.mark.parametrize("back", [0.1, 99.0, 1e9])
def test_clock_that_is_set_back_counts_from_there(back: float) -> None:
    """A receipt is neither dropped at once nor kept for years because the wall's clock was set back."""
    archive = archive_of(1)
    archive.acknowledge(HOST, receipt(1).run_id, 1e9)
    now = 1e9 - back
    assert [archive.expire(at, ()) for at in (now, now + 99.9)] == [[], []]
    assert archive.expire(now + 100.0, ()) == [receipt(1).run_id]


def test_needed_receipts_do_not_expire() -> None:
    """A receipt whose run is still being cleared up stays, and holds up none behind it."""
    archive = archive_of(1, 2)
    for number in (1, 2):
        archive.acknowledge(HOST, receipt(number).run_id, 0.0)
    assert archive.expire(1000.0, {receipt(1).run_id}) == [receipt(2).run_id]
    assert archive.expire(1000.0, ()) == [receipt(1).run_id]


def test_without_an_acknowledgement_nothing_expires() -> None:
    """However old it is, what nobody has recorded is kept."""
    archive = archive_of(1, 2)
    assert archive.expire(1e12, ()) == []
    assert kept(archive) == [1, 2]


def test_expires_a_few_at_a_time() -> None:
    """Ten thousand that are due on one morning are removed from the disk bit by bit."""
    archive = archive_of(*range(250), limit=1000)
    for number in range(250):
        archive.acknowledge(HOST, receipt(number).run_id, 0.0)
    assert [len(archive.expire(1000.0, ())) for _ in range(4)] == [EXPIRED_AT_ONCE, EXPIRED_AT_ONCE, 50, 0]


@pytest.mark.parametrize(
    ("acknowledged", "goes"), [([], 1), ([2], 2), ([3, 2], 3), ([1], 1)], ids=["none", "one", "two", "the first"]
)
def test_which_has_to_go(acknowledged: list[int], goes: int) -> None:
    """The one that was acknowledged first gives way; if none was, the oldest, and who is told that can tell."""
    archive = archive_of(1, 2, 3, limit=3)
    for number in acknowledged:
        archive.acknowledge(HOST, receipt(number).run_id, 10.0 + number)
    dropped = archive.keep(HOST, receipt(4), 42)
    assert dropped is not None
    assert dropped.receipt == receipt(goes)
    assert dropped.acknowledged == (10.0 + goes if goes in acknowledged else None)
    assert kept(archive) == sorted({1, 2, 3, 4} - {goes})


def test_kept_again_is_kept_once() -> None:
    """A receipt that is loaded and made again takes one place."""
    archive = archive_of(1, 1, 2, limit=2)
    assert kept(archive) == [1, 2]


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_loaded_as_acknowledged(acknowledged: float, now: float) -> None:
    """What an earlier server saw acknowledged expires as if this one had."""
    archive = Archive(10, 100.0)
    archive.keep(HOST, receipt(1), 42, acknowledged)
    assert len(archive) == 0
    assert bool(archive.expire(now, ())) == (now - acknowledged >= 100.0)


class Archivist(RuleBasedStateMachine):
    """Receipts that come and are acknowledged in any order."""

    def __init__(self) -> None:
        """Begin with nothing, and little room."""
        super().__init__()
        self.archive = Archive(4, 100.0)
        self.now = 0.0
        self.there: dict[int, float | None] = {}  # what is kept, and since when it is acknowledged
        self.number = 0

    @rule()
    def keep(self) -> None:
        """Another run ends; if one has to go, it is one that was acknowledged, if any was."""
        self.number += 1
        dropped = self.archive.keep(HOST, receipt(self.number), 42)
        self.there[self.number] = None
        assert (dropped is not None) == (len(self.there) > 4)
        if dropped is not None:
            since = self.there.pop(int(dropped.receipt.run_id[-12:]))
            assert dropped.acknowledged == since
            assert since is not None or set(self.there.values()) == {None}

    @rule(back=st.integers(0, 5))
    def acknowledge(self, back: int) -> None:
        """A manager acknowledges one of the last runs, perhaps again, perhaps one that is gone."""
        number = self.number - back
        new = number in self.there and self.there[number] is None
        assert self.archive.acknowledge(HOST, receipt(number).run_id, self.now) == new if number >= 0 else True
        if new:
            self.there[number] = self.now

    @rule(seconds=st.sampled_from([1.0, 60.0, 200.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        due = {number for number, since in self.there.items() if since is not None and self.now - since >= 100.0}
        assert set(self.archive.expire(self.now, ())) == {receipt(number).run_id for number in due}
        self.there = {number: since for number, since in self.there.items() if number not in due}

    @invariant()
    def keeps_what_it_should(self) -> None:
        """No receipt is there that should not be, and none is missing."""
        assert kept(self.archive, self.number + 1) == sorted(self.there)
        assert len(self.archive) == list(self.there.values()).count(None)


TestArchivist: Any = Archivist.TestCase
TestArchivist.settings = settings(max_examples=100, stateful_step_count=30)


# ---- in the roster -----------------------------------------------------------------------------------------


def test_receipt_is_kept_until_it_is_acknowledged_and_for_a_while() -> None:
    """Nothing is forgotten before a manager has recorded it, and then not at once."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.end(1)
    assert bed.hears("one") == "exited 1 itself: exited with code 0"
    bed.wait(1e6)
    assert (1 in bed.files, 1 in bed.settled) == (True, True)
    assert bed.acknowledge("one", 1) == "done"
    bed.wait(99.0)
    assert 1 in bed.files
    bed.wait(1.0)
    assert 1 not in bed.files


def test_file_stays_while_anything_of_the_run_does() -> None:
    """A run whose tree cannot be killed keeps its file, by which the next server knows it, however long that takes."""
    bed = bed_that()
    bed.launch("one", 1)
    bed.happen(1, E.LEADER_ENDED, outcome=Exited(0))
    bed.hears("one")
    bed.acknowledge("one", 1)
    bed.now = 1e6
    bed.tick()
    assert 1 in bed.files
    bed.happen(1, E.TREE_EMPTY)
    bed.tick()
    assert 1 not in bed.files


def test_acknowledgement_is_its_own_managers_to_give() -> None:
    """Another manager's word for it counts only once that was told the receipt; any is answered by `done`."""
    bed = bed_that()
    bed.connect("two", manager="host2")
    bed.launch("one", 1)
    bed.end(1)
    assert bed.acknowledge("two", 1) == "done"
    assert bed.acknowledge("two", 2) == "done"
    assert bed.output_dropped == []
    assert not bed.roster.archive.acknowledged(run_id(1))
    bed.launch("two", 1, resume=True)
    assert [bed.acknowledge("two", 1), bed.acknowledge("two", 1)] == ["done", "done"]
    assert bed.output_dropped == [1]
    assert bed.roster.archive.acknowledged(run_id(1))


@pytest.mark.parametrize("acknowledged", [False, True])
def test_receipt_that_has_to_go_is_told_of(*, acknowledged: bool) -> None:
    """When too many are kept, one goes; it is an error only if nobody has recorded it."""
    bed = Bed(receipts=1)
    bed.connect("one")
    for number in (1, 2):
        bed.launch("one", number)
        bed.end(number)
        if acknowledged:
            bed.acknowledge("one", number)
    assert list(bed.files) == [2]
    text = f"1 receipts are kept, which is the limit: that of run {run_id(1)} is dropped"
    assert (("error", text) in bed.logged) is not acknowledged
