"""A manager as the supervisor sees it: who it is, and what it can be told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cmapp.core.messages import Message


class Client(Protocol):
    """A manager on a link; `manager` is its name, from its certificate."""

    manager: str

    def say(self, message: Message) -> None:
        """Say a message to it."""

    def pass_output(self) -> None:
        """Send it what its run has written."""

    def dismiss(self, reason: str) -> None:
        """Say why, and hang up."""

    def __hash__(self) -> int:
        """Tell it apart from others."""
