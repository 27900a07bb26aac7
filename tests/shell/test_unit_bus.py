"""The bus: against a real dbus-daemon of our own, with messages that another implementation, GLib's, has written."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from cmapp.core.dbus import BusMessage, Kind, Variant, bare
from cmapp.guest import bus
from cmapp.guest.bus import DRIVEN, Bus
from cmapp.guest.systemd import NAME, Systemd, name_of, path_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import Any

pytestmark = pytest.mark.skipif(
    not (shutil.which("dbus-daemon") and shutil.which("gdbus")),
    reason="needs the packages dbus-daemon and libglib2.0-bin",
)
LIMIT = 10.0  # seconds
CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>system</type><listen>unix:path={path}</listen><auth>{auth}</auth>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
<allow send_type="signal"/><allow eavesdrop="true"/></policy></busconfig>
"""


class Daemon:
    """A bus of our own at `path`; `auth` is how whoever comes has to prove himself."""

    def __init__(self, folder: Path, auth: str = "EXTERNAL") -> None:
        self.path = str(folder / "bus")
        config = folder / f"{auth}.conf"
        config.write_text(CONFIG.format(path=self.path, auth=auth))
        command = ["dbus-daemon", f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with self.process.stdout or pytest.fail("no output") as said:
            assert said.readline()  # it listens

    def emit(self, *words: str) -> None:
        """Have GLib emit a signal."""
        env = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={self.path}"}
        subprocess.run(["gdbus", "emit", "--system", *words], check=True, timeout=LIMIT, env=env)

    def end(self) -> None:
        """End it, as a crash would."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """A bus."""
    made = Daemon(tmp_path)
    yield made
    made.end()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop, not begun."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def until(loop: asyncio.AbstractEventLoop, condition: Callable[[], Any]) -> None:
    """Let the loop run until that holds."""
    deadline = loop.time() + LIMIT
    while not condition():
        assert loop.time() < deadline
        loop.run_until_complete(asyncio.sleep(0.005))


def test_calls_are_answered_in_order(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> None:
    """What is asked before we are let in is asked then; an error is an answer too."""
    answers: list[BusMessage | None] = []
    ours = Bus(loop, daemon.path, lambda _: None, pytest.fail)
    ours.call(DRIVEN, "GetNameOwner", "s", DRIVEN[0], done=answers.append)
    ours.call(DRIVEN, "NoSuchThing", done=answers.append)
    until(loop, lambda: len(answers) == 2)
    assert answers[0] is not None
    assert answers[0].body == (DRIVEN[0],)
    assert answers[1] is not None
    assert (answers[1].kind, answers[1].error.rpartition(".")[2]) == (Kind.ERROR, "UnknownMethod")
    ours.call(DRIVEN, "UpdateActivationEnvironment", "a{ss}", {"A": "b", "C": "ü" * 100_000}, done=answers.append)
    until(loop, lambda: len(answers) == 3)  # it is long, and dbus-daemon has read it whole to answer at all
    assert answers[2] is not None
    ours.close()


def test_signals_of_another_implementation_are_heard(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> None:
    """Nested values come as GLib has written them."""
    heard: list[BusMessage] = []
    ours = Bus(loop, daemon.path, heard.append, pytest.fail)
    matched: list[BusMessage | None] = []
    ours.call(DRIVEN, "AddMatch", "s", "type='signal',interface='a.b'", done=matched.append)
    until(loop, lambda: matched)
    value = "{'k': <(byte 1, true, int16 -2, uint64 3, 4.5, [('x', objectpath '/a')], <<signature 'ay'>>)>}"
    daemon.emit("--object-path", "/o", "--signal", "a.b.C", value, "'é'")
    until(loop, lambda: any(message.member == "C" for message in heard))
    told = heard[-1]
    assert (told.path, told.signature) == ("/o", "a{sv}s")
    assert bare(told.body) == ({"k": (1, True, -2, 3, 4.5, [("x", "/a")], "ay")}, "é")
    ours.close()


def test_a_bus_that_ends_is_told_once(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> None:
    """Who waits for an answer gets none, and who asks later neither."""
    lost: list[str] = []
    answers: list[BusMessage | None] = []
    ours = Bus(loop, daemon.path, lambda _: None, lost.append)
    ours.call(DRIVEN, "GetId", done=answers.append)
    until(loop, lambda: answers)
    ours.call(("a.b", "/", "a.b"), "C", done=answers.append)
    daemon.end()
    until(loop, lambda: lost)
    ours.call(DRIVEN, "GetId", done=answers.append)
    until(loop, lambda: len(answers) == 3)
    assert answers[2] is None
    assert len(lost) == 1


def test_who_is_not_let_in_is_told(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    """A bus that wants another proof is of no use."""
    strict = Daemon(tmp_path, auth="DBUS_COOKIE_SHA1")
    lost: list[str] = []
    Bus(loop, strict.path, lambda _: None, lost.append)
    until(loop, lambda: lost)
    assert lost == ["it does not let us in"]
    strict.end()


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"OK 0\r\nnothing like a message", "no message of D-Bus"),
        (b"x" * 2000, "too long"),
        (b"OK 0\r\n" + b"l\2\0\1" + b"\xff" * 12, "more than"),
        (b"", "hung up"),
    ],
)
def test_a_peer_that_talks_nonsense_is_left(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, said: bytes, why: str
) -> None:
    """Whatever it says ends the connection, with the reason, and nothing else."""
    lost: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "peer"))
        listener.listen()
        Bus(loop, str(tmp_path / "peer"), lambda _: None, lost.append)
        peer, _ = listener.accept()
        with peer:
            peer.sendall(said)
            if not said:
                peer.shutdown(socket.SHUT_WR)
            until(loop, lambda: lost)
    assert why in lost[0]


def test_a_peer_that_is_silent_is_left(
    loop: asyncio.AbstractEventLoop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is waited for for ever."""
    monkeypatch.setattr(bus, "ANSWER_LIMIT", 0.05)
    lost: list[str] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "peer"))
        listener.listen()
        Bus(loop, str(tmp_path / "peer"), lambda _: None, lost.append)
        until(loop, lambda: lost)


