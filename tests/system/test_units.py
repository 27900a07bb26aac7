"""Units: applications that the guest's own systemd starts, watched from the host, in a guest with a real one."""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from typing import TYPE_CHECKING

import pytest

from chaos.grounds import what_is_missing
from tests.system.processes import until
from tests.system.unit_bed import DATABASE, LIMIT, POLICY, Bed, Run, guest_with_units

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(bool(what_is_missing()), reason=what_is_missing() or "nothing is missing")

NOTIFIED = 0.1  # seconds in which an end is told, on a machine that is busy with other tests; 0.01 where it is not


@pytest.fixture(scope="module")
def guest_bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A guest for all tests of this file."""
    with guest_with_units(tmp_path_factory.mktemp("units")) as made:
        yield made


@pytest.fixture
def bed(guest_bed: Bed) -> Iterator[Bed]:
    """The guest, in which nothing of a test before runs, and the server does."""
    yield guest_bed
    guest_bed.tidy()


# ---- what becomes of it ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "code", "told"),
    [
        ("absent", 127, "there is no unit absent.service"),
        ("masked", 126, "is masked"),
        ("badly-set", 126, "bad unit file setting"),
        ("conditional", 126, "a condition that is not met: ConditionPathExists=/nowhere,"),
        ("dependent", 126, "a unit that it requires could not be started"),
        ("prepared", 5, "exited with code 5"),
        ("nothing", 203, "203/EXEC is what systemd says"),
        ("seven", 7, "exited with code 7"),
        ("zero", 0, "exited with code 0"),
        ("crash", 139, "was killed by signal 11 (SEGV)"),
        ("watched", 134, "signal 6 (ABRT)"),
        ("watched", 134, "systemd did not hear its watchdog in time"),
        ("late", 143, "a time that its unit file sets ran out"),
    ],
)
def test_every_end_has_its_code_and_its_words(bed: Bed, unit: str, code: int, told: str) -> None:
    """A unit's end is told by the table that holds for any application, with what systemd says of it."""
    run = bed.run(unit)
    assert run.end() == code, run.told
    assert told in run.told


def test_a_stop_stops_the_unit(bed: Bed) -> None:
    """Asked to stop, the manager has systemd stop it, and the name is free for the next."""
    for _ in range(2):
        run = bed.launched("sleepy")
        assert bed.shell("systemctl is-active sleepy") == "active"
        assert run.end(stop=True) == 128 + signal.SIGTERM
        assert bed.shell("systemctl is-active sleepy") == "inactive"
    assert "somebody" not in run.told


def test_nothing_is_left_after_a_stop(bed: Bed) -> None:
    """What a unit with KillMode=process leaves behind is ended before the end is told."""
    run = bed.launched("leaving")
    until(lambda: bed.guest.processes("2000"), "what it leaves behind")
    assert run.end(stop=True) == 128 + signal.SIGTERM
    assert not bed.guest.processes("2000")


def test_nothing_is_left_after_an_end(bed: Bed) -> None:
    """What a unit leaves behind whose main process was killed is ended too."""
    run = bed.launched("leaving")
    until(lambda: bed.guest.processes("2000"), "what it leaves behind")
    bed.shell("systemctl kill --kill-whom=main -s KILL leaving")
    assert run.end() == 128 + signal.SIGKILL
    until(lambda: not bed.guest.processes("2000"), "the end of the rest")


def test_what_does_not_stop_is_killed(bed: Bed) -> None:
    """The manager's stop timeout counts, though the unit's own is longer, and systemd does not restart it."""
    run = bed.launched("stubborn", "--stop-timeout", "500ms")
    assert run.end(stop=True) == 128 + signal.SIGKILL
    assert "SIGKILL was needed" in run.told
    assert bed.shell("systemctl is-active stubborn") == "failed"


def test_a_start_that_takes_long_can_be_stopped(bed: Bed) -> None:
    """A unit that is still being prepared is stopped at once."""
    run = bed.run("waiting")
    run.until("launched as pid")
    began = time.monotonic()
    assert run.end(stop=True) == 128 + signal.SIGTERM
    assert time.monotonic() - began < LIMIT / 2
    assert "is ready" not in run.told


def test_it_is_ready_when_systemd_says_so(bed: Bed) -> None:
    """Readiness is systemd's own active, and what it says by STATUS= is told."""
    run = bed.launched("notifying")
    ready = re.search(r"is ready, (\d+) ms after its launch", run.told)
    assert ready, run.told
    assert int(ready[1]) >= 400
    run.until("of its unit it is told: serving")


# ---- what systemd and others do with it ---------------------------------------------------------------------


def test_restarts_by_systemd_are_told_and_are_not_the_end(bed: Bed) -> None:
    """Each restart is told with its cause, count and new main process; the end comes when systemd gives up."""
    run = bed.run("persistent")
    assert run.end() == 9
    for times in ("once", "2 times"):
        told = f"systemd restarted it, {times} so far: its main process exited with code 9; its main process is "
        assert told in run.told, run.told
    assert "and gave it up" in run.told
    assert "somebody" not in run.told


