"""Target: what comes on a bus, and what is made of a unit that is told of in it.

The invariant: bytes are the same messages however they come, each can be said again, and whatever properties a unit is
said to have, no ending is claimed that was not told.
"""

from __future__ import annotations

import re
from typing import Any

from cmapp.core.dbus import BusMessage, Decoder, bare, encode
from cmapp.core.outcome import Unknown, exit_code
from cmapp.core.unitlife import Ended, UnitLife
from cmapp.core.unitstate import state_of
from cmapp.errors import RemoteProtocolError
from fuzz.breach import require
from fuzz.draw import expand

_PATH = re.compile(r"/|(/[A-Za-z0-9_]+)+")
_ENDINGS = (1, 2, 3)  # CLD_EXITED, CLD_KILLED, CLD_DUMPED


def bus(data: bytes) -> None:
    """Read what came, whole and in two pieces, say it again, and look at the units that it tells of."""
    data = expand(data)
    messages, error = _read(data)
    cut = len(data) // 2
    require(
        (repr(messages), error) == tuple(map(_shown, _read(data[:cut], data[cut:]))), "read otherwise in pieces", data
    )
    for message in messages:
        require(not message.path or _PATH.fullmatch(message.path), "no path", message)
        again, _ = _read(encode(message))
        require(repr(again) == repr([message]), "is another when it is said again", message)  # repr: nan is nan here
        for value in message.body:
            if isinstance(value, dict):
                _look(bare(value))


def _look(told: dict[Any, Any]) -> None:
    """Look at a unit with these properties, at first and after."""
    state = state_of(told)
    run = UnitLife()
    run.start(state)
    for telling in [*run.see(state), *run.see(state)]:
        if isinstance(telling, Ended) and not isinstance(telling.outcome, Unknown):
            require(state.code in _ENDINGS or state.command[1] in _ENDINGS, "an ending was made up", state)
            require(exit_code(telling.outcome) in range(256), "no exit code", telling)


def _read(*pieces: bytes) -> tuple[list[BusMessage], str]:
    decoder, messages = Decoder(), []
    try:
        for piece in pieces:
            for message in decoder.receive(piece):
                messages.append(message)  # noqa: PERF402 - what came before an error counts
    except RemoteProtocolError as error:
        return messages, str(error)
    return messages, ""


def _shown(value: Any) -> Any:
    return value if isinstance(value, str) else repr(value)
