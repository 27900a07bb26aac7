"""One campaign: honest managers are put up, watched in peace, and then under one attack after the other.

Attackers run in a process of their own, which gives way to all others on this machine: those who attack from
elsewhere would take no processor of the guest's but through its server. The invariant: the honest are measured in
peace and under attack by the same process, in the same way.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from attack.arena import HANDSHAKE_TIMEOUT, ArenaError, until
from attack.catalogue import ATTACKS
from attack.credentials import HONEST
from attack.hostile import Target
from attack.judge import Deed, Round
from attack.pollers import PAIR
from attack.posts import Post

if TYPE_CHECKING:
    from typing import Self

    from attack.arena import Arena

POLL_INTERVAL = 0.05  # seconds between two polls of one honest poller
GIVES_WAY = 15  # how nice attackers are
LINGER = 3.0  # seconds in which the server lets go of those who are gone
BRIEF = HANDSHAKE_TIMEOUT + 2.0  # seconds after which whoever was silent has been let go; the server looks each second
LONG = 21.0  # seconds after which who does not finish a line (10), or does not read (15), has been let go
PATIENCE = BRIEF + LINGER  # seconds that a hostile peer waits for its end
ENDED_IN_EACH = 3  # honest applications that end during each attack
SETTLED = 8  # descriptors that may be open beyond those of peace: what is just being done
COUNTED_FOR = 12.0  # seconds in which the server may only count what it had to tell too often
HARD_LIMIT = 300.0  # seconds that an attack may take at most


def carry_out(names: list[str], target: Target, seconds: float) -> list[Counter[str]]:
    """Carry out all these attacks at once; run in the attackers' process."""
    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(lambda name: _carry_out(name, target, seconds), names))


def _carry_out(name: str, target: Target, seconds: float) -> Counter[str]:
    """Attack, and go on for as long as asked for."""
    attack = ATTACKS[name]
    deadline = time.monotonic() + seconds
    outcomes = attack.carry_out(target)
    while not attack.crowd and time.monotonic() < deadline:
        outcomes += attack.carry_out(target)
    return outcomes


def _give_way() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(GIVES_WAY)


