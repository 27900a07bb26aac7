"""Targets: whatever a disk gives back, and what one program hands over to the next.

The invariant of the run files is asked for by what was put in: an entry that comes out was put in, in its order, and
what is missing is said to be.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import os
import shutil
import tempfile
from binascii import crc32
from pathlib import Path
from typing import TYPE_CHECKING

from cmapp.core import ledger
from cmapp.core.charge import Facts
from cmapp.core.messages import Launch
from cmapp.core.outcome import Exited, Reason, Receipt, describe, exit_code
from cmapp.core.roster import Roster
from cmapp.core.wire import plain
from cmapp.errors import SettingsError
from cmapp.guest import upgrade
from cmapp.guest.disk import Disk
from cmapp.guest.receipts import Receipts
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand
from fuzz.silence import heard_by

if TYPE_CHECKING:
    from typing import Any

BOOT = "07ba3553"
RUN = "01234567-89ab-cdef-0123-456789abcdef"
LAUNCH = plain(Launch(1, "web", RUN, ("/bin/web",)))
RECEIPT = plain(Receipt("web", RUN, Exited(0), Reason.ITSELF, started=1.0, ended=2.0, lasted=1.0))
HEADER = {"format": 1, "launch": LAUNCH, "manager": "n1", "boot_id": BOOT, "started": 1.0, "wall": 2.0, "where": ""}
ENTRIES: tuple[dict[str, Any], ...] = (
    {"pid": 42, "start": 7},
    {"launched": True},
    {"ready": True},
    {"held": True},
    {"detached": True, "orphaned": 5.0},
    {"stopping": "asked", "detail": "", "forced": True},
    {"outcome": {"type": "exited", "code": 3}, "ended": 9.0},
    {"receipt": RECEIPT},
    {"acknowledged": 12.0},
    {"moved": True, "pid": 43, "start": 8},
)
KEYS = sorted({key for entry in (HEADER, *ENTRIES) for key in entry})
MEMORY = "/dev/shm"  # noqa: S108 - made by tempfile, below it


# ---- lines -------------------------------------------------------------------------------------------------


def ledger_lines(data: bytes) -> None:
    """Damage a run's file in any way: what comes out was in it, in its order, and what is missing is told."""
    draw = Draw(data)
    entries: list[dict[str, Any]] = [HEADER, *(draw.pick(ENTRIES) for _ in range(draw.below(8)))]
    whole = b"".join(map(ledger.encode_line, entries)) + b" " * draw.byte()
    content = whole
    while not draw.done:
        content = _damaged(content, draw)
    try:
        (found, torn), end = ledger.scan(content)
    except ledger.LedgerError as error:
        require_plain(str(error))
        return
    require(end <= len(content), "an end behind the end", end)
    require(ledger.scan(content[:end])[0].entries == found, "the whole part does not hold what was found", end)
    rest = iter(entries)
    for entry in found:
        require(entry in rest, "an entry that was not put in, or not there", entry)
    blank = not content[end:].strip(b" \n")
    in_place = len(content) == len(whole)  # where bytes went, or came between, a whole line can be gone unseen
    require(torn or not in_place or (found == entries[: len(found)] and blank), "what is missing is not told", found)


def _damaged(content: bytes, draw: Draw) -> bytes:
    begin = draw.below(min(len(content) + 1, 1 << 16))
    end = begin + draw.byte()
    how = draw.below(5)
    if how == 0:
        return content[:begin] + b" " * len(content[begin:end]) + content[end:]
    if how == 1:
        return content[:begin] + bytes(len(content[begin:end])) + content[end:]
    if how == 2:  # noqa: PLR2004 - one of five
        return content[:begin] + content[end:]
    if how == 3:  # noqa: PLR2004 - the same
        chunk = draw.chunk()
        return content[:begin] + chunk + content[begin + len(chunk) :]
    return content[:begin]


def sealed(lines: bytes) -> bytes:
    """Return `lines` with a right checksum before each that has none, as if a server had written them."""
    return b"\n".join(b"%08x %s" % (crc32(line), line) if line[:1] == b"{" else line for line in lines.split(b"\n"))


# ---- facts -------------------------------------------------------------------------------------------------


