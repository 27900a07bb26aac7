"""`cmapp vm run`, `stop` and `state`: the guest service, on the standard library and libvirt's alone.

Cluster managers start it as `python -m cmapp.cli.vmrun`, without what serves people only; `cmapp vm` is the same.
Responsible for arguments in and the exit code out. The invariant: whatever goes wrong is one line on standard error
and an exit code of the table in core/vigil.py, never a traceback.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys

from cmapp.cli import coredumps
from cmapp.cli.arguments import Parser, parser_for
from cmapp.core import checks, values
from cmapp.core.duration import format_duration
from cmapp.core.options import duration, settle
from cmapp.core.reading import Reading, Word
from cmapp.core.vigil import FORCE_LIMIT, KILL_LIMIT
from cmapp.core.vmending import Cause, Ending
from cmapp.errors import CmappError, SettingsError, internal_error
from cmapp.host.journal import SYSLOG_SOCKET, Journal
from cmapp.net.address import parse_address, parse_guest
from cmapp.net.identity import Role
from cmapp.net.keyring import Keyring
from cmapp.vm.heartbeat import Heartbeat
from cmapp.vm.means import means_of
from cmapp.vm.report import Reporter
from cmapp.vm.service import Service
from cmapp.vm.settings import Settings
from cmapp.vm.state import LIMIT, URI, state_by_command, state_of_domain
from cmapp.vm.watcher import Watcher, wait_for

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED = 1
MARGIN = FORCE_LIMIT + KILL_LIMIT + 5.0  # seconds past the stop timeout in which a stop is over, one way or the other
RUN = (
    "Start the libvirt domain DOMAIN, or watch it if it runs, and exit when it is gone: 0 if it was shut down,"
    " another code that says why else. SIGTERM shuts it down, and SIGUSR1 leaves it."
)
STOP = "Shut the domain DOMAIN down in time, then force it; by the `vm run` that watches it, if there is one."
STATE = "Print how the domain DOMAIN is on this host: running, paused, migrating, down, elsewhere or unknown, and why."


def main() -> None:
    """Do what the command line says, and leave with the exit code."""
    coredumps.forbid()
    verbs = {"run": run, "stop": stop, "state": state}
    words = sys.argv[1:]
    if not words or words[0] not in verbs:
        _complain(f"the first word must be one of {', '.join(verbs)}")
        os._exit(Ending(Cause.FAILED, "").exit_code)
    code = verbs[words[0]](words[1:])
    sys.stdout.flush()
    os._exit(code)


def run(arguments: Sequence[str]) -> int:
    """Be the guest service, and return its exit code."""
    return _serve(arguments, "run", RUN, stopping=False)


def stop(arguments: Sequence[str]) -> int:
    """Stop the machine, and return 0 once it has."""
    return _serve(arguments, "stop", STOP, stopping=True)


def state(arguments: Sequence[str]) -> int:
    """Print how the machine is, and return 0 if anybody could tell."""
    parser = Parser(prog="cmapp vm state", description=STATE, allow_abbrev=False)
    parser.add_argument("domain", metavar="DOMAIN", help="the domain, as libvirt calls it")
    parser.add_argument("--uri", default=URI, help=f"how libvirt is reached on this host (default {URI})")
    shown = "default libvirt"
    parser.add_argument("--state-command", metavar="COMMAND", help=f"ask COMMAND instead of libvirt ({shown})")
    shown = f"default {format_duration(LIMIT).replace(' ', '')}"
    parser.add_argument("--timeout", metavar="DURATION", default="", help=f"time to tell ({shown})")
    try:
        given = parser.parse_args(arguments)
        limit = duration(given.timeout) if given.timeout else LIMIT
        if given.state_command:
            reading = state_by_command(values.words(given.state_command), limit, given.domain)
        else:
            reading = state_of_domain(_domain(given.domain), given.uri, limit)
    except (CmappError, ValueError) as error:
        reading = Reading(Word.UNKNOWN, "", str(error))
    print(reading.sentence, flush=True)
    return FAILED if reading.how is Word.UNKNOWN else 0


def _serve(arguments: Sequence[str], verb: str, about: str, *, stopping: bool) -> int:
    try:
        parser = parser_for(Settings, f"cmapp vm {verb}", f"cmapp vm {verb} [OPTIONS] DOMAIN", about)
        parser.add_argument("domain", metavar="DOMAIN", help="the domain, as libvirt calls it, or a name for commands")
        given = vars(parser.parse_args(arguments))
        name = _domain(given.pop("domain"))
        settings: Settings = settle(Settings, ("the command line", given))
        watcher = Watcher(settings.state_dir, name)
        if not watcher.take():
            return _stop_by(watcher, settings, name) if stopping else _taken(name)
        ending = _watch(name, settings, stopping=stopping)
    except CmappError as error:
        problem = str(error)
    except KeyboardInterrupt:
        problem = "interrupted"
    except Exception as error:  # noqa: BLE001 - a defect of ours is one line too
        problem = internal_error(error)
    else:
        return ending.exit_code
    _complain(problem)
    return Ending(Cause.FAILED, problem).exit_code


def _watch(name: str, settings: Settings, *, stopping: bool) -> Ending:
    socket = SYSLOG_SOCKET if settings.syslog else None
    journal = Journal(settings.log_file, f"vm {name}", syslog=socket, verbose=settings.verbose, tag="cmapp")
    try:
        means = means_of(name, settings)
        heartbeat = _heartbeat(settings) if settings.guest and not stopping else None
        reporter = Reporter(journal, name, settings, "" if stopping else os.environ.get("NOTIFY_SOCKET", ""))
    except SettingsError as error:
        journal.error(str(error))
        raise
    return Service(settings, means, heartbeat, reporter, stop=stopping).run()


def _heartbeat(settings: Settings) -> Heartbeat:
    guest = parse_guest(settings.guest)
    address = parse_address(settings.address, default_port=guest.port) if settings.address else guest
    keyring = Keyring(settings.keys, Role.HOST, peer=guest.host, allow_tls12=settings.allow_tls12)
    return Heartbeat(guest, address, keyring, settings.poll_interval, settings.poll_timeout)


def _stop_by(watcher: Watcher, settings: Settings, name: str) -> int:
    """Have who watches the machine stop it, and return 0 once it has ended and nobody says that it still runs."""
    descriptor = watcher.signal(signal.SIGTERM)
    limit = settings.stop_timeout + MARGIN
    if descriptor is None or not wait_for(descriptor, limit):
        within = format_duration(limit)
        _complain(
            f"{name} is watched by a process that {'cannot be found' if descriptor is None else 'did not stop it'}"
            f" within {within}: look at its log, and stop it by `virsh destroy {shlex.quote(name)}`"
        )
        return FAILED
    if settings.state_command:
        reading = state_by_command(settings.state_command, LIMIT, name)
    else:
        reading = state_of_domain(name, settings.uri)
    if reading.how in (Word.DOWN, Word.ELSEWHERE):
        return 0
    _complain(f"{name} was not stopped: {reading.sentence}")
    return FAILED


def _taken(name: str) -> int:
    problem = f"{name} is watched by another `cmapp vm run` on this host already: stop that one first"
    _complain(problem)
    return Ending(Cause.FAILED, problem).exit_code


def _domain(name: str) -> str:
    try:
        checks.text(name)
    except ValueError as error:
        raise SettingsError(f"{name!r} cannot be a domain: it {error}") from None
    if not name or not name.isprintable() or name.startswith("-"):
        raise SettingsError(f"{name!r} cannot be a domain: give the name that libvirt has for it")
    return name


def _complain(text: str) -> None:
    print(f"cmapp: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
