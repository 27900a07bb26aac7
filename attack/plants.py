"""Defects that are planted on purpose: a judge that was never seen to find one proves nothing.

A trick is played by the server itself: it is the installed one, started by `python -m attack.plants TRICK ...` with one
of its parts replaced. A forgery is done to what was seen before it is judged. `EXPECTED` tells which kinds of violation
may answer to each. The invariant: a forgery raises LookupError rather than change nothing.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmapp.cli.cmappserver import main as serve
from cmapp.guest import reception
from cmapp.guest.reception import Reception
from cmapp.net import keyring
from cmapp.net.identity import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from attack.judge import Meeting, Round
    from attack.posts import Exit

LEAKED = 1024 * 1024  # bytes of each connection
STANDS_STILL = 0.15  # seconds at each connection
CHATTER = "x" * 16_000

EXPECTED = {
    "unproven": ("outcome", "log"),
    "any-role": ("outcome", "log"),
    "leak": ("memory",),
    "stands-still": ("stall", "late", "newcomer", "polls", "link"),
    "chatty": ("log size",),
    "dies": ("server",),
    "lost-exit": ("exit",),
    "wrong-exit": ("exit",),
    "late-exit": ("late",),
    "lost-link": ("link",),
    "touched": ("application",),
    "no-polls": ("polls",),
    "let-in-nobody": ("newcomer",),
    "told-of-others": ("outcome",),
    "believed": ("manager",),
}


def _unproven() -> None:
    """Whoever has no certificate gets in, as a manager."""
    made: Any = vars(keyring)["server_context"]

    def lenient(*given: Any, **named: Any) -> Any:
        context = made(*given, **named)
        context.verify_mode = ssl.CERT_NONE
        return context

    anybody = Identity(Role.HOST, "anybody")
    _replace(keyring, "server_context", lenient)
    _replace(Reception, "_identify", lambda *_: anybody)


def _any_role() -> None:
    """A certificate of the authority is enough, whatever its role URI says."""
    _replace(reception, "require_role", lambda *_: None)


def _at_each_connection(deed: Callable[[], None]) -> None:
    let_in: Any = Reception.let_in

    def with_deed(self: Reception, *given: Any) -> None:
        deed()
        let_in(self, *given)

    _replace(Reception, "let_in", with_deed)


def _leak() -> None:
    """Each connection leaves something behind."""
    kept: list[bytes] = []
    _at_each_connection(lambda: kept.append(os.urandom(LEAKED)))


def _stands_still() -> None:
    """Each connection holds up all the others."""
    _at_each_connection(lambda: time.sleep(STANDS_STILL))


def _chatty() -> None:
    """Each connection fills the log."""
    _at_each_connection(lambda: print(CHATTER, file=sys.stderr))


def _dies() -> None:
    """A connection of a stranger is its end, but not the first ones, which are the honest managers'."""
    left = [100]

    def deed() -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(1)

    _at_each_connection(deed)


def _replace(where: Any, name: str, what: Any) -> None:
    setattr(where, name, what)


TRICKS: dict[str, Callable[[], None]] = {
    "unproven": _unproven,
    "any-role": _any_role,
    "leak": _leak,
    "stands-still": _stands_still,
    "chatty": _chatty,
    "dies": _dies,
}


def _change_exit(rounds: list[Round], change: Callable[[Exit], Exit]) -> None:
    for seen in rounds[1:]:
        if seen.exits:
            seen.exits[0] = change(seen.exits[0])
            return
    raise LookupError("no honest application ended under an attack")


def _told_of_others(rounds: list[Round], _: list[Meeting]) -> None:
    """An intruder is told of the runs of others."""
    for seen in rounds:
        for deed in seen.deeds:
            if deed.outcomes.pop("status: said: runs", 0):
                deed.outcomes["status: told of 20 runs of others"] = 1
                return
    raise LookupError("nobody asked for the runs of others")


def _believed(_: list[Round], meetings: list[Meeting]) -> None:
    """A manager believes a hostile server, and exits with 0."""
    if not meetings:
        raise LookupError("no manager has met a hostile server")
    meetings[0] = replace(meetings[0], code=0)


FORGERIES: dict[str, Callable[[list[Round], list[Meeting]], None]] = {
    "lost-exit": lambda rounds, _: _change_exit(rounds, lambda end: replace(end, code=None)),
    "wrong-exit": lambda rounds, _: _change_exit(rounds, lambda end: replace(end, code=(end.wanted + 1) % 256)),
    "late-exit": lambda rounds, _: _change_exit(rounds, lambda end: replace(end, seconds=end.seconds + 60)),
    "lost-link": lambda rounds, _: rounds[1].lost.append("post-1"),
    "touched": lambda rounds, _: rounds[1].touched.append("post-1"),
    "no-polls": lambda rounds, _: rounds[1].polls.clear(),
    "let-in-nobody": lambda rounds, _: rounds[1].let_in.append(None),
    "told-of-others": _told_of_others,
    "believed": _believed,
}


def forge(names: Sequence[str], rounds: list[Round], meetings: list[Meeting]) -> None:
    """Forge what was seen, by those of the names that are forgeries."""
    for name in names:
        if name in FORGERIES:
            FORGERIES[name](rounds, meetings)


def main() -> None:
    """Be the installed server, with tricks."""
    for trick in sys.argv.pop(1).split(","):
        TRICKS[trick]()
    sys.argv[0] = "cmappserver"
    serve()


if __name__ == "__main__":
    main()
