"""Command lines and configuration files, read by the declarations of settings.

Bad usage is a SettingsError like any other bad setting: the command prints it in one line and exits by its
own table, not by argparse's.
"""

from __future__ import annotations

import argparse
import os
import sys

import cmapp
from cmapp.core.options import options_of, settle
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, NoReturn

    from cmapp.core.record import Record


WIDTH = 100  # columns of --help


def _formatter(prog: str) -> argparse.HelpFormatter:
    # Without a width argparse loads shutil at each option that is added, which is two milliseconds of every start.
    columns = os.environ.get("COLUMNS", "")
    return argparse.HelpFormatter(prog, width=int(columns) if columns.isdecimal() else WIDTH)


class Parser(argparse.ArgumentParser):
    """argparse that raises SettingsError for bad usage."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line, and where its description is."""
        raise SettingsError(f"{message} (see {self.prog} --help)")

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:  # noqa: ARG002 - only errors have one
        """Leave after --help or --version. Raises SettingsError when it could not be written."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            # Python would try to write it again on its way out, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SettingsError(f"standard output cannot be written to: {error.strerror}") from None
        sys.exit(status)


def split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str] | None]:
    """Return what stands before the first `--`, and after it the command, None if there is none."""
    if "--" not in arguments:
        return arguments, None
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def parser_for(kind: type[Record], prog: str, usage: str, text: str) -> Parser:
    """Return the parser of the command `prog` with an option for each setting of `kind`."""
    parser = Parser(
        prog=prog,
        usage=usage,
        description=text,
        formatter_class=_formatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{prog} {cmapp.__version__}")
    for name, option in options_of(kind).items():
        flag, default = "--" + name.rstrip("_").replace("_", "-"), kind.fields()[name].default
        shown = option.shown if option.shown is not None else f"default {default}"
        text = f"{option.help} ({shown})" if shown else option.help
        if option.metavar is not None:
            action = "append" if option.many else "store"
            parser.add_argument(flag, dest=name, metavar=option.metavar, action=action, help=text)
        elif default:
            parser.add_argument(flag, dest=name, action=argparse.BooleanOptionalAction, help=text)
        else:
            parser.add_argument(flag, dest=name, action="store_true", help=text)
    return parser


def settings_of(kind: type[Record], given: argparse.Namespace, *, default_file: str) -> Any:
    """Return the settings of `kind` from the configuration file and, over it, what was `given`.

    The file is the one that `--config` names, which must be there, or `default_file`, which need not.
    """
    values = {name: value for name, value in vars(given).items() if name in kind.fields()}
    named = values.get("config")
    file = named or default_file
    table = _read(file, required=named is not None)
    for name in table.keys() & options_of(kind).keys():
        if not options_of(kind)[name].in_file:
            raise SettingsError(f"{file}: {name} can only be given on the command line")
    return settle(kind, (file, table), ("the command line", values))


def _read(path: str, *, required: bool) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            import tomllib  # noqa: PLC0415 - costs milliseconds that most starts need not pay

            return tomllib.load(file)
    except FileNotFoundError:
        if required:
            raise SettingsError(f"{path}: there is no such configuration file") from None
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: the configuration cannot be read: {error.strerror}") from None
    except RecursionError:
        raise SettingsError(f"{path}: the configuration is nested too deeply") from None
    except ValueError as error:
        raise SettingsError(f"{path}: the configuration is not valid TOML: {error}") from None
