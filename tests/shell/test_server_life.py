"""The server's own life: it reloads without touching what runs, and ends only when everything has ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import StopRules
from cmapp.errors import TrustError
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.keystore import read_authority, write_credential
from cmapp.net.identity import Identity, Role
from tests.shell.served import COMMAND, SOON, STOPS, alive, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

FLOOD = 1_000_000  # signals
DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
WITHOUT_IPV6 = """
import errno, socket
class Socket(socket.socket):
    def __init__(self, family=-1, *rest, **named):
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "no IPv6 here")
        super().__init__(family, *rest, **named)
socket.socket = Socket
from cmapp.cli.cmappserver import main
main()
"""


def serial(caller: Caller) -> object:
    """Return the serial number of the certificate that the server showed."""
    return (caller.link.tls.getpeercert() or {})["serialNumber"]


def reload(server: Served) -> None:
    """Have the server read its settings and keys again, and wait until it has."""
    server.signal(signal.SIGHUP)
    assert server.notice().startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert server.notice() == "READY=1"


def test_stop_ends_all_applications(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """SIGTERM stops every application by its rules, tells each manager, says goodbye and exits 0."""
    server = serve()
    heeds, ignores, idle = (call(server) for _ in range(3))
    heeds.launch("sleep", "1000")
    pid = ignores.launch(*DEAF, stop=StopRules(timeout=0.3), output=True)
    ignores.wrote(b"up")
    server.signal(signal.SIGTERM)
    assert server.notice() == "STOPPING=1"
    receipts = [caller.await_(m.Exited).receipt for caller in (heeds, ignores)]
    assert [(receipt.outcome, receipt.forced) for receipt in receipts] == [(Signaled(15), False), (Signaled(9), True)]
    assert {receipt.reason for receipt in receipts} == {Reason.SERVER_STOPPED}
    for caller in (heeds, ignores, idle):
        assert caller.bye() == "the server is stopped"
        caller.close()
    assert server.wait() == 0
    assert not alive(pid)


def test_nothing_starts_while_stopping(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A server that is stopping launches nothing more, takes back what waits, and lets nobody in."""
    server = serve()
    first, waits, late = (call(server) for _ in range(3))
    first.launch(*DEAF, stop=StopRules(timeout=1), output=True)
    first.wrote(b"up")
    first.close()
    waits.try_to_launch("true", name=first.name)
    assert waits.report().state is m.Phase.WAITING
    server.signal(signal.SIGTERM)
    assert waits.await_(m.Refused).code == "stopped"
    assert late.refused("true").code == "stopped"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), SOON)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_stop_kills(serve: Callable[..., Served], call: Callable[..., Caller], number: int) -> None:
    """A second signal does not wait for what ignores the first."""
    server = serve()
    caller = call(server)
    caller.launch(*DEAF, stop=StopRules(timeout=1000), output=True)
    caller.wrote(b"up")
    server.signal(number)
    assert server.notice() == "STOPPING=1"
    server.signal(number)
    assert caller.await_(m.Exited).receipt.outcome == Signaled(9)
    caller.close()
    assert server.wait() == 0


