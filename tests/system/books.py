"""Life books: an application writes by itself when it starts, and cries out if another instance of it still lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.system.processes import until

if TYPE_CHECKING:
    from pathlib import Path

# The lock is held by every process of the application, as long as one of them lives.
OPENED = "exec 9>>lock; flock -n 9 || echo overlap >>book; echo $$ >pid; echo start >>book; "
UNTIL_GO = "until [ -e go ]; do sleep 0.05; done; "


class Book:
    """The life book in `folder`, where the application has to be run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = ["--cwd", str(folder)]

    def command(self, rest: str = "exec sleep 1000") -> list[str]:
        """Return the command of an application that keeps this book, and then does the `rest`."""
        return ["/bin/sh", "-c", OPENED + rest]

    def ends_with(self, code: int, last: str = "") -> list[str]:
        """Return the command of one that keeps this book and exits with `code` when it is told to, after `last`."""
        return self.command(f"{UNTIL_GO}{last} echo end >>book; exit {code}")

    def let_end(self) -> None:
        """Tell the application to end."""
        (self.folder / "go").touch()

    @property
    def entries(self) -> list[str]:
        """What the application has written."""
        path = self.folder / "book"
        return path.read_text().split() if path.exists() else []

    def check(self, *entries: str) -> None:
        """Wait until the book has as many entries, and check that they are these."""
        until(lambda: len(self.entries) >= len(entries), f"{entries} in the book")
        assert self.entries == list(entries)
