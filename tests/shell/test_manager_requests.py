"""What a manager asks of the server, and what it is told: leaving a run, features, reports and their end."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Own, Reason, Signaled
from tests.shell.manager_bed import Guest, outcome_in, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OTHER = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


# ---- leaving -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "number"), [((), signal.SIGUSR1), (("--detach-on-signal", "TERM"), signal.SIGTERM)]
)
def test_leaves_a_run(guest: Guest, tmp_path: Path, options: tuple[str, ...], number: signal.Signals) -> None:
    """A run that is left on purpose goes on, and who asked for that has succeeded."""
    manager, peer, _ = guest.launched("--result", str(tmp_path / "result"), *options)
    manager.signal(number)
    detach = peer.hear(m.Detach)
    manager.says(f"asked to leave it by {number.name}")
    assert manager.process.poll() is None
    peer.say(m.Done(detach.id))
    assert manager.ends() == 0
    assert "was left running: for a later manager, as was asked for" in manager.lines()[-1]
    assert "exit code 0 means that it was left on purpose" in manager.lines()[-1]
    assert outcome_in(tmp_path / "result")["cause"] == "detached"


def test_leaves_only_what_is_launched(guest: Guest) -> None:
    """Before there is anything to leave, to be asked to is a failure: nothing runs that a later manager could find."""
    manager = guest.call()
    peer = guest.accept()
    peer.hear(m.Hello)
    manager.signal(signal.SIGUSR1)
    assert manager.ends() == Own.FAILED
    assert "it was dismissed before it was launched" in manager.lines()[-1]


def test_leaves_as_soon_as_it_is_launched(guest: Guest) -> None:
    """Who is asked to leave while the server still launches leaves when it has."""
    manager = guest.call()
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    manager.signal(signal.SIGUSR1)
    manager.says("asked to leave it")
    peer.say(m.Launched(launch.id, launch.run_id, 4711))
    peer.say(m.Done(peer.hear(m.Detach).id))
    assert manager.ends() == 0


def test_leave_that_is_refused(guest: Guest) -> None:
    """A server that cannot keep the run goes on being watched, and can be asked to stop it."""
    manager, peer, launch = guest.launched()
    manager.signal(signal.SIGUSR1)
    peer.say(m.Refused(m.Refusal.UNSUPPORTED, "not here", id=peer.hear(m.Detach).id))
    manager.says("ERROR: the server does not let it run without us: not here; it is watched on")
    manager.signal(signal.SIGTERM)
    peer.hear(m.Stop)
    peer.say(m.Exited(receipt(launch, Exited(0), Reason.ASKED)))
    assert manager.ends() == 0


def test_stop_outdoes_leaving(guest: Guest) -> None:
    """Who is asked to stop a run that it is leaving goes back for it: 0 would say that it stopped."""
    manager, peer, launch = guest.launched("--poll-interval", "1h")
    manager.signal(signal.SIGUSR1)
    detach = peer.hear(m.Detach)
    manager.signal(signal.SIGTERM)
    stop = peer.hear(m.Stop)
    peer.say(m.Done(detach.id), m.Done(stop.id))
    again = guest.accept()
    again.reattach()
    again.hear(m.Stop)
    again.say(m.Exited(receipt(launch, Signaled(15), Reason.ASKED)))
    assert manager.ends() == 143


# ---- launching -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        (("--on-existing", "attach"), "attach"),
        (("--takeover",), "attach"),
        (("--health-command", "/bin/true"), "health"),
        (("--watchdog-timeout", "1m"), "health"),
        (("--type", "forking", "--pid-file", "/run/web.pid"), "kinds"),
        (("--limit", "nofile=10"), "limits"),
        (("--orphan-timeout", "1h"), "orphans"),
        (("--orphan-action", "keep"), "orphans"),
        (("--ready", "tcp:80"), "readiness"),
    ],
)
def test_server_that_cannot(guest: Guest, options: tuple[str, ...], feature: str) -> None:
    """A server that would pass over what was asked for is not asked to run without it."""
    manager = guest.call(*options)
    peer = guest.accept()
    peer.features = tuple(there for there in peer.features if there != feature)
    peer.greet()
    assert "needs: " in peer.hear(m.Bye).reason
    assert manager.ends() == Own.REFUSED
    assert f"scripted cannot do what this launch needs: {feature}" in manager.lines()[-1]


def test_old_server(guest: Guest) -> None:
    """What an older server can do is still asked of it."""
    manager = guest.call()
    peer = guest.accept()
    peer.features = ()
    peer.say(m.Exited(receipt(peer.launch(), Exited(0))))
    assert manager.ends() == 0


@pytest.mark.parametrize("attach", [False, True])
def test_run_that_is_there_already(guest: Guest, tmp_path: Path, *, attach: bool) -> None:
    """Who asked to attach takes over the run that it finds, under its name; nobody else is given another's run."""
    how = ("--on-existing", "attach") if attach else ("--link-timeout", "0")
    manager = guest.call(*how, "--result", str(tmp_path / "result"), "--poll-interval", "1h")
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    peer.say(m.Launched(launch.id, OTHER, 4711, attached=True))
    if not attach:
        assert manager.ends() == Own.UNREACHABLE
        return
    manager.says(f"run {launch.run_id} is not needed: one of that name is there, run {OTHER}")
    peer.close()
    again = guest.accept()
    relaunch = again.reattach()
    assert (relaunch.run_id, relaunch.resume) == (OTHER, True)
    again.say(m.Exited(receipt(relaunch, Exited(3))))
    assert again.hear(m.Acknowledge).run_id == OTHER
    assert manager.ends() == 3
    assert outcome_in(tmp_path / "result")["run_id"] == OTHER


