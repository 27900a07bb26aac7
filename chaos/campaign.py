"""One campaign: guests and managers are put up, harassed for a while, healed, brought to rest, and their words kept.

A thread for each guest inflicts one fault after another on it, a thread for each post sees to its manager and
harasses it, and one for each guest watches its server. Each draws from a generator of its own, seeded from the
campaign's seed and its name, so what is drawn does not depend on the order of the threads; when it happens does.
The invariant: at the end every fault is mended before anybody is asked to be in order.
"""

from __future__ import annotations

import os
import random
import select
import shutil
import subprocess
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.evidence import Account
from chaos.faults import AT_ONCE, GUEST_FAULTS, POST_FAULTS, Wrecker
from chaos.guests import UNIT, Guest, send
from chaos.managers import APPLICATION, LINK_TIMEOUT, ORPHAN_TIMEOUT, STOP_TIMEOUT, Office, Post
from chaos.story import Server

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from chaos.grounds import Grounds

FIRST_NUMBER = 11  # the last part of the first guest's address
END_LIMIT = 60.0  # seconds for what is being done when all is to end
REST_LIMIT = 30.0  # seconds for managers that are asked to end
EMPTY_LIMIT = ORPHAN_TIMEOUT + STOP_TIMEOUT + 15.0  # seconds for applications that have no manager
POLL = 0.02
ALONE = 0.75  # how many of the faults on a guest have no second one in the middle
SHORT = 0.8  # how many faults last a second at most
TELLS_STRANGERS = (6, 15)  # the first kernel that tells how a process ended that is no child


@dataclass(frozen=True)
class Shape:
    """How large it is: `posts` applications are spread over the guests; `trick` is played by the first of them."""

    seed: int
    guests: int
    posts: int
    trick: str = ""


