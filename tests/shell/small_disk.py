"""A disk of its own for a test: small, and full or read-only when the test says so, without a trace on the machine.

It is mounted in a mount namespace that only a shell lives in, and reached through that shell's root; when the shell
ends, so does the disk.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

UNSHARE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "--user", "--map-root-user")


class SmallDisk:
    """A file system of `size` bytes, mounted over `folder` for those who come by `path`."""

    def __init__(self, folder: Path, size: int) -> None:
        command = [*UNSHARE, "sh", "-e"]
        self._shell = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._folder = folder
        self._do(f"mount -t tmpfs -o size={size} tmpfs {folder}")
        self.path = Path(f"/proc/{self._shell.pid}/root{folder}")
        self._filler = self.path / "filler"

    def fill(self) -> None:
        """Leave not one byte free."""
        with self._filler.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass  # as wanted

    def free(self) -> None:
        """Take back what `fill` did."""
        self._filler.unlink(missing_ok=True)

    def protect(self) -> None:
        """Make it read-only."""
        self._do(f"mount -o remount,ro {self._folder}")

    def unprotect(self) -> None:
        """Make it writable again."""
        self._do(f"mount -o remount,rw {self._folder}")

    def close(self) -> None:
        """Have it vanish."""
        self._shell.kill()
        self._shell.communicate()

    def _do(self, command: str) -> None:
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{command} && echo done\n".encode())
        self._shell.stdin.flush()
        assert self._shell.stdout.readline() == b"done\n", f"{command} failed"
