"""A manager's life, from the launch to each of its ends: exit code, log, and what the server is told."""

from __future__ import annotations

import re
import signal
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Outcome, Own, Reason, Signaled, Unknown
from cmapp.core.rules import StopRules
from tests.shell.manager_bed import Guest, outcome_in, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LINE = re.compile(r'[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d - Node "[^"]+": cmappmgr\[\d+\] web on vm1: ')
TERM = signal.SIGTERM


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        (Exited(0), 0, "exited with code 0 after 100 ms; exit code 0 is the application's own"),
        (Exited(1), 1, "ERROR: exited with code 1 after 100 ms; exit code 1 is the application's own"),
        (Exited(Own.FAILED), Own.FAILED, "exit code 125 is the application's own"),
        (Exited(255), 255, "exit code 255 is the application's own"),
        (Signaled(9), 137, "ERROR: was killed by signal 9 (KILL) after 100 ms; exit code 137 is 128 and the signal's"),
        (Signaled(6, core_dumped=True), 134, "was killed by signal 6 (ABRT) and dumped core"),
        (Signaled(64), 192, "was killed by signal 64 (RTMIN+30)"),
        (
            Unknown("it was lost"),
            Own.UNKNOWN,
            "not known: it was lost; exit code 121 means that its outcome",
        ),
    ],
    ids=str,
)
def test_exits_with_the_outcome(guest: Guest, outcome: Outcome, code: int, words: str) -> None:
    """The application's end is the manager's, told with whose word the code is, and acknowledged."""
    manager, peer, launch = guest.launched()
    peer.say(m.Exited(receipt(launch, outcome)))
    assert peer.hear(m.Acknowledge).run_id == launch.run_id
    peer.hear(m.Bye)
    assert manager.ends() == code
    assert all(LINE.match(line) for line in manager.lines())
    assert words in manager.lines()[-1]


def test_acknowledges_what_it_has_recorded(guest: Guest, tmp_path: Path) -> None:
    """A server that is told to forget a receipt can rely on the log and the result file."""
    result = tmp_path / "result"
    manager, peer, launch = guest.launched("--result", str(result))
    peer.say(m.Exited(receipt(launch, Exited(3), Reason.ASKED, forced=True)))
    peer.hear(m.Acknowledge)
    assert "exited with code 3" in manager.lines()[-1]
    told = outcome_in(result)
    assert told | {"cause": "exited", "code": 3, "exit_code": 3, "reason": "asked", "forced": True} == told
    assert told | {"name": "web", "guest": "vm1", "run_id": launch.run_id, "started": 1000.0, "ended": 1000.1} == told
    assert told["begun"] <= told["launched"] <= told["concluded"] <= time.time()


def test_tells_what_it_watches(guest: Guest) -> None:
    """The first lines name the command, the bound of detection, the run and the process."""
    manager, peer, launch = guest.launched(
        "--poll-interval", "2s", "--poll-timeout", "500ms", command=("/bin/web", "-x")
    )
    first, second = manager.says("launched").partition("\0")[0], manager.lines()
    assert f"launched as pid 4711, run {launch.run_id}" in first
    assert f"watching /bin/web -x at 127.0.0.1:{guest.port}, run {launch.run_id}" in second[0]
    assert (
        "a hung guest within 2.5 s (polled every 2 s, 500 ms to answer), a link that is cut within 2.5 s" in second[0]
    )
    assert "and each is given up 30 s later, within 32.5 s; the first connection has 60 s;" in second[0]
    peer.close()


@pytest.mark.parametrize(
    ("code", "exit_code", "word"),
    [
        (m.Refusal.NOT_FOUND, Own.NOT_FOUND, "was not found"),
        (m.Refusal.NOT_EXECUTABLE, Own.NOT_EXECUTABLE, "could not be executed"),
        (m.Refusal.NO_SUCH_USER, Own.NOT_EXECUTABLE, "could not be executed"),
        (m.Refusal.NO_SUCH_DIRECTORY, Own.NOT_EXECUTABLE, "could not be executed"),
        (m.Refusal.NOT_PERMITTED, Own.NOT_EXECUTABLE, "could not be executed"),
        (m.Refusal.NAME_TAKEN, Own.REFUSED, "were refused"),
        (m.Refusal.CAPACITY, Own.REFUSED, "were refused"),
        (m.Refusal.RESOURCES, Own.REFUSED, "were refused"),
        ("a-code-of-tomorrow", Own.REFUSED, "were refused"),
    ],
)
def test_refused_launch(guest: Guest, tmp_path: Path, code: str, exit_code: int, word: str) -> None:
    """What could not be executed is told from what the server would not do."""
    manager = guest.call("--result", str(tmp_path / "result"))
    peer = guest.accept()
    peer.greet()
    peer.say(m.Refused(code, "for a reason", id=peer.hear(m.Launch).id))
    assert manager.ends() == exit_code
    assert "for a reason" in manager.lines()[-1]
    assert word in manager.lines()[-1]
    told = outcome_in(tmp_path / "result")
    assert told["cause"] == ("refused" if exit_code == Own.REFUSED else "not-started")
    assert told.get("refusal") == (code if exit_code == Own.REFUSED else None)