def test_end_behind_a_flood_is_told(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A manager that is behind with reading output still hears the end of its run before the server is gone."""
    server = serve()
    slow = call(server)
    pid = slow.launch("sh", "-c", "trap 'exit 3' TERM; while :; do head -c 1000000 /dev/zero; done", output=True)
    until(lambda: moved(server) > 30_000_000, "more is written than fits in all buffers")
    server.signal(signal.SIGTERM)
    until(lambda: not alive(pid), "it has ended")
    assert slow.await_(m.Exited).receipt.outcome == Exited(3)
    assert slow.bye() == "the server is stopped"


def moved(server: Served) -> int:
    """Return how many bytes the server has read by system calls."""
    return int(Path(f"/proc/{server.pid}/io").read_text().split()[1])


def test_reload_takes_new_keys(
    serve: Callable[..., Served], call: Callable[..., Caller], key_folders: Path, tmp_path: Path
) -> None:
    """New connections see the new certificate, without a word to the server, and the links that were there go on."""
    keys = shutil.copytree(key_folders / "guest", tmp_path / "keys")
    server = serve(keys=keys)
    old = call(server)
    old.launch("sleep", "1000")
    authority = read_authority(key_folders / "authority")
    new = issue(authority, Identity(Role.GUEST, "vm1"), days=2, now=datetime.now(UTC))
    write_credential(keys, new, authority, force=True)
    fresh = call(server)
    assert serial(fresh) != serial(old)
    server.logged("the keys in .* have changed and are used from here on")
    reload(server)
    assert serial(call(server)) == serial(fresh)
    assert fresh.run("true").outcome == Exited(0)
    assert old.stop().outcome == Signaled(15)


def test_reload_takes_new_authority(
    serve: Callable[..., Served], call: Callable[..., Caller], key_folders: Path, tmp_path: Path
) -> None:
    """While an authority is replaced, the managers of both get in, for ca.pem may hold several."""
    keys = shutil.copytree(key_folders / "guest", tmp_path / "keys")
    server = serve(keys=keys)
    foreign = shutil.copytree(key_folders / "host-foreign", tmp_path / "foreign")
    shutil.copy(key_folders / "host" / "ca.pem", foreign / "ca.pem")  # it trusts the guest
    with pytest.raises(TrustError):
        call(server, keys=foreign)
    both = (key_folders / "guest" / "ca.pem").read_text() + (key_folders / "host-foreign" / "ca.pem").read_text()
    (keys / "ca.pem").write_text(both)
    reload(server)
    for folder in (foreign, key_folders / "host"):
        assert call(server, keys=folder).run("true").outcome == Exited(0)


def test_reload_takes_new_settings(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """SIGHUP changes what connections and launches from here on get, and says what it cannot change."""
    server = serve()
    config = tmp_path / "server-0" / "conf"
    caller = call(server)
    caller.launch("sleep", "1000")
    config.write_text(STOPS + 'max_applications = 1\noutput_keep = 4\nlog_level = "debug"\nsearch_path = "/nowhere"\n')
    reload(server)
    assert call(server).refused("sleep", "1000").code == "capacity"
    caller.stop()
    after = call(server)
    assert after.refused("sleep", "1000").code == "not-found"
    after.launch("/bin/echo", "12345678")
    after.await_(m.Exited)
    assert after.ask(m.Output, m.Tail, stream=m.Stream.STDOUT).data == b"678\n"
    config.write_text(STOPS)
    reload(server)
    assert call(server).run("echo", "x").stdout == b"x\n"


def test_stops_without_end(serve: Callable[..., Served]) -> None:
    """However often it is told to stop, the server that has nothing to stop exits 0, to the very end."""
    server = serve()
    while not ended(server.process, within=0.001):
        server.signal(signal.SIGTERM)
    assert server.wait() == 0


def test_flood_of_stops(serve: Callable[..., Served]) -> None:
    """More signals at once than the loop's socket holds do not deadlock the interpreter, as its complaint could."""
    server = serve()
    for _ in range(FLOOD):
        if server.process.poll() is not None:
            break
        server.signal(signal.SIGTERM)
    assert server.wait() == 0


def ended(process: subprocess.Popen[bytes], within: float) -> bool:
    """Wait for the end of a process for so many seconds; return whether it came."""
    with suppress(subprocess.TimeoutExpired):
        process.wait(within)
    return process.returncode is not None


@pytest.mark.parametrize("bad", ["max_applications = 0\n", "colour = 1\n", "= =\n", None])
def test_reload_of_what_is_wrong(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path, bad: str | None
) -> None:
    """A reload that cannot be done changes nothing, says why with the file's name, and the server goes on."""
    server = serve("--max-applications", "2") if bad is None else serve()
    config = tmp_path / "server-0" / "conf"
    if bad is None:
        config.unlink()
    else:
        config.write_text(bad)
    since = len(server.lines)
    reload(server)
    server.logged(f"ERROR: not reloaded, everything stays as it was: {config}: ", since=since)
    assert call(server).run("true").outcome == Exited(0)


def test_reload_without_keys(
    serve: Callable[..., Served], call: Callable[..., Caller], key_folders: Path, tmp_path: Path
) -> None:
    """Keys that are gone or broken leave the ones that are in use."""
    keys = shutil.copytree(key_folders / "guest", tmp_path / "keys")
    server = serve(keys=keys)
    other = make_authority(None, days=1, now=datetime.now(UTC))
    write_credential(
        tmp_path / "x", issue(other, Identity(Role.GUEST, "vm1"), days=1, now=datetime.now(UTC)), other, force=False
    )
    for harm in (
        lambda: shutil.copy(tmp_path / "x" / "key.pem", keys),
        lambda: (keys / "cert.pem").write_text(""),
        lambda: shutil.rmtree(keys),
    ):
        harm()
        since = len(server.lines)
        reload(server)
        server.logged("not reloaded.*(key.pem|cert.pem)", since=since)
        assert call(server).run("true").outcome == Exited(0)


def closed(stack: ExitStack) -> tuple[int | None, tuple[str, ...]]:
    """Close stderr before the server starts."""
    del stack
    return None, ("sh", "-c", 'exec "$@" 2>&-', "sh")


def full(stack: ExitStack) -> tuple[int | None, tuple[str, ...]]:
    """Give the server a stderr that is always full."""
    return stack.enter_context(Path("/dev/full").open("wb")).fileno(), ()


def broken(stack: ExitStack) -> tuple[int | None, tuple[str, ...]]:
    """Give the server a stderr that nobody reads any more."""
    reading, writing = os.pipe()
    os.close(reading)
    stack.callback(os.close, writing)
    return writing, ()


@pytest.mark.parametrize("harm", [closed, full, broken])
def test_log_that_cannot_be_written(
    call: Callable[..., Caller],
    key_folders: Path,
    tmp_path: Path,
    harm: Callable[[ExitStack], tuple[int | None, tuple[str, ...]]],
) -> None:
    """A server that can tell nobody what it does serves on, and exits 0 when it is stopped."""
    with ExitStack() as stack:
        notices = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        notices.bind(str(tmp_path / "ready"))
        notices.settimeout(SOON)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        stderr, prefix = harm(stack)
        options = ["--keys", key_folders / "guest", "--state-dir", tmp_path / "state", "--listen", f"127.0.0.1:{port}"]
        environment = {**os.environ, "NOTIFY_SOCKET": str(tmp_path / "ready")}
        process = subprocess.Popen(
            [*prefix, *COMMAND, *options], env=environment, stderr=stderr, stdin=subprocess.DEVNULL
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        assert notices.recv(100) == b"READY=1"
        for _ in range(3):
            caller = call(SimpleNamespace(port=port))
            assert caller.run("sh", "-c", "echo x >&2; exit 3").stderr == b"x\n"
            assert caller.run_id
            caller.close()
        process.terminate()
        assert process.wait(SOON) == 0


def test_machine_without_ipv6(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Where there is no IPv6, listening on every address means every one that there is."""
    server = serve("--listen", "*:0", command=(sys.executable, "-c", WITHOUT_IPV6))
    assert server.logged("listening on 0.0.0.0:")
    assert call(server).welcome.version == 1


def test_several_addresses(serve: Callable[..., Served]) -> None:
    """The server listens on each address that it was given, IPv6 too."""
    server = serve("--listen", "[::1]:0", "--listen", "localhost:0")
    port = int(server.logged(r"listening on \[::1\]:(\d+)$")[1])
    socket.create_connection(("::1", port), SOON).close()


def test_server_that_is_killed_leaves_the_lock(
    serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path
) -> None:
    """After a crash the state folder can be used at once."""
    first = serve()
    first.signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    second = serve("--state-dir", str(tmp_path / "server-0" / "state"))
    assert call(second).run("true").outcome == Exited(0)
