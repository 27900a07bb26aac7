"""Over vsock: bound and listened on for real; connected over a pair of sockets, or for real where there is a loopback.

The kernel that these tests were made on has vsock to its hypervisor and none to itself. So the tests that need the
loopback transport (vsock_loopback, CID 1) do what can be done: where it is missing they hold the kernel's refusal, and
what we make of it, to the words that a user gets. Nothing is skipped.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import select
import socket
import subprocess
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import LinkError, SettingsError, TrustError
from cmapp.guest.complaints import Complaints
from cmapp.guest.entrance import Entrance, Stranger
from cmapp.guest.gate import Gate
from cmapp.guest.listeners import Listeners, address_of, source_of
from cmapp.host.dial import LIMIT, Dial
from cmapp.net.address import Address, parse_address, parse_listen_address
from cmapp.net.identity import Identity, Role
from cmapp.net.keyring import Keyring
from cmapp.net.link import Link
from cmapp.net.tls import client_context, peer_identity
from tests.shell.manager_bed import Manager
from tests.shell.served import COMMAND, SOON

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.served import Served

ANY = 0xFFFFFFFF
LOCAL = 1
WHY_NOT = {  # what a user is told, by the kernel's refusal
    errno.EADDRNOTAVAIL: "that is no CID of this machine",
    errno.EAFNOSUPPORT: "this kernel or this Python has no vsock",
    errno.EPERM: "vsock is forbidden here",
}


def refusal(cid: int) -> int:
    """Return why the kernel does not bind that CID, or 0."""
    try:
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
            sock.bind((cid, ANY))
    except OSError as error:
        return error.errno or -1
    return 0


def taken(port: int) -> bool:
    """Tell whether somebody listens on that port of vsock."""
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
        try:
            sock.bind((ANY, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


@pytest.fixture
def listeners() -> Iterator[Listeners]:
    """Return listeners on a loop that does not run."""
    loop = asyncio.new_event_loop()
    made = Listeners(loop)
    yield made
    made.close()
    loop.close()


# ---- bound and listened on, for real ---------------------------------------------------------------------------------


def test_both_at_once(serve: Callable[..., Served], key_folders: Path, tmp_path: Path) -> None:
    """The server listens on TCP and vsock at once, says so, and an upgrade hands both over."""
    if refusal(ANY):
        assert WHY_NOT[refusal(ANY)] in last_words(key_folders, tmp_path, "vsock:any:0")
        return
    server = serve("--listen", "vsock:any:0")
    port = int(server.logged(r"listening on vsock:\*:(\d+)$")[1])
    assert taken(port)
    since = len(server.lines)
    server.upgrade()
    assert int(server.logged(r"listening on vsock:\*:(\d+)$", since=since)[1]) == port
    assert taken(port)
    socket.create_connection(("127.0.0.1", server.port), SOON).close()
    server.stop()
    assert not taken(port)


def test_port_that_is_taken(listeners: Listeners) -> None:
    """A port on which somebody else listens is told like one of TCP."""
    if refusal(ANY):
        with pytest.raises(SettingsError, match=WHY_NOT[refusal(ANY)]):
            listeners.listen(parse_listen_address("vsock:any:0"))
        return
    with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as other:
        other.bind((ANY, ANY))
        port = other.getsockname()[1]
        other.listen()
        with pytest.raises(SettingsError, match=rf"cannot listen on vsock:\*:{port}: Address already in use"):
            listeners.listen(parse_listen_address(f"vsock:any:{port}"))


def test_cid_of_another_machine(key_folders: Path, tmp_path: Path) -> None:
    """A CID that is not ours cannot be listened on, and the server ends with that."""
    last = last_words(key_folders, tmp_path, "vsock:4000000000:5315")
    assert "cannot listen on vsock:4000000000:5315: " in last
    assert WHY_NOT[refusal(4_000_000_000)] in last


def last_words(key_folders: Path, tmp_path: Path, address: str) -> str:
    """Return why a server that is to listen at `address` does not start."""
    argv = [*COMMAND, "--keys", str(key_folders / "guest"), "--state-dir", str(tmp_path / "state")]
    argv += ["--config", "/dev/null", "--listen", address]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SOON, check=False)
    assert done.returncode not in (0, 1)
    return done.stderr.splitlines()[-1]


def test_machine_without_vsock(listeners: Listeners, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python, or a kernel, that knows no vsock is told in words on both ends, and the default does without it."""
    monkeypatch.delattr(socket, "AF_VSOCK")
    with pytest.raises(SettingsError, match=r"vsock:\*:5315: this kernel or this Python has no vsock"):
        listeners.listen(parse_listen_address("vsock:any"))
    with pytest.raises(LinkError, match="vsock:3:5315: this Python was built without vsock"):
        Dial(parse_address("vsock:3")).step(0.0)
    listeners.listen(parse_listen_address("*:0"))
    assert listeners.descriptors


