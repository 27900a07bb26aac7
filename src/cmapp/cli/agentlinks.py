"""`cmappagent link`: puts the agents where Pacemaker looks for them.

What is put there is a shell's two lines and no link, because a link would lead through the console script, whose
start takes as long as all that a monitor does. The invariant: nothing is replaced that was not put there so.
"""

from __future__ import annotations

import os
import pwd
import shlex
import subprocess
import sys

import cmapp
from cmapp.errors import SettingsError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FOLDER = "/usr/lib/ocf/resource.d/cmapp"
AGENTS = ("application", "vm")
USER = "hacluster"  # as which Pacemaker asks what an agent is
DONE, FAILED = 0, 1
MARK = "# Made by `cmappagent link`"
# What is broken must not have a host fenced on which nothing was started (5: "not installed"), but what was may run.
_START = """import sys
sys.argv[0] = "{}"
try:
    from cmapp.cli.cmappagent import main
except Exception as error:
    import os
    print("ocf-exit-reason:cmapp is not installed as it should be:", error, file=sys.stderr)
    folder = os.environ.get("HA_RSCTMP") or "/run/resource-agents"
    lock = folder + "/cmapp-" + os.environ.get("OCF_RESOURCE_INSTANCE", "") + "/lock"
    touched = os.path.exists(lock) and os.stat(lock).st_size
    sys.exit(1 if touched else 0 if sys.argv[1:] == ["stop"] else 5)
main()"""
_SCRIPT = """#!/bin/sh
{mark} of cmapp {version}.
if [ ! -x {python} ]; then
    echo "ocf-exit-reason:it cannot be executed:" {python} >&2
    exit 5
fi
exec {words} "$@"
"""


def main(arguments: list[str]) -> int:
    """Put the agents into the folder that `arguments` name, or where Pacemaker looks; return the exit code."""
    folder = arguments[0] if arguments else FOLDER
    try:
        for agent in AGENTS:
            path = f"{folder.rstrip('/')}/{agent}"
            _put(path, agent)
            _try(path)
            print(f"ocf:cmapp:{agent} is {path}")
    except OSError as error:
        return _say(f"{error.filename}: the agent cannot be put there: {error.strerror}")
    except SettingsError as error:
        return _say(str(error))
    return DONE


def _try(path: str) -> None:
    """Have the agent tell of itself, to us and to Pacemaker's user; raises SettingsError if it does not."""
    if not _works(path):
        raise SettingsError(f"{path} was made, but does not work: install cmapp again, with its own Python")
    user = next((entry for entry in pwd.getpwall() if entry.pw_name == USER), None)
    if os.geteuid() != 0 or user is None:
        return
    if not _works(path, user=user.pw_uid, group=user.pw_gid, extra_groups=()):
        raise SettingsError(
            f"{path} was made, but does not work for the user {USER}, as which Pacemaker asks it for its meta-data"
            " before each action: install cmapp where everybody may read it, not below /root"
        )


def _works(path: str, **who: Any) -> bool:
    null = subprocess.DEVNULL
    try:
        done = subprocess.run([path, "meta-data"], cwd="/", stdout=null, stderr=null, check=False, **who)  # noqa: S603 - ours
    except PermissionError:
        return False
    return done.returncode == 0


def launcher(agent: str) -> str:
    """Return the program that is put there."""
    words = (sys.executable, "-I", "-c", _START.format(agent))
    python = shlex.quote(sys.executable)
    return _SCRIPT.format(mark=MARK, version=cmapp.__version__, python=python, words=shlex.join(words))


def _put(path: str, agent: str) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    if os.path.lexists(path) and not _is_ours(path):
        raise OSError(0, "something else is there: move it away first", path)
    new = f"{path}.{os.getpid()}"
    with open(new, "w", encoding="utf-8") as file:
        file.write(launcher(agent))
    os.chmod(new, 0o755)  # noqa: S103 - the cluster's tools ask it for its meta-data as anybody
    os.rename(new, path)


def _is_ours(path: str) -> bool:
    if os.path.islink(path):
        return os.readlink(path).endswith("/cmappagent")
    with open(path, "rb") as file:
        return MARK.encode() in file.read(4096)


def _say(text: str) -> int:
    print(f"cmappagent: {text}", file=sys.stderr)
    return FAILED
