"""A story: a web server is launched in a guest, polled, killed, and its death is told by an exit code.

Host and guest are both this machine, with throwaway keys and free ports of the loopback interface. All that is
shown is what happened just now; whatever is not as promised is said, and ends the demo with exit code 1. The
invariant: however it ends, no process and no file of it is left.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import ExitStack, chdir, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from types import FrameType

BIN = Path(sys.executable).parent
PATIENCE = 10.0  # seconds for each thing that should take less than one
KILLS = 5
PAGE = "Hello from the guest.\n"
KILLED = 128 + signal.SIGKILL  # what a shell says of a killed command, and what cmappmgr promises to


class DemoError(Exception):
    """Something was not as promised."""


class Asked(BaseException):
    """A signal asked us to end: its number."""


def tell(text: str = "") -> None:
    """Tell the reader."""
    print(text, flush=True)


def show(*command: str, more: str = "") -> None:
    """Show a command line as a person would type it."""
    tell(f"   $ {shlex.join(word.removeprefix(f'{BIN}/') for word in command)}{more}")


def quote(lines: list[str]) -> None:
    """Show what a command said."""
    for line in lines:
        tell(f"   | {line}")


class Stage:
    """What runs, and the folder that it lives in; all of it is gone when the stage is left."""

    def __init__(self) -> None:
        self._ending = ExitStack()
        self._asked = 0
        self._busy = True  # a signal is heard by the next `start`

    def __enter__(self) -> Self:
        """Make the folder and go there; hear the signals that ask us to end."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._hear)
        self.folder = Path(self._ending.enter_context(tempfile.TemporaryDirectory(prefix="cmapp-demo-")))
        self._ending.enter_context(chdir(self.folder))
        self._busy = False
        return self

    def __exit__(self, *_: object) -> None:
        """End what runs, the latest first, and remove the folder; no signal gets between."""
        self._busy = True
        self._ending.close()

    def start(self, command: list[str], output: Path) -> subprocess.Popen[bytes]:
        """Start a command in the background; its output goes to a file."""
        self._busy = True  # a signal between the start and the note of it would leave the child
        with output.open("wb") as file:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True
            )
        self._ending.callback(end, child)
        self._busy = False
        if self._asked:
            raise Asked(self._asked)
        return child

    def adopt(self, pid: int) -> int:
        """Return a descriptor of a process that somebody else started; it is killed if it is left."""
        pidfd = os.pidfd_open(pid)
        self._ending.callback(kill, pidfd)
        return pidfd

    def _hear(self, number: int, _: FrameType | None) -> None:
        self._asked = number
        if not self._busy:
            raise Asked(number)


def installed(name: str) -> str:
    """Return the path of a command that is installed beside this Python."""
    path = BIN / name
    if not path.exists():
        raise DemoError(f"there is no {path}: start the demo by ./run demo")
    return str(path)


def end(child: subprocess.Popen[bytes]) -> None:
    """End a child in order, or by force if it does not."""
    child.terminate()
    with suppress(subprocess.TimeoutExpired):
        child.wait(PATIENCE)
    child.kill()
    child.wait()


