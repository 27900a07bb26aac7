"""The state folder is the server's alone: what it finds there it believes, so nobody else may have put it there.

It is looked at before anything in it is opened. What others can only read is closed to them, and told; where others
could have written, or can turn the way to it elsewhere, the server does not start. The invariant: once it is locked,
nobody but root and the server's user can put, take or rename anything in the folder or on the way to it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import stat

from cmapp.errors import SettingsError
from cmapp.guest.runfile import FOLDERS, who_else
from cmapp.guest.spool import FOLDER as SPOOL

log = logging.getLogger(__name__)

LOCK = "lock"
MASK = 0o022  # of the server itself: every mode that it gives is then what it says, whoever started it
_MOST_LINKS = 40  # symbolic links on the way, as for the kernel
_OPEN_TO_WRITE, _OPEN = 0o022, 0o077


def lock_state(folder: str) -> int:
    """Make the state folder if it is not there, and lock it: two servers must not share it; raises SettingsError."""
    try:
        _raise_first(_on_the_way(folder) or _inside(folder))
        os.makedirs(folder, 0o700, exist_ok=True)
        _raise_first(_inside(folder))
        for path in _existing(folder):
            _close(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        lock = os.open(os.path.join(folder, LOCK), flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SettingsError(f"{folder} is in use by another cmappserver: give this one its own --state-dir") from None
    except OSError as error:
        raise SettingsError(f"the state folder {folder} cannot be used: {error.strerror}") from None
    return lock


def problems(folder: str) -> list[str]:
    """Return why a server could not use this state folder, sentence by sentence; nothing is made or changed."""
    existing = os.path.abspath(folder)
    while not os.path.lexists(existing):
        existing = os.path.dirname(existing)
    try:
        found = _on_the_way(folder) or _inside(folder)
    except OSError as error:
        return [f"the state folder {folder} cannot be looked at: {error.strerror}"]
    if not found and not os.path.isdir(existing):
        found = [f"{existing} is not a folder, so the state folder {folder} cannot be used"]
    if not found and not os.access(existing, os.W_OK | os.X_OK):
        found = [f"{existing} cannot be written to, so the state folder {folder} cannot be used"]
    return found


def _raise_first(found: list[str]) -> None:
    if found:
        raise SettingsError(found[0])


def _on_the_way(folder: str) -> list[str]:
    """Return by which of the folders that lead there somebody else could lead elsewhere."""
    at, left, links = "/", os.path.dirname(os.path.abspath(folder)).split("/"), 0
    found: list[str] = []
    while True:
        try:
            status = os.lstat(at)
        except FileNotFoundError:
            return found  # the rest of it will be our own
        other = who_else(status)
        if other and not _is_outside(status):
            found.append(f"{at}, which leads to the state folder {folder}, {other}: use one that nobody else can move")
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MOST_LINKS:
                return [*found, f"too many symbolic links lead to the state folder {folder}"]
            target = os.readlink(at)
            left = [*target.split("/"), *left]
            at = "/" if target.startswith("/") else os.path.dirname(at)
        elif status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            found.append(
                f"everybody may rename what is in {at}, which leads to the state folder {folder}: chmod o-w it"
            )
        while left and left[0] in ("", "."):
            del left[0]
        if not left:
            return found
        word = left.pop(0)
        at = os.path.dirname(at) if word == ".." else os.path.join(at, word)


def _inside(folder: str) -> list[str]:
    """Return what in the folder, or of it, somebody else may have made."""
    found = []
    for path in _existing(folder):
        status = os.lstat(path)
        lock = path.endswith(f"/{LOCK}")
        other = who_else(status)
        if not (stat.S_ISREG if lock else stat.S_ISDIR)(status.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(status.st_mode) else f"not a {'file' if lock else 'folder'}"
            found.append(f"{path} is {kind}: the state folder and what is in it must be the server's own")
        elif other:
            found.append(f"{path} {other}: if what is there can be trusted, give it to the user that runs the server")
        elif status.st_mode & _OPEN_TO_WRITE:
            mode = f"{status.st_mode & 0o7777:04o}"
            found.append(f"others may write to {path} (mode {mode}): look whether they have, then chmod go-rwx it")
    return found


def _existing(folder: str) -> list[str]:
    """Return the folder and what it is made of, as far as it is there."""
    parts = (folder, *(os.path.join(folder, name) for name in (*FOLDERS, SPOOL, LOCK)))
    return [path for path in parts if os.path.lexists(path)]


def _close(path: str) -> None:
    """Close to others what they can read."""
    mode = os.lstat(path).st_mode & 0o7777
    if mode & _OPEN:
        os.chmod(path, mode & ~_OPEN)
        log.warning("%s was open to others (mode %04o): it is closed to them now", path, mode)


def _is_outside(status: os.stat_result) -> bool:
    """Tell whether it belongs to somebody outside of this container, whose folders all of it stands in."""
    with open("/proc/self/uid_map", "rb") as file:
        numbers = file.read().split()
    with open("/proc/sys/kernel/overflowuid", "rb") as file:
        nobody = int(file.read())
    return status.st_uid == nobody and numbers[2:] != [b"4294967295"]
