"""How servers go and come in tests: by a crash, in order, by an upgrade; and what their files say meanwhile."""

from __future__ import annotations

import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from cmapp.core.ledger import decode, encode_line, whole
from cmapp.errors import LinkError
from tests.shell.served import until

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import Any

    from tests.shell.caller import Caller
    from tests.shell.served import Served

LEAVES = ""  # a configuration by which the applications stay when the server goes
DEAF = ("sh", "-c", "trap '' TERM; echo up; while :; do sleep 1000; done")
WAITS = 'echo up; read code < "$0"; exit $code'
PR_SET_CHILD_SUBREAPER = 36


def crash(server: Served, *callers: Caller) -> None:
    """Kill it, and start another, once the disk knows of each run that it is launched."""
    for run_id in server.runs:
        recorded(server, run_id, launched=True)
    server.kill()
    hang_up(callers)
    server.start()


def restart(server: Served, *callers: Caller) -> None:
    """End it in order, and start another."""
    server.signal(signal.SIGTERM)
    assert server.notice() == "STOPPING=1"
    hang_up(callers)
    assert server.wait() == 0
    server.start()


def upgrade(server: Served, *callers: Caller) -> None:
    """Have it become the installed version."""
    server.upgrade()
    hang_up(callers)


def hang_up(callers: Iterable[Caller]) -> None:
    """Do what a manager does whose server goes."""
    for caller in callers:
        with suppress(LinkError):
            while caller.hear() is not None:
                pass
        caller.close()


WAYS = [crash, restart, upgrade]


def waits(caller: Caller, gate: Path, **fields: object) -> int:
    """Launch an application that exits when the test says so, and wait until it runs."""
    pid = caller.launch("sh", "-c", WAITS, str(gate), output=True, **fields)
    caller.wrote(b"up")
    return pid


def amend(server: Served, run_id: str, **facts: Any) -> None:
    """Have the file of a run say something else, as if the server had written it."""
    path = server.state / "runs" / run_id
    content, line = path.read_bytes(), encode_line(facts)
    at = whole(content)
    path.write_bytes(content[:at] + line + content[at + len(line) :])


def recorded(server: Served, run_id: str, **facts: Any) -> None:
    """Wait until the file of a run says so: what is written is on its way to the disk."""
    path = server.state / "runs" / run_id

    def found() -> bool:
        try:
            return any(facts.items() <= entry.items() for entry in decode(path.read_bytes()).entries)
        except FileNotFoundError:  # it has ended
            return True

    until(found, str(facts))


def kept(server: Served, run_id: str) -> None:
    """Wait until a run's receipt is on the disk, which its manager was not kept waiting for."""

    def found() -> bool:
        for folder in ("runs", "receipts"):
            with suppress(FileNotFoundError):
                if b'"receipt"' in (server.state / folder / run_id).read_bytes():
                    return True
        return False

    until(found, "the receipt is on the disk")
