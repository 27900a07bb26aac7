"""Never the wrong process: what a server before has left is taken for a run only if it is proven to be one."""

from __future__ import annotations

import os
import signal
import uuid
from typing import TYPE_CHECKING

import pytest

from cmapp.core.outcome import Exited, Unknown
from cmapp.core.wire import plain
from tests.shell.restart_bed import LEAVES, amend, recorded
from tests.shell.served import alive, somebody_else, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

pytestmark = pytest.mark.usefixtures("no_subreaper")

# ---- never the wrong process -------------------------------------------------------------------------------------


def test_reused_number(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A process that has the number of a run's, but another start, is not taken for it, and not touched."""
    server = serve("--cgroup", "none", conf=LEAVES)
    first = call(server)
    pid = first.launch("sleep", "1000")
    server.kill()
    os.kill(pid, signal.SIGKILL)
    until(lambda: not alive(pid), "it is gone")
    with somebody_else() as stranger:
        amend(server, first.run_id, pid=stranger.pid)
        server.start()
        second = call(server)
        second.resume(first)
        assert isinstance(second.ended().outcome, Unknown)
        server.stop()
        assert stranger.poll() is None


def test_other_boot(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Of a run of another boot nothing can live: how it ended is not known, and no process is taken for it."""
    server = serve("--cgroup", "none", conf=LEAVES)
    first, told = call(server), call(server)
    pid = first.launch("sleep", "1000")
    told.launch("sleep", "1000")
    for run_id in (first.run_id, told.run_id):
        recorded(server, run_id, launched=True)
    server.kill()
    amend(server, first.run_id, boot_id=str(uuid.uuid4()))
    amend(server, told.run_id, boot_id=str(uuid.uuid4()), stopping="unhealthy", detail="ill", outcome=plain(Exited(0)))
    server.start()
    server.logged("the guest was restarted while it ran")
    again = call(server)
    assert again.resume(first).attached
    assert isinstance(again.ended().outcome, Unknown)
    assert alive(pid)
    server.stop()
    assert alive(pid)


def test_file_that_was_never_executed(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """A run that was written down, but never became a process, is not known to have been: it may be launched."""
    server = serve(conf=LEAVES)
    first = call(server)
    pid = first.launch("sleep", "1000")
    server.kill()
    os.kill(pid, signal.SIGKILL)
    amend(server, first.run_id, pid=0)
    server.start()
    second = call(server)
    assert second.run("true", name=first.name, run_id=first.run_id).outcome == Exited(0)
