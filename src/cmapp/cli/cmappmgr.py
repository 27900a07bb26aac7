"""`cmappmgr`: launches one application in a guest, watches it, and exits with its exit code.

Responsible for arguments in and the exit code out. The invariant: whatever goes wrong is one line on standard
error and an exit code of the table in core/outcome.py, never a traceback.
"""

from __future__ import annotations

import os
import sys

from cmapp.cli import coredumps
from cmapp.cli.arguments import parser_for, settings_of, split
from cmapp.core.outcome import Failed, Verdict, exit_code
from cmapp.errors import SettingsError, internal_error
from cmapp.host.journal import STDERR, SYSLOG_SOCKET, Journal, complain
from cmapp.host.manager import Manager
from cmapp.host.report import Reporter
from cmapp.host.settings import CONFIG_FILE, Settings
from cmapp.host.task import name_of, new_run_id, task_of
from cmapp.net.address import parse_guest
from cmapp.net.identity import Role
from cmapp.net.keyring import Keyring

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

USAGE = (
    "cmappmgr [OPTIONS] GUEST[:PORT] -- COMMAND [ARG...], or cmappmgr [OPTIONS] --unit UNIT GUEST[:PORT], or"
    " cmappmgr [OPTIONS] --name NAME GUEST[:PORT]"
)
ABOUT = (
    "Launch COMMAND, or the systemd unit UNIT, or what GUEST defines as the application NAME, in GUEST through its"
    " cmappserver, watch it, and exit with its exit code."
)


def main(syslog: str = SYSLOG_SOCKET) -> NoReturn:
    """Run `cmappmgr` and leave with its exit code; `syslog` is the socket that syslogd reads."""
    coredumps.forbid()
    # Nothing is left to be flushed, and an orderly end of the interpreter would take ten milliseconds.
    os._exit(_run(sys.argv[1:], syslog))


def _run(arguments: Sequence[str], syslog: str) -> int:
    try:
        _fill_standard_descriptors()
        return exit_code(_manage(arguments, syslog))
    except SettingsError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted before anything was launched"
    except Exception as error:  # noqa: BLE001 - a defect of ours is one line too
        problem = internal_error(error)
    complain(problem)
    return exit_code(Failed(problem))


def _manage(arguments: Sequence[str], syslog: str) -> Verdict:
    options, command = split(arguments)
    parser = parser_for(Settings, "cmappmgr", USAGE, ABOUT)
    parser.add_argument("guest", metavar="GUEST[:PORT]", help="the guest, by the name that its certificate bears")
    given, surplus = parser.parse_known_args(options)
    if command is None and "name" not in given and "unit" not in given:
        raise SettingsError(f"there is no -- before the command: the usage is {USAGE}")
    if surplus:
        parser.error(f"{surplus[0]} is neither an option nor GUEST[:PORT]")
    settings = settings_of(Settings, given, default_file=CONFIG_FILE)
    command = command or []
    socket = syslog if settings.syslog else None
    subject = _subject(settings, given.guest, command)
    journal = Journal(settings.log_file, subject, syslog=socket, verbose=settings.verbose)
    try:
        task = task_of(settings, given.guest, command, settings.run_id or new_run_id())
        reporter = Reporter(journal, settings, task, os.environ.get("NOTIFY_SOCKET", ""))
        keyring = Keyring(settings.keys, Role.HOST, peer=task.guest.host, allow_tls12=settings.allow_tls12)
    except SettingsError as error:
        journal.refuse(str(error))
        return Failed(str(error))
    return Manager(settings, task, keyring, reporter).run()


def _subject(settings: Settings, guest: str, command: Sequence[str]) -> str:
    """Return what the log is about, which is also said of what turns out to be wrong."""
    name = name_of(settings, command)
    try:
        return f"{name} on {parse_guest(guest).host}"
    except SettingsError:
        return f"{name} on {guest}"


def _fill_standard_descriptors() -> None:
    """Fill those of the first three that are closed, or a socket could become our standard error."""
    # Read-only, so that a write fails, and is told, as if the descriptor were still closed.
    while (descriptor := os.open(os.devnull, os.O_RDONLY)) <= STDERR:
        pass
    os.close(descriptor)


if __name__ == "__main__":
    main()
