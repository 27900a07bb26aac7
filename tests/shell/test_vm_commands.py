"""The guest service on a set of commands, with real processes as machines, and its heartbeat with a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from tests.shell.libvirt_bed import Service, script
from tests.shell.served import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.shell.served import Served

COMMAND = (sys.executable, "-P", "-m", "cmapp.cli.vmrun")
QUICK = ("--poll-interval", "200ms", "--stop-timeout", "10s")
FEELS = ("--poll-timeout", "300ms", "--link-timeout", "700ms", "--guest", "vm1")


class Machine:
    """A process that stands for a virtual machine, and the three commands for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._services: list[Service] = []
        self._pid = folder / "pid"
        self.start = script(
            folder / "start.sh",
            [
                f"cd {folder}; echo started $CMAPP_DOMAIN >> started",
                "[ ! -e broken ] || { echo no disk; exit 3; }",
                "sleep 1000 & echo $! > pid",
            ],
        )
        self.stop = script(
            folder / "stop.sh",
            [
                f"cd {folder}; echo stop $CMAPP_FORCE >> stopped",
                '[ ! -e stubborn ] || [ "$CMAPP_FORCE" ] || exit 0',
                "kill $(cat pid)",
            ],
        )
        self.state = script(
            folder / "state.sh",
            [
                f"cd {folder}; [ ! -e hangs ] || exec sleep 1000",
                "[ ! -e word ] || exec cat word",
                "pid=$(cat pid 2>/dev/null)",
                "kill -0 $pid 2>/dev/null && grep -qv ') Z' /proc/$pid/stat && echo running || echo down",
            ],
        )

    @property
    def options(self) -> list[str]:
        """The options that say the commands."""
        return [f"--{name}-command={self.folder / name}.sh" for name in ("start", "stop", "state")]

    def run(self, *options: object) -> Service:
        """Start its guest service."""
        words = [*self.options, *QUICK, *options]
        self._services.append(Service(self.folder, lambda *words: [*COMMAND, *map(str, words)], "vm1", *words))
        return self._services[-1]

    def begin(self) -> None:
        """Start the machine behind everybody's back."""
        subprocess.run([self.start], check=True)
        (self.folder / "started").unlink()

    def is_(self, word: str) -> None:
        """Have its state command say `word`, whatever the process does; "" for what is so."""
        if word:
            new = self.folder / "word.new"
            new.write_text(word + "\n")
            new.rename(self.folder / "word")
        else:
            (self.folder / "word").unlink()

    def mark(self, name: str) -> None:
        """Have a command behave so."""
        (self.folder / name).touch()

    @property
    def pid(self) -> int:
        """The process."""
        return int(self._pid.read_text())

    @property
    def starts(self) -> int:
        """How often the start command was run."""
        log = self.folder / "started"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def close(self) -> None:
        """End everything."""
        for service in self._services:
            service.close()
        with suppress(OSError, ValueError):
            os.kill(self.pid, signal.SIGKILL)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """Return a machine that is down."""
    made = Machine(tmp_path)
    yield made
    made.close()


def said(*words: object) -> tuple[int, str]:
    """Run a command to its end; return its code and what it printed."""
    done = subprocess.run([*COMMAND, *map(str, words)], capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).strip()


# ---- its life ----------------------------------------------------------------------------------------------


def test_started_and_lost(machine: Machine) -> None:
    """It is started once, is ready when it runs, and its end is an end."""
    service = machine.run()
    service.until_ready()
    assert alive(machine.pid)
    assert machine.starts == 1
    os.kill(machine.pid, signal.SIGKILL)
    service.ends("gone", 1)
    assert machine.starts == 1


def test_adopted_and_stopped(machine: Machine) -> None:
    """One that runs is not started; SIGTERM has the stop command stop it."""
    machine.begin()
    service = machine.run()
    service.until_ready()
    service.signal(signal.SIGTERM)
    service.ends("stopped", 0)
    assert not alive(machine.pid)
    assert machine.starts == 0
    assert (machine.folder / "stopped").read_text() == "stop\n"


def test_forced(machine: Machine) -> None:
    """A stop that does nothing is followed by one that is told to force it, and nobody else stops it twice."""
    machine.mark("stubborn")
    service = machine.run("--stop-timeout", "1s")
    service.until_ready()
    code, text = said("stop", *machine.options, "--state-dir", machine.folder / "state", "--stop-timeout", "5s", "vm1")
    assert (code, text) == (0, "")
    service.ends("stopped", 0)
    assert (machine.folder / "stopped").read_text().split("\n")[-2] == "stop 1"
    assert not alive(machine.pid)


def test_one_at_a_time(machine: Machine) -> None:
    """A second service of the same machine does nothing, and says who has it."""
    service = machine.run()
    service.until_ready()
    code, text = said("run", *machine.options, "--state-dir", machine.folder / "state", "vm1")
    assert code == 125
    assert "is watched by another" in text
    assert service.process.poll() is None


def test_nobody_watches_what_is_to_be_stopped(machine: Machine) -> None:
    """Then the stop does it by itself; of a machine that is not here, the stop command is not even run."""
    machine.begin()
    stop = ("stop", "--no-syslog", *machine.options, "--state-dir", machine.folder / "state", "vm1")
    assert said(*stop)[0] == 0
    assert not alive(machine.pid)
    (machine.folder / "stopped").unlink()
    machine.is_("elsewhere")
    assert said(*stop)[0] == 0
    assert not (machine.folder / "stopped").exists()


