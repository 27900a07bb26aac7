"""Target: the file of a guest package, whatever is in it.

The invariant: what comes out is complaints, each in one line with a line of the file, or a package that every cluster
manager is given, or refused in one line; and cmappmgr hears of it what the package says.
"""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cmapp.cli.arguments import parser_for, split
from cmapp.cluster import pacemaker, serviceguard, systemd
from cmapp.cluster.command import manager_words
from cmapp.cluster.lines import find_lines
from cmapp.cluster.reading import examine
from cmapp.core.options import settle
from cmapp.core.text import printable
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from cmapp.cluster.package import Package

PATH = "package.toml"
HEAD = 'name = "erp"\nhosts = ["n1", "n2"]\nguest = "10.0.0.50"\n[vm]\ndomain = "erp"\n[service.db]\n'
_PARSER = parser_for(Settings, "cmappmgr", "cmappmgr", "")
_PARSER.add_argument("guest")


def package(data: bytes) -> None:
    """Read a package's file: of its own, or with a head that leaves only a service to be invented."""
    draw = Draw(data)
    head = HEAD if draw.byte() % 2 else ""
    text = head + expand(draw.rest()).decode(errors="replace")
    found, complaints = examine(PATH, text)
    require((found is None) == bool(complaints), "neither a package nor a complaint, or both", found, complaints)
    for complaint in complaints:
        require(1 <= complaint.line <= text.count("\n") + 1, "a line that is not there", complaint)
        require_plain(printable(str(complaint)))
    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError):
        return
    require(set(find_lines(text)) == set(_keys(document)), "a key without a line, or a line without a key", text)
    if found is not None:
        _given_out(found)


def _given_out(found: Package) -> None:
    for render in (systemd.render, serviceguard.render, pacemaker.render):
        text = _rendered(render, found)
        if render is pacemaker.render and text:
            ET.fromstring(text)  # noqa: S314 - our own words
    for service in found.services:
        options, command = split(manager_words(found, service)[1:])
        given = vars(_PARSER.parse_args(options))
        require(given.pop("guest") == found.guest, "another guest", given)
        heard = settle(Settings, ("the command line", given))
        require(heard == service.settings, "cmappmgr hears something else", heard, service.settings)
        require(tuple(command or ()) == service.command, "cmappmgr launches something else", command, service.command)


def _rendered(render: Callable[[Package], Any], found: Package) -> Any:
    try:
        return render(found)
    except SettingsError as error:
        require_plain(printable(str(error)))
        return None


def _keys(node: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    items: Any = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield (*above, str(key))
        yield from _keys(value, (*above, str(key)))
