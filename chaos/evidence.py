"""Reads what the witnesses have left in the folder of a campaign, and makes the story of it for the checker.

The applications' books and the servers' state folders are those of the guests, the managers' logs and results those
that they wrote, and the account is what we did ourselves. The readers are our own, so that a defect of cmapp's
is not read away by the same defect. The invariant: what cannot be read is reported, never left out.
"""

from __future__ import annotations

import json
import re
import zlib
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.story import FOREVER, Fault, Instance, Manager, Receipt, Server, Story, Told

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ACCOUNT = "account.json"
DEFECT = re.compile(r"^.*(?:internal error|Traceback|Error: |Exception ignored).*$", re.MULTILINE)
RECEIPT_FIELDS = ("name", "run_id", "outcome", "reason", "started", "ended", "lasted")


@dataclass
class Account:
    """What we did and saw ourselves; everything else is read from what the witnesses have left."""

    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    managers: list[Manager] = field(default_factory=list)
    servers: list[Server] = field(default_factory=list)
    guests: list[str] = field(default_factory=list)
    calm: float = FOREVER
    tells_strangers: bool = True

    def write(self, folder: Path) -> None:
        """Keep it in the folder of the campaign."""
        (folder / ACCOUNT).write_text(json.dumps(asdict(self), indent=1))


def read_account(folder: Path) -> Account:
    """Return the account of a campaign."""
    kept = json.loads((folder / ACCOUNT).read_text())
    kept["faults"] = [Fault(**one) for one in kept["faults"]]
    kept["servers"] = [Server(**one) for one in kept["servers"]]
    kept["managers"] = [Manager(**_signals(one)) for one in kept["managers"]]
    return Account(**kept)


def read_story(folder: Path) -> Story:
    """Return the story of the campaign in `folder`."""
    account = read_account(folder)
    instances: list[Instance] = []
    receipts: list[Receipt] = []
    defects: list[tuple[str, str]] = []
    for guest in account.guests:
        for path in sorted((folder / guest / "books").glob("*.book")):
            instances += read_book(guest, path.stem, path.read_text(errors="replace"))
        files = _receipt_files(folder / guest / "state")
        receipts += [read_receipt(guest, path.name, path.read_bytes()) for path in files]
        log = (folder / guest / "journal.txt").read_text(errors="replace")
        told = Counter(line.strip().partition("]: ")[2] for line in DEFECT.findall(log))
        defects += [(guest, f"{text} ({times} times)") for text, times in told.items()]
    return Story(
        instances=tuple(instances),
        managers=tuple(_with_words(manager, folder / "managers" / str(manager.number)) for manager in account.managers),
        receipts=tuple(receipts),
        servers=tuple(account.servers),
        faults=tuple(account.faults),
        calm=account.calm,
        server_defects=tuple(defects),
        tells_strangers=account.tells_strangers,
    )


def read_book(guest: str, name: str, text: str) -> Iterator[Instance]:
    """Return the instances that a book tells of; a line that a loss of power cut off tells nothing."""
    begun: dict[str, dict[str, Any]] = {}
    for line in text.splitlines(keepends=True):
        match line.split() if line.endswith("\n") else []:
            case ["start", instance, clock, wall, run_id, boot_id, _]:
                offset = float(wall) - float(clock)
                begun[instance] = {"run_id": run_id, "boot_id": boot_id, "started": float(clock), "wall_offset": offset}
                begun[instance]["beats"] = []
            case ["beat", instance, clock, _, role] if instance in begun:
                begun[instance]["beats"].append((float(clock), role))
            case ["end", instance, clock, _, way, number] if instance in begun:
                begun[instance] |= {"end": (way, int(number)), "ended": float(clock)}
    for instance, known in begun.items():
        known["beats"] = tuple(known["beats"])
        yield Instance(guest, name, instance, **known)


def read_receipt(guest: str, run_id: str, content: bytes) -> Receipt:
    """Return what a run's file says: lines of a checksum and a JSON object, with blanks between and behind them."""
    told = None
    for number, line in enumerate(content.replace(b" \n", b"\n").split(b"\n"), 1):
        words = line.strip(b" ")
        if not words:
            continue
        try:
            entry = _entry(words)
            if "receipt" not in entry:
                continue
            found = _told_by_receipt(entry["receipt"], run_id)
        except (ValueError, KeyError, TypeError) as error:
            return Receipt(guest, run_id, told, f"line {number}: {error}")
        if told is not None and told != found:
            return Receipt(guest, run_id, told, f"line {number} tells another outcome than a line before it")
        told = found
    return Receipt(guest, run_id, told)


def _entry(words: bytes) -> dict[str, Any]:
    if int(words[:8], 16) != zlib.crc32(words[9:]):
        raise ValueError("its checksum is wrong")
    entry = json.loads(words[9:])
    if not isinstance(entry, dict):
        raise TypeError("it is no object")
    return entry


def _told_by_receipt(receipt: dict[str, Any], run_id: str) -> Told:
    if missing := [name for name in RECEIPT_FIELDS if name not in receipt]:
        raise ValueError(f"the receipt has no {missing[0]}")
    if receipt["run_id"] != run_id:
        raise ValueError(f"the receipt is of {receipt['run_id']}")
    outcome = receipt["outcome"]
    number = outcome.get("code", outcome.get("signal", -1))
    return Told(outcome["type"], number, receipt["reason"], receipt.get("forced", False), receipt["ended"])


def _receipt_files(state: Path) -> list[Path]:
    files = [path for folder in ("runs", "receipts") for path in (state / folder).glob("*") if path.is_file()]
    return sorted(path for path in files if re.fullmatch(r"[0-9a-f-]{36}", path.name))


def _signals(manager: dict[str, Any]) -> dict[str, Any]:
    return {**manager, "signals": tuple((when, number) for when, number in manager["signals"])}


def _with_words(manager: Manager, folder: Path) -> Manager:
    """Return the manager with what it wrote itself."""
    known = asdict(manager)
    log = _text(folder / "package.log")
    errors = _text(folder / "stderr")
    lines = log.splitlines()
    known["last_line"] = lines[-1] if lines else ""
    known["launched"] = "launched as pid" in log or "found running as pid" in log
    defects = DEFECT.findall(errors) + re.findall(r"^.*internal error.*$", log, re.MULTILINE)
    known["defect"] = defects[0].strip() if defects else ""
    result = _text(folder / "result.json")
    if result:
        said = json.loads(result)
        known |= {"cause": said["cause"], "exit_code": said["exit_code"], "text": said["text"]}
        known["told_run"] = said["run_id"]
        known["refusal"] = said.get("refusal", "")
        if said["cause"] in ("exited", "signaled", "unknown"):
            number = said.get("code", said.get("signal", -1))
            reason, forced = said.get("reason", ""), said.get("forced", False)
            known["told"] = Told(said["cause"], number, reason, forced, said.get("ended"), said["concluded"])
    return Manager(**known)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
