"""The heartbeat of a guest: a kept link to its server, and a small question over it again and again.

It is no manager: it launches nothing, and asks for the list of runs beyond its end, which is empty. Each answer is a
sign of life; who judges their lack, and by what bound, is the vigil's matter. The invariant: a sign of life is an
answer of the guest that has proven itself, given after it was asked.
"""

from __future__ import annotations

import math
import os
import time

from cmapp import SOFTWARE
from cmapp.core import messages as m
from cmapp.core.duration import format_duration
from cmapp.core.pursuit import ATTEMPT_LIMIT
from cmapp.errors import LinkError, RemoteProtocolError, TrustError
from cmapp.host.call import Call

TYPE_CHECKING = False
if TYPE_CHECKING:
    import select

    from cmapp.net.address import Address
    from cmapp.net.keyring import Keyring

BEYOND = "~"  # behind every name of a run
PAUSES = (0.2, 2.0)  # seconds between two attempts to connect: doubled each time
MANY = 6  # intervals without a word after which the server may let go of us


class Heartbeat:
    """The link; call `begin` once, `register` and `go_on` in each turn of the loop.

    `trouble` is what was the matter last, "" when it answered; `refused` that somebody answered, but not as it should:
    then the guest is alive, whatever its server is. `boot_id` is the boot that answered last.
    """

    def __init__(self, guest: Address, address: Address, keyring: Keyring, interval: float, timeout: float) -> None:
        self._guest = guest
        self._address = address
        self._keyring = keyring
        self._interval = interval
        self._timeout = timeout
        self._call: Call | None = None
        self._state = "idle"
        self._descriptor = -1
        self._at = math.inf  # when the next step is due, whatever that is
        self._pause = PAUSES[0]
        self._id = 0
        self.trouble = ""
        self.refused = False
        self.boot_id = ""
        self.software = ""

    @property
    def deadline(self) -> float:
        """When `go_on` has to be called whatever happens."""
        return min(self._at, math.inf if self._call is None else self._call.deadline)

    def begin(self) -> None:
        """Connect as soon as `go_on` is called, if it does not already."""
        if self._state == "idle":
            self._state, self._at = "waiting", 0.0

    def hurry(self) -> None:
        """Ask now, or connect now."""
        if self._state in ("waiting", "quiet"):
            self._at = 0.0

    def register(self, waiting: select.poll) -> None:
        """Have `waiting` wait for what the link waits for."""
        self._descriptor = -1 if self._call is None else self._call.register(waiting)

    def go_on(self, ready: dict[int, int], now: float) -> bool | None:
        """Take the next step; return True for a sign of life, False for an attempt or a link that failed, else None."""
        try:
            return self._step(self._descriptor in ready, now)
        except (TrustError, RemoteProtocolError) as error:
            return self._fail(str(error), now, refused=True)
        except LinkError as error:
            return self._fail(str(error), now)

    def close(self, reason: str) -> None:
        """Say bye."""
        call, self._call = self._call, None
        self._state, self._at = "closed", math.inf
        if call is not None:
            call.hang_up(reason)

    def _step(self, ready: bool, now: float) -> bool | None:  # noqa: FBT001 - what poll(2) said
        if self._state == "waiting" and now >= self._at:
            self._call = Call(self._guest.host, self._address, self._keyring.context())
            self._state, self._at, ready = "calling", now + ATTEMPT_LIMIT, False
        if self._call is None:
            return None
        if self._state == "calling":
            if not self._call.connect(now, ready=ready):
                self._check_time(now, f"no handshake within {format_duration(ATTEMPT_LIMIT)}")
                return None
            self._say(m.Hello(self._next(), m.VERSIONS, SOFTWARE, os.uname().nodename, silence=self._silence), now)
            self._state, ready = "greeting", True
        heard = self._hear(now) if ready else None
        if heard is None and self._state == "quiet" and now >= self._at:
            self._say(m.Status(self._next(), BEYOND), now)
            self._state = "asking"
        elif heard is None and self._state in ("greeting", "asking"):
            self._check_time(now, f"no answer within {format_duration(self._timeout)}")
        return heard

    @property
    def _silence(self) -> float:
        return MANY * (self._interval + self._timeout)

    def _hear(self, now: float) -> bool | None:
        heard = None
        for message in self._call.hear() if self._call is not None else ():
            match message:
                case m.Welcome() if self._state == "greeting":
                    self.boot_id, self.software = message.boot_id, message.software
                    heard = True
                case m.Runs(id=number) if self._state == "asking" and number == self._id:
                    heard = True
                case m.Refused(text=text):
                    raise RemoteProtocolError(f"{self._guest.host} declined: {text}")
                case m.Bye(reason=reason):
                    raise LinkError(f"{self._guest.host} hung up: {reason or 'it gave no reason'}")
        if heard:
            self._state, self._at, self._pause = "quiet", now + self._interval, PAUSES[0]
            self.trouble, self.refused = "", False
        return heard

    def _say(self, message: m.Message, now: float) -> None:
        self._at = now + self._timeout
        if self._call is not None:
            self._call.say(message)

    def _next(self) -> int:
        self._id += 1
        return self._id

    def _check_time(self, now: float, late: str) -> None:
        if now >= self._at:
            raise LinkError(f"{self._guest.host}: {late}; it may be hung, paused or overloaded")

    def _fail(self, trouble: str, now: float, *, refused: bool = False) -> bool:
        call, self._call = self._call, None
        if call is not None:
            call.hang_up("asking anew")
        self.trouble, self.refused = trouble, refused
        self._state, self._at = "waiting", max(now, time.monotonic()) + self._pause
        self._pause = min(self._pause * 2, PAUSES[1])
        return False
