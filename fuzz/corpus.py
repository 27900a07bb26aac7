"""The kept inputs: those that are committed, those that runs here have added, and what was found.

The invariant: what is committed is small, and each name in it is an input's own hash or says what it is for.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
GROWN = HERE / "grown"
FOUND = HERE / "found"
KEPT = 4000  # bytes of inputs without a name of their own that are committed of one target
MOST = 10  # such inputs
HASH = 40  # digits of a name that a fuzzer gave


def inputs(target: str) -> list[bytes]:
    """Return the committed inputs of a target, always in the same order; an empty one if there is none."""
    return [path.read_bytes() for path in files(target)] or [b""]


def files(target: str) -> list[Path]:
    """Return the files of the committed inputs of a target."""
    return sorted(path for path in (CORPUS / target).glob("*") if path.is_file())


def keep(target: str, found: list[bytes]) -> int:
    """Commit what was `found` worth it, beside those with a name; return how many there are now."""
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    for path in files(target):
        if len(path.name) == HASH:
            path.unlink()
    named = {path.read_bytes() for path in files(target)}
    room = KEPT
    for data in found:
        if data and data not in named and len(data) <= room:
            room -= len(data)
            (folder / hashlib.sha1(data, usedforsecurity=False).hexdigest()).write_bytes(data)
    return len(files(target))


def target_of(path: Path, names: list[str]) -> str:
    """Return the target that a file is an input of, by its folder or by the beginning of its name; "" if none."""
    word = path.name.partition("-")[0]
    return path.parent.name if path.parent.name in names else word if word in names else ""
