"""The keys of one side while it runs: read again when they change, and told of before they expire.

Certificate, key, authorities, revocation lists and pins are files that people and programs replace, one by one, under
a daemon that must not be restarted for it. So before each handshake it is asked, by a few stat(2), whether one of them
has changed. What is connected stays, with the keys that it was connected by. The invariant: once there is a context
there always is one, and it was made of one whole and fitting set of files.
"""

from __future__ import annotations

import math
import time

from cmapp.errors import SettingsError
from cmapp.net.identity import Role
from cmapp.net.tls import Context, client_context, server_context
from cmapp.net.trust import CERTIFICATE, Dated, own_statement, stamps_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cmapp.net.x509 import Statement

DAY = 86400.0  # seconds; from one reminder to the next as well
TICK = 0.05  # seconds in which a file can change twice and bear the same time


class Keyring:
    """The keys in one folder, for one role; a manager's is for one guest, its `peer`."""

    def __init__(self, keys: str, role: Role, *, peer: str | None = None, allow_tls12: bool = False) -> None:
        """Read the keys; raises SettingsError, naming the file at fault, if they cannot be used."""
        self._keys = keys
        self._role = role
        self._peer = peer
        self._allow_tls12 = allow_tls12
        self._trouble = ""
        self._news: list[str] = []
        self._own: Dated | None = None
        self._again = math.inf
        self._stamps, self._settled = self._look()
        self._context = self._read()

    def context(self) -> Context:
        """Return the context for the next handshake: of the files as they are, or as they were while they fitted."""
        stamps, settled = self._look()
        if (stamps, settled) != (self._stamps, self._settled) or time.time() >= self._again:
            changed = stamps != self._stamps
            self._stamps, self._settled = stamps, settled
            self._read_again(changed=changed)
        return self._context

    def news(self) -> list[str]:
        """Return what has become of changed files since this was asked last: a sentence each."""
        news, self._news = self._news, []
        return news

    def worries(self, now: float) -> list[str]:
        """Return what has expired or soon will, `now` in seconds since 1970: a sentence each."""
        ends = (self._own, *self._context.trust.dated)
        return [worry for dated in ends if dated is not None and (worry := worry_of(dated, now))]

    def _look(self) -> tuple[object, bool]:
        """Return what is different once a file has changed, and whether it would be for any further change."""
        try:
            stamps = stamps_of(self._keys, self._role.other)
        except SettingsError as error:
            return str(error), True
        age = time.time() - max(stamp[0] for stamp in stamps)
        return stamps, not 0 <= age < TICK

    def _read_again(self, *, changed: bool) -> None:
        trouble, self._again = "", math.inf
        try:
            self._context = self._read()
        except (SettingsError, OSError) as error:
            trouble = str(error)
        if trouble != self._trouble or (changed and not trouble):
            until = "" if self._own is None else _day(self._own.says.until)
            used = f"{self._keys} have changed and are used from here on, until {until}"
            kept = f"{self._keys} have changed, but cannot be used, so those from before stay in use: {trouble}"
            self._news = [f"the keys in {kept if trouble else used}"]
        self._trouble = trouble

    def _read(self) -> Context:
        if self._role is Role.GUEST:
            context = server_context(self._keys, allow_tls12=self._allow_tls12)
            from cmapp.net.keyfolder import require_own_role  # noqa: PLC0415 - a manager does without

            require_own_role(self._keys, self._role)
        else:
            context = client_context(self._keys, peer=self._peer, allow_tls12=self._allow_tls12)
        self._use(own_statement(self._keys))
        return context

    def _use(self, says: Statement) -> None:
        """Go by this certificate from here on, unless it cannot be used now and the one before can."""
        path, now = f"{self._keys}/{CERTIFICATE}", time.time()
        self._again = says.since if now < says.since else math.inf
        if self._own is not None and self._own.says.since <= now <= self._own.says.until:
            if now < says.since:
                raise SettingsError(f"{path} is not valid before {_day(says.since)}, and is used from then on")
            if now > says.until:
                raise SettingsError(f"{path} has expired on {_day(says.until)}: copy the new one")
        self._own = Dated(f"our certificate, {path},", says, "issue a new one")


class Reminder:
    """Says once a day what expires, and at once what has become of changed files, to whoever asks often."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._due = -math.inf
        self._peer: Dated | None = None
        self._is_new = False  # the peer

    def met(self, peer: str, says: Statement) -> None:
        """Be reminded as well of the certificate that `peer` has shown."""
        if self._peer is None or self._peer.says != says:
            self._peer = Dated(f"the certificate of {peer}", says, "issue a new one")
            self._is_new = True

    def due(self, now: float, wall: float) -> list[str]:
        """Return what is to be said now, mostly nothing; `now` is monotonic, `wall` in seconds since 1970."""
        told, daily = [], now >= self._due
        if daily:
            self._due = now + DAY
            self._keyring.context()
            told = self._keyring.worries(wall)
        if self._peer is not None and (daily or self._is_new):
            self._is_new = False
            told += filter(None, [worry_of(self._peer, wall)])
        return self._keyring.news() + told


def worry_of(dated: Dated, now: float) -> str:
    """Return a sentence if it has ended by `now`, in seconds since 1970, or will soon; "" if not."""
    left = dated.says.until - now
    if left >= dated.soon:
        return ""
    day = _day(dated.says.until)
    if left < 0:
        return f"{dated.what} has expired on {day}: {dated.remedy}"
    return f"{dated.what} expires in {left / DAY:.0f} days, on {day}: {dated.remedy}"


def _day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))
