"""An administrator's questions, asked of a guest that says what the test wants, when it wants.

The test plays the server in its own thread and the inquiry runs in another, over real TLS. The invariant:
nothing waits longer than SOON.
"""

from __future__ import annotations

import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from cmapp.core import messages as m
from cmapp.errors import CmappError, LinkError, LocalProtocolError, RemoteProtocolError, TrustError
from cmapp.host import inquiry
from cmapp.host.inquiry import DeclinedError, Inquiry
from cmapp.net.address import Address
from cmapp.net.tls import client_context, server_context
from tests.shell.manager_bed import SOON, Peer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

RUN_ID = "0b2a8f4e-5d56-4f0a-9b3c-2f1f6f8f0a01"


class Asking:
    """A guest that listens, and the one who asks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pool = ThreadPoolExecutor(1)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(SOON)
        self._peers: list[Peer] = []

    def ask(self, question: Callable[[Inquiry], Any], *, guest: str = "vm1", keys: str = "host") -> Future[Any]:
        """Ask in a thread of its own; the future has the answer."""
        address = Address("127.0.0.1", self._listener.getsockname()[1])
        context = client_context(str(self.folder / keys))

        def asked() -> object:
            with Inquiry(Address(guest, 5315), address, context) as asking:
                return question(asking)

        return self._pool.submit(asked)

    def accept(self, *, shakes: bool = True, keys: str = "guest") -> Peer:
        """Take the next connection."""
        sock, _ = self._listener.accept()
        self._peers.append(Peer(sock, server_context(str(self.folder / keys))))
        if shakes:
            self._peers[-1].shake()
        return self._peers[-1]

    def greeted(self) -> Peer:
        """Take the next connection and answer its hello."""
        peer = self.accept()
        peer.greet()
        return peer

    def close(self) -> None:
        """Take everything down."""
        for peer in self._peers:
            peer.close()
        self._listener.close()
        self._pool.shutdown()


@pytest.fixture
def asking(key_folders: Path) -> Iterator[Asking]:
    """Return a guest that can be asked."""
    asking = Asking(key_folders)
    yield asking
    asking.close()


def names(asking: Inquiry) -> list[str]:
    """Ask for the names of all runs."""
    return [run.name for run in asking.runs()]


def page(status: m.Status, *names: str, more: bool = False) -> m.Runs:
    """Answer with runs of these names."""
    return m.Runs(status.id, tuple(m.RunReport(name, RUN_ID, m.Phase.RUNNING) for name in names), more=more)


def fails(future: Future[Any], kind: type[CmappError]) -> str:
    """Wait for the error that the question ends with, and return its sentence."""
    with pytest.raises(kind) as error:
        future.result(SOON)
    return str(error.value)


def test_all_pages_are_asked_for(asking: Asking) -> None:
    """A server with more runs than a line holds is asked on from the last name."""
    answer = asking.ask(names)
    peer = asking.greeted()
    for after, told, more in (("", ("a", "b"), True), ("b", ("c",), True), ("c", (), False)):
        status = peer.hear(m.Status)
        assert status.after == after
        peer.say(page(status, *told, more=more))
    assert answer.result(SOON) == ["a", "b", "c"]
    assert peer.hear(m.Bye).reason


@pytest.mark.parametrize("on", [True, False])
def test_a_run_is_held_and_resumed(asking: Asking, on: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """The server hears which application is meant, and what is to be done with it."""
    answer = asking.ask(lambda inquiry: inquiry.hold("db", on=on))
    peer = asking.greeted()
    hold = peer.hear(m.Hold)
    assert (hold.name, hold.on) == ("db", on)
    peer.say(m.Done(hold.id))
    assert answer.result(SOON) is None


def test_who_asks_is_told_apart(asking: Asking) -> None:
    """The hello names the host, and lets the server give up on an administrator who was stopped."""
    answer = asking.ask(lambda inquiry: inquiry.welcome)
    peer = asking.accept()
    hello = peer.greet()
    assert (hello.node, hello.silence, hello.versions) == (socket.gethostname(), inquiry.SILENCE, m.VERSIONS)
    assert answer.result(SOON).guest == "vm1"


def test_a_refusal_is_told(asking: Asking) -> None:
    """The server's own sentence is what the administrator reads, with its code."""
    answer = asking.ask(lambda inquiry: inquiry.hold("db", on=True))
    peer = asking.greeted()
    peer.say(m.Refused(m.Refusal.NO_RUN, "nothing of that name runs", id=peer.hear(m.Hold).id))
    assert fails(answer, DeclinedError) == "vm1 declined: nothing of that name runs (no-run)"


def test_a_word_of_tomorrow_is_ignored(asking: Asking) -> None:
    """A push that this version does not know is no answer, and no harm."""
    answer = asking.ask(names)
    peer = asking.greeted()
    status = peer.hear(m.Status)
    peer.blurt(b'{"type":"weather","sun":true}\n')
    peer.say(page(status, "a"))
    assert answer.result(SOON) == ["a"]