# ---- systemd ---------------------------------------------------------------------------------------------------


class Heard:
    """What a watcher is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def back(self) -> None:
        """Be told."""
        self.told.append(("back",))

    def away(self, why: str) -> None:
        """Be told."""
        self.told.append(("away", why))

    def changed(self, interface: str, properties: dict[str, Any]) -> None:
        """Be told."""
        self.told.append(("changed", interface, properties))

    def job_begun(self, job: int) -> None:
        """Be told."""
        self.told.append(("job begun", job))

    def job_ended(self, job: int, result: str) -> None:
        """Be told."""
        self.told.append(("job ended", job, result))


def test_without_a_bus_it_is_said_so(loop: asyncio.AbstractEventLoop, tmp_path: Path) -> None:
    """Who watches hears why, and again only `away`, until there is one."""
    systemd, heard = Systemd(loop, [(str(tmp_path / "bus"), True), (str(tmp_path / "private"), False)]), Heard()
    systemd.watch("a.service", heard)
    until(loop, lambda: heard.told)
    assert heard.told[0][0] == "away"
    assert "No such file" in heard.told[0][1]
    systemd.forget("a.service", heard)


def test_where_there_is_no_systemd_it_is_said_so(loop: asyncio.AbstractEventLoop, daemon: Daemon) -> None:
    """A bus alone does not start units."""
    systemd, heard = Systemd(loop, [(daemon.path, True)]), Heard()
    systemd.watch("a.service", heard)
    until(loop, lambda: heard.told)
    assert heard.told[0][0] == "away"
    assert NAME in heard.told[0][1]
    systemd.close()


def signal_of(sender: str, member: str, signature: str, *body: Any) -> BusMessage:
    """Return a signal about the unit, or to all."""
    path = path_of("a.service") if member == "PropertiesChanged" else "/org/freedesktop/systemd1"
    return BusMessage(Kind.SIGNAL, 1, path, "a.b", member, sender=sender, signature=signature, body=body)


def test_only_systemd_is_believed(loop: asyncio.AbstractEventLoop) -> None:
    """What anybody else says is not heard, though it is what systemd would say, and came to us."""
    systemd, heard = Systemd(loop, []), Heard()
    systemd.watch("a.service", heard)
    changed: tuple[Any, ...] = ("PropertiesChanged", "sa{sv}as", "x", {"A": Variant("u", 1)}, [])
    for owner, sender in (("", ":1.5"), ("", ""), (":1.6", ":1.5"), (":1.6", ""), (":1.6", DRIVEN[0])):
        systemd.owner = owner
        systemd.heard(signal_of(sender, *changed))
        assert heard.told == []
    systemd.heard(signal_of(":1.6", *changed))
    assert heard.told[-1] == ("changed", "x", {"A": 1})
    before = len(heard.told)
    for wrong in (("JobNew", "uos", 7, "/", "b.service"), ("JobNew", "s", "a.service"), ("Reloading", "b", True)):
        systemd.heard(signal_of(":1.6", *wrong))
    systemd.heard(signal_of(":1.7", "NameOwnerChanged", "sss", NAME, ":1.6", ":1.7"))
    assert (len(heard.told), systemd.owner) == (before, ":1.6")
    systemd.heard(signal_of(":1.6", "JobNew", "uos", 7, "/", "a.service"))
    systemd.heard(signal_of(":1.6", "JobRemoved", "uoss", 7, "/", "a.service", "done"))
    systemd.heard(signal_of(":1.6", "Reloading", "b", False))
    systemd.heard(signal_of(DRIVEN[0], "NameOwnerChanged", "sss", NAME, ":1.6", ":1.8"))
    assert heard.told[before:] == [("job begun", 7), ("job ended", 7, "done"), ("back",)]
    assert systemd.owner == ":1.8"
    systemd.close()


@pytest.mark.parametrize("name", ["a.service", "postgresql@15-main.service", "9_b\\x2d:c.service"])
def test_paths_of_units_are_systemds(name: str) -> None:
    """A unit's path is written as systemd does it, and read back."""
    assert name_of(path_of(name)) == name
    assert path_of("postgresql@15-main.service").endswith("/postgresql_4015_2dmain_2eservice")
    assert path_of("9.service").endswith("/_39_2eservice")
    assert name_of("/elsewhere") == name_of("/org/freedesktop/systemd1/unit/_zz") == ""
