"""A manager whose link is lost: it comes back to the same run, is told what it missed, and starts nothing twice."""

from __future__ import annotations

import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Own, Reason, Signaled
from tests.shell.manager_bed import SOON, Guest, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RARELY = ("--poll-interval", "1h")


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("how", ["reset", "close", "bye"])
def test_comes_back(guest: Guest, how: str) -> None:
    """However the link ends, the manager is back within a moment, for the same run, as the same process."""
    manager, peer, launch = guest.launched(*RARELY, "--takeover", "--on-existing", "refuse")
    if how == "bye":
        peer.say(m.Bye("the server is upgraded"))
    else:
        getattr(peer, how)()
    lost = time.monotonic()
    again = guest.accept()
    assert time.monotonic() - lost < 1
    assert again.hear(m.Hello).instance
    again.close()
    last = guest.accept()
    hello = last.greet()
    relaunch = last.hear(m.Launch)
    assert launch.takeover
    assert relaunch == launch.replace(resume=True, takeover=False)
    last.say(m.Launched(relaunch.id, launch.run_id, 4711, attached=True))
    manager.says("back after")
    last.say(m.Exited(receipt(launch, Exited(7))))
    assert last.hear(m.Poll)
    assert last.hear(m.Acknowledge).run_id == launch.run_id
    assert manager.ends() == 7
    warnings = [line for line in manager.lines() if "WARNING" in line]
    assert "lost the link: vm1 " in warnings[0]
    assert "the application may well go on, trying for 30 s" in warnings[0]
    assert "not back yet, attempt 1: vm1 closed the connection" in warnings[1]
    assert len(warnings) == 2
    assert len({hello.instance, ""}) == 2


def test_is_the_same_process_each_time(guest: Guest) -> None:
    """The server can tell a manager that returns from a second one: by a random name of its process."""
    names = []
    for _ in range(2):
        _, peer, _ = guest.launched(*RARELY)
        peer.close()
        names.append(guest.accept().greet().instance)
    manager = guest.call()
    peer = guest.accept()
    first = peer.greet().instance
    peer.close()
    assert guest.accept().greet().instance == first
    assert len({*names, first}) == 3
    assert manager.process.poll() is None


def test_end_that_was_missed(guest: Guest) -> None:
    """What happened while the link was lost is told on return, and is the exit code."""
    manager, peer, launch = guest.launched(*RARELY)
    peer.reset()
    again = guest.accept()
    again.greet()
    relaunch = again.hear(m.Launch)
    again.say(
        m.Launched(relaunch.id, launch.run_id, 4711, attached=True), m.Exited(receipt(launch, Signaled(signal.SIGSEGV)))
    )
    assert manager.ends() == 128 + signal.SIGSEGV


def test_launch_that_was_not_answered(guest: Guest) -> None:
    """It may not have arrived: it is said once more, with the same run id, and may start the run."""
    manager = guest.call(*RARELY)
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    peer.close()
    again = guest.accept()
    assert again.launch() == launch
    again.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0


@pytest.mark.parametrize(
    ("boot", "words"),
    [("boot-1", "the server knows nothing of it any more"), ("boot-2", "the guest was restarted meanwhile")],
)
@pytest.mark.parametrize("answered", [False, True])
def test_run_that_is_not_known_any_more(guest: Guest, boot: str, words: str, *, answered: bool) -> None:
    """A run that was lost is never started again under its id, and its unknown outcome is said to be unknown."""
    manager = guest.call(*RARELY)
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    if answered:
        peer.say(m.Launched(launch.id, launch.run_id, 4711))
        manager.says("launched")
    peer.close()
    again = guest.accept()
    again.boot = boot
    again.greet()
    relaunch = again.hear(m.Launch)
    assert relaunch.resume == (answered or boot != "boot-1")
    again.say(m.Refused(m.Refusal.NO_RUN, "what run?", id=relaunch.id))
    if relaunch.resume:
        assert manager.ends() == Own.UNKNOWN
        assert f"ended, but how is not known: {words}, " in manager.lines()[-1]
        assert any("WARNING: the guest was restarted" in line for line in manager.lines()) == (boot != "boot-1")
    else:
        assert manager.ends() == Own.REFUSED


def test_name_that_was_taken_meanwhile(guest: Guest) -> None:
    """Who was pushed aside does not fight for the run: it is refused, and says so."""
    manager, peer, _ = guest.launched(*RARELY)
    peer.say(m.Bye("manager n2 watches web from here on"))
    again = guest.accept()
    again.greet()
    again.say(m.Refused(m.Refusal.NAME_TAKEN, "manager n2 watches it", id=again.hear(m.Launch).id))
    assert manager.ends() == Own.REFUSED
    assert "manager n2 watches it (name-taken)" in manager.lines()[-1]


