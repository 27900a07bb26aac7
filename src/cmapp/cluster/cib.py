"""Pacemaker's configuration on this host, through Pacemaker's own commands: read, checked, played through, changed.

The invariant: a change is one patch that the cluster takes as a whole or not at all, and it holds nothing but
what was changed, so that others may change other things at the same time. Whatever goes wrong is a ClusterError.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from xml.etree import ElementTree as ET

from cmapp.errors import CmappError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 60.0  # seconds in which a command of Pacemaker's answers
_DIFFERENT = 1  # what crm_diff exits with when there is a difference
_DENIED = 4
_INVALID = 78
_OLD = 103
_ABSENT = (102, 107)  # nobody answers: not connected
COMPLAINTS = 5  # lines of crm_verify that an error repeats: the first ones are about the cause
_WRONG = re.compile(r"\berror ?:\s*(.+)")
_PLACES = ("stderr", "stdout")


class ClusterError(CmappError):
    """Pacemaker cannot be asked, or does not take what it was given."""


def query() -> ET.Element:
    """Return the cluster's configuration and status."""
    return _parsed("cibadmin", _run("cibadmin", "--query"))


def complaints(cib: ET.Element) -> list[str]:
    """Return what crm_verify calls wrong with a configuration, nothing if it is in order.

    What it only warns of is not in here: it does that for resources that are still to be stopped, too.
    """
    done = _done("crm_verify", "--verbose", "--xml-pipe", given=_text(cib))
    if done.returncode == 0 or (done.returncode == _INVALID and "Errors found" not in done.stderr):
        return []
    if done.returncode != _INVALID:
        raise _error("crm_verify", done)
    said = [found[1] for line in done.stderr.splitlines() if (found := _WRONG.search(line))]
    return list(dict.fromkeys(said))[:COMPLAINTS] or ["crm_verify does not say what is wrong"]


def consequences(cib: ET.Element) -> list[str]:
    """Return what the cluster would do at once if this were its configuration, an action a line."""
    told = _parsed("crm_simulate", _run("crm_simulate", "--run", "--xml-pipe", "--output-as=xml", given=_text(cib)))
    return list(_actions(told))


def change(before: ET.Element, after: ET.Element) -> None:
    """Make of the configuration `before`, which the cluster has, the one that is `after`.

    Raises ClusterError if somebody has changed meanwhile what it changes: then nothing is changed.
    """
    with tempfile.TemporaryDirectory(prefix="cmapp-") as folder:
        files = [os.path.join(folder, name) for name in ("before.xml", "after.xml")]
        for path, cib in zip(files, (before, after), strict=True):
            with open(path, "w", encoding="utf-8") as file:
                file.write(_text(cib))
        done = _done("crm_diff", "--no-version", "--original", files[0], "--new", files[1])
    if done.returncode == 0:
        return
    if done.returncode != _DIFFERENT or not done.stdout.strip():
        raise _error("crm_diff", done)
    _run("cibadmin", "--patch", "--xml-pipe", given=done.stdout)


def monitor() -> ET.Element:
    """Return what crm_mon tells of the cluster."""
    return _parsed("crm_mon", _run("crm_mon", "--one-shot", "--inactive", "--output-as=xml"))


def _actions(told: ET.Element) -> Iterator[str]:
    for action in told.findall("actions/*"):
        what, where = action.get("action") or action.get("task") or action.tag, action.get("node")
        source, target = action.get("source"), action.get("dest")
        who = action.get("resource") or where or ""
        words = _WORDS.get(what.lower(), f"{what.lower()}:")
        if source and target and source != target:
            yield f"{who} {words} from {source} to {target}"
        elif action.get("resource"):
            yield f"{who} {words} on {where or target or source}"
        else:
            yield f"{who} {words}"


_WORDS = {
    "start": "is started",
    "stop": "is stopped",
    "restart": "is restarted",
    "recover": "is restarted, for it failed,",
    "move": "is moved, by a stop and a start,",
    "migrate": "is migrated alive",
    "reload": "is reloaded",
    "fence": "is fenced",
}

# ---- commands ----------------------------------------------------------------------------------------------


def _run(command: str, *arguments: str, given: str | None = None) -> str:
    """Return what a command of Pacemaker's prints; raises ClusterError if it does not do what was asked."""
    done = _done(command, *arguments, given=given)
    if done.returncode != 0:
        raise _error(command, done)
    return done.stdout


def _done(command: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [command, *arguments]
    try:
        return subprocess.run(  # noqa: S603 - Pacemaker's commands, and no word of a user's
            words,
            input=given or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT,
            check=False,
        )
    except FileNotFoundError:
        raise ClusterError(
            f"Pacemaker is not installed here, or not in PATH: there is no {command}"
            " (Debian has it in pacemaker-cli-utils)"
        ) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(
            f"Pacemaker's {command} did not answer within {LIMIT:g} s: see whether this host is overloaded"
        ) from None
    except OSError as error:
        raise ClusterError(f"Pacemaker's {command} cannot be run: {error.strerror}") from None


def _error(command: str, done: subprocess.CompletedProcess[str]) -> ClusterError:
    said = [line.strip() for place in _PLACES for line in getattr(done, place).splitlines() if line.strip()]
    text = "; ".join(said)
    absent = done.returncode in _ABSENT or "not connected" in text
    if done.returncode == _DENIED or "ermission denied" in text or (absent and os.geteuid() != 0):
        unless = ", unless it does not run here at all" if absent else ""
        return ClusterError(f"Pacemaker does not let this user in: be root, or of the group haclient{unless}")
    if absent:
        return ClusterError("Pacemaker does not run on this host: start it, or do this on a host of the cluster")
    if "feature set" in text:
        return ClusterError(f"the cluster's hosts have several versions of Pacemaker: bring them to one ({text})")
    if done.returncode == _OLD or "diff failed" in text:
        return ClusterError(
            "somebody has just changed the cluster's configuration too, so nothing was changed: do it again"
        )
    return ClusterError(f"Pacemaker's {command} failed with {done.returncode}: {text or 'it does not say why'}")


def _parsed(command: str, text: str) -> ET.Element:
    try:
        return ET.fromstring(text)  # noqa: S314 - from Pacemaker's own commands
    except ET.ParseError as error:
        raise ClusterError(
            f"what {command} prints is not XML ({error}):"
            " look for characters outside of ASCII in the cluster's configuration"
        ) from None


def _text(cib: ET.Element) -> str:
    return ET.tostring(cib, encoding="unicode")
