"""A manager's link: whom it trusts, what it tries again, what it makes of a server that hangs, lies or goes."""

from __future__ import annotations

import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Own
from tests.shell.manager_bed import Guest, receipt

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

QUICK = ("--poll-interval", "10ms", "--poll-timeout", "700ms", "--link-timeout", "300ms")
FOR_GOOD = ("--link-timeout", "300ms")


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that a manager can call."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


def test_greets_with_its_silence(guest: Guest) -> None:
    """The server learns who calls, and after which silence it may take the manager for lost."""
    guest.call("--poll-interval", "2s", "--poll-timeout", "4s")
    hello = guest.accept().greet()
    assert hello.versions == m.VERSIONS
    assert hello.software.startswith("cmapp/")
    assert hello.node == socket.gethostname()
    assert hello.silence == 11.0


@pytest.mark.parametrize(
    ("host", "server", "called", "words"),
    [
        ("host-foreign", "guest", "vm1", "the certificate of vm1 is not from our authority"),
        ("host", "guest-foreign", "vm1", "the certificate of vm1 is not from our authority"),
        ("host", "guest", "vm2", "the certificate of vm2 is for another name"),
        ("guest", "guest", "vm1", "vm1 refused our certificate"),
        ("host", "host", "vm1", "the certificate of vm1"),
    ],
)
def test_no_trust(guest: Guest, host: str, server: str, called: str, words: str) -> None:
    """Whoever of the two is not trusted, it is a refusal and is not tried again, on TLS 1.3's late alert too."""
    address = f"127.0.0.1:{guest.port}"
    keys = str(guest.folder / host)
    manager = guest.start("--keys", keys, "--address", address, called, "--", "web")
    guest.keys = guest.folder / server
    with pytest.raises(Exception, match=r".") as failure:
        guest.accept().hear(m.Hello)
    assert not isinstance(failure.value, TimeoutError)
    assert manager.ends() == Own.REFUSED
    assert words in manager.lines()[-1]
    assert not [line for line in manager.lines() if "not reached yet" in line]


def test_other_protocol(guest: Guest) -> None:
    """Something that bears the guest's certificate but is no cmappserver is told to be that, and not tried again."""
    manager = guest.call()
    guest.protocol = "http/1.1"
    guest.accept()
    assert manager.ends() == Own.REFUSED
    assert "is it cmapp that listens there?" in manager.lines()[-1]


