"""Managers as the roster knows them: who is on which link, and who waits for what."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from cmapp.core.messages import Launch


class Peer:
    """A proven manager on a link; `instance` names its process.

    `most` is how many of its manager's applications may run at once by the rule that allows its launch, None for no
    limit.
    """

    __slots__ = ("instance", "link", "manager", "most")

    def __init__(self, link: Hashable, manager: str, instance: str) -> None:
        self.link = link
        self.manager = manager
        self.instance = instance
        self.most: int | None = None


class Newcomer:
    """A launch that waits for its name; `contested` while the manager of the run before may still be there."""

    __slots__ = ("contested", "launch", "peer")

    def __init__(self, launch: Launch, peer: Peer, *, contested: bool) -> None:
        self.launch = launch
        self.peer = peer
        self.contested = contested


class Newcomers(dict[str, "Newcomer"]):
    """The launches that wait, by the name that they wait for."""

    @property
    def contested(self) -> list[str]:
        """The names for which one waits to see whether a manager answers."""
        return [name for name, newcomer in self.items() if newcomer.contested]

    def withdraw(self, link: Hashable) -> Newcomer | None:
        """Take back what waits on that link."""
        name = next((name for name, newcomer in self.items() if newcomer.peer.link == link), None)
        return None if name is None else self.pop(name)


def same(one: Peer, other: Peer | None) -> bool:
    """Tell whether two links are of the same process of a manager."""
    if other is None or not one.instance:
        return False
    return (one.manager, one.instance) == (other.manager, other.instance)
