"""Managers as the roster knows them: who is on which link, and who waits for what."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable

    from cmapp.core.messages import Launch


class Peer:
    """A proven manager on a link; `instance` names its process."""

    __slots__ = ("instance", "link", "manager")

    def __init__(self, link: Hashable, manager: str, instance: str) -> None:
        self.link = link
        self.manager = manager
        self.instance = instance


class Newcomer:
    """A launch that waits for its name; `contested` while the manager of the run before may still be there."""

    __slots__ = ("contested", "launch", "peer")

    def __init__(self, launch: Launch, peer: Peer, *, contested: bool) -> None:
        self.launch = launch
        self.peer = peer
        self.contested = contested


def same(one: Peer, other: Peer | None) -> bool:
    """Tell whether two links are of the same process of a manager."""
    if other is None or not one.instance:
        return False
    return (one.manager, one.instance) == (other.manager, other.instance)