@pytest.mark.parametrize("times", [1, 2])
def test_stop_that_is_asked_meanwhile(guest: Guest, times: int) -> None:
    """A halt while the link is lost is carried out as soon as it is back, and a second one kills."""
    manager, peer, launch = guest.launched(*RARELY)
    peer.close()
    manager.says("lost the link")
    for number in range(times):
        manager.signal(signal.SIGTERM)
        manager.says("again: asking the server to kill" if number else "asked to stop")
        time.sleep(0.15)  # two signals at once count as one
    again = guest.accept()
    relaunch = again.reattach()
    assert [again.hear(m.Stop).kill for _ in range(times)] == [False, True][:times]
    again.say(m.Exited(receipt(relaunch, Signaled(15), Reason.ASKED)))
    assert manager.ends() == 143
    assert "as soon as it is back" in manager.says("asked to stop by SIGTERM")
    assert launch.run_id == relaunch.run_id


def test_stop_is_asked_for_again(guest: Guest) -> None:
    """A server that was asked to stop it and ended may not have heard: its successor is asked too."""
    manager, peer, launch = guest.launched(*RARELY)
    manager.signal(signal.SIGTERM)
    peer.hear(m.Stop)
    peer.close()
    again = guest.accept()
    again.reattach()
    assert not again.hear(m.Stop).kill
    again.say(m.Exited(receipt(launch, Exited(0), Reason.ASKED)))
    assert manager.ends() == 0


def test_gives_up_in_time(guest: Guest) -> None:
    """Nobody there within the link timeout is an unreachable server, for both reasons, and within the bound."""
    manager, peer, _ = guest.launched(*RARELY, "--link-timeout", "600ms")
    guest.stop_listening()
    peer.close()
    lost = time.monotonic()
    assert manager.ends() == Own.UNREACHABLE
    assert 0.5 < time.monotonic() - lost < 5
    assert "cannot be reached: vm1 closed the connection" in manager.lines()[-1]
    assert "; no way back within 600 ms: 127.0.0.1:" in manager.lines()[-1]
    assert "nothing listens there" in manager.lines()[-1]


def test_run_that_is_held(guest: Guest) -> None:
    """Somebody works on the guest: a link that stays lost for longer than its limit is no end then."""
    manager, peer, launch = guest.launched("--poll-interval", "10ms", "--link-timeout", "200ms")
    peer.report(launch, held=True)
    manager.says("is held: nothing acts on it")
    peer.close()
    assert "trying until it is back" in manager.says("lost the link")
    with pytest.raises(subprocess.TimeoutExpired):
        manager.process.wait(1)
    again = guest.accept()
    again.reattach()
    manager.says("is no longer held")
    again.close()
    assert manager.ends() == Own.UNREACHABLE


def test_server_that_comes_and_goes(guest: Guest) -> None:
    """Who is lost again as soon as it is back is called more and more seldom, not without a pause."""
    _, peer, _ = guest.launched(*RARELY)
    began = time.monotonic()
    for _ in range(4):
        peer.close()
        peer = guest.accept()
        peer.reattach()
    assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4


@pytest.mark.parametrize("sure", [False, True])
def test_output_goes_on_where_it_was(guest: Guest, *, sure: bool) -> None:
    """The server is asked for what is not here yet; what it says twice is passed on once, what is gone is told."""
    manager, peer, launch = guest.launched(*RARELY, "--output", "stdout", stdout=subprocess.PIPE)
    assert (launch.stdout_from, launch.stderr_from) == (0, 0)
    peer.say(m.Output(m.Stream.STDOUT, 0, b"one two "), m.Ready(launch.run_id))
    manager.says("is ready")
    peer.close()
    again = guest.accept()
    relaunch = again.reattach()
    assert (relaunch.stdout_from, relaunch.stderr_from) == (8, 0)
    offset, data = (8, b"three") if sure else (4, b"two three")
    again.say(m.Output(m.Stream.STDOUT, offset, data), m.Output(m.Stream.STDOUT, 20, b" four"))
    again.say(m.Output(m.Stream.STDOUT, 0, b"one "), m.Exited(receipt(launch, Exited(0))))
    out, _ = manager.process.communicate(timeout=SOON)
    assert out == b"one two three four"
    assert "7 bytes of its stdout are missing" in manager.stderr.read_text()


def test_who_was_stopped_does_not_judge(guest: Guest) -> None:
    """A manager that was frozen while it waited for an answer waits again, instead of giving up a healthy guest."""
    manager, peer, launch = guest.launched("--poll-interval", "10ms", "--poll-timeout", "700ms")
    poll = peer.hear(m.Poll)
    manager.freeze()
    time.sleep(4.5)  # longer than the timeout and what counts as late
    manager.signal(signal.SIGCONT)
    assert "its whole time again" in manager.says("stood still for")
    peer.say(m.Report(poll.id, m.RunReport(launch.name, launch.run_id, m.Phase.RUNNING, 4711)))
    peer.report(launch)
    peer.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0
    assert not [line for line in manager.lines() if "lost the link" in line]
