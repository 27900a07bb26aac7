"""What all runs of a server share: the loop, the disk, where processes belong, and who is told of events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.guest.spool import Spool
from cmapp.guest.systemd import Systemd

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping
    from typing import Any

    from cmapp.guest.containment import Containment
    from cmapp.guest.disk import Disk
    from cmapp.guest.settings import Settings


class Surroundings:
    """`leaders` are the processes that are ours to reap.

    `handed` is what the program before us told of each run, `stored` what systemd kept meanwhile: their descriptors.

    `descriptors` is the applications' limit of open files, soft and hard. `happened` is told an event of a run,
    `moved` its new main process, `identified` that of a unit and systemd's name for its start, `beat`
    that it fed its watchdog, `wrote` that it has written something.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        disk: Disk,
        containment: Containment,
        settings: Settings,
        descriptors: tuple[int, int],
    ) -> None:
        self.loop = loop
        self.containment = containment
        self.settings = settings
        self.descriptors = descriptors
        self.leaders: set[int] = set()
        self.handed: dict[str, Mapping[str, Any]] = {}
        self.stored: dict[str, int] = {}
        self.systemd = Systemd(loop)
        self.spool = Spool(disk, settings.state_dir, settings.spool_limit)
        self.happened: Callable[..., None]
        self.moved: Callable[[str, int, int], None]
        self.identified: Callable[[str, int, str], None]
        self.beat: Callable[[str], None]
        self.wrote: Callable[[str], None]

    def report_to(
        self,
        happened: Callable[..., None],
        moved: Callable[[str, int, int], None],
        identified: Callable[[str, int, str], None],
        beat: Callable[[str], None],
        wrote: Callable[[str], None],
    ) -> None:
        """Tell what happens by these."""
        self.happened, self.moved, self.identified, self.beat, self.wrote = happened, moved, identified, beat, wrote
