"""Who a peer is: a role and a name, as a certificate bears them.

The URI `cmapp://host/NAME` or `cmapp://guest/NAME` names the bearer. The invariant: a certificate names one host or
one guest, plainly, or it names nobody.
"""

from __future__ import annotations

import re
from enum import Enum

from cmapp.core.record import Record
from cmapp.core.text import printable
from cmapp.errors import TrustError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

NAME_LIMIT = 64  # X.509's limit for a common name
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class Role(Enum):
    """What a certificate entitles to: a host's is a manager's, a guest's is a server's."""

    HOST = "host"
    GUEST = "guest"

    @property
    def other(self) -> Role:
        """The role of the other end."""
        return Role.GUEST if self is Role.HOST else Role.HOST


class Identity(Record):
    """Who a peer has proved to be."""

    role: Role
    name: str

    def __str__(self) -> str:
        """Write the identity for a sentence: `guest vm1`."""
        return f"{self.role.value} {self.name}"


def is_name(text: str) -> bool:
    """Tell whether `text` may name a host or a guest: nothing that a path, a URI or a wildcard would read."""
    return len(text) <= NAME_LIMIT and _NAME.fullmatch(text) is not None


def role_uri(identity: Identity) -> str:
    """Return the URI that a certificate bears for this identity."""
    return f"cmapp://{identity.role.value}/{identity.name}"


def role_uris(uris: Iterable[str]) -> list[str]:
    """Return those that are meant to name a host or a guest, rightly or not."""
    return [uri for uri in uris if uri.lower().startswith("cmapp:")]


def borne(uris: Iterable[str]) -> Identity:
    """Return whom the one role URI among `uris` names; raises ValueError, whose sentence goes on after the bearer."""
    roles = role_uris(uris)
    if len(roles) != 1:
        count = f"{len(roles)} role URIs" if roles else "no role URI"
        raise ValueError(f"bears {count}, not one")
    for role in Role:
        name = roles[0].removeprefix(f"cmapp://{role.value}/")
        if name != roles[0] and is_name(name):
            return Identity(role, name)
    raise ValueError(f"bears {printable(roles[0])}, which names no host and no guest")


def named_by(certificate: dict[str, Any]) -> Identity:
    """Return whom a certificate names, which is as `getpeercert` shows it; raises TrustError if it does not tell."""
    try:
        return borne(value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI")
    except ValueError as error:
        raise TrustError(f"the peer's certificate {error}: issue it with 'cmapp keys issue'") from None


def require_role(identity: Identity, role: Role) -> None:
    """Raise TrustError unless `identity` has this role."""
    if identity.role is not role:
        raise TrustError(f"the peer is {identity}, but must be a {role.value}: check which keys it was given")