def facts(data: bytes) -> None:
    """Take over a run from any entries: they are refused as what cannot be read, or make sense throughout."""
    draw = Draw(data)
    entries = [dict(HEADER)]
    while not draw.done:
        entries.append(draw.pick(ENTRIES) if draw.chance(2) else {draw.pick(KEYS): draw.value()})
    try:
        content = b"".join(map(ledger.encode_line, entries))
    except (TypeError, ValueError, ledger.LedgerError):
        return  # what JSON cannot say was never in a file
    take_over(ledger.decode(content).entries, settled=draw.chance(2))


def take_over(entries: list[dict[str, Any]], *, settled: bool) -> None:
    """Have a server begin with the run that `entries` tell of; raises BreachError where they make no sense."""
    try:
        known = Facts(entries, settled=settled)
    except (ValueError, TypeError):
        return
    receipt = known.receipt or known.lost("its file was damaged")
    require(exit_code(receipt) != 0 or receipt.outcome == Exited(0), "0 for what is not known", receipt)
    require_plain(describe(receipt))
    charge = known.charge(100.0)
    charge.run.receipt(101.0)
    roster = Roster(BOOT, most=5, receipts=5, retention=100.0)
    roster.load([known], 100.0, 1000.0)
    roster.clock(200.0, 1100.0)
    line = ledger.encode_line(charge.facts)
    require(len(line) <= ledger.LINE_LIMIT, "the facts cannot be written", len(line))


# ---- files -------------------------------------------------------------------------------------------------


@functools.cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="cmapp-fuzz-", dir=MEMORY if os.access(MEMORY, os.W_OK) else None))
    import atexit  # noqa: PLC0415 - once a process

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _disk() -> Disk:
    return Disk(asyncio.new_event_loop())


def receipts(data: bytes) -> None:
    """Begin with a state folder that holds anything: it is used, put aside or left alone, and no other is touched."""
    with heard_by(logging.NullHandler()):  # each run would tell what it found
        _begin(Draw(data))


def _begin(draw: Draw) -> None:
    state = _folder() / "state"
    shutil.rmtree(state, ignore_errors=True)
    stranger = _folder() / "stranger"
    stranger.write_bytes(b"not ours")
    names = (RUN, RUN.replace("0", "1"), f"{RUN}.new", f"{RUN}.torn", "README", RUN.upper())
    for folder in ("runs", "receipts"):
        (state / folder).mkdir(parents=True)
        for _ in range(draw.below(3)):
            path = state / folder / draw.pick(names)
            how = draw.below(8)
            if path.exists() or path.is_symlink():
                continue
            if how == 1:
                path.symlink_to(stranger)
            elif how == 2:  # noqa: PLR2004 - one of eight
                path.mkdir()
            else:
                header = ledger.encode_line(HEADER) if how > 3 else b""  # noqa: PLR2004 - the same
                path.write_bytes(header + sealed(expand(draw.chunk())))
    held = Receipts(_disk(), str(state))
    known = held.load()
    require(stranger.read_bytes() == b"not ours", "a file of others was changed")
    require({run_id for run_id, _ in known}.isdisjoint(held.unusable), "a run that is known and not", known)
    for run_id, entries in known:
        require(run_id in names, "a run that has no file", run_id)
        take_over(entries, settled=held.is_settled(run_id))
    again = Receipts(_disk(), str(state)).load()
    require(again == known, "a second start finds something else", known, again)


# ---- handed over -------------------------------------------------------------------------------------------


def handover(data: bytes) -> None:
    """Begin with anything that the program before has handed over: it has its form, or SettingsError says so."""
    memory = os.memfd_create("handover")
    os.write(memory, expand(data))
    os.lseek(memory, 0, os.SEEK_SET)
    os.environ[upgrade.HANDOVER] = str(memory)
    try:
        told = upgrade.taken()
    except SettingsError as error:
        require_plain(str(error))
        return
    finally:
        os.environ.pop(upgrade.HANDOVER, None)
        try:
            os.close(memory)
        except OSError:
            pass  # it was read to its end
    require(isinstance(told["lock"], int), "no lock", told)
    require(all(isinstance(number, int) for number in told["listeners"]), "no listeners", told)
    require(all(isinstance(run, dict) for run in told.get("runs", {}).values()), "no runs", told)
    json.dumps(told)
