"""Guest packages that the tests write, one that is in order and changes of it, and what is understood of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cmapp.cli.arguments import parser_for, split
from cmapp.cluster.reading import examine
from cmapp.core.options import settle

if TYPE_CHECKING:
    from typing import Any

    from cmapp.cluster.package import Package
    from cmapp.core.record import Record

PATH = "erp.toml"
GOOD = """\
name = "erp"
hosts = ["n1", "n2"]
guest = "10.0.0.50"
log = "/var/log/cmapp/erp.log"
keys = "/etc/cmapp/keys"
[vm]
domain = "erp"
migrate = true
[settings]
poll_interval = "2s"
[service.db]
command = ["/usr/bin/db", "-D", "/data"]
user = "postgres"
service_restart = 3
service_halt_timeout = "60s"
[service.web]
command = "/usr/bin/web --port 80"
service_restart = "unlimited"
"""


def changed(*lines: tuple[int, str]) -> str:
    """Return the package with other lines."""
    kept = GOOD.splitlines()
    for number, text in lines:
        kept[number - 1] = text
    return "\n".join(kept) + "\n"


def complaints(text: str) -> list[tuple[int, str]]:
    """Return what is wrong with a package: lines and sentences."""
    return [(each.line, each.text) for each in examine(PATH, text)[1]]


def read(text: str) -> Package:
    """Return a package that is in order."""
    package, wrong = examine(PATH, text)
    assert package is not None, wrong
    return package


def heard(words: tuple[str, ...], kind: type[Record], place: str) -> tuple[Any, str, list[str]]:
    """Return what a program of ours understands of its command line: its settings, its argument, and the command."""
    options, command = split(words)
    parser = parser_for(kind, "test", "test", "test")
    parser.add_argument(place)
    found, surplus = parser.parse_known_args(options)
    assert not surplus
    told = {key: value for key, value in vars(found).items() if key in kind.fields()}
    return settle(kind, ("the command line", told)), getattr(found, place), list(command or [])
