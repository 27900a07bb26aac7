"""Key folders, looked at: is this one fit for that role, and for how long.

The invariant: a folder is judged as its peer would judge it, by a handshake in memory, and a problem is told in a
sentence that names the file at fault.
"""

from __future__ import annotations

import os
import ssl
import time

from cmapp.errors import SettingsError, TrustError
from cmapp.net.identity import Role, named_by
from cmapp.net.refusals import TOO_WEAK, WRONG_PURPOSE, openssl_words
from cmapp.net.tls import context_for, shown_fields
from cmapp.net.trust import (
    AUTHORITY,
    CERTIFICATE,
    KEY,
    PEERS,
    REVOKED,
    Trust,
    own_statement,
    pins_of,
    read,
    read_trust,
    require_key,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NO_CHECK_TIME = 0x200000  # X509_V_FLAG_NO_CHECK_TIME, which Python's ssl does not name
_NO_LIST, _REVOKED = 3, 23  # X509_V_ERR_UNABLE_TO_GET_CRL, X509_V_ERR_CERT_REVOKED
_LISTS = {8, 11, 12}  # X509_V_ERR_CRL_*: forged, not yet valid, expired


def check_keys(keys: str, role: Role) -> list[str]:
    """Return what is wrong with a key folder for `role`, a sentence each; empty if it can be used now."""
    problems = _unreadable(keys, role)
    if problems:
        return problems
    key = f"{keys}/{KEY}"
    if os.stat(key).st_mode & 0o077:
        problems.append(f"{key} is open to others than its owner: chmod 600 {key}")
    try:
        return problems + _certificate_problems(keys, role, any_time=False)
    except SettingsError as error:
        return [*problems, str(error)]


def require_own_role(keys: str, role: Role) -> None:
    """Raise SettingsError unless the folder's certificate is one for `role`, be it valid now or not."""
    if problems := _certificate_problems(keys, role, any_time=True):
        raise SettingsError(problems[0])


def days_left(keys: str) -> float:
    """Return the days until the folder's certificate expires, negative if it has; raises SettingsError."""
    return (own_statement(keys).until - time.time()) / 86400


def _unreadable(keys: str, role: Role) -> list[str]:
    problems = []
    pinned = os.path.isdir(f"{keys}/{PEERS}/{role.other.value}")
    for name in (CERTIFICATE, KEY, AUTHORITY, REVOKED):
        if (name == REVOKED or (name == AUTHORITY and pinned)) and not os.path.lexists(f"{keys}/{name}"):
            continue
        try:
            if name == KEY:
                require_key(keys)
            else:
                read(keys, name)
        except SettingsError as error:
            problems.append(str(error))
    try:
        if not pins_of(keys, role.other):
            read_trust(keys, role.other)
    except SettingsError as error:
        problems += [] if str(error) in problems else [str(error)]
    return problems


def _shown(keys: str, role: Role, *, any_time: bool) -> dict[str, Any]:
    """Return the folder's certificate as one sees it who trusts what the folder does; raises SSLCertVerificationError.

    A self-signed one is seen by one who has it pinned. Only a handshake makes the standard library read a
    certificate: so we do one in memory.
    """
    own, says = next(iter(read(keys, CERTIFICATE).items()))
    if says.self_signed:
        trust = Trust(keys, role, {}, (), {own: ""}, ())
    else:
        lists = () if any_time or not os.path.lexists(f"{keys}/{REVOKED}") else tuple(read(keys, REVOKED).values())
        trust = Trust(keys, role, read(keys, AUTHORITY), lists, {}, ())
    server = context_for(ssl.PROTOCOL_TLS_SERVER, trust, allow_tls12=False)
    client = context_for(ssl.PROTOCOL_TLS_CLIENT, trust, allow_tls12=False)
    client.check_hostname = False
    shows, sees = (server, client) if role is Role.GUEST else (client, server)
    shows.verify_mode = ssl.CERT_NONE
    if any_time:
        sees.verify_flags |= _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    calling = client.wrap_bio(to_client, to_server)
    for side in (calling, serving, calling, serving):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return shown_fields(calling if role is Role.GUEST else serving)


def _read_own(keys: str, role: Role) -> tuple[dict[str, Any], list[str]]:
    """Return the folder's certificate, empty if it cannot be seen at all, and what is wrong with how it is seen."""
    path, authority = f"{keys}/{CERTIFICATE}", f"{keys}/{AUTHORITY}"
    try:
        return _shown(keys, role, any_time=True), []
    except TrustError as error:
        return {}, [str(error).replace("the peer's certificate", path)]
    except ssl.SSLError as error:
        if not isinstance(error, ssl.SSLCertVerificationError):
            return {}, [f"{path} {TOO_WEAK.get(error.reason) or f'cannot be used: {openssl_words(error)}'}"]
        if error.verify_code != WRONG_PURPOSE:
            return {}, [f"{path} is not vouched for by {authority}: {error.verify_message}"]
    problem = f"{path} may not be used by a {role.value} (extended key usage): issue a new one"
    try:
        # Seen from the other side its role can be read, which says more than its purpose does.
        return _shown(keys, role.other, any_time=True), [problem]
    except (ssl.SSLCertVerificationError, TrustError):
        return {}, [problem]


def _certificate_problems(keys: str, role: Role, *, any_time: bool) -> list[str]:
    path = f"{keys}/{CERTIFICATE}"
    certificate, problems = _read_own(keys, role)
    if not certificate:
        return problems
    try:
        identity = named_by(certificate)
        if identity.role is not role:
            problems = [f"{path} is for {identity}, but must be a {role.value}'s: use that key folder"]
    except TrustError as error:
        # One that vouches for itself is known by its name at the other end, where it is pinned.
        if not own_statement(keys).self_signed:
            problems.append(str(error).replace("the peer's certificate", path))
    if not any_time:
        problems += _time_problems(path, certificate)
    if not problems and not any_time:
        problems = _problems_today(keys, role)
    return problems


def _problems_today(keys: str, role: Role) -> list[str]:
    """Return what is wrong with what vouches for a certificate that is itself in order."""
    try:
        _shown(keys, role, any_time=False)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _NO_LIST:
            return []  # it is for whom we talk to to look up, and the peer's authority may be another
        if error.verify_code == _REVOKED:
            return [f"{keys}/{CERTIFICATE} has been revoked by {keys}/{REVOKED}: issue a new one"]
        return [
            f"{keys}/{REVOKED if error.verify_code in _LISTS else AUTHORITY} cannot be used: {error.verify_message}"
        ]
    return []


def _time_problems(path: str, certificate: dict[str, Any]) -> list[str]:
    if time.time() > ssl.cert_time_to_seconds(certificate["notAfter"]):
        return [f"{path} has expired on {certificate['notAfter']}: issue a new one"]
    if time.time() < ssl.cert_time_to_seconds(certificate["notBefore"]):
        return [f"{path} is not valid before {certificate['notBefore']}: check the clock"]
    return []
