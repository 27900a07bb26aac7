"""How runs end, by themselves and by a stop: to the letter, told once, and with nothing left behind."""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Signaled
from cmapp.core.rules import StopRules
from tests.shell.served import COMMAND, alive, stat, until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
PAUSING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
FATAL = sorted(signal.valid_signals() - HARMLESS - PAUSING)
AT_ONCE = 32
FOREVER = "while :; do sleep 1000; done"
DEAF = f"trap '' TERM; echo up; {FOREVER}"
# A shell's trap is of no use where the signal may come while it forks: the child would be born with it and lose it.
HEEDFUL = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
os.write(1, b"up\\n")
signal.sigwait([signal.SIGUSR1, signal.SIGTERM])
"""


def quickly(**rules: float) -> StopRules:
    """Return stop rules with a short timeout, unless told another."""
    return StopRules(**{"timeout": 0.3, **rules})  # type: ignore[arg-type]


def up(caller: Caller, script: str, *, then: str = "", **fields: object) -> int:
    """Launch a script that says `up`, wait for it, and return its process id; $0 -c "$1" runs `then` after a stop."""
    pid = caller.launch("sh", "-c", script, sys.executable, HEEDFUL + then, output=True, **fields)
    caller.wrote(b"up")
    return pid


def test_every_exit_code(call: Callable[..., Caller]) -> None:
    """All 256 exit codes arrive as they were."""
    codes = list(range(256))
    ended: list[object] = []
    for first in range(0, len(codes), AT_ONCE):
        callers = [call() for _ in codes[first : first + AT_ONCE]]
        for code, caller in zip(codes[first:], callers, strict=False):
            caller.try_to_launch("sh", "-c", f"exit {code}")
        for caller in callers:
            assert isinstance(caller.hear(), m.Launched)
            ended.append(caller.ended().outcome)
            caller.close()
    assert ended == [Exited(code) for code in codes]


def test_every_fatal_signal(call: Callable[..., Caller]) -> None:
    """Every signal that ends a process arrives as it was, the real-time ones too."""
    callers = {number: call() for number in FATAL}
    for number, caller in callers.items():
        os.kill(caller.launch("prlimit", "--core=0", "sleep", "1000"), number)  # a shell catches SIGINT
    ended = {number: caller.ended() for number, caller in callers.items()}
    assert {number: end.outcome for number, end in ended.items()} == {number: Signaled(number) for number in FATAL}
    assert {end.receipt.reason for end in ended.values()} == {Reason.ITSELF}
    assert not any(end.receipt.forced for end in ended.values())


def test_core_dump(call: Callable[..., Caller], tmp_path: Path) -> None:
    """That a core was dumped is told exactly when the kernel told so of the same process in the same place."""
    script = 'ulimit -c "$(ulimit -Hc)"; kill -ABRT $$'
    own = os.posix_spawn("/bin/sh", ["sh", "-c", f"cd {tmp_path}; {script}"], {})
    dumped = os.WCOREDUMP(os.waitpid(own, 0)[1])
    assert dumped or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0
    outcome = call().run("sh", "-c", script, cwd=str(tmp_path)).outcome
    assert outcome == Signaled(signal.SIGABRT, core_dumped=dumped)


def test_times_of_a_receipt(call: Callable[..., Caller]) -> None:
    """A receipt tells when the run started and ended, and how long it lasted by a clock that does not jump."""
    before = time.time()
    receipt = call().run("sleep", "0.2").receipt
    assert before - 1 <= receipt.started <= receipt.ended <= time.time() + 1
    assert 0.2 <= receipt.lasted <= time.time() - before
    assert receipt.ended - receipt.started == pytest.approx(receipt.lasted)


def test_leader_ends_and_children_stay(call: Callable[..., Caller]) -> None:
    """The end of the leader is told at once, what it leaves is killed, and then its name is free."""
    caller = call()
    ended = caller.run("sh", "-c", f"({DEAF}) & echo $!; exit 5", stop=StopRules(timeout=1000))
    assert (ended.outcome, ended.receipt.reason) == (Exited(5), Reason.ITSELF)
    assert ended.receipt.lasted < 500
    (left,) = (int(word) for word in ended.stdout.split() if word != b"up")  # the child may be first to write
    successor = call()
    successor.launch("true", name=caller.name)
    assert not alive(left)
    assert successor.ended().outcome == Exited(0)


def test_stop_signal_is_enough(call: Callable[..., Caller]) -> None:
    """An application that heeds the stop signal ends by it, and by nothing else."""
    caller = call()
    caller.launch("sleep", "1000")
    receipt = caller.stop().receipt
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(15), Reason.ASKED, False)


def test_stop_signal_that_is_handled(call: Callable[..., Caller]) -> None:
    """An application that handles the stop signal it asked for ends with its own code, and its last words arrive."""
    caller = call()
    up(caller, 'exec "$0" -c "$1"', then="os.write(1, b'bye\\n'); sys.exit(7)", stop=StopRules(signal=10))
    ended = caller.stop()
    assert (ended.outcome, ended.receipt.forced) == (Exited(7), False)
    assert ended.stdout == b"up\nbye\n"


def test_stop_signal_that_is_ignored(call: Callable[..., Caller]) -> None:
    """What ignores the stop signal is killed after the timeout, not before, and the receipt says so."""
    caller = call()
    up(caller, DEAF, stop=quickly())
    before = time.monotonic()
    receipt = caller.stop().receipt
    assert time.monotonic() - before >= 0.3
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)


def test_stop_signal_goes_to_the_whole_group(call: Callable[..., Caller]) -> None:
    """Those whom the leader started hear the stop signal too, without the leader passing it on."""
    caller = call()
    child = "os.write(1, b'child\\n')"
    up(caller, 'trap : TERM; "$0" -c "$1" & wait; wait; exit 3', then=child)
    ended = caller.stop()
    assert (ended.outcome, ended.receipt.forced) == (Exited(3), False)
    assert ended.stdout == b"up\nchild\n"


def test_member_that_takes_its_time(call: Callable[..., Caller], tmp_path: Path) -> None:
    """After a stop the end is told when the last of the group has ended by itself, with all that it wrote."""
    os.mkfifo(tmp_path / "go")
    caller = call()
    slow = f"open({str(tmp_path / 'go')!r}).read(); os.write(1, bytes(60000))"
    pid = up(caller, f'"$0" -c "$1" & {FOREVER}', then=slow, stop=StopRules(timeout=1000))
    caller.ask(m.Done, m.Stop)
    until(lambda: stat(pid)[:1] == ["Z"], "the leader has ended")
    assert caller.report().state is m.Phase.STOPPING
    (tmp_path / "go").write_text("\n")
    ended = caller.ended()
    assert (ended.outcome, ended.receipt.forced) == (Signaled(15), False)
    assert ended.stdout == b"up\n" + bytes(60000)


def test_member_that_does_not_go(call: Callable[..., Caller]) -> None:
    """A member that ignores the stop is killed after the timeout, and the leader's outcome stays its own."""
    caller = call()
    up(caller, f"({DEAF}) & {FOREVER}", stop=quickly())
    receipt = caller.stop().receipt
    assert (receipt.outcome, receipt.forced) == (Signaled(15), True)


