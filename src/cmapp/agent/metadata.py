"""What an OCF agent says of itself, as the cluster's tools read it: XML drawn from what the agent really takes.

The invariant: a parameter that is drawn from a setting has its name, its help and its default; none is written twice.
"""

from __future__ import annotations

import enum

import cmapp
from cmapp.core.options import options_of
from cmapp.core.record import REQUIRED, Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}


class Parameter(Record):
    """One parameter of an agent: `kind` is string, integer, boolean or time; `about` one sentence without its dot."""

    name: str
    about: str
    kind: str = "string"
    default: str = ""
    required: bool = False
    unique: bool = False


class Action(Record):
    """One action of an agent, with the timeout that it should have at least, and an interval if it recurs."""

    name: str
    timeout: int
    interval: int | None = None


def parameters_of(kind: type[Record], *, but: Iterable[str] = ()) -> Iterator[Parameter]:
    """Yield a parameter for each setting of `kind`, in its order, `but` those."""
    left_out = frozenset(but)
    for name, option in options_of(kind).items():
        if name in left_out:
            continue
        default = kind.fields()[name].default
        about = option.help if option.metavar is None else f"{option.metavar}: {option.help}"
        if option.metavar is None:
            yield Parameter(name, about, "boolean", "true" if default else "false")
        else:
            shown = option.shown if option.shown is not None else f"default {default}"
            about += "; several are separated by blanks, and quoted as for a shell" if option.many else ""
            yield Parameter(name, f"{about} ({shown})" if shown else about, "string", _default(default))


def metadata(name: str, short: str, long: str, parameters: Iterable[Parameter], actions: Iterable[Action]) -> str:
    """Return the meta-data of the agent `name`; `long` its description."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE resource-agent SYSTEM "ra-api-1.dtd">',
        f'<resource-agent name="{name}" version="{_escaped(cmapp.__version__)}">',
        "<version>1.0</version>",
        f'<longdesc lang="en">\n{_escaped(long)}\n</longdesc>',
        f'<shortdesc lang="en">{_escaped(short)}</shortdesc>',
        "<parameters>",
    ]
    for parameter in parameters:
        required, unique = int(parameter.required), int(parameter.unique)
        default = f' default="{_escaped(parameter.default)}"' if parameter.default else ""
        lines += [
            f'<parameter name="{parameter.name}" required="{required}" unique="{unique}">',
            f'<longdesc lang="en">{_escaped(parameter.about)}</longdesc>',
            f'<shortdesc lang="en">{_escaped(_short(parameter.about))}</shortdesc>',
            f'<content type="{parameter.kind}"{default}/>',
            "</parameter>",
        ]
    lines += ["</parameters>", "<actions>"]
    for action in actions:
        interval = "" if action.interval is None else f' interval="{action.interval}s" depth="0"'
        lines.append(f'<action name="{action.name}" timeout="{action.timeout}s"{interval}/>')
    return "\n".join([*lines, "</actions>", "</resource-agent>"]) + "\n"


def _short(about: str) -> str:
    """Return what fits a title: without what is said in brackets or after a semicolon."""
    return about.partition(" (")[0].partition(";")[0]


def _default(default: object) -> str:
    """Return a default as a person would write it, nothing where it stands for something else."""
    if default is REQUIRED or default is None or isinstance(default, (dict, tuple, int)):
        return ""  # numbers that are masks and signals are told in words
    if isinstance(default, enum.Enum):
        return str(default.value)
    return f"{default:g}s" if isinstance(default, float) else str(default)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text)
