"""What cmappmgr says of its work: the words of the log, and the outcome as JSON.

Responsible for telling people what they need at three in the morning, once. The invariant: the line of the
end says whose word the exit code is, and a result file is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import stat
import time

from cmapp.core.duration import format_duration
from cmapp.core.outcome import (
    Exited,
    Failed,
    NotStarted,
    Receipt,
    Refused,
    Signaled,
    Unknown,
    Unreachable,
    Verdict,
    describe,
    exit_code,
    signal_name,
)
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from cmapp.core.messages import Launched, Report
    from cmapp.host.journal import Journal
    from cmapp.host.settings import Settings, Task

TROUBLE_EVERY = 30.0  # seconds between two warnings that the guest still cannot be reached
SHOWN = 200  # characters of the command that the log repeats


class Reporter:
    """Tells how one pursuit goes, on the package log, syslog and the result file."""

    def __init__(self, journal: Journal, settings: Settings, task: Task) -> None:
        """Raises SettingsError if there could be no result file."""
        self.journal = journal
        self._settings = settings
        self._task = task
        self._times: dict[str, float] = {"begun": time.time()}
        self._begun = time.monotonic()
        self._launched: float | None = None
        self._asked = False
        self._attempts = 0
        self._warned = 0.0
        self._new_result = f"{settings.result}.{task.launch.run_id}"
        if settings.result:
            _make_room(settings.result, self._new_result)

    def begun(self) -> None:
        """Tell what will be watched, and how soon what would be noticed."""
        task, patience = self._task, self._settings.patience
        command = " ".join(task.launch.argv)
        shown = command if len(command) <= SHOWN else command[:SHOWN] + "..."
        self.journal.info(
            f"watching {shown} at {task.address}, run {task.launch.run_id}: an exit is noticed at once,"
            f" a hung guest within {format_duration(patience.silence)} (polled every"
            f" {format_duration(patience.poll_interval)}, {format_duration(patience.poll_timeout)} to answer)"
        )

    def attempt_failed(self, text: str) -> None:
        """Tell why an attempt to connect failed: the first at once, the others now and then."""
        self._attempts += 1
        now = time.monotonic()
        told = f"not reached yet, attempt {self._attempts}: {text}"
        if self._attempts > 1 and now - self._warned < TROUBLE_EVERY:
            self.journal.debug(told)
            return
        self._warned = now
        left = self._settings.connect_timeout - (now - self._begun)
        self.journal.warning(f"{told}; trying for another {format_duration(max(0.0, left))}")

    def connected(self, guest: str, software: str) -> None:
        """Tell who answers."""
        self.journal.debug(f"connected to {software or 'a server'} in {guest or 'the guest'}")

    def launched(self, launched: Launched) -> None:
        """Tell that it runs."""
        self._times["launched"] = time.time()
        self._launched = time.monotonic()
        how = "found running" if launched.attached else "launched"
        took = format_duration(self._launched - self._begun)
        self.journal.info(f"{how} as pid {launched.pid}, run {launched.run_id}, {took} after the start")

    def reported(self, report: Report) -> None:
        """Tell what the answer to a poll was."""
        run = report.run
        self.journal.debug(
            f"{run.state.value}, pid {run.pid}, up {format_duration(run.uptime)}, {run.cpu:.2f} s of processor"
            f" time, {run.memory // 1024} KiB in {run.processes} processes"
        )

    def asked_to_stop(self, number: int, *, linked: bool) -> None:
        """Tell on which signal what is asked of the server."""
        name = f"SIG{signal_name(number)}"
        if not linked:
            self.journal.info(f"asked to stop by {name} before it was launched")
        elif self._asked:
            self.journal.warning(f"asked to stop by {name} again: asking the server to kill it at once")
        else:
            settings = self._settings
            self.journal.info(
                f"asked to stop by {name}: asking the server for {settings.stop_words} and, after"
                f" {format_duration(settings.stop_timeout)}, SIGKILL"
            )
        self._asked = True

    def concluded(self, verdict: Verdict) -> None:
        """Tell how it ended, to the log and to the result file."""
        self._times["concluded"] = time.time()
        code = exit_code(verdict)
        text = f"{describe(verdict)}{self._when(verdict)}; exit code {code} {_meaning(verdict)}"
        if code == 0 or (self._asked and isinstance(verdict, (Receipt, Failed))):
            self.journal.info(text)
        else:
            self.journal.error(text)
        if self._settings.result:
            self._write_result(verdict, text)

    def _when(self, verdict: Verdict) -> str:
        if isinstance(verdict, Receipt):
            return ""
        since = self._begun if self._launched is None else self._launched
        what = "the start" if self._launched is None else "its launch"
        return f", {format_duration(time.monotonic() - since)} after {what}"

    def _write_result(self, verdict: Verdict, text: str) -> None:
        launch = self._task.launch
        keys = {
            "cause": _cause(verdict),
            "exit_code": exit_code(verdict),
            "text": text,
            "name": launch.name,
            "guest": self._task.guest.host,
            "run_id": launch.run_id,
            **_details(verdict),
            **self._times,
        }
        path = self._settings.result
        try:
            _replace(path, self._new_result, json.dumps(keys).encode() + b"\n")
        except OSError as error:
            self.journal.error(f"the result cannot be written to {path}: {error.strerror}")


def _meaning(verdict: Verdict) -> str:
    match verdict:
        case Receipt(outcome=Exited()):
            return "is the application's own"
        case Receipt(outcome=Signaled()):
            return "is 128 and the signal's number"
        case Receipt():
            return "means that its outcome is unknown"
        case NotStarted(found=True):
            return "means that the command could not be executed"
        case NotStarted():
            return "means that the command was not found"
        case Unreachable():
            return "means that the server was unreachable"
        case Refused():
            return "means that we were refused"
        case Failed():
            return "means that cmappmgr could not do its work"


def _cause(verdict: Verdict) -> str:
    ending = verdict.outcome if isinstance(verdict, Receipt) else verdict
    return {
        Exited: "exited",
        Signaled: "signaled",
        Unknown: "unknown",
        NotStarted: "not-started",
        Unreachable: "unreachable",
        Refused: "refused",
        Failed: "failed",
    }[type(ending)]


def _details(verdict: Verdict) -> dict[str, Any]:
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
        keys |= {"started": verdict.started, "ended": verdict.ended, "lasted": verdict.lasted}
    return keys


def _make_room(path: str, new: str) -> None:
    """Take away an older result, lest it be taken for ours, and try that one can be written; raises SettingsError."""
    try:
        # A rename replaces what is there, which must not be a device or a folder.
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise SettingsError(f"the result {path} cannot be written: what is there is no regular file")
        _replace(path, new, b"")
        os.unlink(path)
    except OSError as error:
        raise SettingsError(f"the result {path} cannot be written: {error.strerror}") from None


def _replace(path: str, new: str, content: bytes) -> None:
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
