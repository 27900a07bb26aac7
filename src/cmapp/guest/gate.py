"""Who may come in: strangers are counted by where they come from, managers by their names.

A stranger first waits, which costs a descriptor; once it has said something it may begin its handshake, which costs
memory and time, so only a few do at once. Sources take turns, and a source with more than its share makes room
before any other has to: a crowd from one address waits in its own queue, and keeps out nobody from elsewhere. Who
leaves us waiting for its part of a handshake while others of its source stand behind gives way: the sooner, the
more of that source did before. Nothing here touches a socket or a clock. The invariant: at no time are there more
than `waiting` who wait, `most` handshakes, or `each` of them from one source.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator

T = TypeVar("T", bound="Hashable")

PATIENCE = 1.0  # seconds that the first of a crowd has to answer us before it gives way to the next
LEAST_PATIENCE = 0.01  # the same in the end: half as long after each that gave way, double after each that got in


class Patience:
    """How long one waits for an answer while others wait, by how it went with those before."""

    __slots__ = ("seconds",)

    def __init__(self) -> None:
        self.seconds = PATIENCE

    def lost(self) -> None:
        """Take note that one was waited for in vain."""
        self.seconds = max(LEAST_PATIENCE, self.seconds / 2)

    def won(self) -> None:
        """Take note that one got in."""
        self.seconds = min(PATIENCE, self.seconds * 2)


class _Source(Generic[T]):
    """The strangers from one place; of those who shake hands, since when they owe us their part."""

    __slots__ = ("moving", "patience", "ready", "shaking", "waiting")

    def __init__(self) -> None:
        self.waiting: dict[T, None] = {}
        self.ready: dict[T, None] = {}
        self.shaking: dict[T, float | None] = {}
        self.moving: set[T] = set()
        self.patience = Patience()


class _Ranks:
    """How many each source has, and which has most, without looking at all of them."""

    __slots__ = ("_counts", "_ranks", "most", "total")

    def __init__(self) -> None:
        self.total = self.most = 0
        self._counts: dict[str, int] = {}
        self._ranks: dict[int, dict[str, None]] = {}

    def change(self, source: str, by: int) -> None:
        before = self._counts.pop(source, 0)
        self.total += by
        if before:
            del self._ranks[before][source]
        if now := before + by:
            self._counts[source] = now
            self._ranks.setdefault(now, {})[source] = None
        self.most = max(self.most, now)
        while self.most and not self._ranks.get(self.most):
            self._ranks.pop(self.most, None)
            self.most -= 1

    def first(self) -> str:
        """Return the source that has most, of several the one that has had so many for longest."""
        return next(iter(self._ranks[self.most]))


class Gate(Generic[T]):
    """The strangers: each is any value by which the caller tells it apart."""

    def __init__(self, *, most: int, each: int, waiting: int) -> None:
        self.most, self.each, self.waiting = most, each, waiting
        self._strangers: dict[T, str] = {}  # the source of each
        self._clocks: dict[T, float] = {}  # since when one owes us its first word, or its handshake: in that order
        self._sources: dict[str, _Source[T]] = {}
        self._turns: dict[str, None] = {}  # the sources of those who may begin, whose turn is next first
        self._crowds, self._shakers = _Ranks(), _Ranks()
        self._patience = Patience()  # with those who are alone from where they are

    def __len__(self) -> int:
        """How many strangers there are."""
        return len(self._strangers)

    @property
    def pressed(self) -> bool:
        """Whether somebody may begin as soon as there is room."""
        return bool(self._turns)

    def come(self, who: T, source: str, now: float) -> T | None:
        """Let a stranger wait; return who has to go for that, perhaps itself: the first of the largest crowd."""
        self._strangers[who] = source
        self._clocks[who] = now
        self._sources.setdefault(source, _Source()).waiting[who] = None
        self._crowds.change(source, 1)
        if self._crowds.total <= self.waiting:
            return None
        goes = next(iter(self._sources[self._crowds.first()].waiting))
        self.leave(goes)
        return goes

    def speak(self, who: T) -> None:
        """Take note that a stranger who waits has said something, and so may begin."""
        source = self._strangers[who]
        self._clocks.pop(who, None)
        self._sources[source].ready[who] = None
        self._turns.setdefault(source)

    def next(self, now: float) -> tuple[T, T | None] | None:
        """Return who begins its handshake now, and who has to go for that; None if nobody may."""
        for source in self._turns:
            goes, may = self._room(source, now)
            if may:
                break
        else:
            return None
        if goes is not None:
            self.leave(goes)
        place = self._sources[source]
        who = next(iter(place.ready))
        del place.ready[who], place.waiting[who], self._turns[source]
        if place.ready:
            self._turns[source] = None  # behind the others
        self._crowds.change(source, -1)
        place.shaking[who] = None
        self._clocks[who] = now
        self._shakers.change(source, 1)
        return who, goes

    def owes(self, who: T, now: float) -> None:
        """Take note that it is for a stranger to go on with its handshake; a little at a time wins it nothing."""
        place = self._place(who)
        place.moving.discard(who)
        if place.shaking[who] is None:
            place.shaking[who] = now

    def goes_on(self, who: T) -> None:
        """Take note that it is for us: nobody gives way for our being slow."""
        self._place(who).moving.add(who)

    def enter(self, who: T) -> None:
        """Take note that a stranger is none any more."""
        self._place(who).patience.won()
        self._patience.won()
        self.leave(who)

    def leave(self, who: T) -> None:
        """Forget a stranger; nothing happens if it is none."""
        source = self._strangers.pop(who, "")
        if not source:
            return
        self._clocks.pop(who, None)
        place = self._sources[source]
        if who in place.waiting:
            del place.waiting[who]
            self._crowds.change(source, -1)
            if place.ready.pop(who, self) is None and not place.ready:
                del self._turns[source]
        else:
            del place.shaking[who]
            place.moving.discard(who)
            self._shakers.change(source, -1)
        if not place.waiting and not place.shaking:
            del self._sources[source]

    def late(self, now: float, limit: float) -> Iterator[T]:
        """Yield who has said nothing, or has not come through its handshake, for longer than `limit` seconds."""
        for who, since in list(self._clocks.items()):
            if now - since <= limit:
                return
            yield who

    def _place(self, who: T) -> _Source[T]:
        return self._sources[self._strangers[who]]

    def _room(self, source: str, now: float) -> tuple[T | None, bool]:
        """Return who has to go so that one from `source` can begin, and whether that can be."""
        place = self._sources[source]
        if len(place.shaking) >= min(self.each, self.most):
            return self._debtor([place], place.patience, now)
        if self._shakers.total < self.most:
            return None, True
        if self._shakers.most > len(place.shaking) + 1:
            return next(iter(self._sources[self._shakers.first()].shaking)), True
        return self._debtor(self._sources.values(), self._patience, now)

    @staticmethod
    def _debtor(places: Iterable[_Source[T]], patience: Patience, now: float) -> tuple[T | None, bool]:
        """Return the one that has owed us its part for longest, if that is long enough."""
        owed = [
            (since, who)
            for place in places
            for who, since in place.shaking.items()
            if since is not None and who not in place.moving
        ]
        since, who = min(owed, key=itemgetter(0), default=(now, None))
        if now - since < patience.seconds:
            return None, False
        patience.lost()
        return who, True


class Roll(Generic[T]):
    """The managers who are in: no more than `most`, and no more than `each` of one name."""

    def __init__(self, *, most: int, each: int) -> None:
        self.most, self.each = most, each
        self._names: dict[T, str] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        """How many are in."""
        return len(self._names)

    def enter(self, who: T, name: str) -> str:
        """Let a manager in, and return an empty string; or return why not."""
        count = self._counts.get(name, 0)
        if len(self._names) >= self.most:
            return f"{len(self._names)} managers are connected, which is max_connections"
        if count >= self.each:
            return f"{name} has {count} connections, which is max_connections_per_manager"
        self._names[who] = name
        self._counts[name] = count + 1
        return ""

    def leave(self, who: T) -> None:
        """Take note that a manager is gone; nothing happens if it was not in."""
        name = self._names.pop(who, None)
        if name is not None:
            self._counts[name] -= 1
            if not self._counts[name]:
                del self._counts[name]
