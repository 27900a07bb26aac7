"""What is lost: hosts, the network, the guest itself. An application that cannot be seen is not taken for dead."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from testbed.watch import LIMIT
from tests.cluster.stories import LINK_TIMEOUT

if TYPE_CHECKING:
    from tests.cluster.stories import Story

WAITS = 12.0  # seconds: longer than a manager looks for its guest, shorter than an application goes on without one


def test_a_host_crashes(story: Story) -> None:
    """The others notice, have it fenced, and start the package on the next host."""
    story.begin(db={}, web={})
    crashed = time.monotonic()
    story.cluster.crash("n1")
    story.until_on("n2")
    story.time("host crashed, until db runs elsewhere", crashed, story.book("db")[-1].started)
    assert [len(story.book(service)) for service in ("db", "web")] == [2, 2]


def test_a_host_is_cut_off(story: Story) -> None:
    """Its guest goes on until the host is fenced, and is started elsewhere only after that."""
    story.begin(db={}, web={})
    cut = time.monotonic()
    story.cluster.cut("n1")
    story.until_on("n2")
    story.time("host cut off, until db runs elsewhere", cut, story.book("db")[-1].started)
    assert [node.alive for node in story.cluster.nodes.values()] == [False, True, True]
    assert [len(story.book(service)) for service in ("db", "web")] == [2, 2]


def test_the_link_is_cut_for_less_than_the_timeout(story: Story) -> None:
    """The manager comes back to the same run; nothing has failed, and the log says that the link was lost."""
    story.begin(db={}, web={})
    pids = [story.pid("db"), story.pid("web")]
    story.guest.cut()
    story.cluster.until(lambda: story.said(r"db on .*: .*lost the link", "n1"), "the loss of the link")
    story.guest.heal()
    healed = time.monotonic()
    story.cluster.until(lambda: story.said(r"db on .*: back after", "n1"), "the manager's return")
    story.time("link cut and mended within the timeout, until its manager is back", healed)
    story.until_on("n1")
    assert [story.pid("db"), story.pid("web")] == pids
    assert sum(map(story.cluster.fail_count, story.resources)) == 0


def test_the_link_is_cut_for_longer_and_the_guest_is_to_blame(story: Story) -> None:
    """With on_unreachable = guest, which is the default, the guest is recovered, and all that is in it."""
    story.begin(db={}, web={})
    cut = time.monotonic()
    story.guest.cut()
    story.cluster.until(lambda: len(story.book("db")) > 1, "another life of db")
    story.guest.heal()
    story.cluster.until(lambda: story.cluster.where(story.resource("db")), "db")
    story.time(
        f"link cut for good ({LINK_TIMEOUT:g} s timeout), until db runs again", cut, story.book("db")[-1].started
    )
    assert story.cluster.fail_count(story.machine) > 0


def test_the_link_is_cut_for_longer_and_one_waits(story: Story) -> None:
    """With on_unreachable = wait the application goes on unseen, and is the same one when the link is back."""
    story.begin(db={"on_unreachable": "wait"})
    pid = story.pid("db")
    story.guest.cut()
    time.sleep(WAITS)
    assert story.pid("db") == pid
    story.guest.heal()
    healed = time.monotonic()
    story.cluster.until(lambda: story.said(r"db on .*: found running", "n1"), "a manager that has come back")
    story.time("link cut for good and mended, on_unreachable = wait, until its manager is back", healed)
    story.until_on("n1")
    assert story.pid("db") == pid
    assert sum(map(story.cluster.fail_count, story.resources)) == 0


def test_a_host_fails_while_one_waits(story: Story) -> None:
    """A manager that waits for its guest keeps nobody from failing over when its own host is lost."""
    story.begin(db={"on_unreachable": "wait"})
    story.guest.cut()
    story.cluster.until(lambda: story.said(r"db on .*: .*lost the link", "n1"), "the loss of the link")
    crashed = time.monotonic()
    story.cluster.crash("n1")
    story.until_on("n2")
    story.time("host crashed while its manager waited, until db runs elsewhere", crashed, story.book("db")[-1].started)


def test_the_guest_hangs(story: Story) -> None:
    """A guest that answers nothing, though its hypervisor says that it runs, is recovered."""
    story.begin(db={})
    hung = time.monotonic()
    story.cluster.hypervisor.pause(story.name, told=False)
    story.cluster.until(lambda: len(story.book("db")) > 1, "another life of db", limit=2 * LIMIT)
    story.time("guest hung, until db runs again", hung, story.book("db")[-1].started)
    story.cluster.until(lambda: all(map(story.cluster.where, story.resources)), "all of it")


def test_the_guest_is_paused(story: Story) -> None:
    """A guest that its hypervisor says is paused is waited for, longer than for a lost link; nothing has failed."""
    story.begin(db={}, web={})
    pids = [story.pid("db"), story.pid("web")]
    story.cluster.hypervisor.pause(story.name)
    time.sleep(LINK_TIMEOUT + 4)
    story.cluster.hypervisor.resume(story.name)
    story.until_on("n1")
    story.cluster.until(lambda: story.said(r"db on .*paused", "n1"), "what the hypervisor says in the log")
    assert [story.pid("db"), story.pid("web")] == pids
    assert sum(map(story.cluster.fail_count, story.resources)) == 0
