"""Hostile peers with good keys: whatever they say, they write no line of a log but the one that tells of them.

A guest whose key was stolen meets the installed `cmappmgr` and `cmapp`, a host whose key was stolen the installed
`cmappserver`. They say what terminals and logs act on, in every text of the protocol, and more of it than anybody
wants. The invariant: each line is printable, begins as ours do, has an end in sight, and their number is bounded.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.system.commands import CMAPP, run
from tests.system.hostile_guest import FORGED, LONG, Guest, hostile
from tests.system.peers import LOOPBACK, PATIENCE, Client, client_context, line
from tests.system.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.system.bed import Bed, Manager

PIPE_BUF = 4096
OUR_LINE = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d - Node \".*\": cmappmgr\[\d+\] \S+ on \S+: ")
SERVER_LINE = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d (INFO|WARNING|ERROR): ")
MINUTE = 200  # lines of the package log in a minute, errors and the application's own apart
EXITED = {"type": "exited", "code": 0}

# ---- a hostile guest -------------------------------------------------------------------------------------------------


def exits_badly(guest: Guest) -> None:
    """Say everything that can be said of a run, and forge all of it."""
    guest.launched()
    for text in (FORGED, LONG):
        guest.say(f"x{text}", text=text)
        guest.report(status=text, health=text)
        for stream in ("stdout", "stderr"):
            guest.say("output", stream=stream, offset=0, data=base64.b64encode(text.encode()).decode())
    guest.exit({"type": "unknown", "text": LONG}, reason="unhealthy", detail=LONG)


def refuses(guest: Guest) -> None:
    """Refuse a launch with a forged reason under a forged code."""
    guest.welcome()
    guest.say("refused", id=guest.hear("launch")["id"], code=FORGED, text=LONG)


def says_bye(guest: Guest) -> None:
    """Hang up with a forged reason."""
    guest.launched()
    guest.say("bye", reason=LONG)


def breaks_the_rules(guest: Guest) -> None:
    """Say what has no place in the protocol, under a forged name."""
    guest.welcome()
    guest.say("report", id=99, run={FORGED: FORGED})


PLAYS: dict[str, tuple[Callable[[Guest], None], int]] = {
    "everything of a run": (exits_badly, 124),
    "a refusal": (refuses, 122),
    "a goodbye": (says_bye, 123),
    "a bad line": (breaks_the_rules, 123),
}


def check_log(manager: Manager) -> list[str]:
    """Look at every line of the package log and of what went to the terminal; return those of the log."""
    lines = manager.log.split("\n")
    assert lines.pop() == ""
    for said in lines:
        assert OUR_LINE.match(said), said
        assert said.isprintable(), said
        assert len(said.encode()) < PIPE_BUF
    assert all(said.isprintable() for said in manager.stderr.split("\n"))
    return lines


@pytest.mark.parametrize(("play", "code"), PLAYS.values(), ids=PLAYS)
def test_guest_forges(bed: Bed, play: Callable[[Guest], None], code: int) -> None:
    """What a guest forges is one line of the package log each time, and the result file is JSON of one line."""
    options = ["--verbose", "--output", "log", "--poll-interval", "20ms", "--link-timeout", "500ms"]
    options += ["--connect-timeout", "2s"]
    with hostile(bed.keys.guest, play) as guest:
        manager = bed.run("/bin/true", guest=guest, options=options)
    assert manager.wait() == code, manager.log
    lines = check_log(manager)
    assert any(r"\nNov 22 10:00:00 ERROR: forged\r\x1b[2J" in said for said in lines)
    written = (bed.folder / f"manager-{manager.name.removeprefix('app-')}" / "result.json").read_bytes()
    assert written.isascii()
    assert written.count(b"\n") == 1


def floods(guest: Guest) -> None:
    """Push what may be pushed, as often as it goes, for a while."""
    guest.launched()
    for number in range(3000):
        guest.say("ready", run_id=guest.run_id)
        guest.say("gossip", number=number)
    guest.exit(EXITED | {"type": "exited"})


def test_guest_floods(bed: Bed) -> None:
    """However much a guest pushes, the package log gets so many lines a minute, and the end all the same."""
    with hostile(bed.keys.guest, floods) as guest:
        manager = bed.run("/bin/true", guest=guest, options=["--poll-interval", "5s"])
    assert manager.wait() == 0
    lines = check_log(manager)
    assert len(lines) <= MINUTE + 4
    assert re.search(r"\d+ lines were left out$", lines[-2])
    assert "exited with code 0" in lines[-1]


def comes_and_goes(guest: Guest) -> None:
    """Launch, and hang up, again and again."""
    guest.launched()
    guest.say("bye")


def test_guest_comes_and_goes(bed: Bed) -> None:
    """A guest that takes a manager back only to hang up again cannot fill its log either."""
    began = time.monotonic()
    with hostile(bed.keys.guest, comes_and_goes) as guest:
        manager = bed.start("/bin/true", guest=guest, options=["--link-timeout", "1m"])
        manager.until_launched()
        until(lambda: manager.log.count("lost the link") > 5, "a few losses")
        manager.process.kill()
    manager.process.wait(PATIENCE)
    assert len(check_log(manager)) <= MINUTE * (1 + (time.monotonic() - began) / 60)


@pytest.mark.parametrize("text", [FORGED, LONG], ids=["control characters", "a long text"])
def test_guest_forges_a_table(bed: Bed, text: str) -> None:
    """What `cmapp status` shows of a forged report is printable, and one row of its table."""

    def play(guest: Guest) -> None:
        guest.welcome()
        report = {"name": "db", "run_id": "01234567-89ab-cdef-0123-456789abcdef", "state": "running"}
        guest.say("runs", id=guest.hear("status")["id"], runs=[{**report, "status": text, "health": "ok"}])
        guest.hear("bye")

    def decline(guest: Guest) -> None:
        guest.welcome()
        guest.say("refused", id=guest.hear("hold")["id"], code=FORGED, text=text)
        guest.hear("bye")

    with hostile(bed.keys.guest, play) as guest:
        done = run([CMAPP, "status", "--keys", str(bed.keys.host), guest])
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("NAME")
    assert [row[:4] for row in done.stdout.splitlines()][:2] == ["NAME", "db  "]
    assert all(row.isprintable() for row in done.stdout.split("\n"))
    with hostile(bed.keys.guest, decline) as guest:
        done = run([CMAPP, "hold", "--keys", str(bed.keys.host), guest, "db"])
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1
    assert done.stderr.strip().isprintable()


# ---- a hostile host --------------------------------------------------------------------------------------------------


def attack(bed: Bed) -> None:
    """Say everything that a manager may say, and more, and forge all of it."""
    port, keys = bed.server.port, bed.keys.host
    sleeps = ("/bin/sleep", "1000")
    launches: tuple[dict[str, Any], ...] = (
        {"argv": [f"/nowhere{FORGED}"]},
        {"argv": ["/bin/sh", "-c", f"exit 3 # {LONG}"]},
        {"argv": sleeps, "user": FORGED},
        {"argv": sleeps, "cwd": f"/{FORGED}"},
        {"argv": sleeps, "env": {f"A{FORGED}": "b"}},
        {"argv": sleeps, "env": {FORGED: ""}},
        {"argv": sleeps, "kind": FORGED},
        {"argv": sleeps, FORGED: FORGED},
        {"argv": LONG},
    )
    for fields in launches:
        launch = {"name": "forged", "run_id": str(uuid.uuid4()), **fields}
        client = Client(port, keys)
        client.ask("hello", versions=[1], software=LONG, node=FORGED, instance=FORGED)
        client.hear()
        with suppress(OSError):
            client.ask("launch", **launch)
            client.hear()
            client.ask(f"x{LONG}")
            client.hear()
            client.tls.sendall(line({"type": "bye", "reason": LONG}))
        client.close()
    for rest in (LONG.encode() + b"\n", b'{"type":"launch","id":1,"' + FORGED.encode() + b'":[}\n'):
        client = Client(port, keys)
        client.greet()
        client.tls.sendall(rest)
        client.hear()
        client.close()


def test_host_forges(bed: Bed) -> None:
    """What a host forges is one line of the server's log each time, and its end is in sight."""
    server = bed.serve("--log-level", "debug")
    attack(bed)
    context = client_context(bed.keys.host)
    context.set_alpn_protocols(["h2", "x" + "\x1b\x07"])
    plain = socket.create_connection((LOOPBACK, server.port), PATIENCE)
    with plain, suppress(OSError), context.wrap_socket(plain, server_hostname=LOOPBACK) as tls:
        tls.recv(1)
    assert bed.run("/bin/sh", "-c", "exit 6").wait() == 6
    until(lambda: "turned away" in server.log, "a word of the other protocol")
    lines = server.log.split("\n")
    assert lines.pop() == ""
    for said in lines:
        assert SERVER_LINE.match(said) or " DEBUG: " in said, said
        assert said.isprintable(), said
        assert len(said.encode()) <= PIPE_BUF
    assert any("forged" in said for said in lines)


