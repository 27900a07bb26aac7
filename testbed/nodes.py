"""One node of the cluster: a machine of namespaces with a power cord, a network cable and a disk of its own.

The invariant: a node whose power is off runs nothing, and what it has ever written to /etc and /var is there when it
is started again.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import grounds
from chaos.network import Plug

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.grounds import Grounds

INIT = Path(__file__).with_name("node.py")
BOOT_LIMIT = 60.0  # seconds until its init has made its view of the machine
CALL_LIMIT = 60.0  # seconds for a command in it
INSIDE = ("HOME=/root", "LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TERM=dumb")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PAUSE = 0.01


class Node:
    """A node that was made and is off: `start` gives it power."""

    def __init__(self, site: Grounds, name: str, number: int) -> None:
        """`number`, from 2 to 254, is the last part of its address."""
        self.name = name
        self.folder = site.folder / name
        self._site = site
        self._group = site.cgroup / name
        self._plug = Plug(site.network, number)
        self._power = threading.RLock()
        self._spawned: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()

    @property
    def address(self) -> str:
        """Its IPv4 address."""
        return self._plug.address

    @property
    def keys(self) -> Path:
        """The folder that it sees as /etc/cmapp/keys."""
        return self.folder / "keys"

    @property
    def alive(self) -> bool:
        """Whether it has power."""
        return self._spawned is not None and self._spawned.poll() is None

    def write(self, path: str, text: str | bytes, mode: int = 0o644) -> None:
        """Put a file below /etc or /var; the node has to be off."""
        target = self.folder / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text if isinstance(text, bytes) else text.encode())
        target.chmod(mode)

    def configure(self, overlays: Path, hook: Sequence[str], remoted: str = "") -> None:
        """Say how it is to be started: what lies over the machine's programs, and what is run before the cluster."""
        config = {"name": self.name, "bed": str(self._site.folder), "overlays": str(overlays), "closed": _closed()}
        (self.folder / "node.json").write_text(json.dumps({**config, "hook": list(hook), "remoted": remoted}))

    def prepare(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command that sees the programs as the node will; the node has to be off."""
        command = ["unshare", "-m", sys.executable, "-IS", str(INIT), str(self.folder), *argv]
        return subprocess.run(command, capture_output=True, text=True, timeout=CALL_LIMIT, check=False)

    def start(self) -> None:
        """Give it power; returns when its init runs, long before the cluster does. Does nothing if it has power."""
        with self._power:
            if self.alive:
                return
            self._tidy()
            self._plug.plug()
            pid = self.folder / "pid"
            pid.unlink(missing_ok=True)
            spawn = ["nsenter", f"--net={self._plug.path}", "unshare", "-m", "-u", "-i", "-p", "-f", "--kill-child"]
            spawn += [sys.executable, "-IS", str(INIT), str(self.folder)]
            self._spawned = self._site.start(spawn, self._group, stdout=self.folder / "console.log")
            deadline = time.monotonic() + BOOT_LIMIT
            while not pid.exists():
                if time.monotonic() > deadline or self._spawned.poll() is not None:
                    raise RuntimeError(f"{self.name} does not start: {self.console()}")
                time.sleep(PAUSE)

    def crash(self) -> None:
        """Take its power: everything in it ends at once, without a word to anybody."""
        with self._power:
            if self._spawned is not None:
                self._plug.cut()  # or the ends of its processes would close their connections
            self._tidy()

    def cut(self) -> None:
        """Let nothing pass on its cable."""
        with self._power:
            if self.alive:
                self._plug.cut()

    def heal(self) -> None:
        """Mend its cable."""
        with self._power:
            if self.alive:
                self._plug.heal()

    def run(self, *argv: str, limit: float = CALL_LIMIT) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end; what cannot be run has a return code that is not 0."""
        try:
            return subprocess.run(
                self.entering(*argv),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=limit,
                check=False,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            return subprocess.CompletedProcess(argv, 1, "", str(error))

    def entering(self, *argv: str) -> list[str]:
        """Return the command line that runs `argv` in it, with the programs of this Python's environment on PATH."""
        return entering(self.folder, *argv)

    def console(self) -> str:
        """Return the end of what its init and its daemons have said on the console."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace")[-1000:] if path.exists() else ""

    def _tidy(self) -> None:
        if self._spawned is None:
            return
        grounds.end_group(self._group)
        self._spawned.wait()
        self._spawned = None
        (self.folder / "pid").unlink(missing_ok=True)
        self._plug.unplug()


def _closed() -> list[str]:
    """Return the folders on the way to this Python, outermost first, that not everybody may pass through."""
    found = [Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix)]
    ways = sorted({way for path in found for way in (path, *path.parents)}, key=lambda way: len(way.parts))
    return [str(way) for way in ways if not way.stat().st_mode & 0o001]


def entering(folder: Path, *argv: str) -> list[str]:
    """Return the command line that runs `argv` in the node whose files are in `folder`; raises OSError if it is off."""
    pid = (folder / "pid").read_text()
    path = f"PATH={Path(sys.executable).parent}:{PATH}"
    return ["nsenter", "-t", pid, "-m", "-u", "-i", "-n", "-p", "--", "env", "-i", path, *INSIDE, *argv]
