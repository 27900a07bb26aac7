"""What the guest service says of its work: the words of the log, of systemd's status, and of the result.

Responsible for telling people what they need at three in the morning, once. The invariant: the line of the end says
how it ended, and whose word that is.
"""

from __future__ import annotations

import json
import time

from cmapp.core.duration import format_duration
from cmapp.core.text import printable
from cmapp.core.vm import State
from cmapp.core.vmending import Cause
from cmapp.host import result
from cmapp.host.child import spawn
from cmapp.host.notice import Notice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.vigil import Vigil
    from cmapp.core.vmending import Ending
    from cmapp.host.journal import Journal
    from cmapp.vm.settings import Settings

_ASKED = (Cause.STOPPED, Cause.LEFT)
_WARNED = (State.STALLED, State.QUESTIONED, State.DOUBTFUL, State.GONE, State.FORCING, State.KILLING, State.PAUSED)


class Reporter:
    """Tells how one vigil goes."""

    def __init__(self, journal: Journal, name: str, settings: Settings, notify: str) -> None:
        """Raises SettingsError if there could be no result file."""
        self.journal = journal
        self._name = name
        self._settings = settings
        self._notice = Notice(notify)
        self._begun = time.monotonic()
        self._times = {"begun": time.time()}
        self._new = f"{settings.result}.new-{self._times['begun']:.6f}"
        if settings.result:
            result.make_room(settings.result, self._new)

    def begun(self) -> None:
        """Tell what is watched, and how soon what would be noticed."""
        settings = self._settings
        heartbeat = "no server in it is asked (--guest)"
        if settings.guest:
            heartbeat = f"a hang of {settings.guest} is noticed within {format_duration(settings.silence)}"
        how = f"by libvirt at {settings.uri}: its end is noticed at once"
        if settings.state_command:
            how = f"by commands: its end is noticed within {format_duration(settings.poll_interval)}"
        started = format_duration(settings.start_timeout)
        self.journal.info(f"watching {self._name} {how}, {heartbeat}; it has {started} to start")
        self._notice.say(f"STATUS=looking for {self._name}")

    def stopping(self) -> None:
        """Tell that it is only to be stopped."""
        self.journal.info(f"nobody watches {self._name}, so it is stopped from here")

    def became(self, vigil: Vigil, before: State, text: str) -> None:
        """Tell that another thing is known, or wanted, than `before`."""
        words = self._words(vigil, before)
        if not words:
            return
        line = words + (f": {printable(text)}" if text else "")
        if vigil.state in _WARNED:
            self.journal.warning(line)
        else:
            self.journal.info(line)
        self._notice.say(f"STATUS={line}")

    def ready(self) -> None:
        """Tell that it serves."""
        self._times["ready"] = time.time()
        what = "its server answers" if self._settings.guest else "it runs"
        self.journal.info(f"is ready: {what}, {format_duration(time.monotonic() - self._begun)} after the start")
        self._notice.say("READY=1", f"STATUS={what}")

    def process(self, pid: int) -> None:
        """Tell which process it is."""
        self.journal.info(f"its QEMU is process {pid}")

    def concluded(self, ending: Ending) -> None:
        """Tell how it ended, to the log and to the result file, and to whoever is to be told at once."""
        self._times["concluded"] = time.time()
        text = f"{ending.text}; exit code {ending.exit_code} ({ending.cause.value})"
        self.journal.conclude(text, well=ending.exit_code == 0)
        if self._settings.result:
            self._write(ending, text)
        if self._settings.on_end and ending.cause not in _ASKED:
            self._tell_at_once(ending)
        self._notice.say("STOPPING=1", f"STATUS={text}")

    def _words(self, vigil: Vigil, before: State) -> str:
        settings = self._settings
        doubt, stall = format_duration(settings.doubt_timeout), format_duration(settings.stall_timeout)
        stop = format_duration(settings.stop_timeout)
        if before is State.LOOKING and vigil.state in (State.AWAITING, State.RUNNING):
            return "is found running"
        again = {
            State.QUESTIONED: "its server answers again",
            State.STARTING: "runs",
            State.AWAITING: "its server answers" if vigil.ready else "",
        }.get(before, "runs again")
        return {
            State.STARTING: "does not run: it is started",
            State.AWAITING: "runs" if before is State.STARTING else "runs again",
            State.RUNNING: again,
            State.PAUSED: "is paused, and not judged until it runs again",
            State.STALLED: f"stands still, and is given up if it does in {stall}",
            State.MIGRATING: "is migrating, and not judged until that is over",
            State.QUESTIONED: "its server is silent, so it is looked at once more before it is judged",
            State.DOUBTFUL: f"nobody can tell how it is, which is no reason to stop it for {doubt}",
            State.GONE: "its process has ended",
            State.STOPPING: f"is to be shut down within {stop}",
            State.FORCING: "its power is cut",
            State.KILLING: "nobody ends it: its process is killed if it is proven",
        }.get(vigil.state, "")

    def _write(self, ending: Ending, text: str) -> None:
        keys = {"cause": ending.cause.value, "exit_code": ending.exit_code, "text": text, "name": self._name}
        try:
            result.replace(self._settings.result, self._new, json.dumps(keys | self._times).encode() + b"\n")
        except OSError as error:
            self.journal.error(f"the result cannot be written to {self._settings.result}: {error.strerror}")

    def _tell_at_once(self, ending: Ending) -> None:
        told = {
            "CMAPP_NAME": self._name,
            "CMAPP_CAUSE": ending.cause.value,
            "CMAPP_EXIT_CODE": str(ending.exit_code),
        }
        try:
            spawn(self._settings.on_end, env=told)
        except OSError as error:
            self.journal.error(f"{self._settings.on_end[0]} cannot be started at its end: {error.strerror}")
