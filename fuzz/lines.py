"""Targets: the lines of the protocol, in any pieces and any order.

What is asked of them is written down here once more, from docs/protocol.md and not from the code: how long a line may
be, what may answer what, and that an end is told once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Reason, Receipt
from cmapp.core.session import Role, Session, State
from cmapp.core.wire import Decoder, encode
from cmapp.errors import LocalProtocolError, ProtocolError, RemoteProtocolError
from fuzz.breach import held, require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from cmapp.core.messages import Message, Unrecognized

LINE = 65536  # bytes with the newline
UNANSWERED = 64
SLACK = 16 * 1024  # bytes that a decoder or a session may keep beside a line
BYTEWISE = 600  # bytes of a stream up to which it is also fed one by one

RUN = "01234567-89ab-cdef-0123-456789abcdef"
REPORT = m.RunReport("web", RUN, m.Phase.RUNNING)
RECEIPT = Receipt(name="web", run_id=RUN, outcome=Exited(0), reason=Reason.ITSELF, started=0, ended=0, lasted=0)
ANSWERS = {
    *(("hello", "welcome"), ("launch", "launched"), ("poll", "report"), ("stop", "done"), ("detach", "done")),
    *(("hold", "done"), ("acknowledge", "done"), ("status", "runs"), ("tail", "output")),
}


# ---- the codec ---------------------------------------------------------------------------------------------


def wire(data: bytes) -> None:
    """Decode a stream whole, cut anywhere and byte by byte: it is the same, bounded, and can be said again."""
    draw = Draw(data)
    cuts = [draw.byte() << 8 | draw.byte() for _ in range(2)]
    stream = expand(draw.rest())
    told, error = _decode([stream])
    pieces = [[stream[: cuts[0]], stream[cuts[0] : cuts[0] + cuts[1]], stream[sum(cuts) :]]]
    if len(stream) <= BYTEWISE:
        pieces.append([bytes([byte]) for byte in stream])
    for piece in pieces:
        require(_decode(piece) == (told, error), "pieces change what is heard", error)
    lines = stream.split(b"\n")[:-1]
    require(len(told) <= len(lines), "more messages than lines")
    for line, message in zip(lines, told, strict=False):
        require(len(line) < LINE, "a line that is too long was heard", len(line))
        _is_what_was_said(line, message)
    require_plain(error)


def _decode(pieces: Iterable[bytes]) -> tuple[list[Message | Unrecognized], str]:
    decoder = Decoder(m.FROM_MANAGER | m.FROM_SERVER)
    told: list[Message | Unrecognized] = []
    for piece in pieces:
        try:
            told.extend(decoder.feed(piece))
        except RemoteProtocolError as error:
            return told, str(error)
        require(held(decoder) <= LINE + SLACK, "a decoder keeps more than a line", held(decoder))
    return told, ""


def _is_what_was_said(line: bytes, message: Message | Unrecognized) -> None:
    keys = json.loads(line, object_pairs_hook=_only_once, parse_constant=_refuse)
    word = keys["type"]
    if isinstance(message, m.Unrecognized):
        require(word not in m.FROM_MANAGER | m.FROM_SERVER, "a known type is not recognized", word)
        require_plain(message.type)
        return
    require(message.word == word, "another message than was said", line, message)
    try:
        again = encode(message)
    except LocalProtocolError:  # a number became longer: `1` is said as `1.0`
        require(len(line) > LINE // 4, "a short line cannot be said again", line)
        return
    require(again.count(b"\n") == 1 and len(again) <= LINE, "what is said is no line", len(again))
    require(list(Decoder(m.FROM_MANAGER | m.FROM_SERVER).feed(again)) == [message], "not heard as it is said", again)
    require(encode(message) == again, "not said twice alike", again)


def _only_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    require(len({key for key, _ in pairs}) == len(pairs), "a key that stands twice was heard", pairs)
    return dict(pairs)


def _refuse(name: str) -> None:
    require(holds=False, what=f"{name} was taken for a number")


# ---- one end -----------------------------------------------------------------------------------------------


def message_of(draw: Draw, words: tuple[str, ...] = tuple(m.FROM_MANAGER | m.FROM_SERVER)) -> Message:
    """Return some message of one of these `words`, under an id that may be any."""
    word = draw.pick(words)
    number = draw.byte()
    kinds: dict[str, Message] = {
        "hello": m.Hello(number, m.VERSIONS),
        "launch": m.Launch(number, "web", RUN, ("web",)),
        "hold": m.Hold(number, "web"),
        "acknowledge": m.Acknowledge(number, RUN),
        "welcome": m.Welcome(number, 1),
        "launched": m.Launched(number, RUN, 42),
        "report": m.Report(number, REPORT),
        "output": m.Output(m.Stream.STDOUT, 0, b"x", id=number or None),
        "refused": m.Refused("no-run", "there is none", id=number),
        "ready": m.Ready(RUN),
        "exited": m.Exited(RECEIPT),
        "bye": m.Bye("that was all"),
    }
    other: Any = (m.FROM_MANAGER | m.FROM_SERVER)[word]
    return kinds.get(word) or other(number)


class Book:
    """What both ends may have said of requests and of the end: kept beside a session, by other rules."""

    def __init__(self) -> None:
        self.asked: dict[int, str] = {}
        self.told: list[str] = []

    def note(self, message: Message | Unrecognized, role: Role) -> None:
        """Take note of what passed through the session; raises BreachError if it must not have."""
        if isinstance(message, m.Unrecognized):
            if message.id is not None and role is Role.SERVER:
                self._ask(message.id, "")
            return
        require(self.told[-1:] != ["bye"] or message.word == "bye", "something was said after the bye", message)
        number = getattr(message, "id", None)
        if isinstance(message, m.Request):
            self._ask(message.id, message.word)
        elif number is not None:
            require(number in self.asked, "an answer to nothing", message)
            pair = (asked := self.asked.pop(number), message.word)
            require(message.word == "refused" or pair in ANSWERS, "an answer of another kind", pair)
            if pair == ("detach", "done"):
                self.told.append("detached")
            elif message.word == "refused" and asked == "launch":
                self.told.append("not launched")
        for once in ("exited", "launched", "welcome"):
            require(message.word != once or once not in self.told, f"a second {once}", message)
        over = "exited" in self.told or "detached" in self.told
        require(message.word != "launch" or not over, "a launch after the end", message)
        require(message.word != "exited" or "launched" in self.told, "an end of what was not launched", message)
        require(message.word in ("hello", "bye") or self.told, "something before hello", message)
        self.told.append(message.word)

    def _ask(self, number: int, word: str) -> None:
        require(number not in self.asked, "a second request under one id", number)
        require(len(self.asked) < UNANSWERED, "more requests at once than may be")
        self.asked[number] = word


def session(data: bytes) -> None:
    """Hear and say anything in any order, as either end: only ProtocolError comes out, and nothing grows."""
    draw = Draw(data)
    role = Role.SERVER if draw.byte() % 2 else Role.MANAGER
    us, book = Session(role), Book()
    while not draw.done:
        what, before, asked = draw.byte(), us.state, dict(book.asked)
        try:
            if what < 0x70:  # noqa: PLR2004 - somewhat less than half of all
                _hear(us, book, encode(message_of(draw)), role)
            elif what < 0xE0:  # noqa: PLR2004 - the same
                message = message_of(draw)
                us.send(message)
                book.note(message, role)
            else:
                _hear(us, book, expand(draw.chunk()), role)
        except LocalProtocolError:
            require(us.state is before and book.asked == asked, "what was not said changed something")
        except RemoteProtocolError as error:
            require_plain(str(error))
            us.send(m.Bye(str(error)))
            return
        except ProtocolError as error:
            require(holds=False, what=f"an error that blames nobody: {error!r}")
        require(held(us) <= LINE + SLACK, "a session keeps more than a line", held(us))


def _hear(us: Session, book: Book, line: bytes, role: Role) -> None:
    closed = us.state is State.CLOSED
    for message in us.receive(line):
        require(not closed, "something was heard after a bye", message)
        book.note(message, role)


# ---- both ends ---------------------------------------------------------------------------------------------


def crossing(data: bytes) -> None:
    """Have two ends say whatever they may, over a link that delays: neither blames the other, and both agree."""
    draw = Draw(data)
    ends = Session(Role.MANAGER), Session(Role.SERVER)
    says = tuple(m.FROM_MANAGER), tuple(m.FROM_SERVER)
    under_way: tuple[list[bytes], list[bytes]] = ([], [])  # to each
    while not draw.done:
        what = draw.byte()
        end, other = what % 2, 1 - what % 2
        if what & 2:
            _deliver(ends[end], under_way[end])
            continue
        try:
            under_way[other].append(ends[end].send(message_of(draw, says[end])))
        except LocalProtocolError:
            continue
    while any(under_way):
        for end in (0, 1):
            _deliver(ends[end], under_way[end])
    require(ends[0].state is ends[1].state, "two quiet ends disagree", ends[0].state, ends[1].state)


def _deliver(end: Session, lines: list[bytes]) -> None:
    if lines:
        for message in end.receive(lines.pop(0)):
            require(isinstance(message, m.Message), "what one end says is not known to the other", message)
