"""The guest service: carries out what the vigil of one virtual machine says.

It is one loop around poll(2) over the errands that are out, the link of the heartbeat, the descriptor of the QEMU
process and that of the signals. What may wait is done by errands. The invariant: `down` is believed when the proven
process, if there is one, has ended; and the machine is started once, by an errand that is waited for.
"""

from __future__ import annotations

import math
import select
import time

from cmapp.core.duration import format_duration
from cmapp.core.reading import KINDS, Reading, Word, read
from cmapp.core.vigil import Vigil
from cmapp.core.vm import LIVE, Action, Event, State
from cmapp.errors import internal_error
from cmapp.host.halts import DISMISSAL, Halts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.core.vmending import Ending
    from cmapp.vm.emulator import Emulator
    from cmapp.vm.errand import Errand
    from cmapp.vm.heartbeat import Heartbeat
    from cmapp.vm.means import CommandSet, Libvirt
    from cmapp.vm.report import Reporter
    from cmapp.vm.settings import Settings

SILENT_LIMIT = 10.0  # seconds without a word from libvirt, of which one comes every two
LOOK_EVERY = 1.0  # seconds from one look at the host's processes to the next
WATCH_PAUSES = (0.3, 2.0)  # seconds before libvirt is called again: doubled each time
LONGEST_WAIT = 3600.0  # seconds
UNDEFINED = "undefined"
_GONE = (Word.DOWN, Word.ELSEWHERE)