def test_member_that_cannot_be_seen(serve: Callable[..., Served], call: Callable[..., Caller], tmp_path: Path) -> None:
    """A server without a descriptor to look with does not take a member that lives on for gone."""
    server = serve(command=("prlimit", "--nofile=40", *COMMAND))
    os.mkfifo(tmp_path / "go")
    caller = call(server)
    slow = f"open({str(tmp_path / 'go')!r}).read()"
    pid = up(caller, f'"$0" -c "$1" & echo $!; {FOREVER}', then=slow, stop=StopRules(timeout=1000))
    member = int(caller.wrote(b"\n").split()[0])
    fillers = [call(server, greet=False) for _ in range(40 - server.descriptors)]
    caller.ask(m.Done, m.Stop)
    until(lambda: stat(pid)[:1] == ["Z"], "the leader has ended")
    for _ in range(200):
        assert caller.report().state is m.Phase.STOPPING
    assert alive(member)
    (tmp_path / "go").write_text("\n")
    for filler in fillers:
        filler.close()
    assert caller.ended().receipt.forced is False


@pytest.mark.parametrize("polls", [0, 1, 5, 20])
def test_stop_while_starting(call: Callable[..., Caller], polls: int) -> None:
    """A stop that overtakes the start is heeded, whenever it comes, and the end is told once."""
    caller = call()
    caller.try_to_launch("sleep", "1000")
    for _ in range(polls):
        caller.say(m.Poll)
    caller.say(m.Stop)
    heard = [caller.hear() for _ in range(polls + 3)]
    assert [type(message) for message in heard if not isinstance(message, m.Report)].count(m.Launched) == 1
    receipt = heard[-1].receipt if isinstance(heard[-1], m.Exited) else None
    assert receipt, heard
    assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(15), Reason.ASKED, False)
    assert caller.ask(m.Done, m.Stop)


