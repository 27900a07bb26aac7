"""`cmapp`, the administrator's tool: makes keys, asks servers how their runs are, and holds runs.

Responsible for arguments and for what is printed. The invariant: whatever goes wrong is one line on stderr
that begins with `cmapp:`, and the exit code is 0 (done), 1 (failed) or 2 (wrong usage).
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from cmapp import __version__
from cmapp.cli import coredumps
from cmapp.core import checks
from cmapp.core.duration import format_duration
from cmapp.core.text import printable
from cmapp.core.wire import plain
from cmapp.errors import CmappError, SettingsError
from cmapp.host.inquiry import Inquiry
from cmapp.host.settings import Settings as ManagerSettings
from cmapp.net.address import parse_address, parse_guest
from cmapp.net.keyfolder import days_left
from cmapp.net.keyring import DAY
from cmapp.net.tls import client_context

try:
    import click

    from cmapp.cli.keyoptions import PATH
    from cmapp.cli.keys import keys_group
    from cmapp.cli.packages import package_group
    from cmapp.cli.vm import vm_group
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "cmapp":
        raise
    packages = "pip install 'cmapp[admin]', or Debian's python3-click and python3-cryptography"
    sys.exit(f"cmapp: {missing}: install what the administrator's tool needs ({packages})")

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, TypeVar

    from cmapp.core.messages import RunReport

    F = TypeVar("F", bound=Callable[..., Any])

FAILED, MISUSED = 1, 2


def main() -> None:
    """Run `cmapp` and leave with its exit code."""
    coredumps.forbid()
    try:
        sys.exit(_cmapp.main(prog_name="cmapp", standalone_mode=False))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "cmapp"
        _fail(f"{error.format_message().rstrip('.')} (see '{command} --help')", MISUSED)
    except CmappError as error:
        _fail(str(error), FAILED)
    except click.Abort:
        _fail("interrupted", FAILED)
    except OSError as error:
        # Python would try to write what is left of our output again on its way out, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"{error.filename or 'standard output'}: {error.strerror}", FAILED)


def _fail(sentence: str, code: int) -> NoReturn:
    click.echo("cmapp: " + printable(" ".join(sentence.split())), err=True)
    sys.exit(code)


@click.group("cmapp", context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=False)
@click.version_option(__version__, message="%(prog)s %(version)s")
def _cmapp() -> None:
    """Administer cmapp: keys, and the applications that run in a guest."""


_cmapp.add_command(keys_group)
_cmapp.add_command(vm_group)
_cmapp.add_command(package_group)

# ---- what is asked of a server -------------------------------------------------------------------------------


def _asking(command: F) -> F:
    """Give a command the options that say how a server is asked; cmappmgr calls them the same."""
    keys = ManagerSettings.fields()["keys"].default
    for option in (
        click.option("--allow-tls12", is_flag=True, help="Speak TLS 1.2 too (default only TLS 1.3)."),
        click.option(
            "--address",
            metavar="HOST[:PORT]",
            help="Connect there; its certificate must bear GUEST all the same (default GUEST[:PORT]).",
        ),
        click.option(
            "--keys",
            metavar="DIR",
            type=PATH,
            default=keys,
            help=f"Folder with this host's cert.pem, key.pem and ca.pem (default {keys}).",
        ),
    ):
        command = option(command)
    return command


def _inquiry(guest: str, keys: Path, address: str | None, *, allow_tls12: bool) -> Inquiry:
    try:
        who = parse_guest(guest)
        where = parse_address(address, default_port=who.port) if address else who
    except SettingsError as error:
        raise click.UsageError(str(error)) from None
    return Inquiry(who, where, client_context(str(keys), peer=who.host, allow_tls12=allow_tls12))


def _application(_context: click.Context, _parameter: click.Parameter, name: str | None) -> str | None:
    try:
        return name if name is None else checks.name(name)
    except ValueError as error:
        raise click.UsageError(f"{name!r} cannot name an application: it {error}") from None


@_cmapp.command("status")
@click.argument("guest", metavar="GUEST[:PORT]")
@click.argument("name", metavar="[NAME]", required=False, callback=_application)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, with every number as it is.")
@_asking
def _status(  # noqa: PLR0913 - click passes each argument and option by name
    guest: str, name: str | None, keys: Path, address: str | None, *, as_json: bool, allow_tls12: bool
) -> None:
    """Say how the applications are that this host's key launched in GUEST, or the one called NAME."""
    with _inquiry(guest, keys, address, allow_tls12=allow_tls12) as inquiry:
        runs = [run for run in inquiry.runs() if name in (None, run.name)]
        welcome = inquiry.welcome
        days = _days_left(inquiry, keys)
    if as_json:
        about = {"guest": welcome.guest, "software": welcome.software, "boot_id": welcome.boot_id}
        shown = {"certificates": days, "runs": [_keys_of(run) for run in runs]}
        click.echo(json.dumps(about | shown, indent=2))
    elif runs:
        click.echo("\n".join(_table([_HEADS, *map(_row, runs)])))
    elif name is None:
        click.echo(f"nothing runs in {guest} that this host's key launched")
    if not as_json and (runs or name is None):
        click.echo(f"certificates: {', '.join(f'{whose} {_ends(left)}' for whose, left in days.items())}")
    if name is not None and not runs:
        raise SettingsError(f"there is no run of {name} in {guest} that this host's key launched")


