"""The guest's policy, by installed commands: who may launch what, as whom, how often, and what is told of it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.system.commands import CMAPP, SERVER, run
from tests.system.processes import alive, until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.system.bed import Bed, Manager
    from tests.system.server import Server

RULES = """
[[allow]]
name = "sleepers"
managers = "node1"
names = "nap-*"
commands = ["/bin/sleep *", "/bin/sh -c ..."]
env = "COLOUR"
most = 2

[[allow]]
name = "readers"
managers = "node9"
commands = "/bin/cat ..."
applications = "mail"
see = "node1"

[application.mail]
command = "/bin/sh -c 'echo $COLOUR; id -un; ulimit -n; exit 5'"
env = { COLOUR = "green" }
limit = { nofile = 99 }
"""


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A configuration file with rules."""
    path = tmp_path / "cmappserver.conf"
    path.write_text(RULES)
    return path


@pytest.fixture
def node9(bed: Bed) -> Path:
    """The keys of another host."""
    folder = bed.keys.folder / "host" / "node9"
    return folder if folder.exists() else bed.keys.issue("host", "node9")


def serve(bed: Bed, rules: Path) -> Server:
    """Start a server that has these rules."""
    return bed.serve("--config", str(rules))


def check_refused(manager: Manager, server: Server, why: str) -> None:
    """Check that the manager is refused without a reason, which is in the guest's log."""
    assert manager.wait() == 122
    assert "was refused: refused by policy (policy)" in manager.last_line
    assert manager.result["cause"] == "refused"
    until(lambda: why in server.log, "the reason in the guest's log")
    assert why not in manager.log


def test_only_what_is_allowed(bed: Bed, rules: Path, node9: Path) -> None:
    """A command runs that its manager may run, and no other; the reasons are told in the guest only."""
    server = serve(bed, rules)
    assert "rules of this guest's policy: 2, applications that it defines: 1" in server.log
    assert bed.start("/bin/sh", "-c", "exit 7", name="nap-1").wait() == 7
    refused = "launch of nap-1 by manager node1 refused by policy: rule 1 (sleepers): "
    check_refused(bed.start("/bin/sleep", "1", "2", name="nap-1"), server, refused + "it has no such command: /bin/sl")
    check_refused(bed.start("/bin/sleep", "1", name="x"), server, "it is not for an application called x")
    options = ["--user", "root"]
    check_refused(bed.start("/bin/sleep", "1", name="nap-1", options=options), server, "user root is not among its")
    options = ["--env", "LD_PRELOAD=/x.so"]
    check_refused(bed.start("/bin/sleep", "1", name="nap-1", options=options), server, "variable LD_PRELOAD is not am")
    options = ["--health-command", "/bin/true"]
    check_refused(bed.start("/bin/sleep", "1", name="nap-1", options=options), server, "no such command: /bin/true")
    check_refused(bed.start("/bin/sleep", "1", name="nap-1", keys=node9), server, "rule 2 (readers): it has no such")


def test_an_application_of_the_guest(bed: Bed, rules: Path, node9: Path) -> None:
    """It is launched by its name alone, as the guest has defined it."""
    server = serve(bed, rules)
    manager = bed.start(name="mail", keys=node9, options=["--output", "stdout"])
    assert manager.wait() == 5
    assert manager.stdout.decode().split() == ["green", run(["id", "-un"]).stdout.strip(), "99"]
    check_refused(bed.start(name="mail"), server, "rule 1 (sleepers): it is not for an application called mail")
    options = ["--env", "COLOUR=red"]
    check_refused(bed.start(name="mail", keys=node9, options=options), server, "must not bring its own env")


def test_an_application_that_is_not_there(bed: Bed) -> None:
    """Where there is no policy nothing is hidden, and it is as if the command was not there."""
    bed.serve()
    manager = bed.start(name="mail")
    assert manager.wait() == 127
    assert "no application mail is defined in this guest" in manager.last_line


def test_how_many(bed: Bed, rules: Path) -> None:
    """A manager may run as many as its rule says, and another when one has ended."""
    server = serve(bed, rules)
    first = bed.start("/bin/sleep", "1000", name="nap-1")
    second = bed.start("/bin/sleep", "1000", name="nap-2")
    first.until_launched()
    second.until_launched()
    check_refused(bed.start("/bin/sleep", "1000", name="nap-3"), server, "2 applications of that manager run")
    first.process.terminate()
    first.wait()
    third = bed.start("/bin/sleep", "1000", name="nap-3")
    third.until_launched()


def test_what_others_see_and_do(bed: Bed, rules: Path, node9: Path) -> None:
    """A manager sees others' runs only by its rule, and gets hold of none that it might not launch."""
    server = serve(bed, rules)
    manager = bed.start("/bin/sleep", "1000", name="nap-1")
    pid = manager.until_launched()

    def seen(keys: Path) -> list[str]:
        said = run([CMAPP, "status", "--json", "--keys", str(keys), server.guest]).stdout
        return [one["name"] for one in json.loads(said)["runs"]]

    assert (seen(bed.keys.host), seen(node9)) == (["nap-1"], ["nap-1"])
    rules.write_text(RULES.replace('see = "node1"', ""))
    server.process.send_signal(1)
    until(lambda: "reloaded" in server.log, "the rules to be read again")
    assert (seen(bed.keys.host), seen(node9)) == (["nap-1"], [])
    options = ["--takeover", "--on-existing", "attach", "--run-id", manager.run_id]
    thief = bed.start("/bin/cat", "/dev/null", name="nap-1", keys=node9, options=options)
    check_refused(thief, server, "manager node1 has a run of that name which it might not launch itself")
    assert run([CMAPP, "hold", "--keys", str(node9), server.guest, "nap-1"]).returncode == 1
    assert alive(pid)