def kill(pidfd: int) -> None:
    """Kill a process that may be gone already; its descriptor cannot mean another one."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def wait_for(child: subprocess.Popen[bytes], log: Path, pattern: str, count: int = 1) -> list[re.Match[str]]:
    """Wait until `log` has that many lines of the pattern, and return them."""
    deadline = time.monotonic() + PATIENCE
    while True:
        text = log.read_text(errors="replace") if log.exists() else ""
        found = list(re.finditer(rf"^.*{pattern}.*$", text, re.MULTILINE))
        if len(found) >= count:
            return found[:count]
        if child.poll() is not None:
            raise DemoError(f"a command ended with {child.returncode} before its time. {log.name} has:\n{text}")
        if time.monotonic() > deadline:
            raise DemoError(f"no {pattern!r} in {log.name} within {PATIENCE:g} s. It has:\n{text}")
        time.sleep(0.005)


def kill_and_wait(victim: int, watched: int) -> float:
    """Kill the process of the descriptor `victim`; return the seconds until the process `watched` has ended."""
    pidfd = os.pidfd_open(watched)
    try:
        waiting = select.poll()
        waiting.register(pidfd, select.POLLIN)
        begun = time.perf_counter()
        signal.pidfd_send_signal(victim, signal.SIGKILL)
        ended = waiting.poll(PATIENCE * 1000)
        took = time.perf_counter() - begun
    finally:
        os.close(pidfd)
    if not ended:
        raise DemoError(f"what should have ended by the kill still runs after {PATIENCE:g} s")
    return took


class Run:
    """One manager with its web server; made when the web server serves."""

    def __init__(self, stage: Stage, name: str, port: int) -> None:
        self.log, self.output = stage.folder / f"{name}-package.log", stage.folder / f"{name}.log"
        self.command = [installed("cmappmgr"), "--keys", "authority/host/node1", "--name", name]
        self.command += ["--poll-interval", "500ms", "--verbose", "--no-syslog", "--log-file", self.log.name]
        self.command += ["--output", "stdout", "--cwd", str(stage.folder)]
        self.command += ["--address", f"127.0.0.1:{port}", "vm1", "--", *web_server()]
        self.manager = stage.start(self.command, self.output)
        (launched,) = wait_for(self.manager, self.log, r"launched as pid (\d+)")
        self.pid = int(launched[1])
        self._application = stage.adopt(self.pid)
        (serving,) = wait_for(self.manager, self.output, r"Serving HTTP on \S+ port (\d+)")
        self.port = int(serving[1])

    def kill(self) -> tuple[int, float]:
        """Kill the web server; return the manager's exit code, which is as promised, and how long it took to come."""
        took = kill_and_wait(self._application, self.manager.pid)
        code = self.manager.wait()
        if code != KILLED:
            text = self.log.read_text()
            raise DemoError(f"cmappmgr exited with {code}, not with {KILLED}. {self.log.name} has:\n{text}")
        return code, took


def web_server() -> list[str]:
    """Return the application's command line; not buffering its output, it tells its port at once."""
    return [installed("python3"), "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", "www"]


def make_keys() -> None:
    """Make what both sides need to trust each other."""
    tell("\n1. Make an authority, and keys for a guest and a host.")
    for words in ("init authority", "issue authority guest vm1", "issue authority host node1"):
        command = [installed("cmapp"), "keys", *words.split()]
        show(*command)
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        quote((done.stdout + done.stderr).splitlines()[:1])
        if done.returncode != 0:
            raise DemoError(f"cmapp exited with {done.returncode}")


def start_server(stage: Stage) -> tuple[subprocess.Popen[bytes], int]:
    """Start the server; return it and its port."""
    tell("\n2. In the guest: start the server, on any free port.")
    command = [installed("cmappserver"), "--keys", "authority/guest/vm1", "--state-dir", "state"]
    command += ["--listen", "127.0.0.1:0"]
    show(*command, more=" 2>server.log &")
    log = stage.folder / "server.log"
    server = stage.start(command, log)
    (listening,) = wait_for(server, log, r"listening on 127\.0\.0\.1:(\d+)")
    quote([listening[0]])
    return server, int(listening[1])


def launch(stage: Stage, port: int) -> Run:
    """Have the first web server launched."""
    tell("\n3. On the host: have the server launch a web server, and watch it.")
    (stage.folder / "www").mkdir()
    (stage.folder / "www" / "index.html").write_text(PAGE)
    run = Run(stage, "web", port)
    show(*run.command, more=" >web.log 2>&1 &")
    tell("   It tells the package log what it watches, and within which time a hung guest would be noticed:")
    quote(run.log.read_text().splitlines()[:1])
    quote([line[0] for line in wait_for(run.manager, run.log, "launched as pid")])
    return run