def test_a_stop_by_somebody_else_is_told(bed: Bed) -> None:
    """An administrator's stop is the end, told as what it is."""
    run = bed.launched("sleepy")
    bed.shell("systemctl stop sleepy")
    assert run.end() == 128 + signal.SIGTERM
    assert "(somebody had systemd stop it)" in run.told


def test_a_restart_by_somebody_else_is_not_the_end(bed: Bed) -> None:
    """The run goes on, told; so it does when the unit is masked and systemd reloaded, or executed anew."""
    run = bed.launched("sleepy")
    bed.shell("systemctl restart sleepy")
    run.until("somebody had systemd restart it: its main process is ")
    bed.shell("mkdir -p /run/systemd/system.control; ln -s /dev/null /run/systemd/system.control/sleepy.service")
    bed.shell("systemctl daemon-reload")
    run.until("it was masked: it goes on")
    bed.shell("rm /run/systemd/system.control/sleepy.service; systemctl daemon-reload; systemctl daemon-reexec")
    os.kill(bed.sleeper(), signal.SIGKILL)
    assert run.end() == 128 + signal.SIGKILL


def test_one_that_runs_already_is_taken_over(bed: Bed) -> None:
    """A unit that was started at boot is not started a second time, and it is said what to do about that."""
    bed.shell("systemctl start sleepy")
    before = bed.sleeper()
    run = bed.launched("sleepy")
    run.until("disable it at boot (systemctl disable sleepy.service)")
    assert bed.sleeper() == before
    assert run.end(stop=True) == 128 + signal.SIGTERM
    assert bed.shell("systemctl is-active sleepy") == "inactive"


def test_a_unit_is_one_applications(bed: Bed) -> None:
    """A second application of the same unit is refused, and the first one is watched on."""
    run = bed.launched("sleepy")
    other = bed.run("sleepy", "--name", "other")
    assert other.end() == 122
    assert "the unit sleepy.service is that of another application" in other.told
    os.kill(bed.sleeper(), signal.SIGKILL)
    assert run.end() == 128 + signal.SIGKILL


def test_a_stop_is_not_lost_with_the_bus(bed: Bed) -> None:
    """What could not be asked of systemd is asked once it is there again, by its own socket if there is no bus."""
    run = bed.launched("sleepy")
    private, hidden = "/run/systemd/private", "/run/systemd/hidden"
    bed.shell(f"systemctl stop dbus.socket dbus.service & sleep 0.1; mv {private} {hidden}; wait")
    run.process.terminate()
    run.until("asked to stop")
    bed.shell(f"sleep 0.5; mv {hidden} {private}")
    assert run.end() == 128 + signal.SIGTERM
    assert "the stop signal was enough" in run.told


def test_a_unit_without_a_process_is_told(bed: Bed) -> None:
    """Of an umbrella it is said that its end cannot be seen."""
    run = bed.launched("empty")
    run.until("the unit empty.service has no process, so its end cannot be seen: name ")
    assert run.end(stop=True) == 0
    assert bed.shell("systemctl is-active empty") == "inactive"


def test_an_umbrella_ends_with_its_part(bed: Bed) -> None:
    """A unit without a process is watched by its parts, as Debian's postgresql.service; a stop waits for them."""
    for _ in range(2):
        run = bed.launched("umbrella")
        run.until("it ends when one of its parts does, part.service")
        os.kill(bed.sleeper(), signal.SIGKILL)
        assert run.end() == 128 + signal.SIGKILL
        assert "(it is its part part.service)" in run.told
    run = bed.launched("umbrella")
    bed.shell("systemctl stop cmappserver; systemctl kill -s KILL part; sleep 0.2; systemctl start cmappserver")
    assert run.end() == 128 + signal.SIGKILL
    run = bed.launched("umbrella")
    run.until("parts does, part.service")
    assert bed.sleeper()
    assert run.end(stop=True) == 0
    assert not bed.guest.processes("1000")


def test_an_end_is_told_at_once(bed: Bed) -> None:
    """From SIGKILL of the main process to the end of its manager it takes a moment."""
    took = []
    for _ in range(5):
        run = bed.launched("sleepy")
        pid, began = bed.sleeper(), time.monotonic()
        os.kill(pid, signal.SIGKILL)
        assert run.process.wait() == 128 + signal.SIGKILL
        took.append(time.monotonic() - began)
    print(f"noticed within {[round(1000 * each, 1) for each in took]} ms")
    assert statistics.median(took) < NOTIFIED