def test_without_a_policy(bed: Bed, tmp_path: Path) -> None:
    """Any command runs, but as the server's own user only, and the log says so at the start."""
    conf = tmp_path / "empty.conf"
    conf.touch()
    command = ["--config", str(conf), "--keys", str(bed.keys.guest), "--check", "--as", "node1"]
    server = bed.serve("--config", str(conf), run_as=())
    line = "no policy is written: every manager of the trusted authority may launch any command, as the server's own"
    assert line in server.log
    assert bed.start("/bin/true").wait() == 0
    check_refused(bed.start("/bin/true", options=["--user", "daemon"]), server, "no policy is written: user daemon is")
    check_refused(bed.start("/bin/true", options=["--group", "daemon"]), server, "group daemon is not among its groups")
    done = run([SERVER, *command, "--user", "daemon", "--", "/bin/true"])
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("node1 would be refused: no policy is written: user daemon is not among its users")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_configured_users(bed: Bed) -> None:
    """The first of the configured users is that of a launch which names none."""
    server = bed.serve(run_as=("daemon", "nobody"))
    options = ["--output", "stdout"]
    assert bed.run("/usr/bin/id", "-un", options=options).stdout == b"daemon\n"
    assert bed.run("/usr/bin/id", "-un", options=[*options, "--user", "nobody"]).stdout == b"nobody\n"
    check_refused(bed.start("/bin/true", options=["--user", "root"]), server, "user root is not among its users")


ASKED = [
    (
        ["--as", "node1", "--name", "nap-1", "--", "/bin/sleep", "5"],
        0,
        "node1 may launch nap-1 as the server's own user,",
    ),
    (["--as", "node1", "--", "/bin/sleep", "5"], 1, "node1 would be refused: rule 1 (sleepers): it is not for an appl"),
    (["--as", "node8", "--", "/bin/sleep", "5"], 1, "node8 would be refused: no rule names that manager"),
    (["--as", "node9", "--name", "mail"], 0, "node9 may launch mail as the server's own user, by rule 2 (readers): "),
    (["--as", "node9", "--name", "mail", "--user", "root"], 1, "must not bring its own user"),
    (["--as", "node1", "--unit", "nginx"], 1, "node1 would be refused: rule 1 (sleepers): it is not for an appl"),
    (["--as", "node1", "--name", "nap-1", "--unit", "nginx"], 1, "it has no such unit: nginx.service"),
]


@pytest.mark.parametrize(("words", "code", "text"), ASKED)
def test_what_would_happen(rules: Path, words: list[str], code: int, text: str) -> None:
    """An administrator asks the rules, without keys, a server or a launch."""
    done = run([SERVER, "--config", str(rules), "--check", *words])
    assert (done.returncode, done.stderr) == (code, "")
    assert text in done.stdout


def test_what_would_happen_to_a_unit(tmp_path: Path) -> None:
    """Units are asked about like commands."""
    rules = tmp_path / "units.conf"
    rules.write_text('[[allow]]\nmanagers = "node1"\nunits = "postgresql@*.service"\n')
    done = run([SERVER, "--config", str(rules), "--check", "--as", "node1", "--unit", "postgresql@15-main"])
    said = "node1 may launch postgresql@15-main as a unit of systemd's, by rule 1: postgresql@15-main.service\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


WRONG = {
    "without --check": (["--as", "node1", "--", "/bin/true"], "a command is of use with --check --as HOST only"),
    "without --as": (["--check", "--", "/bin/true"], "a command is of use with --check --as HOST only"),
    "without a name": (["--check", "--as", "node1", "--"], "nobody can launch that: name: must be a name"),
}


@pytest.mark.parametrize(("words", "text"), WRONG.values(), ids=WRONG)
def test_wrong_questions(words: list[str], text: str) -> None:
    """What cannot be answered is told in a line."""
    done = run([SERVER, *words])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("cmappserver: ")
    assert text in done.stderr
    assert done.stderr.count("\n") == 1


def test_wrong_rules(bed: Bed, rules: Path) -> None:
    """Rules that cannot be read end the start, and leave a server that runs as it was."""
    server = serve(bed, rules)
    rules.write_text(RULES.replace("names", "nmaes", 1))
    server.process.send_signal(1)
    why = f"{rules}: allow, rule 1: there is no key 'nmaes'; there are applications, commands,"
    until(lambda: f"not reloaded, everything stays as it was: {why}" in server.log, "the refusal")
    assert bed.start("/bin/sh", "-c", "exit 7", name="nap-1").wait() == 7
    done = run([SERVER, "--config", str(rules), "--check"])
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"cmappserver: {why}")