# ---- connected -------------------------------------------------------------------------------------------------------


def test_how_peers_are_called() -> None:
    """The log has a peer's CID and port, as an address is written; the caps count it by its CID."""
    assert str(address_of((3, 1234))) == "vsock:3:1234"
    assert str(address_of((ANY, 5315))) == "vsock:*:5315"
    assert str(address_of(("::1", 1234, 0, 0))) == "[::1]:1234"
    sources = [
        source_of(host) for host in ("vsock:3", "192.0.2.7", "2001:db8:1:2:3::4", "2001:db8:1:2::9", "fe80::1%eth0")
    ]
    assert sources == ["vsock:3", "192.0.2.7", "2001:db8:1:2::/64", "2001:db8:1:2::/64", "fe80::/64"]


def test_no_options_of_tcp(key_folders: Path) -> None:
    """A link over another family of sockets is set up without them, and is proven by certificates as ever."""
    ours, theirs = socket.socketpair()
    assert shake_hands(ours, theirs, key_folders, guest="vm1") == Identity(Role.HOST, "n1")


def test_certificate_says_which_guest(key_folders: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who is reached by a CID and is another guest than the one that was called is not spoken to."""
    with pytest.raises(LinkError, match="vm2"):
        shake_hands(*socket.socketpair(), key_folders, guest="vm2")
    assert "turned away: vsock:3:1234 " in caplog.text


def shake_hands(ours: socket.socket, theirs: socket.socket, key_folders: Path, *, guest: str) -> Identity:
    """Have a manager call `guest` over a pair of sockets, the other end of which is an entrance; return who it is."""
    loop = asyncio.new_event_loop()
    keys = Keyring(str(key_folders / "guest"), Role.GUEST)
    gate: Gate[Stranger] = Gate(most=2, each=1, waiting=2)
    came: list[tuple[Link, Identity]] = []
    entrance = Entrance(
        loop,
        gate,
        Complaints(),
        context=keys.context,
        identify=lambda link: peer_identity(link.tls),
        admit=lambda link, identity: came.append((link, identity)),
        limit=1 << 16,
    )
    manager = Link(ours, client_context(str(key_folders / "host")), peer=guest, limit=1 << 16, guest=guest)
    entrance.let_in(theirs, "vsock:3:1234", "vsock:3")
    deadline = time.monotonic() + SOON
    done = False
    try:
        while not (done and came) and time.monotonic() < deadline:
            try:
                done = done or manager.handshake()
            except TrustError as error:
                raise LinkError(str(error)) from None
            finally:
                loop.call_later(0.01, loop.stop)
                loop.run_forever()
        assert (came[0][0].peer, len(gate)) == ("vsock:3:1234", 0)
        return came[0][1]
    finally:
        entrance.close()
        for link, _ in came:
            link.close()
        manager.close()
        loop.close()


def go_on(dial: Dial) -> None:
    """Go on with a dial that does not succeed, until it fails."""
    while True:
        assert dial.step(time.monotonic()) is None
        assert dial.sock is not None
        waiting = select.poll()
        waiting.register(dial.sock, select.POLLOUT)
        assert waiting.poll(SOON * 1000)


def test_dialing_what_does_not_answer() -> None:
    """A CID that nobody has ends with a reason, soon: the kernel is asked for its error, and not to begin anew."""
    dial = Dial(Address("vsock:1", 1))
    began = time.monotonic()
    with closing(dial), pytest.raises(LinkError) as error:
        go_on(dial)
    assert str(error.value).startswith("vsock:1:1: ")
    assert str(error.value).endswith(
        (
            "no answer; it may be down, hung or behind a firewall",
            "no vsock to it",
            "is cmappserver running?",
            "sockets",
            "permitted",
        )
    )
    assert time.monotonic() - began < LIMIT


def test_from_end_to_end(serve: Callable[..., Served], key_folders: Path, tmp_path: Path) -> None:
    """Where there is a loopback of vsock a manager calls by it, and gets the application's own exit code."""
    why_not = refusal(LOCAL)
    if why_not:
        last = last_words(key_folders, tmp_path, "vsock:local:0")
        assert "cannot listen on vsock:1:0: " in last
        assert WHY_NOT[why_not] in last
        return
    server = serve("--listen", "vsock:any:0")
    port = server.logged(r"listening on vsock:\*:(\d+)$")[1]
    options = ["--keys", str(key_folders / "host"), "--address", f"vsock:local:{port}"]
    manager = Manager(tmp_path, [*options, "vm1", "--", "/bin/sh", "-c", "exit 7"])
    assert manager.ends() == 7
    server.logged(r"manager n1 at vsock:1:\d+ connected")


@pytest.fixture(autouse=True)
def _all_levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
