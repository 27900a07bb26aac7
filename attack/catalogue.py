"""Every attack on a server: what is done, what may become of those who do it, and what the log has to say.

The invariant: `expected` is what a server that is in order does, so that an attack which gets anything else is a
defect of the server's, whatever its managers noticed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from attack import floods, handshakes, intruders, lines, strangers

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from attack.hostile import Target

LET_GO = r"closed"
ANY_REFUSAL = r"closed|alert: .*|tls: .*|alert"
ENDED = r"bye: .+"
SLOWED = rf"refused: no-run|kept|{ENDED}"  # who wants much is served to the end, or let go, or has to wait
# Which alert tells what: OpenSSL's choice, the same in all its versions since 1.1.1.
NO_CERTIFICATE, UNTRUSTED = "certificate required", "unknown ca"


def _alert(*words: str) -> str:
    """Return what a refused peer may see: the alert, or a reset that overtook it."""
    return "|".join([LET_GO, *(f"alert: {word}" for word in words)])


@dataclass(frozen=True)
class Attack:
    """One attack: `expected` matches each outcome; `logged` stands in the server's log, unless it is empty.

    A `crowd` is as large as --handshakes says and is done once; others are repeated for as long as --seconds says.
    """

    name: str
    carry_out: Callable[[Target], Counter[str]]
    expected: str
    logged: str = ""
    crowd: bool = False
    slow: bool = False  # it takes the server's longest patience


def _odd(name: str, alert: str, logged: str) -> Attack:
    """Return the attack with an odd certificate."""
    return Attack(f"certificate: {name[5:]}", strangers.wrong_certificate(name), _alert(alert), logged)


def _all() -> list[Attack]:
    h, s, f = handshakes, strangers, floods
    unproven = r"has not proven itself|gives way|turned away|let go"
    return [
        Attack("silent, one address", h.silent_from_one, LET_GO, unproven, crowd=True),
        Attack("silent, many addresses", h.silent_from_many, LET_GO, unproven, crowd=True),
        Attack("half a ClientHello, one", h.half_from_one, LET_GO, unproven, crowd=True),
        Attack("half a ClientHello, many", h.half_from_many, LET_GO, unproven, crowd=True),
        Attack("no certificate, one", h.nameless_from_one, _alert(NO_CERTIFICATE), r"no certificate", crowd=True),
        Attack("no certificate, many", h.nameless_from_many, _alert(NO_CERTIFICATE), r"no certificate", crowd=True),
        Attack("churn", h.churn, "hung up", crowd=True),
        Attack("churn with a good key", h.proven_churn, rf"hung up|{LET_GO}", crowd=True),
        Attack("trickled ClientHello", h.trickled_handshake, LET_GO, unproven),
        Attack("ClientHello in fragments", h.fragments, ANY_REFUSAL),
        Attack("no TLS at all", h.nonsense, ANY_REFUSAL, r"does not speak TLS"),
        Attack("megabytes of no TLS", h.endless_nonsense, ANY_REFUSAL),
        Attack("words before the proof", h.early_words, _alert(NO_CERTIFICATE), r"no certificate"),
        Attack(
            "guest's key as a manager's", s.guest_as_manager, _alert("unsupported certificate"), r"for the other role"
        ),
        _odd("host-expired", "certificate expired", r"has expired"),
        _odd("host-early", "bad certificate", r"not yet valid"),
        _odd("host-revoked", "certificate revoked", r"revoked"),
        _odd("host-self-signed", UNTRUSTED, r"not from our authority"),
        _odd("host-stranger", "decrypt error|alert: unknown ca|alert: bad certificate", r"turned away"),
        _odd("host-by-a-leaf", UNTRUSTED, r"turned away"),
        _odd(
            "host-weak", "bad certificate|alert: unsupported certificate|alert: insufficient security", r"turned away"
        ),
        _odd("host-roleless", "access denied", r"no role URI"),
        _odd("host-two-roles", "access denied", r"2 role URIs"),
        _odd("host-other-role", "access denied", r"must be a host"),
        _odd("host-forged-name", "access denied", r"names no host"),
        Attack("replayed TLS stream", s.replayed_stream, ANY_REFUSAL),
        Attack("harmed TLS records", s.reordered_records, _alert("bad record mac")),
        Attack("resumed without a certificate", s.resumed_without_certificate, f"no ticket|{_alert(NO_CERTIFICATE)}"),
        *(
            Attack(version, s.old_version(version), _alert("protocol version"), r"no TLS version that we allow")
            for version in s.OLD_VERSIONS
        ),
        Attack("weak ciphers", s.weak_ciphers, ANY_REFUSAL),
        Attack("wrong ALPN", s.wrong_protocol, _alert("no application protocol"), r"not cmapp/1"),
        Attack("no ALPN", s.no_protocol, LET_GO, r"not cmapp/1"),
        Attack("bad lines", lines.bad_lines, ENDED, r"a line that is not"),
        Attack(
            "lines out of order",
            lines.out_of_order,
            rf"{ENDED}|refused: (unknown-type|no-run)|said: report",
            r"is not for a link",
        ),
        Attack("10 MB without a newline", lines.endless_line, rf"{ENDED}|closed", r"a line of more than"),
        Attack("tiny lines", f.tiny_lines, SLOWED, crowd=True),
        Attack("unknown words", f.unknown_words, SLOWED, crowd=True),
        Attack("unknown requests", f.unknown_requests, SLOWED, crowd=True),
        Attack("acknowledgements", f.acknowledgements, SLOWED, crowd=True),
        Attack("never reads", f.never_reads, LET_GO, r"does not read", slow=True),
        Attack("good key, trickled hello", f.slow_hello, LET_GO, slow=True),
        Attack("good key, trickled line", f.slow_line, LET_GO, r"not finished", slow=True),
        Attack("good key, silent", f.silent_insiders, LET_GO, r"silent for too long|has not"),
        Attack("crowd of one manager", f.crowd_of_one, rf"said: welcome|{ENDED}|closed"),
        Attack("many launches", f.many_launches, rf"said: launched|refused: .*|{SLOWED}"),
        Attack("key updates", f.key_updates, r"said: runs|closed|alert.*", crowd=True),
        Attack("runs of another manager", intruders.others_runs, OTHERS),
    ]


# What a manager may be told when it reaches for the run of another, which is there and answers.
OTHERS = (
    r"status: said: runs|.*: (closed|said: nothing)|(hold|resume|poll): refused: (no-run|policy)|"
    r"(acknowledge|stop|kill): said: done|.*: refused: (name-taken|no-run|policy)"
)
ATTACKS = {attack.name: attack for attack in _all()}
