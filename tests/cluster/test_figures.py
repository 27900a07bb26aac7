"""The story that the original's manual tells in three figures: an application fails, fails once too often, and moves.

Two applications in one guest, each a service of the guest's package on a real cluster. The guest is a container with a
real systemd; the same story with a real machine is in test_qemu_story.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.cluster.stories import Story


def test_an_application_that_fails_is_restarted_where_it_is(story: Story) -> None:
    """Its sibling does not notice: the same process in the same boot of the guest, and no failure counted of it."""
    story.begin(db={"service_restart": 3}, web={"service_restart": 3})
    db, web = story.pid("db"), story.pid("web")
    killed = story.kill("db")
    story.until_alive("db", after=db)
    story.time("application killed, until it runs again", killed, story.book("db")[-1].started)
    story.until_on("n1")
    assert story.pid("web") == web
    assert story.boots() == 1
    assert story.cluster.fail_count(story.resource("db")) > 0
    assert story.cluster.fail_count(story.resource("web")) == 0
    assert story.cluster.fail_count(story.machine) == 0
    assert story.said("db on .*: was killed by signal 9", "n1")
    # To a cluster a service that has ended has failed, whatever its code.
    db, ended = story.pid("db"), story.order("db", "exit 0")
    story.until_alive("db", after=db)
    story.time("application ended with code 0, until it runs again", ended, story.book("db")[-1].started)
    story.until_on("n1")
    assert story.said("db on .*: exited with code 0", "n1")
    assert story.pid("web") == web


def test_one_that_fails_too_often_takes_the_guest_to_another_host(story: Story) -> None:
    """Past its threshold it is not restarted here: the guest stops, starts on the next host, and both run there."""
    story.begin(db={"service_restart": 2}, web={"service_restart": 2})
    for _ in range(2):
        before = story.pid("db")
        story.kill("db")
        story.until_alive("db", after=before)
        story.until_on("n1")
    killed = story.kill("db")
    story.until_on("n2")
    for service in ("db", "web"):
        story.time(f"threshold reached, until {service} runs elsewhere", killed, story.book(service)[-1].started)
    assert story.boots() == 2
    assert [len(story.book(service)) for service in ("db", "web")] == [4, 2]
