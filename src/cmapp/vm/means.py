"""By which means a virtual machine is acted on: libvirt, or a set of the user's commands.

Each deed is an errand; what its lines and its exit code mean is told here, the same for both. The invariant: an
errand that was late, or that could not ask, has `untold` said of it, and never that it has failed.
"""

from __future__ import annotations

import importlib.util
import os

from cmapp.core.duration import format_duration
from cmapp.core.reading import Reading, Word, read, read_command
from cmapp.core.record import Record
from cmapp.core.vigil import FORCE_LIMIT, QUESTION_LIMIT
from cmapp.errors import SettingsError
from cmapp.vm import domain
from cmapp.vm.emulator import Look, look
from cmapp.vm.errand import Errand

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cmapp.vm.settings import Settings

STATE_LIMIT = 10.0  # seconds for one look at the machine
SHUT_DOWN_LIMIT = 10.0  # seconds for libvirt to pass a request to shut down on
NOT_SAID = "it said nothing"


class Told(Record):
    """What an errand has brought: whether it was done, a reading if there is one, what went wrong, an agent's word.

    `untold` tells that nobody could be asked, which is no failure of what was to be done.
    """

    done: bool = False
    untold: bool = False
    text: str = ""
    reading: Reading | None = None
    agent: bool = False
    notes: tuple[str, ...] = ()


class Libvirt:
    """A domain of libvirt."""

    FINISHED = ()  # deeds that are waited for at the end

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._uri = settings.uri
        self._config = settings.config
        self._start_limit = settings.start_timeout

    def watch(self) -> Errand | None:
        """Begin to be told of each change."""
        return Errand(domain.argv("watch", self._uri, self._name), env=os.environ, live=True)

    def state(self) -> Errand:
        """Ask how it is."""
        return self._errand("state", STATE_LIMIT)

    def question(self) -> Errand:
        """Look twice: how it is, and whether the agent in its guest answers."""
        return self._errand("ask", QUESTION_LIMIT / 2)

    def start(self) -> Errand:
        """Start it."""
        return self._errand("start", self._start_limit, self._config)

    def shut_down(self) -> Errand:
        """Ask the guest to shut down."""
        return self._errand("shutdown", SHUT_DOWN_LIMIT)

    def force(self) -> Errand:
        """Cut its power."""
        return self._errand("destroy", FORCE_LIMIT)

    def look(self) -> Look:
        """Look at its process."""
        return look(self._uri, self._name)

    def told(self, errand: Errand) -> Told:
        """Return what an errand that has ended has brought."""
        fields = [line.split("\t") for line in errand.lines]
        by_kind = {kind: "\t".join(rest) for kind, *rest in fields}
        reading = next((read(line) for line in reversed(errand.lines) if line.startswith("state\t")), None)
        untold = by_kind.get("untold")
        if untold is None and "failed" not in by_kind and "done" not in by_kind and reading is None:
            late = f"libvirt did not answer in time ({format_duration(STATE_LIMIT)})" if errand.late else NOT_SAID
            untold = f"libvirt could not be asked: {late}"
        return Told(
            done="done" in by_kind,
            untold=untold is not None,
            text=untold or by_kind.get("failed", ""),
            reading=reading,
            agent=by_kind.get("agent", "").startswith("yes"),
            notes=tuple("\t".join(rest) for kind, *rest in fields if kind == "note"),
        )

    def _errand(self, verb: str, limit: float, *arguments: str) -> Errand:
        return Errand(domain.argv(verb, self._uri, self._name, *arguments), limit=limit, env=os.environ)


class CommandSet:
    """A machine that commands of the user's start, stop, and tell of; it is polled, for no event tells of it."""

    FINISHED = ("shut down", "force")

    def __init__(self, name: str, settings: Settings) -> None:
        """Raises SettingsError if a command is missing, or is no absolute path."""
        self._env = {"CMAPP_DOMAIN": name}
        self._start, self._stop, self._state = settings.start_command, settings.stop_command, settings.state_command
        for key in ("start_command", "stop_command", "state_command"):
            command: Sequence[str] = getattr(settings, key)
            if not command:
                raise SettingsError(f"a set of commands needs a {key.replace('_', ' ')} too: give all three")
            if not command[0].startswith("/"):
                raise SettingsError(f"{command[0]} must be an absolute path: there is no PATH where it is started")
        self._start_limit = settings.start_timeout
        self._stop_limit = settings.stop_timeout

    def watch(self) -> Errand | None:
        """Return nothing: nobody tells of changes."""
        return None

    def state(self) -> Errand:
        """Ask how it is."""
        return Errand(self._state, limit=STATE_LIMIT, env=self._env)

    def question(self) -> Errand:
        """Look twice: there is only the state command to ask."""
        return self.state()

    def start(self) -> Errand:
        """Start it."""
        return Errand(self._start, limit=self._start_limit, env=self._env)

    def shut_down(self) -> Errand:
        """Stop it."""
        return Errand(self._stop, limit=self._stop_limit + FORCE_LIMIT, env=self._env)

    def force(self) -> Errand:
        """Stop it at once, which the stop command sees by CMAPP_FORCE=1."""
        return Errand(self._stop, limit=FORCE_LIMIT, env={**self._env, "CMAPP_FORCE": "1"})

    def look(self) -> Look:
        """Return that its processes are not known."""
        return Look(text="its processes are not known")

    def told(self, errand: Errand) -> Told:
        """Return what a command that has ended has brought: a reading if it was the state command, else success."""
        text = " ".join(" ".join(errand.lines).split())
        if errand.argv == self._state:
            reading = read_command("\n".join(errand.lines), errand.code)
            if errand.late:
                reading = Reading(Word.UNKNOWN, "", f"the state command did not end in {format_duration(STATE_LIMIT)}")
            untold = reading.how is Word.UNKNOWN
            return Told(done=not untold, untold=untold, text=reading.reason, reading=reading)
        if errand.late or errand.code is None:
            return Told(untold=True, text=f"{errand.argv[0]} did not end in time" if errand.late else "it was killed")
        if errand.code:
            return Told(text=f"{errand.argv[0]} exited with {errand.code}{text and f': {text}'}")
        return Told(done=True, text=text)


def means_of(name: str, settings: Settings) -> Libvirt | CommandSet:
    """Return the means that the settings name; raises SettingsError for a mixture, and where libvirt's is missing."""
    if not (settings.start_command or settings.stop_command or settings.state_command):
        if importlib.util.find_spec("libvirt") is None:
            raise SettingsError(domain.LACKING)
        return Libvirt(name, settings)
    if settings.config:
        raise SettingsError("config is libvirt's: give it without commands")
    return CommandSet(name, settings)
