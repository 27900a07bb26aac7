"""docs/keys.md is true: every command on it is run, on machines that are folders here, and says what stands there."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cmapp.net.identity import Identity, Role
from tests.shell.keys_bed import meet

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"
PROMPT = re.compile(r"([a-z0-9]+)# (.*)")
COPY = """\
import shutil, subprocess, sys
from pathlib import Path
root, arguments = Path({root!r}), [each for each in sys.argv[1:] if not each.startswith("-")]
def here(place):
    machine, colon, path = place.partition(":")
    if not colon:
        return place
    return f"{{root}}/{{machine}}/{{path[1:] if path[:1] == '/' else 'root/' + path}}"
sys.exit(subprocess.call(["cp", "-pr", *map(here, arguments)]))
"""
# What differs from one run to the next.
OURS = [
    (re.compile(r"\d{4}-\d\d-\d\d( \d\d:\d\d:\d\d)?"), "DATE"),
    (re.compile(r"([0-9A-F]{2}:){31}[0-9A-F]{2}"), "FINGERPRINT"),
    (re.compile(r"\b[0-9a-f]{30,40}\b"), "SERIAL"),
]


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield each command of the page: on which machine, the command, and what is to be said."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        told: list[tuple[str, list[str], list[str]]] = []
        for line in block.splitlines():
            if found := PROMPT.fullmatch(line):
                told.append((found[1], [found[2]], []))
            elif line.startswith("> "):
                told[-1][1].append(line.removeprefix("> "))
            else:
                told[-1][2].append(line)
        yield from ((machine, "\n".join(command), "\n".join(said)) for machine, command, said in told)


def unmarked(text: str) -> str:
    """Return a text without what differs from one run to the next."""
    for pattern, word in OURS:
        text = pattern.sub(word, text)
    return text.rstrip()


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the page, and return the folder whose folders are the machines."""
    root = tmp_path_factory.mktemp("machines")
    tools = root / "bin"
    tools.mkdir()
    (tools / "scp.py").write_text(COPY.format(root=str(root)))
    python = shlex.quote(sys.executable)
    code = "from cmapp.cli.cmapp import main; main()"
    (tools / "scp").write_text(f'#!/bin/sh\nexec {python} {tools}/scp.py "$@"\n')
    (tools / "cmapp").write_text(f"#!/bin/sh\nexec {python} -c '{code}' \"$@\"\n")
    for tool in ("scp", "cmapp"):
        (tools / tool).chmod(0o755)
    for machine, command, said in steps():
        top = root / machine
        (top / "root").mkdir(parents=True, exist_ok=True)
        # A machine's own paths; those of another, after a colon, are the copier's to find.
        there = re.sub(r"(?:(?<=file:)|(?<![\w:.]))/(root|etc)/", rf"{top}/\1/", command)
        done = subprocess.run(
            ["sh", "-c", f"PATH={tools}:$PATH; {there}"],
            cwd=top / "root",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        heard = done.stdout.replace(str(top), "")
        assert unmarked(heard) == unmarked(said), f"{machine}# {command}"
        assert done.returncode == 0, f"{machine}# {command}"
    return root


def test_the_page_is_true(machines: Path) -> None:
    """Every command did what the page says, and the tour had all its stations."""
    text = PAGE.read_text()
    assert machines.is_dir()
    for command in ("init", "issue", "request", "sign", "accept", "renew", "revoke", "check", "show", "trust", "pin"):
        assert re.search(rf"^[a-z0-9]+# cmapp keys {command} ", text, re.MULTILINE), command


def test_who_is_in_on_the_page_is_in(machines: Path) -> None:
    """At the end of the tour the guest and the host meet with the new authority's keys."""
    guest, host = machines / "vm1" / "etc" / "cmapp" / "keys", machines / "node1" / "etc" / "cmapp" / "keys"
    assert meet(guest, host) == (Identity(Role.GUEST, "vm1"), Identity(Role.HOST, "node1"))


def test_a_company_is_believed(machines: Path) -> None:
    """A guest takes the keys of its company's authority, through the intermediate, and refuses those it took back."""
    guest, host = machines / "vm3" / "etc" / "cmapp" / "keys", machines / "node3" / "etc" / "cmapp" / "keys"
    with pytest.raises(OSError, match="certificate revoked"):
        meet(guest, host, "vm3")
    (guest / "crl.pem").unlink()
    assert meet(guest, host, "vm3") == (Identity(Role.GUEST, "vm3"), Identity(Role.HOST, "node3"))


def test_who_is_pinned_on_the_page_is_in(machines: Path) -> None:
    """Two that pinned each other need no authority."""
    guest, host = machines / "vm4" / "etc" / "cmapp" / "keys", machines / "node4" / "etc" / "cmapp" / "keys"
    assert meet(guest, host, "vm4") == (Identity(Role.GUEST, "vm4"), Identity(Role.HOST, "node4"))
