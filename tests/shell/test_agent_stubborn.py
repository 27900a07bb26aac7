"""A run that the guest's kernel does not let go of: the stop asks until its time is over, and then says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.agent.instance import Instance, wait_for
from cmapp.core import messages as m
from tests.shell.manager_bed import Guest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RUN = "9f1c2f0e-6c1b-4f43-8f0a-2f4c3b0d7a11"
STOP = "import os, sys; from cmapp.agent.application import main; os._exit(main('stop', os.environ))"


@pytest.fixture
def guest(key_folders: Path, tmp_path: Path) -> Iterator[Guest]:
    """Return a guest that says what the test wants."""
    made = Guest(key_folders, tmp_path)
    yield made
    made.close()


def begin_stop(guest: Guest, folder: Path, **given: str) -> subprocess.Popen[str]:
    """Begin the stop of a run whose manager has given up."""
    instance = Instance(str(folder), "db")
    (folder / "cmapp-db").mkdir()
    pid = instance.begin(("/bin/sleep", "60"), {}, RUN)
    pidfd = instance.signal(signal.SIGKILL)
    assert pidfd is not None
    assert wait_for(pidfd, 20)
    os.waitpid(pid, 0)
    os.close(pidfd)
    result = {"run_id": RUN, "cause": "unreachable", "concluded": 1.0, "launched": 1.0}
    (folder / "cmapp-db" / "result").write_text(json.dumps(result))
    parameters = {"guest": "vm1", "address": f"127.0.0.1:{guest.port}", "keys": str(guest.folder / "host"), **given}
    environ = {f"OCF_RESKEY_{key}": text for key, text in {"name": "db", "syslog": "false", **parameters}.items()}
    environ |= {"OCF_RESOURCE_INSTANCE": "db", "HA_RSCTMP": str(folder), "OCF_RESKEY_CRM_meta_timeout": "3000"}
    return subprocess.Popen([sys.executable, "-c", STOP], env=environ, stderr=subprocess.PIPE, text=True)


def answer(guest: Guest, *runs: m.RunReport) -> None:
    """Answer one question of how things are."""
    peer = guest.accept()
    peer.greet()
    status = peer.hear(m.Status)
    peer.say(m.Runs(status.id, runs))
    peer.hear(m.Bye)


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({}, 1, "ocf-exit-reason:db cannot be stopped: something of it is still there in the guest"),
        ({"guest_resource": "erp-vm"}, 0, "WARNING: db cannot be stopped: something of it is still there in the guest"),
    ],
    ids=["nobody else can", "the guest is failed"],
)
def test_what_cannot_be_killed(guest: Guest, tmp_path: Path, given: dict[str, str], code: int, words: str) -> None:
    """The guest itself is to be started again, where that is somebody's to do; without, the stop has failed."""
    stop = begin_stop(guest, tmp_path, **given)
    guest._listener.settimeout(1)
    stubborn = m.RunReport("db", RUN, m.Phase.STOPPING, 4711)
    answers = 0
    while stop.poll() is None:
        try:
            answer(guest, stubborn)
        except TimeoutError:
            continue
        answers += 1
    assert (stop.communicate()[1].count(words), stop.returncode) == (1, code)
    assert answers > 1


def test_what_is_gone_after_all(guest: Guest, tmp_path: Path) -> None:
    """As soon as the guest has nothing of it, the stop is over; what others have there is theirs."""
    stop = begin_stop(guest, tmp_path)
    answer(guest, m.RunReport("db", RUN, m.Phase.STOPPING, 4711))
    answer(guest, m.RunReport("db", RUN.replace("9", "8"), m.Phase.RUNNING, 4712))
    assert (stop.communicate()[1], stop.returncode) == ("", 0)
