"""All runs of this guest by the name of their application: who may start, who has to wait, who is refused.

A name is held by a run until nothing of it is left. While its manager is there, another launch of that name
is refused; once the run is ending without a manager to answer to, the newcomer waits for its end. The
invariant: at most one run of a name exists, and at most one launch waits for it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from cmapp.core.messages import Refusal
from cmapp.core.outcome import Reason
from cmapp.errors import RunError
from cmapp.guest.containment import reap_orphans
from cmapp.guest.execution import Execution, Surroundings
from cmapp.guest.receipts import Receipts

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from cmapp.core.messages import Launch, RunReport
    from cmapp.core.outcome import Receipt
    from cmapp.guest.execution import Owner
    from cmapp.guest.settings import Settings

log = logging.getLogger(__name__)

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
RECEIPTS_KEPT = 10_000


class Supervisor:
    """Starts runs, keeps their names apart, and ends them all."""

    def __init__(self, loop: asyncio.AbstractEventLoop, settings: Settings, descriptors: tuple[int, int]) -> None:
        """Give applications `descriptors` as their limit of open files, soft and hard."""
        self.receipts = Receipts(RECEIPTS_KEPT)
        with open(BOOT_ID_FILE) as file:  # now, while there are descriptors
            self.boot_id = file.read().strip()
        self._loop = loop
        self._descriptors = descriptors
        self._runs: dict[str, Execution] = {}
        self._waiting: dict[str, tuple[Launch, Owner]] = {}
        self._leaders: set[int] = set()
        self._all_ended: Callable[[], None] | None = None
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Go by these settings from here on; what runs goes on as it was launched."""
        self.settings = settings
        keep = settings.output_keep
        self._around = Surroundings(self._loop, self._leaders, keep, self._receive, self._freed)

    def launch(self, launch: Launch, owner: Owner) -> None:
        """Start the run, or have it wait for the end of the one before; raises RunError if it is refused."""
        if self._all_ended is not None:
            raise RunError(Refusal.STOPPED, "the server is being stopped")
        holder = self._runs.get(launch.name)
        if holder is None:
            self._start(launch, owner)
        elif (holder.owner is not None and holder.alive) or launch.name in self._waiting:
            raise RunError(
                Refusal.NAME_TAKEN,
                f"an application of the name {launch.name} is already watched by a manager",
            )
        else:
            log.info("%s waits for the end of the run before", launch.name)
            self._waiting[launch.name] = (launch, owner)

    def run_of(self, name: str, owner: Owner) -> Execution | None:
        """Return the run of that name if it is `owner`'s."""
        run = self._runs.get(name)
        return run if run is not None and run.owner is owner else None

    def withdraw(self, name: str, owner: Owner) -> bool:
        """Take back a launch of `owner`'s that still waits; return whether it did."""
        launch = self._waiting.get(name)
        if launch is None or launch[1] is not owner:
            return False
        del self._waiting[name]
        return True

    def leave(self, name: str, owner: Owner) -> None:
        """Take note that `owner` is gone, with what it launched under `name`."""
        self.withdraw(name, owner)
        run = self.run_of(name, owner)
        if run is not None:
            run.abandon()

    def reports(self, manager: str, after: str, most: int) -> tuple[list[RunReport], bool]:
        """Return `most` reports of runs of `manager`'s, by name from after `after`, and whether there are more."""
        names = sorted(name for name, run in self._runs.items() if run.manager == manager and name > after)
        return [self._runs[name].report() for name in names[:most]], len(names) > most

    def end_all(self, when_ended: Callable[[], None]) -> None:
        """Stop all runs by their rules, at a second call by SIGKILL; call `when_ended` once none is left."""
        again = self._all_ended is not None
        self._all_ended = when_ended
        for name in list(self._waiting):
            launch, owner = self._waiting.pop(name)
            owner.not_started(RunError(Refusal.STOPPED, f"{launch.name} was not launched: the server is being stopped"))
        for run in list(self._runs.values()):
            run.stop(Reason.SERVER_STOPPED, kill=again)
        self._check_ended()

    def reap(self) -> None:
        """Reap what applications have left to this server, as far as it has ended.

        To be called now and then. SIGCHLD is not listened to: many at once would fill asyncio's wake-up pipe, and
        a SIGTERM that finds it full is lost.
        """
        reap_orphans(self._leaders)

    @property
    def count(self) -> int:
        """How many runs there are."""
        return len(self._runs)

    def _start(self, launch: Launch, owner: Owner) -> None:
        most = self.settings.max_applications
        if len(self._runs) >= most and sum(run.alive for run in self._runs.values()) >= most:
            raise RunError(Refusal.CAPACITY, f"{most} applications run, which is max_applications of this guest")
        plan = {
            "argv": launch.argv,
            "env": launch.env,
            "cwd": launch.cwd,
            "user": launch.user,
            "group": launch.group,
            "umask": launch.umask,
            "descriptors": self._descriptors,
            "search_path": self.settings.search_path,
        }
        around = self._around._replace(keep=self.settings.output_keep)
        self._runs[launch.name] = Execution(around, launch, owner, plan)

    def _receive(self, run: Execution, receipt: Receipt) -> None:
        dropped = self.receipts.keep(run.manager, receipt)
        if dropped is not None:
            log.error(
                "%d receipts wait to be acknowledged: that of run %s is dropped",
                RECEIPTS_KEPT,
                dropped.run_id,
            )

    def _freed(self, run: Execution) -> None:
        name = run.launch.name
        del self._runs[name]
        if name in self._waiting:
            launch, owner = self._waiting.pop(name)
            try:
                self._start(launch, owner)
            except RunError as error:
                owner.not_started(error)
        self._check_ended()

    def _check_ended(self) -> None:
        if self._all_ended is not None and not self._runs:
            self._all_ended()