def test_what_is_not_started(machine: Machine) -> None:
    """Neither what may run elsewhere, nor twice what could not be started."""
    machine.is_("elsewhere: n2 has it")
    service = machine.run()
    service.ends("elsewhere", 122)
    assert "n2 has it" in service.log
    machine.is_("")
    machine.mark("broken")
    service = machine.run()
    service.ends("not-started", 126)
    assert "no disk" in service.log
    assert machine.starts == 1


@pytest.mark.parametrize("how", ["hangs", "word"])
def test_not_being_told_is_no_end(machine: Machine, how: str) -> None:
    """A state command that hangs or does not know makes nobody stop anything; for too long, it is given up."""
    service = machine.run("--doubt-timeout", "1s")
    service.until_ready()
    if how == "hangs":
        service.signal(signal.SIGUSR1)
        service.ends("left", 0)
        machine.mark("hangs")
        code, text = said("state", "--state-command", machine.state, "--timeout", "200ms", "vm1")
        assert (code, text) == (1, "unknown: the state command did not end within 200 ms")
        return
    machine.is_("unknown: ask later")
    service.ends("cannot-tell", 123)
    assert "ask later" in service.log
    assert alive(machine.pid)
    assert not (machine.folder / "stopped").exists()


def test_words_and_codes(machine: Machine) -> None:
    """What the command says is what is printed."""
    ask = ("state", "--state-command", machine.state, "vm1")
    assert said(*ask) == (0, "down")
    for word in ("running", "paused", "migrating", "elsewhere"):
        machine.is_(f"{word}: because")
        assert said(*ask) == (0, f"{word}: because")
    machine.is_("nonsense")
    assert said(*ask)[0] == 0  # by its exit code
    assert said("state", "--state-command", "/nowhere/at/all", "vm1")[0] == 1


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("run", "--start-command", "/bin/true", "vm1"), "needs a stop command too"),
        (("run", "--start-command", "x", "--stop-command", "/x", "--state-command", "/x", "vm1"), "absolute path"),
        (("run", "--guest", "vm1", "--keys", "/nowhere", "vm1"), "/nowhere"),
        (("run", "-x", "vm1"), "-x"),
        (("run", ""), "cannot be a domain"),
        (("run", "--stop-timeout", "soon", "vm1"), "stop_timeout must be a duration"),
        (("fly", "vm1"), "must be one of run, stop, state"),
    ],
    ids=["one missing", "relative", "no keys", "no option", "no name", "no duration", "no verb"],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], problem: str) -> None:
    """Is one sentence and exit code 125."""
    more = ("--no-syslog", "--state-dir", str(tmp_path)) if words[0] == "run" else ()
    code, text = said(words[0], *more, *words[1:])
    assert code == 125
    assert problem in text
    assert "Traceback" not in text


# ---- its heartbeat -----------------------------------------------------------------------------------------


@pytest.fixture
def feels(key_folders: Path, serve: Callable[..., Served], machine: Machine) -> tuple[Served, Callable[..., Service]]:
    """Return a server, and a function that starts the guest service of the machine that it stands in."""
    server = serve()

    def run(*options: object) -> Service:
        address = ("--address", f"127.0.0.1:{server.port}", "--keys", key_folders / "host")
        return machine.run(*FEELS, *address, *options)

    return server, run


def test_ready_when_its_server_answers(feels: tuple[Served, Callable[..., Service]], machine: Machine) -> None:
    """A short silence is nothing; one that lasts, in a machine that runs, is a hang, and it is forced."""
    server, run = feels
    machine.begin()
    service = run()
    service.until_ready()
    assert "its server answers" in service.log
    server.process.send_signal(signal.SIGSTOP)
    try:
        machine.is_("paused: by hand")
        service.until("is paused, and not judged")
        time.sleep(1.5)  # longer than the bound
        assert "silent" not in service.log
        machine.is_("")
        service.until("runs again")
        server.process.send_signal(signal.SIGCONT)
        service.until("its server answers")
        server.process.send_signal(signal.SIGSTOP)
        service.ends("hung", 124)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert not alive(machine.pid)
    assert (machine.folder / "stopped").read_text() == "stop 1\n"


def test_a_silence_shorter_than_the_bound(feels: tuple[Served, Callable[..., Service]], machine: Machine) -> None:
    """Nobody even looks twice."""
    server, run = feels
    machine.begin()
    service = run("--link-timeout", "20s", "--verbose")
    service.until_ready()
    server.process.send_signal(signal.SIGSTOP)
    service.until("no answer within 300 ms")
    server.process.send_signal(signal.SIGCONT)
    service.signal(signal.SIGUSR1)
    service.ends("left", 0)
    assert "silent" not in service.log
    assert alive(machine.pid)


def test_a_machine_whose_server_answers_is_not_started(
    feels: tuple[Served, Callable[..., Service]], machine: Machine
) -> None:
    """It runs on another host, whatever the commands here and whoever starts us say."""
    _, run = feels
    service = run("--alone")
    service.ends("elsewhere", 122)
    assert machine.starts == 0


def test_never_ready(machine: Machine, key_folders: Path, port: int) -> None:
    """A machine whose server does not answer in time is forced, and that is its cause; one may leave it as it is."""
    where = (*FEELS, "--address", f"127.0.0.1:{port}", "--keys", key_folders / "host", "--start-timeout", "1500ms")
    service = machine.run(*where, "--fault-action", "leave")
    service.ends("not-ready", 124)
    assert alive(machine.pid)
    service = machine.run(*where)
    service.ends("not-ready", 124)
    assert not alive(machine.pid)
