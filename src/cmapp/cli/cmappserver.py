"""The command `cmappserver`: the guest's daemon, in the foreground."""

from __future__ import annotations

import os
import signal
import sys

from cmapp.cli.arguments import Parser, parser_for, settings_of
from cmapp.errors import CmappError, SettingsError
from cmapp.guest.server import HEEDED, Server
from cmapp.guest.service import start_logging
from cmapp.guest.settings import CONFIG_FILE, Settings
from cmapp.guest.upgrade import ask
from cmapp.net.tls import Role, check_keys

TEXT = "Launch applications for managers on the VM host, watch them, and tell how they ended."
USAGE = "cmappserver [OPTIONS]"
STOPPED, FAILED, UNUSABLE = 0, 1, 2


def main() -> None:
    """Run the server, or check its settings; exits 0 when stopped, 1 when it failed, 2 for bad settings."""
    sys.exit(serve(sys.argv[1:]))


def serve(given: list[str]) -> int:
    """Do what the command line `given` says, and return the exit code."""
    try:
        parser = parser_for(Settings, "cmappserver", USAGE, TEXT)
        settings = _settings(parser, given)
        if settings.check:
            return _check(settings)
        if settings.upgrade:
            print(ask(settings.state_dir))
            return STOPPED
        start_logging(settings.log_level)
        signal.pthread_sigmask(signal.SIG_BLOCK, HEEDED)  # until the server heeds them
        Server(settings, lambda: _settings(parser, given), given).run()
    except SettingsError as error:
        return _say(str(error), UNUSABLE)
    except CmappError as error:
        return _say(str(error), FAILED)
    return STOPPED


def _settings(parser: Parser, given: list[str]) -> Settings:
    settings: Settings = settings_of(Settings, parser.parse_args(given), default_file=CONFIG_FILE)
    return settings


def _check(settings: Settings) -> int:
    problems = check_keys(settings.keys, Role.GUEST)
    problems += _state_problems(settings.state_dir)
    for problem in problems:
        print(problem)
    if not problems:
        print("the settings and the keys can be used")
    return UNUSABLE if problems else STOPPED


def _state_problems(folder: str) -> list[str]:
    existing = folder
    while not os.path.exists(existing):
        existing = os.path.dirname(existing) or "."
    if not os.path.isdir(existing):
        return [f"{existing} is not a folder, so the state folder {folder} cannot be used"]
    if not os.access(existing, os.W_OK | os.X_OK):
        return [f"{existing} cannot be written to, so the state folder {folder} cannot be used"]
    return []


def _say(text: str, code: int) -> int:
    print(f"cmappserver: {text}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
