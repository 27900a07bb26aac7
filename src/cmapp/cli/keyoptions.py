"""What several commands of `cmapp keys` take: days, roles, passphrases.

Responsible for arguments that mean the same wherever they stand. The invariant: a passphrase comes from the terminal
or from a file, never from a command line or an environment, where other users' `ps` would see it.
"""

from __future__ import annotations

import getpass
import os
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cmapp.errors import SettingsError
from cmapp.keys.files import read_file
from cmapp.net.identity import Role

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    F = TypeVar("F", bound=Callable[..., Any])

PATH = click.Path(readable=False, path_type=Path)  # whether it can be read is said when it is
MOST_DAYS = 36500
SHORTEST_PASSPHRASE = 8  # characters

folder_argument = click.argument("folder", metavar="DIR", type=PATH)
keys_argument = click.argument("keys", metavar="FOLDER", type=PATH)
role_argument = click.argument("role", metavar="guest|host", type=click.Choice([role.value for role in Role]))
name_argument = click.argument("name", metavar="NAME")
sans_option = click.option(
    "--san", "sans", metavar="NAME_OR_IP", multiple=True, help="Another name or IP address; may be repeated."
)
passphrase_option = click.option(
    "--passphrase-file",
    metavar="FILE",
    type=PATH,
    help="Read the authority's passphrase from FILE's first line (default: ask on the terminal if there is one).",
)


def days_option(default: int | None, about: str) -> Callable[[F], F]:
    """Return the option --days with this default."""
    return click.option("--days", metavar="N", type=click.IntRange(1, MOST_DAYS), default=default, help=about)


def force_option(about: str) -> Callable[[F], F]:
    """Return the option --force, which does what `about` says."""
    return click.option("--force", is_flag=True, help=about)


def asker(file: Path | None) -> Callable[[Path], bytes]:
    """Return what gets the passphrase of a key: from `file`, else from the terminal. It raises SettingsError."""
    if file is not None:
        return lambda _key: _from_file(file)
    return lambda key: _typed(f"Passphrase of {key}: ", f"{key} has a passphrase")


def new_passphrase(file: Path | None, key: Path) -> bytes:
    """Return the passphrase that a new key is to have: from `file`, else typed twice. Raises SettingsError."""
    if file is not None:
        found = _from_file(file)
    else:
        found = _typed(f"New passphrase of {key}: ", "a passphrase has to be typed")
        if _typed("The same again: ", "a passphrase has to be typed") != found:
            raise SettingsError("the two passphrases differ: nothing was made, try again")
    if len(found.decode(errors="replace")) < SHORTEST_PASSPHRASE:
        raise SettingsError(f"the passphrase has less than {SHORTEST_PASSPHRASE} characters: choose a longer one")
    return found


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


def _from_file(file: Path) -> bytes:
    found = read_file(file, "it is to hold the passphrase").partition(b"\n")[0].removesuffix(b"\r")
    if not found:
        raise SettingsError(f"the first line of {file} is empty: put the passphrase there")
    about = os.stat(file)
    if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
        raise SettingsError(f"{file} is open to others than its owner, and holds a passphrase: chmod 600 {file}")
    return found


def _typed(prompt: str, why: str) -> bytes:
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        raise SettingsError(f"{why}, and there is no terminal to ask on: use --passphrase-file") from None
    try:
        return getpass.getpass(prompt).encode()
    except (EOFError, KeyboardInterrupt):
        raise click.Abort from None