@pytest.mark.parametrize("polls", [0, 1, 5, 20])
def test_kill_while_starting(call: Callable[..., Caller], polls: int) -> None:
    """What is killed before it could run was never launched, and what is killed after was; one of both is told."""
    caller = call()
    caller.try_to_launch("sleep", "1000")
    for _ in range(polls):
        caller.say(m.Poll)
    caller.say(m.Stop, kill=True)
    heard = [message for _ in range(polls + 2) if not isinstance(message := caller.hear(), m.Report | m.Done)]
    if isinstance(heard[0], m.Refused):
        assert heard[0].code == "stopped"
        assert caller.run("true", name=caller.name).outcome == Exited(0)
    else:
        assert isinstance(heard[0], m.Launched)
        receipt = caller.ended().receipt
        assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)


def test_two_stops(call: Callable[..., Caller]) -> None:
    """A second stop changes nothing: the timeout runs from the first, and the end is told once."""
    caller = call()
    up(caller, DEAF, stop=quickly(timeout=0.5))
    before = time.monotonic()
    caller.ask(m.Done, m.Stop)
    while caller.report().state is m.Phase.STOPPING and time.monotonic() - before < 0.4:
        caller.ask(m.Done, m.Stop)
    caller.ended()
    assert time.monotonic() - before < 0.9
    assert caller.report().state is m.Phase.ENDED


def test_kill_at_once(call: Callable[..., Caller]) -> None:
    """A kill gives no time, neither by itself nor after a stop that still waits."""
    for first in (False, True):
        caller = call()
        up(caller, DEAF, stop=StopRules(timeout=1000))
        if first:
            caller.ask(m.Done, m.Stop)
        receipt = caller.stop(kill=True).receipt
        assert (receipt.outcome, receipt.reason, receipt.forced) == (Signaled(9), Reason.ASKED, True)


def test_paused_application_is_stopped(call: Callable[..., Caller]) -> None:
    """An application that stands still by SIGSTOP wakes up to hear the stop signal."""
    caller = call()
    pid = up(caller, 'exec "$0" -c "$1"', then="sys.exit(4)", stop=StopRules(timeout=1000))
    os.kill(pid, signal.SIGSTOP)
    until(lambda: stat(pid)[:1] == ["T"], "it stands still")
    assert caller.report().state is m.Phase.RUNNING
    assert caller.stop().outcome == Exited(4)


def test_no_time_at_all(call: Callable[..., Caller]) -> None:
    """A stop timeout of nothing means SIGKILL right after the stop signal."""
    caller = call()
    up(caller, DEAF, stop=quickly(timeout=0))
    assert caller.stop().outcome == Signaled(9)