@pytest.mark.parametrize(
    ("first", "second"),
    [(("b", "a"), ()), (("a", "b"), ("b",)), (("b",), ("a",))],
    ids=["not in order", "the last again", "from the beginning"],
)
def test_a_server_that_goes_round_in_circles_is_left(
    asking: Asking, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    """Pages must get on, or asking would never end."""
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.say(page(peer.hear(m.Status), *first, more=True))
    if second:
        peer.say(page(peer.hear(m.Status), *second, more=True))
    assert fails(answer, RemoteProtocolError) == "vm1 does not tell of its runs in the order of their names"


def test_more_of_nothing_is_not_believed(asking: Asking) -> None:
    """A page without runs after which there is more would be asked for for ever."""
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.say(page(peer.hear(m.Status), more=True))
    assert "order of their names" in fails(answer, RemoteProtocolError)


def test_runs_have_a_limit(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever makes up names for ever is left."""
    monkeypatch.setattr(inquiry, "RUNS_LIMIT", 3)
    answer = asking.ask(names)
    peer = asking.greeted()
    for told in (("a", "b"), ("c", "d")):
        peer.say(page(peer.hear(m.Status), *told, more=True))
    assert fails(answer, RemoteProtocolError) == "vm1 tells of more than 3 runs, or too much of them"


def test_an_answer_to_another_question(asking: Asking) -> None:
    """What does not answer what was asked ends the inquiry."""
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.blurt(b'{"type":"done","id":%d}\n' % peer.hear(m.Status).id)
    assert fails(answer, RemoteProtocolError).startswith("vm1 said what it must not say: ")


def test_a_version_that_was_not_offered(asking: Asking) -> None:
    """A server that answers in another version is not spoken to."""
    answer = asking.ask(names)
    peer = asking.accept()
    peer.say(m.Welcome(peer.hear(m.Hello).id, 99))
    assert fails(answer, RemoteProtocolError) == "vm1 wants version 99, which was not offered"


def test_the_reason_of_a_bye_is_told(asking: Asking) -> None:
    """A server that is stopped, or full, says so."""
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.hear(m.Status)
    peer.say(m.Bye("the server is stopped"))
    assert fails(answer, LinkError) == "vm1 hung up: the server is stopped"


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
def test_a_lost_link_is_told(asking: Asking, reset: bool) -> None:  # noqa: FBT001 - pytest passes it by name
    """A server that is killed is no answer."""
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.hear(m.Status)
    (peer.reset if reset else peer.close)()
    assert "closed the connection" in fails(answer, LinkError)


@pytest.mark.parametrize("after", ["connect", "handshake", "hello", "welcome", "half a line"])
def test_silence_has_a_bound(asking: Asking, monkeypatch: pytest.MonkeyPatch, after: str) -> None:
    """Wherever a guest stops answering, the administrator is told, and not left waiting."""
    monkeypatch.setattr(inquiry, "LIMIT", 0.5)
    answer = asking.ask(names)
    peer = asking.accept(shakes=after != "connect")
    if after in {"hello", "welcome", "half a line"}:
        hello = peer.hear(m.Hello)
        if after != "hello":
            peer.say(m.Welcome(hello.id, 1))
            peer.hear(m.Status)
        if after == "half a line":
            peer.blurt(b'{"type":"ru')
    said = "vm1 did not answer within 500 ms; it may be paused, hung or overloaded"
    assert fails(answer, LinkError) == said


def test_a_flood_of_nothing_has_a_bound(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of tomorrow are ignored for as long as an answer may take, and no longer."""
    monkeypatch.setattr(inquiry, "LIMIT", 0.5)
    answer = asking.ask(names)
    peer = asking.greeted()
    peer.hear(m.Status)
    with suppress(LinkError):  # once the other side has had enough
        while not answer.done():
            peer.blurt(b'{"type":"weather"}\n' * 1000)
    assert "did not answer within 500 ms" in fails(answer, LinkError)


def test_nobody_listens(asking: Asking) -> None:
    """What the dial found out is told."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", sock.getsockname()[1])
        with (
            pytest.raises(LinkError, match="nothing listens there; is cmappserver running"),
            Inquiry(Address("vm1", 5315), address, client_context(str(asking.folder / "host"))),
        ):
            pass


def test_a_guest_of_another_name_is_not_asked(asking: Asking) -> None:
    """The certificate must bear the name that was called, whatever the address."""
    answer = asking.ask(names, guest="vm2")
    peer = asking.accept(shakes=False)
    with pytest.raises(CmappError):
        peer.shake()
    assert "the certificate of vm2 is for another name" in fails(answer, TrustError)


def test_a_host_that_listens_is_not_asked(asking: Asking) -> None:
    """A host's key cannot play a guest."""
    answer = asking.ask(names)
    peer = asking.accept(shakes=False, keys="host")
    with pytest.raises(CmappError):
        peer.shake()
    assert "a host's cannot serve" in fails(answer, TrustError)


@pytest.mark.parametrize("keys", ["guest", "host-foreign"])
def test_a_key_that_the_guest_does_not_trust(asking: Asking, keys: str) -> None:
    """A guest that refuses us says why, also when it has hung up by the time that we ask."""
    answer = asking.ask(names, keys=keys)
    peer = asking.accept(shakes=False)
    with pytest.raises(CmappError):
        peer.shake()
    peer.close()
    fails(answer, TrustError)


def test_nothing_is_asked_before_the_welcome(asking: Asking) -> None:
    """A question without a link is a defect of ours, and told as one."""
    context = client_context(str(asking.folder / "host"))
    with pytest.raises(LocalProtocolError):
        Inquiry(Address("vm1", 5315), Address("127.0.0.1", 1), context).hold("db", on=True)
