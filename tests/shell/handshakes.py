"""Handshakes in one thread: both ends of a connection, taken on turn by turn until neither gets any further."""

from __future__ import annotations

import contextlib
import socket
import ssl
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from cmapp.net.refusals import explain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cmapp.errors import CmappError


class Meeting(NamedTuple):
    """Both ends of a connection after the handshake and a first read, and what each was told of a failure."""

    server: ssl.SSLSocket
    client: ssl.SSLSocket
    server_told: CmappError | None
    client_told: CmappError | None


@contextlib.contextmanager
def meeting(
    serving: ssl.SSLContext, calling: ssl.SSLContext, called: str = "vm1", session: ssl.SSLSession | None = None
) -> Iterator[Meeting]:
    """Let two ends shake hands and read."""
    left, right = socket.socketpair()
    left.setblocking(False)
    right.setblocking(False)
    with (
        serving.wrap_socket(left, server_side=True, do_handshake_on_connect=False) as server,
        calling.wrap_socket(right, server_hostname=called, do_handshake_on_connect=False, session=session) as client,
    ):
        told: dict[ssl.SSLSocket, CmappError] = {}
        for _turn, (end, peer) in product(range(4), ((client, "vm1"), (server, "n1"))):
            if end not in told:
                failure = attempt(end, peer)
                if failure:
                    told[end] = failure
        yield Meeting(server, client, told.get(server), told.get(client))


def attempt(end: ssl.SSLSocket, peer: str) -> CmappError | None:
    """Go on with the handshake and a first read, and return what a failure means."""
    try:
        end.do_handshake()
        end.recv(1)
    except ssl.SSLWantReadError:
        return None
    except OSError as error:
        return explain(error, peer=peer)
    return None
