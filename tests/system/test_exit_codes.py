"""Exit codes to the letter: the application's own, its fatal signals, and whose word a code is."""

from __future__ import annotations

import os
import re
import resource
import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed

HARMLESS = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}  # ignored by default
STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}
OF_THE_C_LIBRARY = {32, 33}  # which has every process that it spawns ignore them
FATAL = [number for number in range(1, 65) if number not in HARMLESS | STOPPING | OF_THE_C_LIBRARY]
DUMPING = ["QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "SEGV", "XCPU", "XFSZ", "SYS"]
OWN = range(121, 128)  # what cmappmgr says by itself: unknown, refused, unreachable, ...


@pytest.mark.parametrize("first", range(0, 256, 64), ids=lambda first: f"from-{first}")
def test_every_exit_code(bed: Bed, first: int) -> None:
    """An application's exit code, whichever of the 256, becomes cmappmgr's, and the log and the result say it."""
    codes = list(range(first, first + 64))
    managers = bed.run_all(("/bin/sh", "-c", f"exit {code}") for code in codes)
    assert [manager.wait() for manager in managers] == codes
    assert [(manager.result["cause"], manager.result["code"]) for manager in managers] == [("exited", c) for c in codes]
    for code, manager in zip(codes, managers, strict=True):
        assert f"exited with code {code} after" in manager.last_line
        assert manager.last_line.endswith(f"exit code {code} is the application's own")


def test_every_fatal_signal(bed: Bed) -> None:
    """Each signal that the kernel kills by, real-time ones too, becomes 128 and its number."""
    managers = bed.run_all(("/bin/sh", "-c", f"kill -{number} $$") for number in FATAL)
    assert [manager.wait() for manager in managers] == [128 + number for number in FATAL]
    for number, manager in zip(FATAL, managers, strict=True):
        assert (manager.result["cause"], manager.result["signal"]) == ("signaled", number)
        assert re.search(rf"was killed by signal {number} \(\S+\).*; exit code {128 + number} ", manager.last_line)


@pytest.mark.parametrize("core_limit", ["unlimited", "0"])
def test_core_dumps(bed: Bed, tmp_path: Path, core_limit: str) -> None:
    """The log and the result say that a core was dumped exactly where the kernel says so of the same death."""
    if core_limit != "0" and resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY:
        core_limit = "$(ulimit -Hc)"
    scripts = [f"mkdir {name}; cd {name}; ulimit -Sc {core_limit}; kill -{name} $$" for name in DUMPING]
    truths = [dies_with_core(script, tmp_path) for script in scripts]
    inside = tmp_path / "inside"
    inside.mkdir()
    managers = bed.run_all((("/bin/sh", "-c", script) for script in scripts), options=("--cwd", str(inside)))
    assert [manager.result["core_dumped"] for manager in managers] == truths
    assert ["and dumped core" in manager.last_line for manager in managers] == truths
    assert [manager.wait() for manager in managers] == [128 + signal.Signals[f"SIG{name}"] for name in DUMPING]


def dies_with_core(script: str, folder: Path) -> bool:
    """Run the script as a child of ours, and return whether the kernel says that its core was dumped."""
    reset = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", f"cd {folder}; {script}"], {}, setsigdef=reset)
    return os.WCOREDUMP(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV], ids=lambda number: number.name)
def test_killed_from_outside(bed: Bed, number: signal.Signals) -> None:
    """A signal from a stranger in the guest is told as what it was, and not as a stop of ours."""
    manager = bed.start("/bin/sleep", "1000")
    os.kill(manager.until_launched(), number)
    assert manager.wait() == 128 + number
    assert manager.result["reason"] == "itself"
    assert "stopped" not in manager.last_line


def test_codes_that_are_also_our_own(bed: Bed) -> None:
    """Where an application exits with one of cmappmgr's own codes, log and result say whose it is."""
    managers = bed.run_all(("/bin/sh", "-c", f"exit {code}") for code in OWN)
    assert [manager.wait() for manager in managers] == list(OWN)
    assert {manager.result["cause"] for manager in managers} == {"exited"}
    assert all(manager.last_line.endswith("is the application's own") for manager in managers)


def test_code_that_looks_like_a_signal(bed: Bed) -> None:
    """An application that exits with 137 was not killed, and nothing says that it was."""
    manager = bed.run("/bin/sh", "-c", "exit 137")
    assert manager.wait() == 137
    assert (manager.result["cause"], manager.result["code"]) == ("exited", 137)
    assert "signal" not in manager.last_line
