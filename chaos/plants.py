"""Defects that are planted on purpose: a checker that was never seen to find one proves nothing.

A trick is played by the first application itself, in its guest; a forgery is done to the evidence of a campaign
before it is judged. `EXPECTED` tells which kinds of violation may answer to each. The invariant: a forgery raises
LookupError rather than change nothing.
"""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from chaos.evidence import read_account, read_story
from chaos.story import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from chaos.story import Manager

TRICKS = {
    "double": "a second instance is started beside the first",
    "escape": "the helper leaves the control group of its run",
    "liar": "it exits with another code than it wrote down",
}
EXPECTED = {
    "double": ("overlap", "twice"),
    "escape": ("survivor", "overlap"),
    "liar": ("altered",),
    "exit-code": ("altered",),
    "result": ("altered", "doubled"),
    "receipt": ("altered", "doubled"),
    "torn-receipt": ("damaged",),
    "lost": ("lost",),
    "invented": ("invented",),
    "manager-death": ("death",),
    "server-death": ("death",),
    "unexplained": ("unexplained",),
}


def _exited(folder: Path) -> Manager:
    for manager in read_story(folder).managers:
        told = manager.told
        if told is not None and told.way == "exited" and (manager.code or 0) >= 0:
            return manager
    raise LookupError("no manager told of an exit")


def _exit_code(folder: Path) -> None:
    """A manager exits with another code than its outcome means."""
    account = read_account(folder)
    number = _exited(folder).number
    manager = account.managers[number]
    account.managers[number] = replace(manager, code=((manager.code or 0) + 1) % 256)
    account.write(folder)


def _result(folder: Path) -> None:
    """A manager tells another code than the application's, and exits with it."""
    account = read_account(folder)
    number = _exited(folder).number
    path = folder / "managers" / str(number) / "result.json"
    result = json.loads(path.read_text())
    code = (result["code"] + 1) % 256
    path.write_text(json.dumps(result | {"code": code, "exit_code": code}))
    account.managers[number] = replace(account.managers[number], code=code)
    account.write(folder)


def _receipts(folder: Path) -> list[Path]:
    told = {receipt.run_id for receipt in read_story(folder).receipts if receipt.told and receipt.told.way == "exited"}
    found = [path for path in sorted(folder.glob("*/state/receipts/*")) if path.name in told]
    if not found:
        raise LookupError("no receipt tells of an exit")
    return found


def _receipt(folder: Path) -> None:
    """A receipt holds another code, with a checksum that is right."""
    path = _receipts(folder)[0]
    lines = path.read_bytes().split(b"\n")
    for place, line in enumerate(lines):
        entry: dict[str, Any] = json.loads(line.strip()[9:] or b"{}")
        if "receipt" in entry:
            entry["receipt"]["outcome"]["code"] = (entry["receipt"]["outcome"]["code"] + 1) % 256
            text = json.dumps(entry, separators=(",", ":")).encode()
            lines[place] = b"%08x %s" % (zlib.crc32(text), text)
    path.write_bytes(b"\n".join(lines))


def _torn_receipt(folder: Path) -> None:
    """A byte of a receipt has changed."""
    path = _receipts(folder)[0]
    path.write_bytes(path.read_bytes().replace(b'"receipt"', b'"receipf"', 1))


def _lost(folder: Path) -> None:
    """A run that had a book has neither a receipt nor a manager that told of it."""
    story, account = read_story(folder), read_account(folder)
    run_id = story.instances[0].run_id
    for path in folder.glob(f"*/state/*/{run_id}"):
        path.unlink()
    for manager in account.managers:
        if manager.run_id == run_id:
            shutil.rmtree(folder / "managers" / str(manager.number))
            account.managers[manager.number] = replace(manager, code=-9, signals=((manager.began, 9),))
    account.write(folder)


def _invented(folder: Path) -> None:
    """An outcome is told of a run that never was: its book is gone."""
    run_id = _exited(folder).run_id
    for path in folder.glob("*/books/*.book"):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if run_id not in line))


def _manager_death(folder: Path) -> None:
    """A manager died of a signal that nobody sent."""
    account = read_account(folder)
    number = _exited(folder).number
    account.managers[number] = replace(account.managers[number], code=-6)
    account.write(folder)


def _server_death(folder: Path) -> None:
    """A server ended although nothing was done to it: what we did to it is not in the account."""
    account = read_account(folder)
    begun = min(manager.began for manager in account.managers)
    account.servers.append(Server(account.guests[0], begun - 1000, begun - 999))
    account.write(folder)


def _unexplained(folder: Path) -> None:
    """A manager gave up its guest for no reason."""
    account = read_account(folder)
    number = _exited(folder).number
    path = folder / "managers" / str(number) / "result.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps(result | {"cause": "failed", "exit_code": 125}))
    account.managers[number] = replace(account.managers[number], code=125, signals=())
    account.write(folder)


FORGERIES: dict[str, Callable[[Path], None]] = {
    "exit-code": _exit_code,
    "result": _result,
    "receipt": _receipt,
    "torn-receipt": _torn_receipt,
    "lost": _lost,
    "invented": _invented,
    "manager-death": _manager_death,
    "server-death": _server_death,
    "unexplained": _unexplained,
}