class Service:
    """One vigil, from the first look to its ending."""

    def __init__(
        self,
        settings: Settings,
        means: Libvirt | CommandSet,
        heartbeat: Heartbeat | None,
        reporter: Reporter,
        *,
        stop: bool = False,
    ) -> None:
        """`stop` is for a service that only has to stop the machine."""
        self._settings = settings
        self._means = means
        self._heartbeat = heartbeat
        self._reporter = reporter
        self._vigil = Vigil(settings.rules, time.monotonic())
        self._halts = Halts()
        self._stop = stop
        self._watch: Errand | None = None
        self._errands: dict[str, Errand] = {}
        self._emulator: Emulator | None = None
        self._last_word: Reading | None = None
        self._untold = False
        self._declined = ""
        self._pause = WATCH_PAUSES[0]
        self._next_watch = self._next_look = 0.0
        self._heard = self._answered = time.monotonic()

    def run(self) -> Ending:
        """Watch it to its end and return the ending, which was told; a defect of ours is one too."""
        try:
            self._halts.listen()
            if self._stop:
                self._reporter.stopping()
                self._step(Event.STOP_WANTED)
            else:
                self._reporter.begun()
            while (ending := self._vigil.ending) is None:
                self._turn()
        except Exception as error:  # noqa: BLE001 - whatever it is, the user gets one line and a code of its own
            self._step(Event.BROKEN, internal_error(error))
            ending = self._vigil.ending
        for deed, errand in self._errands.items():
            if deed in self._means.FINISHED:
                errand.wait()
        for errand in self._out():
            errand.kill()
        if self._heartbeat is not None:
            self._heartbeat.close("that was all")
        return ending  # type: ignore[return-value] # BROKEN ends it

    # ---- one turn of the loop ------------------------------------------------------------------------------

    def _turn(self) -> None:
        waiting = select.poll()
        waiting.register(self._halts.descriptor, select.POLLIN)
        for errand in self._out():
            errand.register(waiting)
        if self._heartbeat is not None:
            self._heartbeat.register(waiting)
        if self._emulator is not None:
            waiting.register(self._emulator, select.POLLIN)
        ready = dict(waiting.poll(self._patience()))
        now = time.monotonic()
        if self._halts.descriptor in ready:
            self._signaled()
        self._look_after_watch(now)
        self._look_after_errands(now)
        self._look_after_process(now)
        if self._heartbeat is not None:
            self._feel(self._heartbeat.go_on(ready, now))
        before = self._vigil.state
        self._carry_out(self._vigil.clock(time.monotonic()), before, self._clock_text())
        if self._vigil.overslept:
            stood = format_duration(self._vigil.overslept)
            self._reporter.journal.warning(
                f"this process, or its host, stood still for {stood}: nobody is judged by it"
            )

    def _out(self) -> list[Errand]:
        return [errand for errand in (self._watch, *self._errands.values()) if errand is not None]

    def _patience(self) -> int:
        """Return for how many milliseconds nothing has to be done."""
        at = [self._next_look, self._vigil.deadline or math.inf]
        at += [errand.deadline for errand in self._out() if errand.deadline]
        at.append(self._next_watch if self._watch is None else self._heard + SILENT_LIMIT)
        if self._heartbeat is not None:
            at.append(self._heartbeat.deadline)
        left = min(at) - time.monotonic()
        return max(0, math.ceil(min(left, LONGEST_WAIT) * 1000))

    def _signaled(self) -> None:
        for number in self._halts.heard():
            self._step(Event.LEAVE_WANTED if number == DISMISSAL else Event.STOP_WANTED)

    # ---- what is said of it --------------------------------------------------------------------------------

    def _look_after_watch(self, now: float) -> None:
        """Hear libvirt, or ask the command, and call again whoever was lost."""
        if self._watch is None:
            if now >= self._next_watch and "state" not in self._errands:
                self._watch = self._means.watch()
                self._heard = now
                if self._watch is None:
                    self._send("state")
                    self._next_watch = now + self._settings.poll_interval
                    if self._vigil.state not in LIVE:
                        self._next_watch = now + min(LOOK_EVERY, self._settings.poll_interval)
            return
        for line in self._watch.go_on(now):
            self._heard = now
            self._hear(line)
        silent = now - self._heard >= SILENT_LIMIT
        if silent:
            self._watch.kill()
            self._take(Reading(Word.UNKNOWN, "", f"libvirt did not say a word for {format_duration(SILENT_LIMIT)}"))
        if self._watch.ended:
            if not silent and not any(line.startswith("untold\t") for line in self._watch.lines[-1:]):
                self._take(Reading(Word.UNKNOWN, "", "the process that listens to libvirt has ended"))
            self._watch, self._next_watch = None, now + self._pause
            self._pause = min(self._pause * 2, WATCH_PAUSES[1])

    def _hear(self, line: str) -> None:
        kind, _, text = line.partition("\t")
        if kind in KINDS:
            self._pause = WATCH_PAUSES[0]
            reading = read(line)
            # What contradicts is asked again: a look may be older than what we know by now.
            if kind == "state" and reading.how in _GONE and self._vigil.state in LIVE:
                self._send("state")
            else:
                self._take(reading)
        elif kind == "note":
            self._reporter.journal.warning(text)
        else:
            self._take(Reading(Word.UNKNOWN, "", text or line))

    def _take(self, reading: Reading) -> None:
        """Step a reading, unless it says that the machine is gone and its process lives."""
        self._untold = reading.how is Word.UNKNOWN
        if reading.how in _GONE and self._emulator is not None and not self._emulator.ended:
            self._last_word = reading
            return
        if self._vigil.state is State.GONE and reading.detail == UNDEFINED:
            return  # of a domain that libvirt has forgotten already it still has to say why it ended
        before = self._vigil.state
        self._carry_out(self._vigil.read(reading, time.monotonic()), before, reading.reason)

    def _look_after_process(self, now: float) -> None:
        """Find the QEMU process, and be told of its end; be its witness where nobody else can tell."""
        if self._emulator is not None and self._emulator.ended:
            self._emulator.close()
            self._emulator = None
            self._step(Event.VANISHED)
            if self._last_word is not None:
                self._take(self._last_word)
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        state = self._vigil.state
        if self._emulator is None and state not in (State.CHECKING, State.STARTING, State.GONE, State.ENDED):
            seen = self._means.look()
            if seen.emulator is not None:
                self._emulator = seen.emulator
                self._reporter.process(seen.emulator.pid)
            elif seen.absent and self._untold and state in (State.STOPPING, State.FORCING, State.KILLING):
                self._step(Event.VANISHED, seen.text)
        attended = self._heartbeat is None or now - self._answered < self._settings.silence or state is State.LOOKING
        if self._emulator is not None and self._untold and attended:
            self._step(Event.WITNESSED, f"its QEMU lives as process {self._emulator.pid}")

    def _feel(self, sign: bool | None) -> None:  # noqa: FBT001 - as the heartbeat says it
        if sign is None or self._heartbeat is None:
            return
        if sign:
            self._answered = time.monotonic()
            self._step(Event.ANSWERED)
        else:
            self._reporter.journal.debug(f"no sign of life: {self._heartbeat.trouble}")
            self._step(Event.UNANSWERED, self._heartbeat.trouble)

    def _clock_text(self) -> str:
        return "" if self._heartbeat is None else self._heartbeat.trouble

    # ---- what is to be done --------------------------------------------------------------------------------

    def _step(self, event: Event, because: str = "") -> None:
        before = self._vigil.state
        self._carry_out(self._vigil.step(event, time.monotonic(), because), before, because)

    def _carry_out(self, actions: tuple[Action, ...], before: State, text: str) -> None:
        if self._vigil.state is not before and self._vigil.ending is None:
            self._reporter.became(self._vigil, before, text)
            self._next_look = 0.0
        if self._vigil.ending is not None and Action.CONCLUDE in actions:
            self._reporter.concluded(self._vigil.ending)
        for action in actions:
            self._do(action)

    def _do(self, action: Action) -> None:
        match action:
            case Action.CALL if self._heartbeat is not None:
                self._heartbeat.begin()
            case Action.TELL_READY:
                self._reporter.ready()
            case Action.START | Action.QUESTION | Action.SHUT_DOWN | Action.FORCE:
                self._send(action.value)
            case Action.KILL:
                self._kill()

    def _send(self, deed: str) -> None:
        """Send an errand, unless one for the same is out."""
        if deed in self._errands:
            return
        if deed == Action.QUESTION.value and self._heartbeat is not None:
            self._heartbeat.hurry()
        try:
            self._errands[deed] = {
                "state": self._means.state,
                Action.START.value: self._means.start,
                Action.QUESTION.value: self._means.question,
                Action.SHUT_DOWN.value: self._means.shut_down,
                Action.FORCE.value: self._means.force,
            }[deed]()
        except OSError as error:
            self._brought(deed, untold=True, text=f"it cannot be executed: {error.strerror}")

    def _look_after_errands(self, now: float) -> None:
        for deed, errand in list(self._errands.items()):
            errand.go_on(now)
            if not errand.ended:
                continue
            del self._errands[deed]
            told = self._means.told(errand)
            for note in told.notes:
                self._reporter.journal.warning(note)
            if deed == Action.QUESTION.value:
                self._second_look(told.reading, agent=told.agent, text=told.text)
            elif told.reading is not None and not (told.untold and deed != "state"):
                self._take(told.reading)
            elif deed == "state":
                self._take(Reading(Word.UNKNOWN, "", told.text))
            if deed not in ("state", Action.QUESTION.value):
                self._brought(deed, done=told.done, untold=told.untold, text=told.text)

    def _second_look(self, reading: Reading | None, *, agent: bool, text: str) -> None:
        """Judge by the second look: a machine that runs, in which nobody answers, hangs."""
        if reading is None or reading.how is not Word.RUNNING:
            self._take(reading or Reading(Word.UNKNOWN, "", text))
        elif agent:
            self._step(Event.ALIVE, "the agent in its guest answers, so its server, or the way to it, is at fault")
        elif self._heartbeat is not None and self._heartbeat.refused:
            self._step(Event.ALIVE, f"it answers, but not as it should: {self._heartbeat.trouble}")
        else:
            self._step(Event.HUNG, self._clock_text())

    def _brought(self, deed: str, *, done: bool = False, untold: bool = False, text: str = "") -> None:
        """Go on with what became of a deed."""
        if not done:
            self._reporter.journal.warning(f"to {deed} it: {text}")
        if deed == Action.START.value:
            self._step(Event.STARTED if done else Event.NOT_STARTED, text)
        elif deed == Action.FORCE.value and untold:
            self._step(Event.NOT_FORCED, text)
        elif deed == Action.FORCE.value and not done:
            self._declined = text  # who could be asked, and has declined, is not gone over
        self._next_watch = 0.0

    def _kill(self) -> None:
        """Kill the process that is proven to be the machine's, if libvirt cannot be asked to."""
        seen = None if self._emulator is not None else self._means.look()
        if seen is not None and seen.emulator is not None:
            self._emulator = seen.emulator
        if self._declined:
            self._step(Event.NOT_PROVEN, f"libvirt declined to end it: {self._declined}")
        elif self._emulator is not None:
            self._emulator.kill()
        elif seen is not None and seen.absent:
            self._step(Event.VANISHED, seen.text)
        else:
            self._step(Event.NOT_PROVEN, seen.text if seen is not None else "")
