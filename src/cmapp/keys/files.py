"""Files of keys: whole or not there at all, and private from their first instant.

Responsible for how a file gets onto the disk, and for nothing that stands in it. The invariant: a file is there
whole or not at all, what is private can be read by its owner only from its first instant, and nothing is
overwritten unless `force` says so.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from cmapp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping
    from pathlib import Path

FILE_LIMIT = 16 * 2**20  # bytes: a revocation list of some 400,000 entries

_PRIVATE = ("key.pem", ".p12", ".pfx", ".jks")  # how names of files end that hold a private key


def read_file(path: Path, hint: str = "was it made by 'cmapp keys'?") -> bytes:
    """Return what a file holds; raises SettingsError, with `hint` for one that is not there."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_LIMIT + 1)
    except PermissionError:
        raise SettingsError(f"cannot read {path}: you may not; run cmapp as its owner") from None
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}; {hint}") from None
    if len(content) > FILE_LIMIT:
        raise SettingsError(f"{path} is larger than {FILE_LIMIT} bytes: it is no file of keys")
    return content


def write_files(
    folder: Path,
    files: Mapping[str, bytes],
    *,
    force: bool,
    private: Container[str] = (),
    without: Iterable[str] = (),
) -> None:
    """Write all `files` of a folder, or none, and then remove those in `without`; raises SettingsError.

    A name may have folders in it, which are made when missing, like `folder` itself. A file is made with mode 0600
    if its name is in `private` or ends as a private key's does, else with 0644. Files that root writes belong to
    whom the folder belongs to: a daemon that runs as a user of its own has to read them.
    """
    there = [name for name in files if os.path.lexists(folder / name)]
    if there and not force:
        raise SettingsError(f"{folder / there[0]} is there already: use --force to replace it")
    path, staged, placed = folder, {}, []
    try:
        _make_folders(folder, files)
        owner = os.stat(folder)
        for name, content in files.items():
            path = folder / name
            staged[path] = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            secret = name in private or name.endswith(_PRIVATE)
            _create(staged[path], content, 0o600 if secret else 0o644, owner)
        for path, new in staged.items():
            if force:
                new.replace(path)
            else:
                path.hardlink_to(new)  # unlike a rename it fails if another cmapp was faster
                placed.append(path)
        for path in map(folder.joinpath, without):
            path.unlink(missing_ok=True)
        for place in {path.parent for path in staged}:
            _sync(place)
    except OSError as error:
        for done in placed:
            done.unlink(missing_ok=True)
        raise SettingsError(f"cannot write {path}: {error.strerror}") from None
    finally:
        for new in staged.values():
            with suppress(OSError):
                new.unlink()


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Keep others who would change the same folder waiting: what is read here is still so when it is written."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise SettingsError(f"cannot open {folder}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _make_folders(folder: Path, names: Iterable[str]) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for name in names:
        for parent in reversed((folder / name).relative_to(folder).parents[:-1]):
            made = folder / parent
            made.mkdir(mode=0o700, exist_ok=True)
            if made.is_symlink():
                raise SettingsError(f"{made} is a link: nothing is written where it leads")
            _give(made, os.stat(folder))


def _create(path: Path, content: bytes, mode: int, owner: os.stat_result) -> None:
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        _give(file.fileno(), owner)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _give(what: Path | int, owner: os.stat_result) -> None:
    """Let what root has made belong to the owner of the folder."""
    if os.geteuid() == 0 and (owner.st_uid or owner.st_gid):
        os.chown(what, owner.st_uid, owner.st_gid)


def _sync(folder: Path) -> None:
    """Make the names in a folder survive a power failure."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
