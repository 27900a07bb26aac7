"""The server becomes another version of itself in place: same process, same children, same listening sockets.

The new program is tried first, by a start of it that only checks. Then what it cannot find on disk is written to a
memory file whose descriptor it inherits: the listening sockets, the lock, and of each run the descriptors that prove
its identity. Links end, because TLS cannot be handed over: managers come back at once. The invariant: nothing is
handed over to a program that was not seen to start.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING

from cmapp.core.checks import LARGEST
from cmapp.errors import SettingsError
from cmapp.guest import proc

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

log = logging.getLogger(__name__)

HANDOVER = "CMAPP_HANDOVER"  # the environment's word for the descriptor of the memory file
TRIAL_LIMIT = 30.0  # seconds that the new program has to check itself


def command(given: Iterable[str]) -> list[str]:
    """Return how the installed version is started with the arguments `given`: as this one was."""
    own = sys.orig_argv[: len(sys.orig_argv) - len(sys.argv) + 1]
    return [sys.executable, *own[1:], *given]


def try_out(loop: asyncio.AbstractEventLoop, given: Iterable[str], ours: set[int], done: Callable[[str], None]) -> None:
    """Start the installed version with `--check`; call `done` with "" if it is well, else with what is wrong.

    Its process is among `ours`, those that nobody else reaps, as long as it is there.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        os.set_blocking(writing, True)
        pid = os.posix_spawn(
            sys.executable,
            command([*given, "--check"]),
            dict(os.environ),
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_DUP2, writing, 2),
            ],
            setsigmask=(),
        )
        ours.add(pid)
        pidfd = os.pidfd_open(pid)
    finally:
        os.close(writing)
    timer = loop.call_later(TRIAL_LIMIT, os.kill, pid, signal.SIGKILL)

    def ended() -> None:
        loop.remove_reader(pidfd)
        timer.cancel()
        status = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        ours.discard(pid)
        try:
            said = os.read(reading, 4096).decode(errors="replace").strip()
        except BlockingIOError:
            said = ""
        os.close(reading)
        well = status is not None and (status.si_code, status.si_status) == (os.CLD_EXITED, 0)
        done("" if well else said.splitlines()[-1] if said else "it does not start")

    loop.add_reader(pidfd, ended)


def become(given: Iterable[str], told: Mapping[str, Any], descriptors: Iterable[int]) -> None:
    """Become the installed version, which is `told` what it needs and keeps the `descriptors`; raises OSError."""
    memory = os.memfd_create("handover", 0)
    os.write(memory, json.dumps(told).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    for descriptor in descriptors:
        os.set_inheritable(descriptor, True)
    argv = command(given)
    os.execve(argv[0], argv, {**os.environ, HANDOVER: str(memory)})  # noqa: S606 - ourselves


def taken() -> dict[str, Any]:
    """Return what the program before us, in this same process, has handed over, once; {} if there was none.

    Raises SettingsError if it is not what a server hands over.
    """
    number = os.environ.pop(HANDOVER, "")
    if not number:
        return {}
    try:
        with open(int(number), "rb") as file:
            told = _checked(json.loads(file.read().decode()))
        for descriptor in [told["lock"], *told["listeners"]]:
            os.set_inheritable(descriptor, False)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise SettingsError(f"{HANDOVER} names nothing that a cmappserver hands over: {error}") from None
    return told


def _checked(told: Any) -> dict[str, Any]:
    """Return what was handed over if it has its form; raises ValueError."""
    try:
        well = _are_numbers([told["lock"], *told["listeners"], *told.get("descriptors", ())])
        well = well and told["lock"] >= 0 and all(map(_is_run, told.get("runs", {}).values()))
    except (TypeError, KeyError, AttributeError):
        well = False
    if not well:
        raise ValueError("it has not the form of a handover")
    kept: dict[str, Any] = told
    return kept


def _is_run(run: dict[str, Any]) -> bool:
    """Tell whether that is what is handed over of a run: its process, if any, and what is known of its tree."""
    process, notices = run.get("process"), run.get("notices")
    pairs = [*run.get("known", ())]
    well = all(len(pair) == len(("pid", "start")) and _are_numbers(pair) for pair in pairs)
    well = well and (notices is None or _are_numbers([notices]))
    if not well or process is None:
        return well
    bytes.fromhex(process["said"])
    handles = process["leader"], process["main"], [process["trouble"]] * len(("pid", "start", "pidfd"))
    return all(len(handle) == len(handles) and _are_numbers(handle) for handle in handles)


def _are_numbers(values: list[Any]) -> bool:
    return all(type(value) is int and -1 <= value < LARGEST for value in values)


def ask(state_dir: str) -> str:
    """Ask the server that uses `state_dir` to upgrade itself; return what was done, raises SettingsError."""
    path = os.path.join(state_dir, "lock")
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        raise SettingsError(f"no cmappserver runs with the state folder {state_dir}")
    except BlockingIOError:
        pass
    except OSError as error:
        raise SettingsError(f"the state folder {state_dir} cannot be looked at: {error.strerror}") from None
    with open(path) as file:
        words = file.read().split()
    try:
        pid, start = int(words[0]), int(words[1])
        pidfd = os.pidfd_open(pid)
        found = proc.stat(pid)
        if found is None or found.start != start:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        signal.pidfd_send_signal(pidfd, signal.SIGUSR2)
        os.close(pidfd)
    except (OSError, IndexError, ValueError, OverflowError) as error:
        raise SettingsError(f"the server of {state_dir} cannot be asked: {error}") from None
    return f"process {pid} was asked to become the installed version; its log tells whether it did"


def write_identity(lock: int) -> None:
    """Write to the lock file who holds it."""
    found = proc.stat(os.getpid())
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()} {found.start if found else 0}\n".encode(), 0)
