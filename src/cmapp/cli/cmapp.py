"""`cmapp`, the administrator's tool: makes keys and says what they are.

Responsible for arguments and for what is printed. The invariant: whatever goes wrong is one line on stderr
that begins with `cmapp:`, and the exit code is 0 (done), 1 (failed) or 2 (wrong usage).
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NoReturn

from cmapp import __version__
from cmapp.core.text import printable
from cmapp.errors import CmappError, SettingsError
from cmapp.net.tls import Identity, Role

try:
    import click

    from cmapp.keys import authority as certificates
    from cmapp.keys import keystore
except ImportError as missing:
    if (missing.name or "").partition(".")[0] == "cmapp":
        raise
    packages = "pip install 'cmapp[admin]', or Debian's python3-click and python3-cryptography"
    sys.exit(f"cmapp: {missing}: install what the administrator's tool needs ({packages})")

FAILED, MISUSED = 1, 2
_PATH = click.Path(readable=False, path_type=Path)  # whether it can be read is said when it is
_MOST_DAYS = 36500


def main() -> None:
    """Run `cmapp` and leave with its exit code."""
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
    """Administer cmapp: the keys by which managers and guests know each other."""


@_cmapp.group("keys", no_args_is_help=False)
def _keys() -> None:
    """Make an authority, issue key folders, and show certificates."""


@_keys.command("init")
@click.argument("folder", metavar="DIR", type=_PATH)
@click.option("--name", metavar="NAME", help="What the authority is called; without it, after its key.")
@click.option(
    "--days",
    metavar="N",
    type=click.IntRange(1, _MOST_DAYS),
    default=certificates.AUTHORITY_DAYS,
    help=f"How many days the authority is valid (default {certificates.AUTHORITY_DAYS}).",
)
@click.option("--force", is_flag=True, help="Replace the authority; whatever it issued becomes useless.")
def _init(folder: Path, name: str | None, days: int, *, force: bool) -> None:
    """Make an authority in DIR: ca.pem, and ca-key.pem to keep secret."""
    made = certificates.make_authority(name, days=days, now=_now())
    keystore.write_authority(folder, made, force=force)
    about = certificates.describe(made.certificate)
    click.echo(f"made the authority {printable(about.who)} in {folder}, valid until {about.until:%Y-%m-%d}")
    click.echo(f"keep {folder / keystore.AUTHORITY_KEY} secret: it never leaves this machine")


@_keys.command("issue")
@click.argument("folder", metavar="DIR", type=_PATH)
@click.argument("role", metavar="guest|host", type=click.Choice([role.value for role in Role]))
@click.argument("name", metavar="NAME")
@click.option("--san", "sans", metavar="NAME_OR_IP", multiple=True, help="Another name or IP address; may be repeated.")
@click.option(
    "--days",
    metavar="N",
    type=click.IntRange(1, _MOST_DAYS),
    default=certificates.ISSUED_DAYS,
    help=f"How many days it is valid, at most as long as the authority (default {certificates.ISSUED_DAYS}).",
)
@click.option("--force", is_flag=True, help="Replace a key folder that is there.")
def _issue(  # noqa: PLR0913 - click passes each argument and option by name
    folder: Path, role: str, name: str, sans: tuple[str, ...], days: int, *, force: bool
) -> None:
    """Issue the key folder DIR/guest/NAME or DIR/host/NAME, which --keys takes.

    A guest's NAME is what cmappmgr calls it by: its host name or its IPv4 address.
    """
    authority, now = keystore.read_authority(folder), _now()
    issued = certificates.issue(authority, Identity(Role(role), name), sans=sans, days=days, now=now)
    target = folder / role / name
    keystore.write_credential(target, issued, authority, force=force)
    about = certificates.describe(issued.certificate)
    names = ", ".join(about.names)
    click.echo(f"issued {target} for {role} {name} ({names}), valid until {about.until:%Y-%m-%d}")
    if about.until < now + timedelta(days=days) - timedelta(seconds=1):
        click.echo(f"not for {days} days: it ends with its authority")
    command = "cmappserver" if role == Role.GUEST.value else "cmappmgr"
    click.echo(f"copy it to the {role} and give it to {command} --keys")


@_keys.command("show")
@click.argument("files", metavar="FILE...", type=_PATH, nargs=-1, required=True)
def _show(files: tuple[Path, ...]) -> None:
    """Say who each certificate is for, in which role and until when. A FILE may be a key folder."""
    for path in files:
        certificate = keystore.read_certificate(path)
        try:
            about = certificates.describe(certificate)
        except ValueError as error:
            raise SettingsError(f"{path} holds a malformed certificate: {error}") from None
        click.echo(f"{path}:\n{_told(about, _now())}")


def _told(about: certificates.Description, now: datetime) -> str:
    left = (about.until - now) / timedelta(days=1)
    if left < 0:
        end = f"EXPIRED {-left:.0f} days ago"
    elif now < about.since:
        end = "NOT YET VALID"
    else:
        end = f"{left:.0f} days left"
    rows = {
        "who": about.who,
        "role": about.role,
        "names": ", ".join(about.names) or "none",
        "issuer": about.issuer,
        "from": f"{about.since:%Y-%m-%d %H:%M:%S} UTC",
        "until": f"{about.until:%Y-%m-%d %H:%M:%S} UTC, {end}",
        "SHA-256": about.fingerprint,
    }
    return "\n".join(f"  {label:8}{printable(text)}" for label, text in rows.items())


def _now() -> datetime:
    return datetime.now(UTC)
