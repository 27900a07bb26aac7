"""Targets: a guest that says anything to who asks it, over real TLS: `cmapp` with its questions, and `cmappmgr`.

The guest is played by a thread that waits for a line and says the next part of what was drawn. The invariants: who asks
gets an answer or an error of ours; a manager ends with a verdict that is no defect, says 0 only for what the guest has
told to be 0, and writes nothing to its log that is not fit for it.
"""

from __future__ import annotations

import functools
import os
import signal
import socket
import threading
from typing import TYPE_CHECKING

from cmapp.core import messages as m
from cmapp.core.outcome import Exited, Failed, Reason, Receipt, exit_code
from cmapp.core.wire import encode
from cmapp.errors import CmappError
from cmapp.host.halts import SIGNALS
from cmapp.host.inquiry import Inquiry
from cmapp.host.journal import Journal
from cmapp.host.manager import Manager
from cmapp.host.report import Reporter
from cmapp.host.settings import Settings
from cmapp.host.task import task_of
from cmapp.net.address import Address
from cmapp.net.identity import Role
from cmapp.net.keyring import Keyring
from cmapp.net.tls import client_context, server_context
from fuzz import papers
from fuzz.breach import require, require_plain
from fuzz.draw import Draw, expand

if TYPE_CHECKING:
    import ssl

    from cmapp.core.messages import Message
    from cmapp.core.outcome import Verdict

RUN = "01234567-89ab-cdef-0123-456789abcdef"
SOON = 0.1  # seconds that a guest waits for the next line
CALLS = 3  # connections that a guest takes, of one manager
PARTS = 12  # of what a guest says
WORDS = tuple(m.FROM_SERVER)


class Liar:
    """A guest that says `parts`, one after each line that it hears, to whoever calls."""

    def __init__(self, parts: list[bytes], *, orderly: bool, calls: int) -> None:
        self._parts = parts
        self._orderly = orderly
        self._calls = calls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(SOON)
        self.address = Address("127.0.0.1", self._socket.getsockname()[1])
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take no more calls."""
        self._calls = 0
        self._socket.shutdown(socket.SHUT_RDWR)  # which wakes it
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        try:
            while self._calls > 0:
                self._calls -= 1
                sock, _ = self._socket.accept()
                sock.settimeout(SOON)
                with _serving().wrap_socket(sock, server_side=True) as tls:
                    self._talk(tls)
        except OSError:
            pass  # who called has gone

    def _talk(self, tls: ssl.SSLSocket) -> None:
        while self._parts and tls.recv(1 << 16):
            tls.sendall(self._parts.pop(0))
        if self._orderly:
            tls.unwrap().close()


@functools.cache
def _serving() -> ssl.SSLContext:
    return server_context(str(papers.key_folder("guest")))


@functools.cache
def _calling() -> ssl.SSLContext:
    return client_context(str(papers.key_folder("host")))


def _parts(draw: Draw) -> tuple[list[bytes], list[Message]]:
    """Return what a guest says after each line that it hears, and what of it are messages."""
    parts: list[bytes] = []
    said: list[Message] = []
    while not draw.done and len(parts) < PARTS:
        part = b""
        for _ in range(1 + draw.below(3)):
            if draw.below(8):
                said.append(_message(draw))
                part += encode(said[-1])
            else:
                part += expand(draw.chunk())
        parts.append(part)
    return parts, said


def _message(draw: Draw) -> Message:
    number = draw.below(6)
    word = draw.pick(WORDS)
    text = draw.pick(("", "no-run", "\n", "\x1b[2J", "stopped", "policy", "x" * 9000, "1970-01-01 ERROR: forged"))
    codes = (Exited(0), Exited(3), Exited(255))
    receipt = Receipt("web", RUN, draw.pick(codes), draw.pick(tuple(Reason)), 0, 1, 1, detail=text)
    report = m.RunReport(draw.pick(("web", "a", "z", "b")), RUN, draw.pick(tuple(m.Phase)), health=text, status=text)
    stream = draw.pick(tuple(m.Stream))
    kinds: dict[str, Message] = {
        "welcome": m.Welcome(number, draw.pick((1, 0, 2)), text, text, text, ("output", "readiness", text)),
        "launched": m.Launched(number, draw.pick((RUN, RUN.replace("0", "1"))), 42, attached=bool(draw.byte() % 2)),
        "ready": m.Ready(draw.pick((RUN, RUN.replace("0", "1")))),
        "report": m.Report(number, report),
        "output": m.Output(stream, draw.pick((0, 1, 2**53)), text.encode(), draw.below(3), draw.pick((None, number))),
        "exited": m.Exited(draw.pick((receipt, receipt.replace(run_id=RUN.replace("0", "1"))))),
        "done": m.Done(number),
        "runs": m.Runs(number, (report, report.replace(name="z")) if number % 2 else (), more=bool(draw.byte() % 2)),
        "refused": m.Refused(text, text, id=number),
        "bye": m.Bye(text),
    }
    return kinds[word]


# ---- who asks --------------------------------------------------------------------------------------------------


def inquiry(data: bytes) -> None:
    """Ask a guest that lies how its runs are: an answer comes, or an error of ours."""
    draw = Draw(data)
    orderly = draw.chance(2)
    parts, _ = _parts(draw)
    liar = Liar(parts, orderly=orderly, calls=1)
    try:
        with Inquiry(Address(papers.GUEST, 5315), liar.address, _calling()) as asking:
            names = [run.name for run in asking.runs()]
            require(names == sorted(names), "told in another order", names)
            asking.hold("web", on=True)
    except CmappError as error:
        require(str(error), "no reason")
    finally:
        liar.close()


def manager(data: bytes) -> None:
    """Have a manager pursue its run at a guest that lies: it concludes, and says no more than it was told."""
    draw = Draw(data)
    orderly = draw.chance(2)
    parts, said = _parts(draw)
    raw = b"".join(parts)
    log = papers.scratch() / "package.log"
    log.unlink(missing_ok=True)
    liar = Liar(parts, orderly=orderly, calls=CALLS)
    settings = Settings(
        keys=str(papers.key_folder("host")),
        address=str(liar.address),
        connect_timeout=0.05,
        link_timeout=0.05,
        poll_interval=0.01,
        poll_timeout=0.05,
        log_file=str(log),
        verbose=True,
    )
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        verdict = _pursued(settings)
    finally:
        signal.set_wakeup_fd(-1)
        for number, handler in before.items():
            signal.signal(number, handler)
        liar.close()
    require(not isinstance(verdict, Failed), "a defect", verdict)
    good = [one for one in said if isinstance(one, m.Exited) and one.receipt.outcome == Exited(0)]
    require(exit_code(verdict) != 0 or good or b"exited" in raw, "0 that nobody has told", verdict)
    for line in log.read_bytes().decode().split("\n"):
        require_plain(line)


def _pursued(settings: Settings) -> Verdict:
    task = task_of(settings, papers.GUEST, ["/bin/web"], RUN)
    journal = Journal(settings.log_file, "web on vm1", syslog=None, verbose=True)
    manager = Manager(settings, task, Keyring(settings.keys, Role.HOST), Reporter(journal, settings, task))
    try:
        return manager.run()
    finally:
        halts = manager._halts  # noqa: SLF001 - a manager has its process to itself, and closes nothing
        os.close(halts.descriptor)
        os.close(halts._write)  # noqa: SLF001 - the same