def test_application_forges(bed: Bed) -> None:
    """What an application writes, and says of itself, forges no line on either side."""
    script = f"printf '%s' '{FORGED}'; printf '%s' '{FORGED}' >&2; printf '%s' '{LONG}'; exit 5"
    manager = bed.run("/bin/sh", "-c", script, options=["--output", "log"])
    assert manager.wait() == 5
    assert any("stderr: Nov 22 10:00:00 ERROR: forged" in said for said in check_log(manager))
    assert all(said.isprintable() for said in bed.server.log.split("\n"))


SECRET = "correct-horse-battery-staple"  # noqa: S105 - the test's own


def test_secrets_are_not_told(bed: Bed, tmp_path: Path) -> None:
    """An environment is in no log, no process's title and no result, however its launch goes."""
    server = bed.serve("--log-level", "debug")
    config = tmp_path / "secrets.conf"
    config.write_text(f'[env]\nPASSWORD = "{SECRET}"\n')
    options = ["--config", str(config), "--verbose"]
    titles = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/comm 2>/dev/null | tr '\\0' ' '"
    manager = bed.run("/bin/sh", "-c", f'{titles} > {tmp_path}/titles; test -n "$PASSWORD"', options=options)
    assert manager.wait() == 0
    assert "cmappserver" in (tmp_path / "titles").read_text(errors="replace")
    failed = bed.run("/nonexistent", options=options)
    assert failed.wait() == 127
    client = Client(server.port, bed.keys.host)
    client.greet()
    client.ask("launch", name="x", run_id="bad", argv=["/bin/true"], env={"PASSWORD": SECRET + "\0"})
    told = json.dumps(client.hear())
    client.close()
    told += server.log + manager.log + failed.log + json.dumps([manager.result, failed.result])
    told += (tmp_path / "titles").read_text(errors="replace")
    assert SECRET not in told