# ---- the server and systemd come and go ---------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill -s KILL --kill-whom=main", "kill -s USR2 --kill-whom=main", "restart"])
def test_it_outlives_its_server(bed: Bed, how: str) -> None:
    """Crash, upgrade and restart of the server leave the unit as it is, and its end is still told exactly."""
    run = bed.launched("sleepy")
    before = bed.sleeper()
    bed.shell(f"systemctl {how} cmappserver")
    run.until("back after")
    assert bed.sleeper() == before
    os.kill(before, signal.SIGKILL)
    assert run.end() == 128 + signal.SIGKILL


@pytest.mark.parametrize(
    ("meanwhile", "code", "told"),
    [
        ("systemctl kill -s KILL sleepy", 137, "was killed by signal 9"),
        ("systemctl stop sleepy", 121, "systemd keeps no record of how"),
        ("systemctl restart sleepy", 121, "somebody started it anew while there was no server"),
    ],
)
def test_what_happened_while_there_was_no_server(bed: Bed, meanwhile: str, code: int, told: str) -> None:
    """What systemd still knows is told; what nobody knows is unknown; what somebody else started is left alone."""
    run = bed.launched("sleepy")
    bed.shell("systemctl stop cmappserver")
    bed.shell(f"{meanwhile}; sleep 0.2; systemctl start cmappserver")
    assert run.end() == code, run.told
    assert told in run.told
    assert (bed.shell("systemctl is-active sleepy") == "active") == ("restart" in meanwhile)


def test_without_the_bus_nothing_is_concluded(bed: Bed) -> None:
    """A bus that is gone says nothing of the unit; its end is told once systemd can be asked again."""
    run = bed.launched("sleepy")
    bed.shell("systemctl stop dbus.socket dbus.service; sleep 0.5")
    assert run.process.poll() is None
    os.kill(bed.sleeper(), signal.SIGKILL)
    bed.shell("systemctl start dbus.socket")
    assert run.end() == 128 + signal.SIGKILL


# ---- a database ----------------------------------------------------------------------------------------------


def test_debians_postgresql(bed: Bed) -> None:
    """The database is started, answers, is killed and told, is started again, and stopped in order."""
    run = bed.launched(DATABASE.removesuffix(".service"), "--health-command", "/usr/bin/pg_isready -q")
    assert bed.shell("runuser -u postgres -- psql -Atc 'select 6*7'") == "42"
    postmaster = bed.shell("head -1 /var/lib/postgresql/15/main/postmaster.pid")
    bed.shell(f"kill -KILL {postmaster}")
    assert run.end() == 128 + signal.SIGKILL, run.told
    until(lambda: not bed.guest.processes("/usr/lib/postgresql/15/bin/postgres"), "the end of its processes")
    run = bed.launched(DATABASE.removesuffix(".service"))
    assert bed.shell("runuser -u postgres -- psql -Atc 'select 6*7'") == "42"
    assert run.end(stop=True) == 0, run.told
    assert not bed.guest.processes("/usr/lib/postgresql/15/bin/postgres")


def test_debians_umbrella_of_its_databases(bed: Bed) -> None:
    """postgresql.service has no process; the end of the database that it stands for is told all the same."""
    wants = "/etc/systemd/system/postgresql.service.wants"
    bed.shell(f"mkdir -p {wants}; ln -sf /lib/systemd/system/postgresql@.service {wants}/{DATABASE}")
    bed.shell("systemctl daemon-reload")
    run = bed.launched("postgresql")
    run.until(f"it ends when one of its parts does, {DATABASE}")
    bed.shell("kill -KILL $(head -1 /var/lib/postgresql/15/main/postmaster.pid)")
    assert run.end() == 128 + signal.SIGKILL, run.told
    run = bed.launched("postgresql")
    assert bed.shell("runuser -u postgres -- psql -Atc 'select 6*7'") == "42"
    assert run.end(stop=True) == 0, run.told
    assert not bed.guest.processes("/usr/lib/postgresql/15/bin/postgres")


# ---- who may -------------------------------------------------------------------------------------------------


def test_the_policy_applies_to_units(bed: Bed) -> None:
    """A server that keeps no power of root's still has systemd start what its policy allows, and nothing else."""
    bed.shell(f"cat >/etc/cmappserver.conf <<'END'\n{POLICY}\nEND\nsystemctl restart cmappserver")
    try:
        run = bed.launched("sleepy")
        assert "no application may run as root" in bed.guest.journal()
        assert run.end(stop=True) == 128 + signal.SIGTERM
        run = bed.run("seven")
        assert run.end() == 122, run.told
        assert "refused by policy" in run.told
        run = Run(bed, "--name", "base")
        run.until("is ready")
        assert bed.shell("systemctl is-active notifying") == "active"
        assert run.end(stop=True) == 128 + signal.SIGTERM
        run = Run(bed, "--name", "base", "--user", "nobody")
        assert run.end() == 122
    finally:
        bed.shell("rm /etc/cmappserver.conf; systemctl restart cmappserver")
