"""The command `cmappserver`: the guest's daemon, in the foreground."""

from __future__ import annotations

import signal
import sys
from shlex import quote
from typing import TYPE_CHECKING

from cmapp.cli.arguments import Parser, parser_for, settings_of, split
from cmapp.core.messages import Launch
from cmapp.core.policy import Denied
from cmapp.core.text import printable
from cmapp.core.unitname import application_name
from cmapp.errors import CmappError, SettingsError
from cmapp.guest import privilege, statefolder
from cmapp.guest.server import HEEDED, Server
from cmapp.guest.service import start_logging
from cmapp.guest.settings import CONFIG_FILE, Settings
from cmapp.guest.upgrade import ask
from cmapp.net.identity import Role
from cmapp.net.keyfolder import check_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT = "Launch applications for managers on the VM host, watch them, and tell how they ended."
USAGE = "cmappserver [OPTIONS], or cmappserver --check --as HOST [OPTIONS] -- [COMMAND [ARG...]]"
STOPPED, FAILED, UNUSABLE = 0, 1, 2
NO_RUN_ID = "00000000-0000-0000-0000-000000000000"


def main() -> None:
    """Run the server, or check its settings; exits 0 when stopped, 1 when it failed, 2 for bad settings."""
    sys.exit(serve(sys.argv[1:]))


def serve(given: list[str]) -> int:
    """Do what the command line `given` says, and return the exit code."""
    try:
        parser = parser_for(Settings, "cmappserver", USAGE, TEXT)
        options, command = split(given)
        settings = _settings(parser, options)
        if settings.as_ or command is not None:
            return _check_launch(settings, command or [])
        if settings.check:
            return _check(settings)
        if settings.upgrade:
            print(ask(settings.state_dir))
            return STOPPED
        start_logging(settings.log_level)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)  # until the server heeds them
        Server(settings, lambda: _settings(parser, options), given).run()
    except SettingsError as error:
        return _say(str(error), UNUSABLE)
    except CmappError as error:
        return _say(str(error), FAILED)
    return STOPPED


def _settings(parser: Parser, given: Sequence[str]) -> Settings:
    settings: Settings = settings_of(Settings, parser.parse_args(given), default_file=CONFIG_FILE)
    return settings


def _check_launch(settings: Settings, command: Sequence[str]) -> int:
    """Say what would become of a launch, by the policy alone: nothing is launched, and nobody is asked."""
    if not (settings.check and settings.as_):
        raise SettingsError("a command is of use with --check --as HOST only (see cmappserver --help)")
    name = settings.name or application_name(settings.unit) or "".join(command[:1]).rpartition("/")[2]
    try:
        launch = Launch(0, name, NO_RUN_ID, tuple(command), user=settings.user or None, unit=settings.unit)
    except ValueError as error:
        raise SettingsError(f"nobody can launch that: {error}; give --name") from None
    decision = settings.policy().decide(settings.as_, launch)
    if isinstance(decision, Denied):
        print(f"{settings.as_} would be refused: {printable(decision.text)}")
        return FAILED
    allowed = decision.launch
    user = f"user {allowed.user}" if allowed.user else "the server's own user"
    if allowed.unit:
        user = "a unit of systemd's"
    shown = allowed.unit or " ".join(map(quote, allowed.argv))
    print(printable(f"{settings.as_} may launch {name} as {user}, by {decision.rule}: {shown}"))
    return STOPPED


def _check(settings: Settings) -> int:
    problems = check_keys(settings.keys, Role.GUEST)
    problems += statefolder.problems(settings.state_dir)
    for problem in problems:
        print(problem)
    if not problems:
        print("the settings and the keys can be used")
        print(privilege.told(settings.policy().users))
    return UNUSABLE if problems else STOPPED


def _say(text: str, code: int) -> int:
    print(f"cmappserver: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
