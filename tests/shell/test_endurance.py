"""After hundreds of runs and connections the server is what it was, and nothing in it was left for the collector."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Signaled
from cmapp.core.rules import HealthRules, OrphanRules
from tests.shell.served import MAIN, until

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.shell.caller import Caller
    from tests.shell.served import Served

AT_ONCE = OrphanRules(timeout=0)  # stopped as soon as nobody watches it
SLACK = 1024  # KiB
MANY = 120


def resident(server: Served) -> int:
    """Return the KiB of memory that the server has."""
    return int(Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()[0])


def test_nothing_leaks(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Neither descriptors nor memory grow by runs and connections, whether they end well or not."""
    server = serve()

    def rounds(count: int) -> None:
        for number in range(count):
            caller = call(server)
            if number % 4 == 0:
                caller.refused("/nowhere")
            elif number % 4 == 1:
                caller.launch("sleep", "1000", orphan=AT_ONCE)
            else:
                assert caller.run("echo", "x").outcome == Exited(0)
            caller.close()
        server.free()

    rounds(4)
    before = server.descriptors
    rounds(100)
    memory = resident(server)
    rounds(100)
    until(lambda: server.descriptors <= before, "the descriptors are closed")
    assert resident(server) < memory + SLACK


def test_no_warning(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """Python's development mode, with every warning an error, finds nothing in all that a run goes through."""
    server = serve(command=(sys.executable, "-X", "dev", "-W", "error", "-c", MAIN))
    for _ in range(20):
        caller = call(server)
        assert caller.refused("/nowhere").code == "not-found"
        assert caller.run("sh", "-c", "(sleep 1000 &) ; echo x; exit 3").outcome == Exited(3)
    stopped, lost, turned_away = call(server), call(server), call(server)
    for caller in (stopped, lost, turned_away):
        caller.launch("sleep", "1000", output=True, orphan=AT_ONCE)
    assert stopped.stop().outcome == Signaled(15)
    lost.close()
    turned_away.send(b"nonsense\n")
    assert turned_away.bye()
    server.free()
    call(server).launch("sleep", "1000")
    server.stop()


def test_status_in_pages(serve: Callable[..., Served], call: Callable[..., Caller]) -> None:
    """However much there is to tell of however many runs, all are told of, a page at a time and each once."""
    server = serve()
    says = ("sh", "-c", 'echo "$0"; exit 1', "\1" * 300)  # each takes several bytes to be told
    callers = [call(server) for _ in range(MANY)]
    for number, caller in enumerate(callers):
        rules = HealthRules(says, interval=3.0, retries=1000)
        caller.try_to_launch("sleep", "1000", name=f"app-{number:03}", health=rules)
    for caller in callers:
        caller.await_(m.Launched)
    for caller in callers:
        caller.report_until(lambda report: "checks failed" in report.health)
    asks = call(server)
    pages = [asks.ask(m.Runs, m.Status)]
    while pages[-1].more:
        pages.append(asks.ask(m.Runs, m.Status, after=pages[-1].runs[-1].name))
    assert len(pages) > 1
    assert [run.name for page in pages for run in page.runs] == [f"app-{number:03}" for number in range(MANY)]
