"""Targets: configuration files and command lines of both daemons, whatever is in them.

The invariant: what comes out is settings that make sense, or a SettingsError in one line; and what cmappmgr accepts
can be said in a launch.
"""

from __future__ import annotations

import functools
import os
from argparse import Namespace
from typing import TYPE_CHECKING

from cmapp.cli.arguments import parser_for, settings_of
from cmapp.core import options
from cmapp.core.wire import encode
from cmapp.errors import SettingsError
from cmapp.guest.settings import Settings as GuestSettings
from cmapp.host.settings import Settings as HostSettings
from cmapp.host.task import task_of
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from cmapp.cli.arguments import Parser
    from cmapp.core.record import Record

RUN = "01234567-89ab-cdef-0123-456789abcdef"
KINDS: tuple[type[Record], ...] = (HostSettings, GuestSettings)
NOWHERE = "/nonexistent/cmapp.conf"
_NOT_OURS = ("-h", "--help", "--version", "--config")  # they print, or open what the fuzzer names


def config(data: bytes) -> None:
    """Read a configuration file of either daemon."""
    draw = Draw(data)
    kind = KINDS[draw.byte() % 2]
    memory = os.memfd_create("configuration")
    try:
        os.write(memory, expand(draw.rest()))
        path = f"/proc/self/fd/{memory}"
        _settle(kind, Namespace(config=path), "web")
    finally:
        os.close(memory)


def arguments(data: bytes) -> None:
    """Read a command line of either daemon: words between NULs, as the kernel hands them over."""
    draw = Draw(data)
    kind = KINDS[draw.byte() % 2]
    given = expand(draw.rest()).decode("utf-8", "surrogateescape").split("\0")
    if any(word.startswith(_NOT_OURS) for word in given):
        return
    try:
        known, surplus = _parsers()[kind].parse_known_args(given)
    except SettingsError as error:
        require(str(error), "no reason", given)
        return
    _settle(kind, known, surplus[0] if surplus else "web")


@functools.cache
def _parsers() -> dict[type[Record], Parser]:
    return {kind: parser_for(kind, "cmapp", "cmapp", "") for kind in KINDS}


def _settle(kind: type[Record], given: Namespace, command: str) -> None:
    try:
        settings = settings_of(kind, given, default_file=NOWHERE)
    except SettingsError as error:
        require_plain(str(error))
        return
    require(kind(**vars(settings)) == settings, "settings that are not accepted again", settings)
    for name in options.options_of(kind):
        require(hasattr(settings, name), "a setting that is not there", name)
    if isinstance(settings, HostSettings):
        try:
            encode(task_of(settings, "vm1", (command,), settings.run_id or RUN).launch)
        except SettingsError as error:
            require(str(error), "no reason")