@_cmapp.command("hold")
@click.argument("guest", metavar="GUEST[:PORT]")
@click.argument("name", metavar="NAME", callback=_application)
@_asking
def _hold(guest: str, name: str, keys: Path, address: str | None, *, allow_tls12: bool) -> None:
    """Let the application NAME in GUEST be, whatever its checks say, until `cmapp resume`.

    It runs on. If it ends by itself, its manager is told as always, and its manager may still stop it.
    """
    with _inquiry(guest, keys, address, allow_tls12=allow_tls12) as inquiry:
        inquiry.hold(name, on=True)
    click.echo(f"{name} in {guest} is held: nothing acts on it until 'cmapp resume {guest} {name}'")


@_cmapp.command("resume")
@click.argument("guest", metavar="GUEST[:PORT]")
@click.argument("name", metavar="NAME", callback=_application)
@_asking
def _resume(guest: str, name: str, keys: Path, address: str | None, *, allow_tls12: bool) -> None:
    """Watch the application NAME in GUEST again, after `cmapp hold`."""
    with _inquiry(guest, keys, address, allow_tls12=allow_tls12) as inquiry:
        inquiry.hold(name, on=False)
    click.echo(f"{name} in {guest} is watched again")


def _days_left(inquiry: Inquiry, keys: Path) -> dict[str, float]:
    """Return for how many days the guest's certificate and our own are valid, each negative if it has expired."""
    left = {"host": days_left(str(keys))}
    if inquiry.certificate is not None:
        left = {"guest": (inquiry.certificate.until - time.time()) / DAY, **left}
    return {whose: round(days, 1) for whose, days in left.items()}


def _ends(days: float) -> str:
    return f"{days:.0f} days left" if days >= 0 else f"EXPIRED {-days:.0f} days ago"


_HEADS = ("NAME", "STATE", "PID", "UP", "CPU", "MEMORY", "HELD", "READY", "HEALTH", "ORPHANED", "STATUS")
_NONE = "-"
CELL = 60  # characters


def _row(run: RunReport) -> tuple[str, ...]:
    return (
        run.name,
        run.state.value,
        _NONE if run.pid is None else str(run.pid),
        format_duration(run.uptime),
        format_duration(run.cpu),
        f"{run.memory / 2**20:.1f} MiB",
        "held" if run.held else "no",
        {None: _NONE, True: "yes", False: "no"}[run.ready],
        _cut(run.health),
        _NONE if run.orphaned is None else format_duration(run.orphaned),
        _cut(run.status),
    )


def _cut(text: str) -> str:
    """Return what a run says of itself, no longer than a table bears; --json has all of it."""
    line = printable(text)
    return f"{line[:CELL]}..." if len(line) > CELL else line or _NONE


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _keys_of(run: RunReport) -> dict[str, object]:
    return {key: plain(getattr(run, key)) for key in type(run).fields()}