def ask(run: Run) -> None:
    """Ask the web server for its page."""
    tell("\n4. The web server is really there: ask it for its page.")
    url = f"http://127.0.0.1:{run.port}/"
    tell(f"   GET {url}")
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=PATIENCE) as answer:
        status, page = answer.status, answer.read().decode()
    quote([f"{status}: {page.strip()}"])
    if (status, page) != (200, PAGE):
        raise DemoError("that is not the page that was put there")
    tell("   What the web server writes goes its own way, to web.log:")
    quote([line[0] for line in wait_for(run.manager, run.output, '"GET / ')])


def watch_polls(run: Run) -> None:
    """Show the answers to two polls."""
    tell("\n5. The manager polls, here twice a second. Two of the answers:")
    quote([line[0] for line in wait_for(run.manager, run.log, r": running, pid \d+", count=2)])


def kill_it(run: Run) -> float:
    """Kill the web server; return how long it took to be told."""
    tell("\n6. Kill the web server in the guest, the hard way.")
    show("kill", "-9", str(run.pid))
    code, took = run.kill()
    show("wait", more="; echo $?")
    quote([str(code)])
    tell(f"   cmappmgr exited with {code}, which is 128 + 9, {took * 1000:.1f} ms after the kill. That is what the")
    tell("   cluster manager on the host sees, and acts upon. The package log has the whole story:")
    show("cat", run.log.name)
    quote(run.log.read_text().splitlines())
    return took


def measure(stage: Stage, port: int, first: float) -> None:
    """Kill some more, and tell our own part of the time."""
    tell(f"\n7. Was that luck? {KILLS} kills in all, and {KILLS} of a web server that only its parent waits for.")
    watched = [first, *(Run(stage, f"web{number}", port).kill()[1] for number in range(2, KILLS + 1))]
    alone = [kill_alone(stage, stage.folder / f"alone{number}.log") for number in range(KILLS)]
    for what, times in (("watched by cmappmgr", watched), ("on its own", alone)):
        tell(f"   {what:20}{'  '.join(f'{took * 1000:.1f}' for took in times)} ms")
    whole, least = (round(statistics.median(times) * 1000, 1) for times in (watched, alone))
    tell(f"   The median from the kill to the exit of cmappmgr is {whole:.1f} ms. Linux needs {least:.1f} ms of it")
    tell(f"   to end the web server; {whole - least:.1f} ms are ours: see it, tell it over TLS, log it, exit.")


def kill_alone(stage: Stage, log: Path) -> float:
    """Return the time that Linux needs to end the same web server."""
    child = stage.start(web_server(), log)
    wait_for(child, log, "Serving HTTP")
    return kill_and_wait(stage.adopt(child.pid), child.pid)


def stop(stage: Stage, server: subprocess.Popen[bytes]) -> None:
    """Stop the server, as systemd would."""
    tell("\n8. Stop the server, and clean up.")
    show("kill", str(server.pid))
    server.terminate()
    code = server.wait(PATIENCE)
    quote((stage.folder / "server.log").read_text().splitlines()[-1:])
    if code != 0:
        raise DemoError(f"cmappserver exited with {code}, not with 0")


def play(stage: Stage) -> None:
    """Tell the story."""
    tell("A web server runs in a guest; a cluster manager on the host must know at once when it dies, and how.")
    tell("Here both are this machine. Commands are those of")
    tell(f"{BIN}, files are in {stage.folder}.")
    make_keys()
    server, port = start_server(stage)
    run = launch(stage, port)
    ask(run)
    watch_polls(run)
    measure(stage, port, kill_it(run))
    stop(stage, server)


def main() -> int:
    """Play the story and leave nothing behind; return the exit code."""
    begun = time.monotonic()
    try:
        with Stage() as stage:
            play(stage)
    except Asked as asked:
        (number,) = asked.args
        tell(f"\nEnded by {signal.Signals(number).name}. Nothing is left of it.")
        return 128 + int(number)
    except (DemoError, OSError, subprocess.SubprocessError) as error:
        tell(f"\nNOT AS PROMISED: {error}")
        return 1
    tell(f"\nAll as promised, in {time.monotonic() - begun:.0f} s. Nothing is left of it.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
