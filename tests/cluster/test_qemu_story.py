"""The story of the original's three figures, on real machines: two applications in a guest, and what befalls them.

One package with a QEMU machine, a web application and Debian's PostgreSQL, two nodes with a libvirtd each, and one
story told in order: every test begins where the one before it has left the package. It proves what it says for one
kernel under all nodes, one page cache under all disks, and processors that are emulated: nothing about durability, and
no time of it is one that real hosts would have. The same story on containers, in seconds, is in test_figures.py.
"""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING

import pytest

from tests.cluster.figures import BOOT_LIMIT, KILLED, MISSING, MOVE_LIMIT, NAME, SOON, figures_in
from tests.system.commands import check_for_defects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.figures import Figures

    Note = Callable[[str, float], None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),  # seconds for one test; the first one makes Debian's disk if it is not in the cache
    pytest.mark.skipif(bool(MISSING), reason=MISSING or "nothing is missing"),
]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Figures]:
    """Two nodes, the machine, and the package's file; nothing runs yet."""
    with figures_in(tmp_path_factory.mktemp("figures")) as made:
        yield made


@pytest.fixture
def note(figures: Figures, request: pytest.FixtureRequest) -> Note:
    """Note how long something took, for the table and the log."""
    request.node.user_properties.append(("log", str(figures.log)))
    figures.diary.note(f"**** {request.node.name}")

    def noted(what: str, took: float) -> None:
        request.node.user_properties.append(("time", (what, round(took, 3))))
        figures.diary.note(f"**** {what}: {took:.3f} s")

    return noted


def test_the_package_launches_both(figures: Figures, note: Note) -> None:
    """`cmapp package apply` starts the machine, and then in it the command and the unit, each by its own manager."""
    begun = time.monotonic()
    assert "erp-db" in figures.apply()
    figures.until_on("n1", BOOT_LIMIT)
    note("package loaded, until machine and applications run", time.monotonic() - begun)
    assert set(figures.runs()) == {"web", "db"}
    figures.query("create table orders (item text); insert into orders values ('one')")


@pytest.mark.parametrize(("name", "sibling"), [("db", "web"), ("web", "db")])
def test_one_is_restarted_on_the_spot(figures: Figures, note: Note, name: str, sibling: str) -> None:
    """Figure 2: one application is killed, told and launched anew on the spot; its sibling is untouched."""
    before = figures.runs()
    client = figures.client()
    killed = figures.kill(name)
    told = figures.until_said(killed, KILLED)
    assert f" {name} on erp: " in told.text
    again = figures.until_said(told.at, "launched as pid")
    figures.until_on("n1", SOON)
    if name == "web":
        killed = client.end()["closed"]  # nearer to its end than when somebody in the machine was asked to kill it
        note("web killed, until its manager said so", told.at - killed)
    else:
        assert client.leave()
        assert figures.query("select item from orders") == "one\n"
    note(f"{name} killed, until it was launched again", again.at - killed)
    after = figures.runs()
    assert after[sibling] == before[sibling]
    assert after[name].boot == before[name].boot
    assert after[name].run_id != before[name].run_id
    assert figures.host == "n1"


def test_past_the_threshold_the_guest_fails_over(figures: Figures, note: Note) -> None:
    """Figure 3: it fails once more than it may be restarted; the machine stops here and starts there, with both."""
    before = figures.runs()
    begun = figures.kill("web")
    figures.until(lambda: figures.host != "n1", "the end of the machine on n1", MOVE_LIMIT)
    note("web killed once more, until the machine was down", time.monotonic() - begun)
    figures.until_on("n2", MOVE_LIMIT)
    note("web killed once more, until both ran on the other host", time.monotonic() - begun)
    after = figures.runs()
    assert figures.host == "n2"
    for name in ("web", "db"):
        assert after[name].boot != before[name].boot
        assert after[name].run_id != before[name].run_id


def test_a_live_migration_is_no_end(figures: Figures, note: Note) -> None:
    """Both applications keep process and run, no log tells of an end, and a kill one second later is told there."""
    figures.on("n2", "crm_resource", "--cleanup", "--resource", f"{NAME}-web")  # the administrator has seen to it
    moved = figures.migrate("n2", "n1")
    note("live migration asked for, until machine and managers were there", moved.took)
    note("longest silence of a client's connection that stayed", moved.silence)
    note("web killed a second after the migration, until the new host's manager said so", moved.told)


def test_a_host_crashes(figures: Figures, note: Note) -> None:
    """A host loses its power: it is fenced, and the machine and both applications run on the other one."""
    before = figures.runs()
    begun = time.monotonic()
    figures.cluster.crash("n1")
    figures.until_on("n2", MOVE_LIMIT)
    note("host crashed, until machine and applications ran on the other", time.monotonic() - begun)
    after = figures.runs()
    assert figures.host == "n2"
    assert "n1" in figures.on("n2", "stonith_admin", "--history", "n1")
    for name in ("web", "db"):
        assert after[name].boot != before[name].boot
        assert after[name].run_id != before[name].run_id
    assert figures.query("select item from orders") == "one\n"
    # By its own book: on the first host twice, on the other one twice, with the same boot before and after the
    # migration, and once after the crash.
    assert [len(list(starts)) for _, starts in groupby(figures.starts())] == [2, 2, 1]
    check_for_defects(figures.diary.written())
