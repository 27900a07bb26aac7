"""`cmapp status`, `hold` and `resume`, as an administrator meets them: what is asked, what is told, which exit code.

The test plays the server, but for the last case, and the command is a real child.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from tests.shell.manager_bed import SOON, Guest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.manager_bed import Peer
    from tests.shell.served import Served

COMMAND = (sys.executable, "-c", "from cmapp.cli.cmapp import main; main()")


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that says what the test wants."""
    guest = Guest(key_folders, tmp_path)
    yield guest
    guest.close()


class Asked:
    """The command, while it asks the server on `port`."""

    def __init__(self, folder: Path, port: int, *arguments: str) -> None:
        how = ["--keys", str(folder / "host"), "--address", f"127.0.0.1:{port}"]
        self._process = subprocess.Popen(
            [*COMMAND, *arguments, *how], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def ends(self) -> tuple[int, str, str]:
        """Return its exit code and what it wrote."""
        out, err = self._process.communicate(timeout=SOON)
        return self._process.returncode, out, err


RUN_ID = "0b2a8f4e-5d56-4f0a-9b3c-2f1f6f8f0a01"
RUNS = (
    m.RunReport("cache", RUN_ID, m.Phase.STARTING),
    m.RunReport(
        "db",
        RUN_ID,
        m.Phase.RUNNING,
        4711,
        uptime=7203.5,
        cpu=0.25,
        memory=25_270_682,
        processes=3,
        held=True,
        ready=True,
        health="ok",
        status="serving \x1b[2J 12 clients",
        orphaned=12.5,
    ),
    m.RunReport("web", RUN_ID, m.Phase.READYING, 99, uptime=2.0, ready=False, health="1 of 3 checks failed: exit 1"),
)
TABLE = """\
NAME   STATE     PID   UP         CPU     MEMORY    HELD  READY  HEALTH                        ORPHANED  STATUS
cache  starting  -     0 ms       0 ms    0.0 MiB   no    -      -                             -         -
db     running   4711  2 h 0 min  250 ms  24.1 MiB  held  yes    ok                            12.5 s    serving \\x1b[2J 12 clients
web    readying  99    2 s        0 ms    0.0 MiB   no    no     1 of 3 checks failed: exit 1  -         -
"""  # noqa: E501 - as wide as the table


CERTIFICATES = "certificates: guest 90 days left, host 90 days left\n"


def tells(peer: Peer, *runs: m.RunReport) -> None:
    """Hear what is asked, and tell of these runs."""
    peer.greet()
    peer.say(m.Runs(peer.hear(m.Status).id, runs))


def test_the_runs_of_a_guest_are_a_table(guest: Guest) -> None:
    """One line an application, and nothing in it that a terminal would act on."""
    asked = Asked(guest.folder, guest.port, "status", "vm1")
    tells(guest.accept(), *RUNS)
    assert asked.ends() == (0, TABLE + CERTIFICATES, "")


def test_one_run_is_picked(guest: Guest) -> None:
    """A name leaves the line of that application."""
    asked = Asked(guest.folder, guest.port, "status", "vm1", "web")
    tells(guest.accept(), *RUNS)
    code, out, err = asked.ends()
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "web", "certificates:"]


def test_programs_read_json(guest: Guest) -> None:
    """Every number is there as it is, what is not known is null, and who answered is told."""
    asked = Asked(guest.folder, guest.port, "status", "vm1", "--json")
    tells(guest.accept(), *RUNS)
    code, out, err = asked.ends()
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["guest"], told["software"]) == ("vm1", "scripted")
    assert told["certificates"] == {"guest": pytest.approx(90, abs=0.2), "host": pytest.approx(90, abs=0.2)}
    cache, db, _web = told["runs"]
    assert set(cache) == set(db) == set(m.RunReport.fields())
    assert (cache["pid"], cache["ready"], cache["orphaned"], cache["held"]) == (None, None, None, False)
    assert (db["state"], db["memory"], db["uptime"], db["orphaned"]) == ("running", 25_270_682, 7203.5, 12.5)


def test_an_empty_guest_says_so(guest: Guest) -> None:
    """No application is an answer too, in words or as an empty list."""
    asked = Asked(guest.folder, guest.port, "status", "vm1")
    tells(guest.accept())
    assert asked.ends() == (0, f"nothing runs in vm1 that this host's key launched\n{CERTIFICATES}", "")
    asked = Asked(guest.folder, guest.port, "status", "vm1", "--json")
    tells(guest.accept())
    assert json.loads(asked.ends()[1])["runs"] == []


def test_a_run_that_is_not_there_is_a_failure(guest: Guest) -> None:
    """A script that asks for one application learns by the exit code that it does not run."""
    asked = Asked(guest.folder, guest.port, "status", "vm1", "mail")
    tells(guest.accept(), *RUNS)
    assert asked.ends() == (1, "", "cmapp: there is no run of mail in vm1 that this host's key launched\n")


HOLDS = {
    "hold": (True, "db in vm1 is held: nothing acts on it until 'cmapp resume vm1 db'\n"),
    "resume": (False, "db in vm1 is watched again\n"),
}


@pytest.mark.parametrize("command", HOLDS)
def test_a_run_is_held_and_resumed(guest: Guest, command: str) -> None:
    """What is done is told once the server has said that it is."""
    on, said = HOLDS[command]
    asked = Asked(guest.folder, guest.port, command, "vm1", "db")
    peer = guest.accept()
    peer.greet()
    hold = peer.hear(m.Hold)
    assert (hold.name, hold.on) == ("db", on)
    peer.say(m.Done(hold.id))
    assert asked.ends() == (0, said, "")


def test_a_refused_hold_is_one_line(guest: Guest) -> None:
    """The server's sentence is told, printably."""
    asked = Asked(guest.folder, guest.port, "hold", "vm1", "db")
    peer = guest.accept()
    peer.greet()
    peer.say(m.Refused(m.Refusal.NO_RUN, "nothing of\nthat name runs", id=peer.hear(m.Hold).id))
    assert asked.ends() == (1, "", "cmapp: vm1 declined: nothing of that name runs (no-run)\n")


def test_a_guest_that_cannot_be_reached_is_one_line(guest: Guest) -> None:
    """So is a guest that is down."""
    guest.close()
    code, out, err = Asked(guest.folder, guest.port, "status", "vm1").ends()
    assert (code, out) == (1, "")
    assert re.fullmatch(r"cmapp: 127\.0\.0\.1:\d+: .*nothing listens there; is cmappserver running\?\n", err)


def test_a_real_server_is_asked(served: Served, call: Callable[..., Caller], key_folders: Path) -> None:
    """A real run is seen, held, and let go again."""

    def ask(*arguments: str) -> tuple[int, str, str]:
        return Asked(key_folders, served.port, *arguments).ends()

    caller = call(served)
    pid = caller.launch("sleep", "60", name="db")
    code, out, err = ask("status", "vm1", "db", "--json")
    assert (code, err) == (0, "")
    (told,) = json.loads(out)["runs"]
    assert (told["name"], told["run_id"], told["pid"], told["held"]) == ("db", caller.run_id, pid, False)
    assert ask("hold", "vm1", "db")[0] == 0
    assert caller.report().held
    assert " held " in ask("status", "vm1", "db")[1]
    assert ask("resume", "vm1", "db")[0] == 0
    assert not caller.report().held
    assert ask("hold", "vm1", "nothing-of-that-name")[0] == 1
    caller.stop()
