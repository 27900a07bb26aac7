"""Hostile servers that real managers meet: wrong keys, and a good key with bad manners.

Each is a listener of ours; each manager must end by itself, with the exit code that the table of exit codes has for
what it met, bounded in time, memory and log. The invariant: what a hostile server can forge is the outcome of its own
guest's runs, nothing else.
"""

from __future__ import annotations

import random
import socket
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attack import manners
from attack.credentials import ADDRESS, GUEST, HONEST
from attack.judge import Meeting
from attack.manners import LIMIT, OTHER_RUN, Victim

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE = 8  # meetings: most of their time they wait
LOOK = 0.02  # seconds between two looks at a manager
LAST_LOG = 20_000  # bytes of a package log that are looked at
REFUSED, UNREACHABLE = 122, 123


@dataclass(frozen=True)
class Impostor:
    """A hostile server: the keys it shows, what it does, and what its manager has to make of that."""

    keys: str
    wanted: int
    says: str
    deed: Callable[[Victim], None]
    options: tuple[str, ...] = ()


_DEEP = 30_000
_MUST_NOT = "said what it must not say"
_FAST = ("--poll-interval", "200ms", "--poll-timeout", "500ms")
IMPOSTORS: dict[str, Impostor] = {
    "server: a host's key": Impostor(HONEST, REFUSED, "for the other role", manners.nothing),
    "server: another guest's key": Impostor("guest/vm2", REFUSED, "for another (name|address)", manners.nothing),
    "server: expired": Impostor("odd/guest-expired", REFUSED, "has expired", manners.nothing),
    "server: not yet valid": Impostor("odd/guest-early", REFUSED, "not yet valid", manners.nothing),
    "server: revoked": Impostor("odd/guest-revoked", REFUSED, "revoked", manners.nothing),
    "server: self-signed": Impostor("odd/guest-self-signed", REFUSED, "not from our authority", manners.nothing),
    "server: of another authority": Impostor("odd/guest-stranger", REFUSED, "certificate", manners.nothing),
    "server: signed by a guest": Impostor("odd/guest-by-a-leaf", REFUSED, "certificate", manners.nothing),
    "server: weak key": Impostor("odd/guest-weak", REFUSED, "certificate|weak|in common", manners.nothing),
    "server: without a role": Impostor("odd/guest-roleless", REFUSED, "no role URI", manners.nothing),
    "server: two roles": Impostor("odd/guest-two-roles", REFUSED, "2 role URIs", manners.nothing),
    "server: whose role is a host's": Impostor("odd/guest-other-role", REFUSED, "must be a guest", manners.nothing),
    "server: a forged name": Impostor("odd/guest-forged-name", REFUSED, r"names no host and no guest", manners.nothing),
    "server: says nothing": Impostor(GUEST, UNREACHABLE, "unreachable|did not", manners.nothing),
    "server: speaks first": Impostor(
        GUEST, UNREACHABLE, "", manners.at_once(b'{"type":"launched","id":2,"run_id":"x","pid":1}\n')
    ),
    "server: version 99": Impostor(GUEST, UNREACHABLE, "version 99", manners.wrong_version),
    "server: line of 64 KiB and 1": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.raw(b"x" * 65537)),
    "server: 10 MB without a newline": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.raw(b"x" * 10_000_000)),
    "server: nested": Impostor(
        GUEST, UNREACHABLE, "nested too deeply", manners.raw(b"[" * _DEEP + b"]" * _DEEP + b"\n")
    ),
    "server: not UTF-8": Impostor(GUEST, UNREACHABLE, "not UTF-8", manners.raw(b'{"type":"\xff"}\n')),
    "server: a key twice": Impostor(GUEST, UNREACHABLE, "twice", manners.raw(b'{"type":"done","id":1,"id":2}\n')),
    "server: huge number": Impostor(
        GUEST, UNREACHABLE, _MUST_NOT, manners.raw(b'{"type":"done","id":' + b"9" * 60_000 + b"}\n")
    ),
    "server: noise": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.raw(random.Random(1).randbytes(100_000) + b"\n")),  # noqa: S311
    "server: launches another run": Impostor(GUEST, UNREACHABLE, "which is not ours", manners.other_launched),
    "server: reports another run": Impostor(GUEST, UNREACHABLE, "which is not ours", manners.other_report, _FAST),
    "server: another run's receipt": Impostor(
        GUEST,
        UNREACHABLE,
        "which is not ours",
        manners.said(type="exited", receipt=manners.receipt(OTHER_RUN, {"type": "exited", "code": 0})),
    ),
    "server: a receipt without an outcome": Impostor(
        GUEST, UNREACHABLE, _MUST_NOT, manners.said(type="exited", receipt={"name": "app", "run_id": OTHER_RUN})
    ),
    "server: exit code 256": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.own_exit(type="exited", code=256)),
    "server: signal 0": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.own_exit(type="signaled", signal=0)),
    "server: an outcome of no kind": Impostor(GUEST, UNREACHABLE, _MUST_NOT, manners.own_exit(type="fine")),
    "server: its own run's exit": Impostor(GUEST, 0, "exited with code 0", manners.own_exit(type="exited", code=0)),
    "server: refusal that forges a log line": Impostor(GUEST, REFUSED, r"no\\nJan", manners.forged_refusal),
    "server: answers nothing": Impostor(GUEST, UNREACHABLE, "no answer to a poll", manners.raw(b""), _FAST),
    "server: answers by a byte now and then": Impostor(
        GUEST, UNREACHABLE, "no answer to a poll", manners.dribble, _FAST
    ),
    "server: unknown words without end": Impostor(
        GUEST, UNREACHABLE, "no answer to a poll", manners.forever(lambda _: b'{"type":"x"}\n'), _FAST
    ),
    "server: output without end": Impostor(
        GUEST, UNREACHABLE, "no answer to a poll", manners.forever(manners.output), ("--output", "log", *_FAST)
    ),
    "server: output that nobody asked for": Impostor(
        GUEST, UNREACHABLE, "", manners.forever(manners.output), ("--output", "none", *_FAST)
    ),
    "server: output that jumps": Impostor(
        GUEST,
        UNREACHABLE,
        "",
        manners.forever(lambda place: b'{"type":"output","stream":"stdout","offset":%d,"data":""}\n' % (2**52 - place)),
        ("--output", "log", *_FAST),
    ),
}


