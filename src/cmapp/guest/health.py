"""What is asked of one run, and what it says: readiness, health command, notification socket, stop command.

The execution owns a `Care` and hears from it by `tell`; what follows is the lifecycle's matter. There is no limit
of time for readiness here, and no watchdog: their deadlines are the lifecycle's. The invariant: what is asked
follows from five facts (launched, ready, held, at rest, closed) in one place, `_settle`, in whatever order they
became true; nothing is asked of a run that is held, is being stopped, or was closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.core.checkup import Checkup
from cmapp.core.messages import Refusal
from cmapp.core.readiness import target_of
from cmapp.core.rules import Kind, Probe
from cmapp.errors import RunError, SettingsError
from cmapp.guest.notify import NotifySocket
from cmapp.guest.probe import Readiness
from cmapp.guest.trial import Health, StopCommand

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.core.messages import Launch
    from cmapp.core.rules import HealthRules
    from cmapp.guest.notify import Notice
    from cmapp.guest.trial import RunCommand

STOP_SHARE = 0.5  # of the stop timeout for the stop command: the signal gets the rest, before SIGKILL


def check(launch: Launch) -> None:
    """Raise RunError, `unsupported`, for a launch whose readiness cannot be asked for."""
    try:
        if launch.ready is not None:
            target_of(launch.ready)
    except SettingsError as error:
        raise RunError(Refusal.UNSUPPORTED, str(error)) from None


class Care:
    """All that is asked and heard of the run that `launch` made.

    `run_command(argv, env_extra, done)` runs a command as the application would be, in its tree, and returns a
    handle with `.kill()`; `done(outcome, last line)` is called once it ended, with None if it did not start.
    `tell(event, text)` is told "ready"; "unhealthy", why; "status", what the application says; "beat", for every
    WATCHDOG=1; "main", the process that it names as its main one; "stopping". `owns` tells a process of the tree.
    """

    __slots__ = (
        "_asks",
        "_checks",
        "_closed",
        "_held",
        "_launch",
        "_launched",
        "_loop",
        "_notices",
        "_owns",
        "_ready",
        "_resting",
        "_resumed",
        "_run_command",
        "_stop",
        "_stopping_told",
        "_tell",
        "_trouble",
        "last_status",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        launch: Launch,
        run_command: RunCommand,
        tell: Callable[[str, str], None],
        owns: Callable[[int], bool],
    ) -> None:
        """Ask nothing yet; the launch must have passed `check`."""
        self._loop = loop
        self._launch = launch
        self._run_command = run_command
        self._tell = tell
        self._owns = owns
        self._launched = self._ready = self._held = self._resting = self._closed = False
        self._resumed = self._stopping_told = False
        self._trouble = ""
        self._notices: NotifySocket | None = None
        self._asks: Readiness | None = None
        self._checks: Health | None = None
        self._stop: StopCommand | None = None
        self.last_status = ""

    # ---- what others ask -----------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether the application is to say something by sd_notify, and needs the socket."""
        launch = self._launch
        return launch.kind is Kind.NOTIFY or launch.watchdog is not None or self._hears_ready

    @property
    def descriptor(self) -> int | None:
        """The notification socket's descriptor, for the next server in the same process."""
        return None if self._notices is None else self._notices.descriptor

    @property
    def health(self) -> str:
        """How its health is: "" where no command asks for it, or it is not asked for yet."""
        return self._checks.text if self._checks is not None else ""

    @property
    def trouble(self) -> str:
        """Why it is not ready, as far as is known: what the last try met."""
        if self._hears_ready:
            return "systemd did not tell that it is active" if self._launch.unit else "it did not say READY=1"
        if self._asks is None or not self._asks.trouble:
            return self._trouble
        command = self._launch.ready is not None and self._launch.ready.probe is Probe.COMMAND
        return f"{'the readiness command ' if command else ''}{self._asks.trouble}"

    # ---- what others tell ----------------------------------------------------------------------------------

    def listen(self, path: str, descriptor: int | None = None) -> None:
        """Bind the notification socket at `path`, or take over `descriptor`, if it is needed; raises RunError."""
        if self.listens and self._notices is None:
            self._notices = NotifySocket(self._loop, path, self._on_notice, self._owns, descriptor)

    def environment(self, path: str) -> dict[str, str]:
        """Return what the application needs in its environment to use the socket at `path`."""
        if not self.listens:
            return {}
        env = {"NOTIFY_SOCKET": path}
        if self._launch.watchdog is not None:
            # WATCHDOG_PID would have to be known before there is a process: without it anybody may be meant.
            env["WATCHDOG_USEC"] = str(max(1, round(self._launch.watchdog * 1_000_000)))
        return env

    def launched(self, *, ready: bool = False) -> None:
        """Begin: the application runs, and is `ready` already if an earlier server found it so."""
        self._launched = True
        self._resumed = ready
        waits = self._hears_ready or self._launch.ready or self._launch.kind is Kind.FORKING or self._launch.unit
        self._ready = self._ready or ready or not waits
        if self._notices is not None and not self._closed:
            self._notices.start()
        self._settle()

    def ready(self) -> None:
        """Take it for ready, which is told nobody, and begin with its health."""
        self._ready = True
        self._settle()

    def hold(self, on: bool) -> None:  # noqa: FBT001 - on or off is all that there is
        """Ask nothing while it is held; begin afresh when it is not."""
        self._held = on
        self._settle()

    def rest(self) -> None:
        """Ask nothing any more: it is being stopped, or has ended. What it says is still heard."""
        self._resting = True
        self._settle()

    def stop(self, pid: int, done: Callable[[str], None]) -> None:
        """Rest, and run the stop command, with the main process `pid` as MAINPID; to be called once.

        `done` is told when it has ended, with what was wrong or ""; at once if there is none. It gets half of
        the stop timeout and is killed then.
        """
        self.rest()
        rules = self._launch.stop
        if rules.command and not self._closed:
            self._stop = StopCommand(self._loop, rules.command, rules.timeout * STOP_SHARE, done)
            self._stop.start(self._run_command, {"MAINPID": str(pid)})
        else:
            done("")

    def close(self, *, remove: bool = True) -> None:
        """Ask and hear nothing any more; with `remove` the socket's path goes too, else the next server has it."""
        self._closed = True
        self._settle()
        if self._stop is not None:
            self._stop.close()
        if self._notices is not None:
            self._notices.close(remove=remove)
            self._notices = None

    # ---- what happens --------------------------------------------------------------------------------------

    @property
    def _hears_ready(self) -> bool:
        """Whether the application itself says when it is ready; the kind `notify` does, unless told another way."""
        rules = self._launch.ready
        return self._launch.kind is Kind.NOTIFY if rules is None else rules.probe is Probe.NOTIFY

    def _settle(self) -> None:
        self._settle_readiness()
        begun = self._launched and self._ready and not self._resting and not self._closed
        if begun and self._checks is None and self._launch.health is not None:
            self._checks = self._health(self._launch.health)
        if self._checks is not None:
            self._checks.hold(on=self._held)
            if not begun:
                self._checks.close()

    def _health(self, rules: HealthRules) -> Health:
        now, launch = self._loop.time(), self._launch
        book = Checkup(rules, now, spread=int(launch.run_id[:8], 16) / 2**32)
        if self._resumed:
            book.disturb(now)
        name = f"{launch.name} (run {launch.run_id})"
        return Health(self._loop, name, book, self._run_command, self._on_unhealthy)

    def _settle_readiness(self) -> None:
        rules = self._launch.ready
        waits = self._launched and not (self._ready or self._held or self._resting or self._closed)
        if waits and self._asks is None and rules is not None and not self._hears_ready:
            self._asks = Readiness(self._loop, rules, self._run_command, self._on_ready)
        elif not waits and self._asks is not None:
            self._trouble = self.trouble
            self._asks.close()
            self._asks = None

    def _say(self, event: str, text: str = "") -> None:
        """Tell, unless who was told before has closed us."""
        if not self._closed:
            self._tell(event, text)

    def _on_ready(self) -> None:
        if not (self._ready or self._resting or self._closed):
            self.ready()
            self._say("ready")

    def _on_unhealthy(self, why: str) -> None:
        self._say("unhealthy", why)

    def _on_notice(self, notice: Notice) -> None:
        if notice.main is not None and self._launch.kind is Kind.NOTIFY:
            self._say("main", str(notice.main))
        if notice.status is not None and notice.status != self.last_status:
            self.last_status = notice.status
            self._say("status", notice.status)
        if notice.ready and self._hears_ready:
            self._on_ready()
        if notice.beat and self._launch.watchdog is not None:
            self._say("beat")
        if notice.trigger and self._launch.watchdog is not None and not (self._held or self._resting):
            self._on_unhealthy("it said so itself, by WATCHDOG=trigger")
        if notice.stopping and not self._stopping_told:
            self._stopping_told = True
            self._say("stopping")
