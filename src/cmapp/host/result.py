"""The result file: the outcome as one JSON object, for whoever started cmappmgr.

The invariant: what is there is this run's and whole, or it is not there at all.
"""

from __future__ import annotations

import os
import stat

from cmapp.core.outcome import (
    FAULTS,
    Detached,
    Exited,
    Failed,
    GuestDown,
    NotStarted,
    Receipt,
    Refused,
    Signaled,
    Unknown,
    Unreachable,
    Verdict,
)
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def cause(verdict: Verdict) -> str:
    """Return the one word for what kind of ending it is."""
    if isinstance(verdict, Receipt) and verdict.reason in FAULTS:
        return "unhealthy"
    ending = verdict.outcome if isinstance(verdict, Receipt) else verdict
    return {
        Exited: "exited",
        Signaled: "signaled",
        Unknown: "unknown",
        NotStarted: "not-started",
        Unreachable: "unreachable",
        GuestDown: "guest-down",
        Refused: "refused",
        Detached: "detached",
        Failed: "failed",
    }[type(ending)]


def details(verdict: Verdict) -> dict[str, Any]:
    """Return what only this kind of ending has to say."""
    keys: dict[str, Any] = {}
    match verdict:
        case Receipt(outcome=Exited(code=code)):
            keys = {"code": code}
        case Receipt(outcome=Signaled(signal=number, core_dumped=dumped)):
            keys = {"signal": number, "core_dumped": dumped}
        case Refused(code=word):
            keys = {"refusal": word}
    if isinstance(verdict, Receipt):
        keys |= {"reason": verdict.reason.value, "forced": verdict.forced}
        keys |= {"detail": verdict.detail} if verdict.detail else {}
        keys |= {"started": verdict.started, "ended": verdict.ended, "lasted": verdict.lasted}
    return keys


def make_room(path: str, new: str) -> None:
    """Take away an older result, lest it be taken for ours, and try that one can be written; raises SettingsError."""
    try:
        # A rename replaces what is there, which must not be a device or a folder.
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise SettingsError(f"the result {path} cannot be written: what is there is no regular file")
        replace(path, new, b"")
        os.unlink(path)
    except OSError as error:
        raise SettingsError(f"the result {path} cannot be written: {error.strerror}") from None


def replace(path: str, new: str, content: bytes) -> None:
    """Put `content` at `path` by way of `new`, whole or not at all.

    The disk is not waited for: that would hold back the exit, and who reads the result runs on this host.
    """
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        try:
            while content:
                content = content[os.write(descriptor, content) :]
        finally:
            os.close(descriptor)
        os.rename(new, path)
    except OSError:
        os.unlink(new)
        raise