def test_tries_again(guest: Guest) -> None:
    """A server that hangs up before it has answered is tried again, and only the first failure is a line."""
    manager = guest.call()
    peer = guest.accept()
    peer.hear(m.Hello)
    peer.say(m.Bye("come back later"))
    peer.close()
    guest.accept(shakes=False).reset()
    peer = guest.accept()
    launch = peer.launch()
    peer.say(m.Exited(receipt(launch, Exited(0))))
    assert manager.ends() == 0
    warnings = [line for line in manager.lines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "attempt 1: vm1 hung up: come back later; trying for another" in warnings[0]


def test_nothing_listens(guest: Guest) -> None:
    """Nobody at the guest's port is a server that cannot be reached, in plain words."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"localhost:{closed.getsockname()[1]}"
        keys = str(guest.folder / "host")
        manager = guest.start("--keys", keys, "--connect-timeout", "100ms", "--address", address, "vm1", "--", "web")
        assert manager.ends() == Own.UNREACHABLE
    assert f"no connection within 0.1 s: {address}: " in manager.lines()[-1]
    assert "127.0.0.1: nothing listens there" in manager.lines()[-1]
    assert "exit code 123 means that the server was unreachable" in manager.lines()[-1]


def test_unknown_name(guest: Guest) -> None:
    """A name that does not resolve is told as one."""
    keys = str(guest.folder / "host")
    manager = guest.start("--keys", keys, "--connect-timeout", "50ms", "nowhere.invalid", "--", "web")
    assert manager.ends() == Own.UNREACHABLE
    assert "the name nowhere.invalid cannot be resolved" in manager.lines()[-1]


@pytest.mark.parametrize("shakes", [False, True])
def test_server_that_says_nothing(guest: Guest, *, shakes: bool) -> None:
    """A server that hangs before it has greeted us costs no more than the connect timeout."""
    manager = guest.call("--connect-timeout", "700ms")
    guest.accept(shakes=shakes)
    assert manager.ends() == Own.UNREACHABLE
    assert "no connection within 0.7 s" in manager.lines()[-1]


def test_server_that_hangs(guest: Guest) -> None:
    """Once polls are not answered, the manager ends within the bound that it told at its start."""
    manager, peer, launch = guest.launched(*QUICK)
    for _ in range(3):
        peer.report(launch)
    hung = time.monotonic()
    assert manager.ends() == Own.UNREACHABLE
    assert 0.6 < time.monotonic() - hung < 5
    assert "cannot be reached: no answer to a poll within 0.7 s; no way back within 300 ms" in manager.lines()[-1]
    assert "after its launch" in manager.lines()[-1]


def test_server_that_says_bye(guest: Guest) -> None:
    """The reason for which the server hangs up is told; nothing is known of the application."""
    manager, peer, _ = guest.launched(*FOR_GOOD)
    peer.say(m.Bye("the machine is\ngoing down"))
    assert manager.ends() == Own.UNREACHABLE
    assert r"vm1 hung up: the machine is\ngoing down" in manager.lines()[-1]


@pytest.mark.parametrize("how", ["reset", "close"])
def test_connection_that_breaks(guest: Guest, how: str) -> None:
    """A connection that ends without a word is an unreachable server, not a dead application."""
    manager, peer, _ = guest.launched(*FOR_GOOD)
    getattr(peer, how)()
    assert manager.ends() == Own.UNREACHABLE
    assert "vm1 closed the connection" in manager.lines()[-1]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b"what?\n", "a line that is not JSON"),
        (b'{"type":"report","id":99}\n', "a bad report"),
        (b'{"type":"done","id":99}\n', "a done that answers nothing that was asked"),
        (b'{"type":"welcome","id":1,"version":1}\n', "a welcome that answers nothing that was asked"),
        (b"x" * 70_000, "a line of more than 65536 bytes"),
    ],
)
def test_server_that_talks_nonsense(guest: Guest, bad: bytes, reason: str) -> None:
    """What the protocol does not allow ends the link, and both sides know why."""
    manager, peer, _ = guest.launched(*FOR_GOOD)
    peer.blurt(bad)
    assert reason in peer.hear(m.Bye).reason
    assert manager.ends() == Own.UNREACHABLE
    assert reason in manager.lines()[-1]


def test_version_that_was_not_offered(guest: Guest) -> None:
    """A server cannot talk us into a version that we do not speak."""
    manager = guest.call("--connect-timeout", "700ms")
    peer = guest.accept()
    peer.say(m.Welcome(peer.hear(m.Hello).id, 99))
    assert "version 99, which we did not offer" in peer.hear(m.Bye).reason
    assert manager.ends() == Own.UNREACHABLE


def test_unknown_messages_are_passed_over(guest: Guest) -> None:
    """A newer server may push what we do not know."""
    manager, peer, launch = guest.launched()
    peer.blurt(b'{"type":"weather","sky":"blue"}\n')
    peer.say(m.Ready(launch.run_id), m.Exited(receipt(launch, Exited(5))))
    assert manager.ends() == 5


def test_outcome_before_nonsense(guest: Guest) -> None:
    """An outcome that was said is known, whatever came in the same breath."""
    manager, peer, launch = guest.launched()
    peer.blurt(peer.session.send(m.Exited(receipt(launch, Exited(6)))) + b"what?\n")
    assert manager.ends() == 6


def test_outcome_before_a_break(guest: Guest) -> None:
    """An outcome that has come is known, though the link is found broken by a write before it is read."""
    manager, peer, launch = guest.launched()
    manager.says("launched")
    manager.freeze()
    peer.say(m.Exited(receipt(launch, Exited(7))))
    peer.reset()
    manager.signal(signal.SIGTERM)
    manager.signal(signal.SIGCONT)
    assert manager.ends() == 7


@pytest.mark.parametrize("stage", ["launched", "exited"])
def test_run_of_another(guest: Guest, stage: str) -> None:
    """Nothing that is said of another run is taken for ours."""
    other = "00000000-0000-4000-8000-000000000000"
    manager = guest.call(*FOR_GOOD)
    peer = guest.accept()
    peer.greet()
    launch = peer.hear(m.Launch)
    peer.say(m.Launched(launch.id, other if stage == "launched" else launch.run_id, 4711))
    if stage == "exited":
        peer.say(m.Exited(receipt(launch.replace(run_id=other), Exited(0))))
    assert manager.ends() == Own.UNREACHABLE
    assert f"something about the run {other}, which is not ours" in manager.lines()[-1]