def meet_all(names: list[str], keys: Path, programs: Path, folder: Path) -> list[Meeting]:
    """Have a real manager meet each of the hostile servers, a few side by side."""
    if not names:
        return []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda name: _meet(name, keys, programs, folder / name.replace(" ", "-")), names))


def _meet(name: str, keys: Path, programs: Path, folder: Path) -> Meeting:
    folder.mkdir(parents=True)
    impostor, log = IMPOSTORS[name], folder / "package.log"
    with socket.create_server((ADDRESS, 0)) as listening:
        threading.Thread(target=_serve, args=(listening, impostor, keys), daemon=True).start()
        command = [str(programs / "cmappmgr"), "--keys", str(keys / HONEST), "--no-syslog", "--log-file", str(log)]
        command += ["--name", "app", "--connect-timeout", "800ms", "--link-timeout", "300ms", *impostor.options]
        command += [f"{ADDRESS}:{listening.getsockname()[1]}", "--", "/bin/true"]
        begun = time.monotonic()
        quiet = subprocess.DEVNULL
        process = subprocess.Popen(command, env={}, stdin=quiet, stdout=quiet, stderr=quiet)
        code, memory = _outcome(process, begun + LIMIT + 10)
        seconds = time.monotonic() - begun
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
    size = log.stat().st_size if log.exists() else 0
    with log.open("rb") as file:
        file.seek(max(0, size - LAST_LOG))
        said = file.read().decode(errors="replace")
    return Meeting(name, impostor.wanted, code, impostor.says, said, size, memory, seconds, LIMIT)


def _outcome(process: subprocess.Popen[bytes], deadline: float) -> tuple[int | None, int]:
    """Wait for a manager; return its exit code, None if it has to be killed, and the most memory that was seen."""
    most, killed = 0, False
    while process.poll() is None:
        with suppress(OSError, IndexError):  # it has just ended
            status = Path(f"/proc/{process.pid}/status").read_text()
            most = max(most, int(status.partition("VmHWM:")[2].split()[0]) * 1024)
        if time.monotonic() > deadline:
            process.kill()
            killed = True
        time.sleep(LOOK)
    return None if killed else process.returncode, most


def _serve(listening: socket.socket, impostor: Impostor, keys: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(keys / impostor.keys / "cert.pem", keys / impostor.keys / "key.pem")
    context.set_alpn_protocols(["cmapp/1"])
    with suppress(OSError):
        while True:
            plain, _ = listening.accept()
            threading.Thread(target=_deal, args=(plain, context, impostor), daemon=True).start()


def _deal(plain: socket.socket, context: ssl.SSLContext, impostor: Impostor) -> None:
    with plain, suppress(OSError, ValueError):
        plain.settimeout(LIMIT)
        with context.wrap_socket(plain, server_side=True) as tls:
            impostor.deed(Victim(tls))