def test_long_waits(guest: Guest) -> None:
    """Who polls once in ten years learns of the end at once all the same."""
    manager, peer, launch = guest.launched("--poll-interval", "3650d")
    peer.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0


def test_refused_hello(guest: Guest) -> None:
    """A server that speaks no version of ours is not tried again."""
    manager = guest.call()
    peer = guest.accept()
    peer.say(m.Refused(m.Refusal.VERSION, "it is too new", id=peer.hear(m.Hello).id))
    assert manager.ends() == Own.REFUSED
    assert "it is too new (version)" in manager.lines()[-1]


def test_refused_poll(guest: Guest) -> None:
    """A server that no longer lets us watch has refused us."""
    manager, peer, _ = guest.launched("--poll-interval", "10ms")
    peer.say(m.Refused(m.Refusal.NO_RUN, "there is none", id=peer.hear(m.Poll).id))
    assert manager.ends() == Own.REFUSED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_stops_on_a_signal(guest: Guest, number: signal.Signals) -> None:
    """A halt is asked of the server, and the application's own outcome is still the exit code."""
    manager, peer, launch = guest.launched("--stop-signal", "USR1", "--stop-timeout", "7s")
    assert launch.stop == StopRules(signal.SIGUSR1, 7.0)
    manager.signal(number)
    stop = peer.hear(m.Stop)
    assert not stop.kill
    assert f"asked to stop by {number.name}: asking the server for SIGUSR1 and, after 7 s" in manager.lines()[-1]
    peer.say(m.Done(stop.id), m.Exited(receipt(launch, Exited(0), Reason.ASKED)))
    assert manager.ends() == 0
    assert "exited with code 0 after 100 ms (stopped on request, the stop signal was enough)" in manager.lines()[-1]


def test_stop_of_a_launch_that_is_not_answered(guest: Guest) -> None:
    """A halt while the server still launches reaches it at once."""
    manager = guest.call()
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    manager.signal(TERM)
    stop = peer.hear(m.Stop)
    peer.say(m.Launched(launch.id, launch.run_id, 4711), m.Done(stop.id))
    peer.say(m.Exited(receipt(launch, Signaled(15), Reason.ASKED)))
    assert manager.ends() == 143


def test_second_signal_kills(guest: Guest) -> None:
    """Who asks again does not want to wait; who signals us and our group at once has asked only once."""
    manager, peer, launch = guest.launched("--poll-interval", "150ms")
    peer.report(launch)
    manager.freeze()
    manager.signal(TERM)
    manager.signal(signal.SIGHUP)
    manager.signal(signal.SIGCONT)
    assert not peer.hear(m.Stop).kill
    peer.report(launch)
    peer.report(launch)
    manager.signal(TERM)
    stop = peer.hear(m.Stop)
    assert stop.kill
    manager.says("asked to stop by SIGTERM again")
    peer.say(m.Exited(receipt(launch, Signaled(9), Reason.ASKED, forced=True)))
    assert manager.ends() == 137
    assert "SIGKILL was needed" in manager.lines()[-1]


@pytest.mark.parametrize("greeted", [False, True])
def test_signal_before_the_launch(guest: Guest, *, greeted: bool) -> None:
    """A halt before anything runs ends the manager at once, and says so."""
    manager = guest.call()
    peer = guest.accept(shakes=greeted)
    if greeted:
        peer.hear(m.Hello)
    else:
        manager.says("watching")
    manager.signal(TERM)
    assert manager.ends() == Own.FAILED
    assert "it was stopped before it was launched" in manager.lines()[-1]


def test_gone_while_stopping(guest: Guest) -> None:
    """A link that is lost during a halt, for good, leaves the outcome unknown to us, which is an error."""
    manager, peer, _ = guest.launched("--link-timeout", "300ms")
    manager.signal(TERM)
    peer.hear(m.Stop)
    peer.close()
    assert manager.ends() == Own.UNREACHABLE
    assert "ERROR: cannot be reached" in manager.lines()[-1]


def test_defect_of_ours(guest: Guest) -> None:
    """A defect is one line and a code of its own, without a traceback."""
    break_it = "import cmapp.host.manager as it; it.Manager._say = lambda *_: 1 / 0"
    manager = guest.call(before=break_it)
    guest.accept()
    assert manager.ends() == Own.FAILED
    assert "cmappmgr: internal error: ZeroDivisionError: division by zero, at <string>:1" in manager.lines()
    assert "Traceback" not in manager.stderr.read_text()
    assert "ERROR: is not watched: internal error" in manager.lines()[-1]