def test_identity_of_the_caller(guest: Guest) -> None:
    """A caller that remembers its run returns to it with a new process."""
    manager, peer, launch = guest.launched("--run-id", OTHER.upper().replace("8000", "ABCD"))
    assert launch.run_id == OTHER.replace("8000", "abcd")
    peer.say(m.Exited(receipt(launch, Exited(4))))
    assert manager.ends() == 4


# ---- what is told --------------------------------------------------------------------------------------------


def test_tells_what_is_new_in_reports(guest: Guest) -> None:
    """A report's news are told once: waiting, hold, health and what the application says of itself."""
    manager, peer, launch = guest.launched("--poll-interval", "10ms")
    ill = "2 of 3 checks failed: exited with code 1"
    for phase, news in (
        (m.Phase.WAITING, {}),
        (m.Phase.WAITING, {}),
        (m.Phase.RUNNING, {"health": "ok", "held": True}),
        (m.Phase.RUNNING, {"health": ill, "held": True, "status": "42 users"}),
        (m.Phase.RUNNING, {"health": ill, "status": "42 users"}),
        (m.Phase.RUNNING, {"health": "ok", "status": "43 users"}),
    ):
        peer.report(launch, phase, **news)
    peer.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0
    told = [line.partition("web on vm1: ")[2] for line in manager.lines()[2:-1]]
    assert told == [
        "waits for the end of the run before, or to see whether its manager still answers",
        "is held: nothing acts on it",
        f"WARNING: its health: {ill}",
        "says of itself: 42 users",
        "is no longer held",
        "is healthy again",
        "says of itself: 43 users",
    ]


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (Reason.UNHEALTHY, "stopped because it was unhealthy: the check exited with code 1"),
        (Reason.NOT_READY, "stopped because it did not become ready: the check exited with code 1"),
        (Reason.HUNG, "stopped because its watchdog was not heard: the check exited with code 1"),
    ],
)
def test_run_that_was_at_fault(guest: Guest, tmp_path: Path, reason: Reason, words: str) -> None:
    """What the server stopped for a fault of its own has a code of its own, whatever the application exited with."""
    manager, peer, launch = guest.launched("--result", str(tmp_path / "result"))
    ended = receipt(launch, Exited(0), reason).replace(detail="the check exited with code 1")
    peer.say(m.Exited(ended))
    assert manager.ends() == Own.UNHEALTHY
    assert words in manager.lines()[-1]
    assert "ERROR" in manager.lines()[-1]
    assert "exit code 124 means that the server stopped it for that" in manager.lines()[-1]
    told = outcome_in(tmp_path / "result")
    expected = {"cause": "unhealthy", "reason": reason.value, "code": 0, "exit_code": 124, "detail": ended.detail}
    assert told | expected == told


def test_run_that_was_replaced(guest: Guest) -> None:
    """Who loses its name to another run is told by which means its own ended."""
    manager, peer, launch = guest.launched()
    peer.say(m.Exited(receipt(launch, Signaled(15), Reason.REPLACED)))
    assert manager.ends() == 143
    assert "stopped because another run took its place" in manager.lines()[-1]
