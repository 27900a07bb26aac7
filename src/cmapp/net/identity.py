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


def named_by(certificate: dict[str, Any]) -> Identity:
    """Return whom a certificate names, which is as `getpeercert` shows it; raises TrustError if it does not tell."""
    bearers = [value for kind, value in certificate.get("subjectAltName", ()) if kind == "URI"]
    uris = [uri for uri in bearers if uri.lower().startswith("cmapp:")]
    if len(uris) != 1:
        count = f"{len(uris)} role URIs" if uris else "no role URI"
        raise TrustError(f"the peer's certificate bears {count}, not one: issue it with 'cmapp keys issue'")
    for role in Role:
        name = uris[0].removeprefix(f"cmapp://{role.value}/")
        if name != uris[0] and is_name(name):
            return Identity(role, name)
    raise TrustError(f"the peer's certificate bears {printable(uris[0])}, which names no host and no guest")


def require_role(identity: Identity, role: Role) -> None:
    """Raise TrustError unless `identity` has this role."""
    if identity.role is not role:
        raise TrustError(f"the peer is {identity}, but must be a {role.value}: check which keys it was given")
