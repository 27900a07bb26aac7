"""What is done on purpose: upgrades, maintenance, migration; and what happens to our own processes meanwhile."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING

from chaos.guests import UNIT, send
from tests.cluster.stories import UNIT as UNIT_FILE
from tests.cluster.stories import wheel

if TYPE_CHECKING:
    from tests.cluster.stories import Story

SETTLED = 3.0  # seconds in which what follows from an event has been done; nothing is to follow
DATABASE = "postgresql@15-main.service"


def test_a_manager_is_killed(story: Story) -> None:
    """Another takes its place, and the application does not notice."""
    story.begin(db={}, web={})
    pid, run = story.pid("db"), story.run_id("db", "n1")
    managers = story.managers("db", "n1")
    assert len(managers) == 1
    killed = time.monotonic()
    story.cluster.run("n1", "kill", "-KILL", str(managers[0]))
    story.cluster.until(lambda: set(story.managers("db", "n1")) - set(managers), "another manager")
    story.time("manager killed, until there is another", killed)
    story.cluster.until(lambda: story.said(r"db on .*: found running", "n1"), "its return to the run")
    story.until_on("n1")
    assert (story.pid("db"), story.run_id("db", "n1")) == (pid, run)
    assert sum(map(story.cluster.fail_count, story.resources)) == 0


def test_the_server_is_upgraded_and_killed_under_the_clusters_eyes(story: Story) -> None:
    """Neither an upgrade nor a crash of cmappserver makes anything fail, and an end is told after both."""
    story.begin(db={"service_restart": 3}, web={})
    pids = [story.pid("db"), story.pid("web")]
    first = story.guest.server()
    assert first is not None
    story.guest.upgrade(wheel(), UNIT_FILE)
    begun = time.monotonic()
    assert story.guest.call("systemctl", "restart", UNIT).returncode == 0
    story.cluster.until(lambda: story.guest.server() not in (None, first), "the next server")
    story.time("server upgraded, until the next one runs", begun)
    second = story.guest.server()
    assert second is not None
    time.sleep(SETTLED)
    assert send(second, signal.SIGKILL, "/cmappserver")
    story.cluster.until(lambda: story.guest.server() not in (None, second), "a server again")
    time.sleep(SETTLED)
    story.until_on("n1")
    assert [story.pid("db"), story.pid("web")] == pids
    assert sum(map(story.cluster.fail_count, story.resources)) == 0
    killed = story.kill("db")
    story.until_alive("db", after=pids[0])
    story.time("application killed after that, until it runs again", killed, story.book("db")[-1].started)
    assert story.pid("web") == pids[1]


def test_maintenance(story: Story) -> None:
    """While the package is held nothing that happens to its applications has consequences; afterwards it has."""
    story.begin(db={"service_restart": 3}, web={})
    web = story.pid("web")
    story.cmapp("package", "hold", story.file)
    story.kill("db")
    time.sleep(SETTLED)
    assert len(story.book("db")) == 1
    resumed = time.monotonic()
    story.cmapp("package", "resume", story.file)
    story.cluster.until(lambda: len(story.book("db")) == 2, "another life of db")
    story.time("maintenance ended, until db that had ended runs again", resumed, story.book("db")[-1].started)
    story.until_on("n1")
    assert story.pid("web") == web


def test_live_migration(story: Story) -> None:
    """The applications keep their processes and runs, no exit is told, and a kill later is told on the new host."""
    story.begin(db={"service_restart": 3}, web={})
    pids = [story.pid("db"), story.pid("web")]
    runs = [story.run_id("db", "n1"), story.run_id("web", "n1")]
    begun = time.monotonic()
    story.cluster.run("n1", "crm_resource", "--move", "-r", story.machine, "-H", "n2")
    story.until_on("n2")
    story.time("live migration of the guest, until both are watched from the new host", begun)
    assert story.host == "n2"
    assert [story.pid("db"), story.pid("web")] == pids
    assert [story.run_id("db", "n2"), story.run_id("web", "n2")] == runs
    assert sum(map(story.cluster.fail_count, story.resources)) == 0
    assert not story.said("ERROR|WARNING|killed|exited", "n1")
    time.sleep(1)
    killed = story.kill("db")
    story.until_alive("db", after=pids[0])
    story.time("application killed a second after, until it runs again", killed, story.book("db")[-1].started)
    story.cluster.until(
        lambda: story.said("db on .*: was killed by signal 9", "n2"), "the line of its end on the new host"
    )
    assert not story.said("killed by signal", "n1")
    assert story.pid("web") == pids[1]
    assert story.host == "n2"


def test_a_database_as_a_unit(story: Story) -> None:
    """Debian's PostgreSQL is run by its unit, restarted when it dies, and moves with the guest if it dies again."""
    story.begin(db={"unit": DATABASE, "service_restart": 1}, web={})
    web = story.pid("web")
    assert story.asked("SELECT 6 * 7") == "42"
    begun = time.monotonic()
    first = story.unit_pid(DATABASE)
    story.kill_unit(DATABASE)
    story.cluster.until(lambda: story.unit_pid(DATABASE) not in ("0", "", first), "another PostgreSQL")
    story.cluster.until(lambda: story.asked("SELECT 6 * 7") == "42", "an answer")
    story.time("PostgreSQL killed, until it answers again", begun)
    story.until_on("n1")
    assert story.pid("web") == web
    begun = time.monotonic()
    story.kill_unit(DATABASE)
    story.until_on("n2")
    story.cluster.until(lambda: story.asked("SELECT 6 * 7") == "42", "an answer")
    story.time("PostgreSQL killed past the threshold, until it answers elsewhere", begun)
    assert len(story.book("web")) == 2
