"""What a broken, foreign or refusing peer does to a connection, and what that means in words."""

from __future__ import annotations

import socket
import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from cmapp.errors import CmappError, LinkError, TrustError
from cmapp.keys.authority import issue, make_authority
from cmapp.keys.keystore import write_credential
from cmapp.net.identity import Identity, Role
from cmapp.net.refusals import explain
from cmapp.net.tls import client_context, server_context

if TYPE_CHECKING:
    import ssl


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> dict[Role, ssl.SSLContext]:
    """Return the context of each role."""
    root, now = tmp_path_factory.mktemp("keys"), datetime.now(UTC)
    authority = make_authority(None, days=1, now=now)
    for role in Role:
        issued = issue(authority, Identity(role, "vm1"), days=1, now=now)
        write_credential(root / role.value, issued, authority, force=False)
    return {Role.HOST: client_context(str(root / "host")), Role.GUEST: server_context(str(root / "guest"))}


def wrapped(contexts: dict[Role, ssl.SSLContext], role: Role, sock: socket.socket) -> ssl.SSLSocket:
    """Take the end of a connection that belongs to `role`."""
    return contexts[role].wrap_socket(
        sock,
        server_side=role is Role.GUEST,
        server_hostname="vm1" if role is Role.HOST else None,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,
    )


def told(end: ssl.SSLSocket) -> CmappError:
    """Shake hands and return what the failure means."""
    with pytest.raises(OSError) as failure:  # noqa: PT011 - which one is what explain() is about
        end.do_handshake()
    return explain(failure.value, peer="vm1")


CLOSED = "vm1 closed the connection; it or the network between may have gone down"
PLAIN = "vm1 does not speak TLS: check the port, and what listens or calls there"
# What a peer sends as soon as it is connected, before it closes, and what that means.
NO_TLS = [
    (b"", LinkError, CLOSED),
    (b"ab", LinkError, CLOSED),
    (b"SSH-2.0-OpenSSH_9.2\r\n", TrustError, PLAIN),
    (b"GET / HTTP/1.1\r\n\r\n", TrustError, PLAIN),
    (b"CONNECT vm1:1 HTTP/1.1\r\n\r\n", TrustError, PLAIN),
    (b"HTTP/1.1 400 Bad Request\r\n\r\n", TrustError, PLAIN),
    (b'{"type":"hello"}\n', TrustError, PLAIN),
    (bytes(100), TrustError, PLAIN),
]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("sent", "kind", "sentence"), NO_TLS)
def test_a_peer_that_speaks_no_tls(
    contexts: dict[Role, ssl.SSLContext], role: Role, sent: bytes, kind: type[CmappError], sentence: str
) -> None:
    """A port scan, a web browser and a dead peer are told apart, on both sides."""
    left, right = socket.socketpair()
    with right, wrapped(contexts, role, left) as end:
        right.sendall(sent)
        right.shutdown(socket.SHUT_WR)
        meaning = told(end)
    assert (type(meaning), str(meaning)) == (kind, sentence)


ALERTS = {
    10: (LinkError, "TLS with vm1 failed: "),
    20: (LinkError, "TLS with vm1 failed: "),
    40: (TrustError, "vm1 and we have no kind of TLS in common"),
    42: (TrustError, "vm1 refused our certificate: it is not valid yet"),
    43: (TrustError, "vm1 refused our certificate: it is for the other role"),
    44: (TrustError, "vm1 refused our certificate: it has been revoked"),
    45: (TrustError, "vm1 refused our certificate: it has expired"),
    46: (TrustError, "vm1 refused our certificate: it was not accepted"),
    48: (TrustError, "vm1 refused our certificate: it does not trust"),
    49: (TrustError, "vm1 refused our certificate: it denied us access"),
    70: (TrustError, "vm1 speaks no TLS version that we allow"),
    71: (TrustError, "vm1 finds our TLS too weak"),
    80: (LinkError, "TLS with vm1 failed: "),
    112: (TrustError, "vm1 does not go by that name"),
    116: (TrustError, "vm1 refused our certificate: it got none"),
    120: (TrustError, "vm1 does not speak cmapp/1"),
    255: (LinkError, "TLS with vm1 failed: "),
}


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_is_explained(contexts: dict[Role, ssl.SSLContext], alert: int) -> None:
    """What a peer says when it refuses is told in words; a fault of the line may be tried again."""
    left, right = socket.socketpair()
    with right, wrapped(contexts, Role.HOST, left) as end:
        right.sendall(bytes([21, 3, 3, 0, 2, 2, alert]))  # a fatal alert record
        meaning = told(end)
    kind, sentence = ALERTS[alert]
    assert type(meaning) is kind
    assert str(meaning).startswith(sentence)


def reset(sock: socket.socket) -> None:
    """Close with a reset, as a kernel does for a process that died with unread data."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_a_reset_may_be_tried_again(contexts: dict[Role, ssl.SSLContext]) -> None:
    """A guest that goes down is a broken link."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
        with wrapped(contexts, Role.HOST, caller) as end:
            reset(accepted)
            meaning = told(end)
    assert (type(meaning), str(meaning)) == (LinkError, CLOSED)


def test_a_reset_before_the_handshake_may_be_tried_again(contexts: dict[Role, ssl.SSLContext]) -> None:
    """The ssl module looks at a connection when it wraps it, and may already fail there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        caller = socket.create_connection(listener.getsockname())
        accepted, _address = listener.accept()
        accepted.sendall(b"x")
        reset(accepted)
        with pytest.raises(OSError) as failure:  # noqa: PT011 - as above
            wrapped(contexts, Role.HOST, caller)
    meaning = explain(failure.value, peer="vm1")
    assert (type(meaning), str(meaning)) == (LinkError, CLOSED)


def test_a_write_to_a_peer_that_is_gone_may_be_tried_again() -> None:
    """A link breaks while writing, too."""
    left, right = socket.socketpair()
    right.close()
    with left, pytest.raises(BrokenPipeError) as failure:
        left.send(b"x")
    meaning = explain(failure.value, peer="vm1")
    assert (type(meaning), str(meaning)) == (LinkError, CLOSED)


def test_a_silent_peer_may_be_tried_again(contexts: dict[Role, ssl.SSLContext]) -> None:
    """A guest that hangs in the handshake did not refuse anything."""
    left, right = socket.socketpair()
    with right, wrapped(contexts, Role.HOST, left) as end:
        end.settimeout(0.01)
        meaning = told(end)
    assert type(meaning) is LinkError
    assert str(meaning).startswith("vm1 did not answer in time")


def test_a_refused_connection_may_be_tried_again() -> None:
    """A guest on which nothing listens yet may still be booting."""
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError) as failure:
            socket.create_connection(unheard.getsockname())
    meaning = explain(failure.value, peer="vm1")
    assert (type(meaning), str(meaning)) == (LinkError, "the connection to vm1 failed: Connection refused")
