"""What is wrong with a key folder, or soon will be.

Responsible for judging all that stands in a folder before a peer does. The invariant: every problem is a sentence
with what to do, all of them are told at once, and whether the keys work at all is decided by the code that uses
them: `check_keys` makes a handshake.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING

from cmapp.errors import SettingsError
from cmapp.keys import keystore
from cmapp.keys.description import begins, common_name, ends, identity_of, list_begins, list_ends, sans
from cmapp.keys.pins import unfit
from cmapp.keys.revocation import is_list_of, is_revoked
from cmapp.keys.strength import weakness
from cmapp.net.identity import Identity, Role, is_name
from cmapp.net.keyfolder import check_keys
from cmapp.net.trust import AUTHORITY, CERTIFICATE, PEERS, REVOKED

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from cryptography import x509

SOON = 30  # days before the end of something from which it is a problem

_DAY = timedelta(days=1)
_LATE = 0.5  # of the life of a revocation list that is left when its successor should be there


class Examination:
    """A look at `folder`, to be used in `role` or in the one that its certificate says, at the time `now`.

    `problems` are sentences, `who` is whose folder it is, `days_left` is how long its certificate is good for. What
    ends within `days` is a problem.
    """

    def __init__(self, folder: Path, role: Role | None, *, days: int, now: datetime) -> None:
        self.who, self.days_left = "nobody", 0
        self.problems: list[str] = []
        self._folder, self._now, self._soon = folder, now, now + days * _DAY
        own = self._read(CERTIFICATE)
        authorities = self._read(AUTHORITY)
        if own:
            role = self._judge_own(own[0], role)
            self.days_left = round((ends(own[0]) - now) / _DAY)
        for certificate in own[1:]:
            self._judge_end(
                f"{common_name(certificate.subject)}, an intermediate in {folder / CERTIFICATE},", certificate
            )
        for certificate in authorities:
            self._judge_end(f"the authority {common_name(certificate.subject)} in {folder / AUTHORITY}", certificate)
        self._judge_lists(own, authorities)
        self._judge_pins()
        if role is not None:
            self._try_out(role)

    def _try_out(self, role: Role) -> None:
        """Tell what the code that uses the folder says of it, but of a file that was judged already not again."""
        judged = [
            str(self._folder / name)
            for name in (AUTHORITY, REVOKED, PEERS)
            if any(f"{self._folder / name}" in problem for problem in self.problems)
        ]
        if any(_REVOKED in problem for problem in self.problems):
            judged.append(f"{self._folder / CERTIFICATE} {_REVOKED}")
        told = [each for each in check_keys(str(self._folder), role) if not each.startswith(tuple(judged))]
        self.problems = list(dict.fromkeys([*told, *self.problems]))

    def _read(self, name: str) -> list[x509.Certificate]:
        try:
            return keystore.read_certificates(self._folder / name)
        except SettingsError as error:
            # What is not there at all is told, if it is missed, by the code that misses it.
            if os.path.lexists(self._folder / name) or name == CERTIFICATE:
                self.problems.append(str(error))
            return []

    def _judge_own(self, own: x509.Certificate, role: Role | None) -> Role | None:
        path = self._folder / CERTIFICATE
        try:
            identity = identity_of(own)
            self.who, role = str(identity), role or identity.role
            if role is Role.GUEST and not sans(own):
                self._tell(f"{path} bears no host name and no IP address, so no manager can call it: issue a new one")
        except SettingsError as error:
            if role is None:
                self._tell(f"{path} {error}: issue a new one, or say guest or host if its peers have pinned it")
            else:
                self.who = f"a {role.value} known by its pin"
        except ValueError as error:
            self._tell(f"{path} holds a malformed certificate ({error}): issue a new one")
        if weak := weakness(own):
            self._tell(f"{path} {weak}")
        if self._now <= ends(own) < self._soon:
            self._tell(f"{path} expires in {self._days_to(ends(own))}: renew it with 'cmapp keys renew'")
        return role

    def _judge_end(self, who: str, certificate: x509.Certificate) -> None:
        until = ends(certificate)
        if until < self._now:
            self._tell(f"{who} has expired on {until:%Y-%m-%d}: remove it with 'cmapp keys distrust'")
        elif until < self._soon:
            self._tell(f"{who} expires in {self._days_to(until)}: make another and trust both, see 'cmapp keys trust'")
        if self._now < begins(certificate):
            self._tell(f"{who} is not valid before {begins(certificate):%Y-%m-%d %H:%M} UTC: check the clock")

    def _judge_lists(self, own: list[x509.Certificate], authorities: list[x509.Certificate]) -> None:
        path = self._folder / REVOKED
        if not os.path.lexists(path):
            return
        try:
            lists = keystore.read_lists(path)
        except SettingsError as error:
            self._tell(str(error))
            return
        if own and is_revoked(own[0], lists):
            self._tell(f"{self._folder / CERTIFICATE} {_REVOKED} {path}: issue a new one, with a new key")
        for revoked in lists:
            who, until = f"the list of {common_name(revoked.issuer)} in {path}", list_ends(revoked)
            if until is not None and until < self._now:
                self._tell(f"{who} has expired on {until:%Y-%m-%d}, and nobody is let in: {_ANOTHER}")
            elif until is not None and until < self._soon and self._is_late(revoked, until, authorities):
                self._tell(f"{who} expires in {self._days_to(until)}, and then nobody is let in: {_ANOTHER}")
            if self._now < list_begins(revoked):
                self._tell(f"{who} is not valid before {list_begins(revoked):%Y-%m-%d %H:%M} UTC: check the clock")
        for authority in authorities:
            # A root whose intermediate has a list has issued nobody else.
            issuing = [authority, *(one for one in own[1:] if one.issuer == authority.subject)]
            if not any(is_list_of(one, revoked) for one in issuing for revoked in lists):
                who = f"the authority {common_name(authority.subject)}"
                self._tell(f"{path} has no list of {who}, so nobody of it is let in: add it, or remove {path}")

    def _judge_pins(self) -> None:
        for role in Role:
            for path in sorted((self._folder / PEERS / role.value).glob("*.pem")):
                if not is_name(path.stem):
                    self._tell(f"{path} is named after nobody: call it NAME.pem after the {role.value}")
                    continue
                try:
                    pinned = keystore.read_certificate(path)
                except SettingsError as error:
                    self._tell(str(error))
                    continue
                if why := unfit(pinned, Identity(role, path.stem), self._now):
                    self._tell(f"{path} {why}")
                elif ends(pinned) < self._soon:
                    self._tell(
                        f"{path} expires in {self._days_to(ends(pinned))}: pin the new one with 'cmapp keys pin'"
                    )

    def _is_late(
        self, revoked: x509.CertificateRevocationList, until: datetime, authorities: list[x509.Certificate]
    ) -> bool:
        """Tell whether a list should have been replaced: one that is made for a week need not be on its first day."""
        if any(is_list_of(authority, revoked) and until == ends(authority) for authority in authorities):
            return False  # it ends with its authority, which is told
        return until - self._now < (until - list_begins(revoked)) * _LATE

    def _days_to(self, end: datetime) -> str:
        left = round((end - self._now) / _DAY)
        return f"{left} day{'' if left == 1 else 's'}"

    def _tell(self, problem: str) -> None:
        self.problems.append(problem)


_REVOKED = "has been revoked by"
_ANOTHER = "put a newer one there, by 'cmapp keys revoke' from its authority"