class Campaign:
    """Honest managers and attackers around a server; a context that leaves nothing running."""

    def __init__(self, arena: Arena, folder: Path, *, managers: int, handshakes: int, seed: int) -> None:
        self._arena = arena
        self._folder = folder
        self._draw = random.Random(seed)  # noqa: S311 - drawn again with the same seed
        self._target = Target(arena.port, arena.keys, handshakes, PATIENCE, BRIEF, LONG, seed)
        self._posts = [Post(arena, folder / "posts", number) for number in range(managers)]
        self._samples = folder / "polls"
        self._pollers: subprocess.Popen[bytes]
        self._attackers = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _give_way)
        self._memory = 0
        self._descriptors = 0
        self._pid = arena.pid
        self._managers = managers
        self._losses: dict[str, int] = {}
        self._logged: list[tuple[float, int]] = []  # when a round ended, and how much was logged before it

    def __enter__(self) -> Self:
        """Put up the honest."""
        for post in self._posts:
            post.fill()
        command = [sys.executable, "-m", "attack.pollers", str(self._arena.port), str(self._arena.keys / HONEST)]
        command += [str(self._managers), str(POLL_INTERVAL), str(self._samples)]
        with (self._folder / "pollers.log").open("wb") as log:
            self._pollers = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
            )
        until(lambda: self._samples.exists() or self._pollers.poll() is not None, "the pollers are let in")
        for post in self._posts:
            if post.until_launched() is None:
                raise ArenaError(f"{post.name} was not let in, in peace")
        return self

    def __exit__(self, *_: object) -> None:
        """End everybody."""
        self._attackers.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.kill()
        self._pollers.kill()
        self._pollers.wait()
        for post in self._posts:
            post.close()

    def quiet(self, seconds: float) -> Round:
        """Watch the honest in peace, some of whose applications end, and remember what the server takes then."""
        seen = Round([Deed("in peace", Counter({"nobody": 1}))])
        self._watch(seen, seconds, None)
        self._descriptors = self._arena.connections
        self._memory = self._arena.memory
        return seen

    def attack(self, names: list[str], seconds: float) -> Round:
        """Carry out these attacks, all at once and for at least so long; return what was seen."""
        victim = self._posts[0]
        target = replace(self._target, run_id=victim.run_id, name=victim.name)
        seen = Round([])
        outcomes = self._watch(seen, seconds, self._attackers.submit(carry_out, names, target, seconds))
        seen.memory = max(0, self._arena.memory - self._memory)
        attacks = [ATTACKS[name] for name in names]
        for attack, outcome in zip(attacks, outcomes, strict=True):
            seen.deeds.append(Deed(attack.name, outcome, attack.expected, attack.logged))
        return seen

    def conclude(self) -> Round:
        """Have every honest application end, in peace again, and the pollers too."""
        seen = Round([Deed("at last", Counter({"nobody": 1}))])
        begun = time.monotonic()
        time.sleep(1)
        seen.polls = self._polls(begun)
        for post in self._posts:
            seen.exits.append(post.end(*post.begin_end(self._draw)))
        self._look(seen)
        if self._pollers.stdin is not None:
            self._pollers.stdin.close()
        try:
            code = self._pollers.wait(60)
        except subprocess.TimeoutExpired:
            code = -1
        if code and not seen.pollers:
            seen.pollers = self._last_words()
        return seen

    # ---- one round -----------------------------------------------------------------------------------------

    def _watch(self, seen: Round, seconds: float, attack: Future[list[Counter[str]]] | None) -> list[Counter[str]]:
        """Have some applications end, let newcomers in, and note all that is to be judged; return the outcomes."""
        outcomes: list[Counter[str]] = []
        begun, logged = time.monotonic(), self._arena.log_size
        recent = [size for at, size in self._logged if begun - at < COUNTED_FOR]
        seen.before = self._arena.log(min(recent, default=logged))
        ending = self._draw.sample(self._posts[1:], min(ENDED_IN_EACH, len(self._posts) - 1))
        self._pause(min(0.1, seconds / 4), attack)
        for post in ending:
            seen.exits.append(post.end(*post.begin_end(self._draw)))
            post.fill()
        for post in ending:
            seen.let_in.append(post.until_launched())
        if attack is None:
            self._pause(seconds - (time.monotonic() - begun), None)
        else:
            outcomes = attack.result(HARD_LIMIT)
        self._logged.append((time.monotonic(), logged))
        seen.seconds = time.monotonic() - begun
        if attack is not None:
            seen.settled = self._arena.settle(self._descriptors + SETTLED, PATIENCE + LINGER)
        seen.polls = self._polls(begun)
        seen.log_bytes = self._arena.log_size - logged
        seen.log = self._arena.log(logged)
        self._look(seen)
        for post, waited in zip(ending, seen.let_in, strict=True):
            if waited is None:
                post.close()
                post.fill()
                post.until_launched()
        return outcomes

    def _pause(self, seconds: float, attack: Future[list[Counter[str]]] | None) -> None:
        if attack is not None and attack.done():
            return
        time.sleep(max(0.0, seconds))

    def _look(self, seen: Round) -> None:
        """Look at the server, and at all that is honest."""
        seen.same_server = self._arena.pid == self._pid and "listening on" not in seen.log
        if self._pollers.poll() is not None:
            seen.pollers = self._last_words()
        ended = {end.post for end in seen.exits}
        for post in self._posts:
            losses = post.losses()
            if losses > self._losses.get(post.log_name, 0):
                seen.lost.append(post.name)
            self._losses[post.log_name] = losses
            if post.name not in ended and not (post.process.poll() is None and post.lives()):
                seen.touched.append(post.name)

    def _last_words(self) -> str:
        words = (self._folder / "pollers.log").read_text(errors="replace").strip().splitlines()
        return f"the honest pollers gave up: {words[-1] if words else 'without a word'}"

    def _polls(self, since: float) -> list[float]:
        """Return how long the answers took to polls that were due since then."""
        content = self._samples.read_bytes()
        content = content[: len(content) // PAIR.size * PAIR.size]
        return [took for at, took in PAIR.iter_unpack(content) if at >= since]
