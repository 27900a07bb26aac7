"""The file system that all guests share: a small Debian with systemd, Python and PostgreSQL, made once and kept.

It is the lowest, read-only layer of every guest. The invariant: a folder under its final name is whole, because it
is made under another name, in a file system of its own kind, and renamed when nothing is left to do.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "postgresql")
SUITE = "bookworm"
# Nothing of this says anything to a guest, and each takes a part of the half second that it takes to boot.
MASKED = (
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "console-getty.service",
    "systemd-firstboot.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
)
# A database is there for those who ask for it, by its unit postgresql@15-main.service: at boot nobody looks at it.
DISABLED = (
    "etc/systemd/system/multi-user.target.wants/postgresql.service",
    "lib/systemd/system-generators/postgresql-generator",
)
BUILD_LIMIT = 900  # seconds, most of it the network's
ENTRY = """#!/usr/bin/python3
import sys

from cmapp.cli.{command} import main

sys.exit(main())
"""


def cache() -> Path:
    """Return the folder that keeps what is expensive to make."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "cmapp"


def root_file_system() -> Path:
    """Return the guests' root file system, which is made if it is not there; raises RuntimeError with the reason."""
    recipe = " ".join((SUITE, *PACKAGES, *MASKED, *DISABLED))
    root = cache() / f"guest-{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with (root.parent / "guest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that need it make it once
        if not root.is_dir():
            print(f"making the guests' root file system in {root}, once", flush=True)
            _make(root)
    return root


def _make(root: Path) -> None:
    folder = Path(tempfile.mkdtemp(prefix="new-", dir=root.parent))
    try:
        made = folder / "root"
        command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        command += [f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("doc", "man", "locale")]
        done = subprocess.run(
            [*command, SUITE, str(made)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_LIMIT,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"mmdebstrap failed: {done.stdout.strip()[-500:]}")
        for unit in MASKED:
            (made / "etc/systemd/system" / unit).symlink_to("/dev/null")
        for name in DISABLED:
            (made / name).unlink()
        for name in ("etc/machine-id", "etc/hostname", "var/lib/dbus/machine-id"):
            (made / name).unlink(missing_ok=True)  # each guest has its own
        (made / "var/log/journal").mkdir(exist_ok=True)  # so that the journal outlives a crash
        made.chmod(0o755)
        made.rename(root)
    finally:
        shutil.rmtree(folder)


def install(wheel: Path, unit: Path, root: Path, layer: Path) -> None:
    """Put the wheel's package, its daemon and the daemon's unit into `layer`, which lies over `root`."""
    versions = [path.name for path in (root / "usr/lib").glob("python3.*")]
    packages = layer / "usr/local/lib" / versions[0] / "dist-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    text = unit.read_text()
    for line in text.splitlines():
        if line.startswith("ExecStart="):
            _write_command(layer, line.removeprefix("ExecStart=").split()[0])
    _write_command(layer, "/usr/local/bin/cmappserver")
    target = layer / "etc/systemd/system" / unit.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    wanted = target.parent / "multi-user.target.wants" / unit.name
    wanted.parent.mkdir(exist_ok=True)
    wanted.unlink(missing_ok=True)
    wanted.symlink_to(f"/etc/systemd/system/{unit.name}")


def _write_command(layer: Path, path: str) -> None:
    command = layer / path.lstrip("/")
    command.parent.mkdir(parents=True, exist_ok=True)
    command.write_text(ENTRY.format(command=command.name))
    command.chmod(0o755)