class Campaign:
    """What takes part in it; a context that leaves nothing running."""

    def __init__(self, site: Grounds, folder: Path, shape: Shape) -> None:
        """`folder` gets the evidence."""
        self._site = site
        self._folder = folder
        self.account = Account(seed=shape.seed)
        kernel = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
        self.account.tells_strangers = kernel >= TELLS_STRANGERS
        self._shape = shape
        self._over = threading.Event()
        self._closed = threading.Event()
        self._wrecker = Wrecker(self.account, self._over.wait)
        self._guests = [Guest(site, f"vm{number}", FIRST_NUMBER + number) for number in range(1, shape.guests + 1)]
        self.account.guests = [guest.name for guest in self._guests]
        self._posts: list[Post] = []
        self._threads: list[threading.Thread] = []
        self._watchers: list[threading.Thread] = []
        self._failures: list[BaseException] = []

    def __enter__(self) -> Self:
        """Take part."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let every thread end, so that none goes on making what the grounds remove; processes end with these."""
        self._over.set()
        self._closed.set()
        deadline = time.monotonic() + END_LIMIT
        for thread in self._threads:
            thread.join(max(deadline - time.monotonic(), 0))

    def prepare(self, programs: Path, wheel: Path, unit: Path) -> None:
        """Make keys, boot the guests, and have a manager for each post; `programs` holds cmapp and cmappmgr."""
        keys = self._folder / "keys"
        cmapp = str(programs / "cmapp")
        _run(cmapp, "keys", "init", str(keys))
        _run(cmapp, "keys", "issue", str(keys), "host", "chaos")
        for guest in self._guests:
            _run(cmapp, "keys", "issue", str(keys), "guest", guest.name, "--san", guest.address)
            application = Path(__file__).with_name("application.py")
            guest.equip(wheel, unit, keys / "guest" / guest.name, application)
        self._together([guest.boot for guest in self._guests], limit=60)
        self._office = Office(self._site, self._folder / "managers", self.account, programs, keys / "host/chaos")
        for number in range(self._shape.posts):
            guest, name = self._guests[number % len(self._guests)], f"app{number}"
            trick = self._shape.trick if number == 0 else ""
            self._posts.append(Post(self._office, guest, name, self._random(f"post {number}"), trick))

    def rage(self, seconds: float) -> None:
        """Inflict faults for that long."""
        self._watchers = [self._thread(partial(self._watch_server, guest)) for guest in self._guests]
        self._watchers.append(self._thread(self._watch_managers))
        lanes = [partial(self._guest_lane, guest) for guest in self._guests]
        lanes += [partial(self._post_lane, post) for post in self._posts]
        threads = [self._thread(lane) for lane in lanes]
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join(END_LIMIT)
            if thread.is_alive():
                raise RuntimeError("a fault has not come to its end")
        self._check()

    def rest(self) -> None:
        """Mend everything, end the managers, and wait until no application is left."""
        self._together([partial(self._mend, guest) for guest in self._guests], limit=90)
        for guest in self._guests:
            # When all is mended, all is as before: one more run, which ends by itself.
            post = Post(self._office, guest, "last", self._random(f"last {guest.name}"))
            post.fill("exit:42@0.2")
            if post.manager is not None:
                post.manager.end(REST_LIMIT)
        draw = self._random("rest")
        running = self._office.running()
        for manager in running:
            manager.send(18)  # SIGCONT
            manager.send(draw.choice((9, 15, 15)))
        deadline = time.monotonic() + REST_LIMIT
        for manager in running:
            manager.end(max(deadline - time.monotonic(), 0.1))
        deadline = time.monotonic() + EMPTY_LIMIT
        while time.monotonic() < deadline and any(guest.processes(APPLICATION) for guest in self._guests):
            time.sleep(POLL)
        self.account.calm = time.monotonic()
        time.sleep(1)  # for what is still alive to show it

    def collect(self) -> None:
        """Shut the guests down, and keep what all have written."""
        self._closed.set()
        for watcher in self._watchers:
            watcher.join(5)
        self._together([guest.shut_down for guest in self._guests], limit=60)
        for guest in self._guests:
            kept = self._folder / guest.name
            shutil.copytree(guest.books, kept / "books")
            shutil.copytree(guest.state, kept / "state", ignore=_no_sockets)
            (kept / "journal.txt").write_text(guest.journal())
        self.account.write(self._folder)
        self._check()

    # ---- the lanes -----------------------------------------------------------------------------------------

    def _guest_lane(self, guest: Guest) -> None:
        draw = self._random(guest.name)
        kinds, weights = list(GUEST_FAULTS), [weight for weight, _ in GUEST_FAULTS.values()]
        while not self._over.wait(draw.uniform(0.1, 1.2)):
            kind, second = draw.choices(kinds, weights)[0], draw.choice(AT_ONCE)
            alone = kind in ("crash", "shutdown") or draw.random() < ALONE
            self._wrecker.inflict(kind, guest, _span(draw), "" if alone else second)

    def _post_lane(self, post: Post) -> None:
        draw = self._random(f"lane {post.name}")
        kinds, weights = list(POST_FAULTS), list(POST_FAULTS.values())
        while not self._over.wait(draw.uniform(0.1, 0.4)):
            post.fill()
            if self._over.wait(draw.uniform(0.3, 3.0)):
                return
            self._wrecker.harass(draw.choices(kinds, weights)[0], post, draw, _span(draw))

    def _watch_server(self, guest: Guest) -> None:
        """Note when a server was first seen and when it ended: a descriptor of it tells the instant."""
        while not self._closed.is_set():
            pid = guest.server()
            if pid is None:
                time.sleep(POLL / 2)
                continue
            try:
                descriptor = os.pidfd_open(pid)
            except ProcessLookupError:
                continue
            place = len(self.account.servers)
            self.account.servers.append(seen := Server(guest.name, time.monotonic()))
            place = self.account.servers.index(seen, place)
            poll = select.poll()
            poll.register(descriptor, select.POLLIN)
            while not self._closed.is_set():
                if poll.poll(100):
                    self.account.servers[place] = replace(seen, ended=time.monotonic())
                    break
            os.close(descriptor)

    def _watch_managers(self) -> None:
        """Note when managers end: those that are beside another at a post are nobody else's to look after."""
        while not self._closed.wait(POLL):
            self._office.running()

    # ---- putting in order ----------------------------------------------------------------------------------

    def _mend(self, guest: Guest) -> None:
        """Undo all that may still be broken, and see to it that the server is there."""
        guest.thaw()
        guest.empty()
        if not guest.up:
            guest.boot()
        guest.heal()
        deadline = time.monotonic() + LINK_TIMEOUT + 20
        while time.monotonic() < deadline:
            pid = guest.server()
            if pid is not None:
                send(pid, 18, "/cmappserver")  # SIGCONT
            if guest.call("systemctl", "is-active", UNIT).stdout.strip() == "active":
                return
            time.sleep(0.2)
        raise RuntimeError(f"the server on {guest.name} does not come back: {guest.journal()[-1500:]}")

    def _random(self, name: str) -> random.Random:
        return random.Random(f"{self._shape.seed} {name}")  # noqa: S311 - to be repeated, not to be secret

    def _thread(self, work: Callable[[], object]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - told by _check
                self._failures.append(error)
                self._over.set()

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()
        return thread

    def _together(self, works: list[Callable[[], object]], limit: float) -> None:
        deadline = time.monotonic() + limit
        for thread in [self._thread(work) for work in works]:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                raise RuntimeError(f"something was not done within {limit:g} s")
        self._check()

    def _check(self) -> None:
        if self._failures:
            raise self._failures[0]


def _span(draw: random.Random) -> float:
    """Return how long a fault lasts, in seconds: mostly short, sometimes longer than a link may be lost."""
    return draw.uniform(0.1, 1.0) if draw.random() < SHORT else draw.uniform(1.0, LINK_TIMEOUT + 2)


def _no_sockets(folder: str, names: list[str]) -> set[str]:
    return {name for name in names if not (Path(folder) / name).is_file() and not (Path(folder) / name).is_dir()}


def _run(*command: str) -> None:
    subprocess.run(command, env={}, check=True, capture_output=True, timeout=60)
