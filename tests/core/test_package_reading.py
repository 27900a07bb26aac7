"""What may stand in the file of a guest package: each mistake is told with its line, all of them at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.cluster.package import Head, Package, Rules, Vm
from cmapp.cluster.reading import examine
from cmapp.core.options import options_of
from cmapp.host.settings import Settings
from tests.core.package_texts import GOOD, PATH, changed, complaints

MACHINE = 'start = "/bin/up"\nstop = "/bin/down"\nstate = "/bin/state"\n'
WRONG = {  # the change, the line that is told, and a part of the sentence
    "no TOML": (changed((3, "guest = ")), 3, "not valid TOML"),
    "a table twice": (changed((16, "[service.db]")), 16, "not valid TOML"),
    "no name": (changed((1, "")), 1, "there is no name"),
    "no hosts": (changed((2, "")), 1, "there is no hosts"),
    "no guest": (changed((3, "")), 1, "there is no guest"),
    "a name with a slash": (changed((1, 'name = "a/b"')), 1, "letters, digits and ._-"),
    "a name that begins with a digit": (changed((1, 'name = "1a"')), 1, "begins with a letter"),
    "a long name": (changed((1, f'name = "{"a" * 40}"')), 1, "1 to 39"),
    "a name that is a number": (changed((1, "name = 5")), 1, "not 5"),
    "hosts that are no list": (changed((2, 'hosts = "n1"')), 2, "at least one host"),
    "no host at all": (changed((2, "hosts = []")), 2, "at least one host"),
    "a host with a space": (changed((2, 'hosts = ["n 1"]')), 2, "the hosts' names"),
    "a host twice": (changed((2, 'hosts = ["n1", "n2", "n1"]')), 2, "a host is there twice"),
    "a guest that is no address": (changed((3, 'guest = "10.0.0"')), 3, "not an address"),
    "a guest by its CID": (changed((3, 'guest = "vsock:3"')), 3, "no name of a guest"),
    "a relative log": (changed((4, 'log = "erp.log"')), 4, "absolute path"),
    "relative keys": (changed((5, 'keys = "keys"')), 5, "absolute path"),
    "an unknown key": (changed((5, "hots = 1")), 5, "there is no key 'hots' here"),
    "vm is no table": (changed((5, 'vm = "erp"'), (6, ""), (7, ""), (8, "")), 5, "must be a table: write [vm]"),
    "no vm": (changed((6, ""), (7, ""), (8, "")), 1, "there is no [vm]"),
    "an unknown key of the machine": (changed((8, "migrat = true")), 8, "there is no key 'migrat' here"),
    "neither a domain nor commands": (changed((7, "")), 6, "neither which domain"),
    "a domain and commands": (changed((8, 'stop = "/bin/down"')), 8, "not both"),
    "a domain and a way to migrate": (changed((8, 'migrate_command = "/bin/m"')), 8, "not both"),
    "a command missing": (changed((7, 'start = "/bin/up"\nstop = "/bin/down"'), (8, "")), 6, "there is no state"),
    "a relative command": (changed((7, MACHINE.replace("/bin/down", "down")), (8, "")), 8, "down is no absolute path"),
    "no way to migrate": (changed((7, MACHINE)), 11, "give migrate_command"),
    "the stock agent of commands": (changed((7, MACHINE), (8, 'agent = "stock"')), 11, "domains of libvirt only"),
    "a URI and no domain": (changed((7, MACHINE), (8, 'uri = "x"')), 11, "uri is for a domain"),
    "the stock agent without XML": (changed((8, 'agent = "stock"')), 8, "needs config"),
    "another agent": (changed((8, 'agent = "other"')), 8, "cmapp or stock"),
    "another way to move": (changed((8, 'failover = "jump"')), 8, "restart or migrate"),
    "another way to reach libvirt there": (changed((8, 'migration_transport = "rsh"')), 8, "ssh, tls, tcp"),
    "a machine restarted for ever": (changed((8, 'restart = "unlimited"')), 8, "a host may be what is wrong"),
    "no duration": (changed((8, 'stop_timeout = "long"')), 8, "a duration such as"),
    "no service": (GOOD.partition("[service")[0], 1, "there is no service"),
    "service is no table": (GOOD.partition("[service")[0].replace("[vm]", "service = 1\n[vm]"), 6, "must be a table"),
    "a service is no table": (changed((9, "[service]\nx = 5"), (10, "")), 10, "must be a table: write [service.x]"),
    "a service called vm": (changed((16, "[service.vm]")), 16, "the machine's resource"),
    "a service with a slash": (changed((16, '[service."a/b"]')), 16, "'a/b' cannot name a service"),
    "a service with an at sign": (changed((16, '[service."a@b"]')), 16, "'a@b' cannot name a service"),
    "an unknown key of a service": (changed((13, 'usr = "postgres"')), 13, "there is no key 'usr' here"),
    "a wrong setting": (changed((13, 'ready = "https:x"')), 13, "ready is wrong: 'https:x' cannot be asked"),
    "a setting of another kind": (changed((13, "health_retries = 0")), 13, "health_retries must be"),
    "a command that is none": (changed((12, "command = []")), 12, "a list of 1 to"),
    "a command with an open quote": (changed((12, 'command = "/bin/x \'"')), 12, "not closed"),
    "a unit that is none": (changed((12, 'unit = "db.timer"')), 12, "the name of a unit"),
    "a unit with a user": (changed((12, 'unit = "db.service"')), 11, "--unit and --user contradict each other"),
    "a unit of all": (changed((10, 'unit = "db.service"')), 10, "each application's own"),
    "a unit and a command": (changed((13, 'unit = "db.service"')), 13, "a unit or a command, not both"),
    "restarts below none": (changed((14, "service_restart = -1")), 14, "none, unlimited or a whole number"),
    "restarts as true": (changed((14, "service_restart = true")), 14, "none, unlimited or a whole number"),
    "fail fast as a word": (changed((15, 'service_fail_fast = "yes"')), 15, "true or false"),
    "only for the command line": (changed((13, 'run_id = "x"')), 13, "run_id is not for a package"),
    "a relative path": (changed((13, 'result = "x"')), 13, "result must be an absolute path"),
    "shared by all": (changed((10, 'result = "/run/x"')), 10, "each application's own"),
    "a service's rule for all": (changed((10, "service_restart = 1")), 10, "each application's own"),
    "an unknown setting of all": (changed((10, "x = 1")), 10, "there is no key 'x' here"),
    "an application twice": (changed((18, 'name = "db"')), 18, "is that of service db too"),
    "settings that contradict each other": (changed((13, 'pid_file = "/run/x"')), 11, "--type forking only"),
    "two second opinions": (changed((13, 'domain = "a"\nsecond_opinion = "/bin/b"')), 11, "two answers"),
}


@pytest.mark.parametrize(("text", "line", "part"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_told_with_its_line(text: str, line: int, part: str) -> None:
    """One mistake is one complaint, at the line where it is made, and there is no package."""
    ((told, sentence),) = complaints(text)
    assert told == line
    assert part in sentence
    assert examine(PATH, text)[0] is None


def test_all_mistakes_are_told_at_once() -> None:
    """Nobody has to run it again for each, and they come in the order of the file."""
    text = changed((2, "hosts = []"), (8, "migrate = 1"), (13, "usr = 1"), (14, "service_restart = -1"), (18, "x = 2"))
    assert [line for line, _ in complaints(text)] == [2, 8, 13, 14, 18]


def good(text: str = GOOD) -> Package:
    """Return a package that is in order."""
    package, wrong = examine(PATH, text)
    assert package is not None, wrong
    return package


def test_what_it_means() -> None:
    """Each service has what the file says of it, then what it says of all, then cmappmgr's own defaults."""
    package = good()
    db, web = package.services
    assert (package.name, package.hosts, package.guest) == ("erp", ("n1", "n2"), "10.0.0.50")
    assert (db.command, db.restart, db.halt_timeout, db.line) == (("/usr/bin/db", "-D", "/data"), 3, 60.0, 11)
    assert (web.command, web.restart, web.line) == (("/usr/bin/web", "--port", "80"), None, 16)
    assert (db.settings.user, db.settings.name, db.settings.poll_interval) == ("postgres", "db", 2.0)
    assert (web.settings.keys, web.settings.log_file) == ("/etc/cmapp/keys", "/var/log/cmapp/erp.log")
    assert web.given == {
        "keys": "/etc/cmapp/keys",
        "name": "web",
        "poll_interval": 2.0,
        "domain": "erp",
        "log_file": "/var/log/cmapp/erp.log",
    }
    assert package.service("web") is web
    assert package.line("service", "db", "user") == 13
    assert package.line("service", "db", "cwd") == 11


def test_a_service_overrules_what_is_said_of_all() -> None:
    """Its own key wins, over the package's log, keys and second opinion too."""
    text = changed(
        (13, 'poll_interval = "9s"\nlog_file = "/var/log/db.log"\nsecond_opinion = "/bin/ask"\nname = "main"')
    )
    settings = good(text).service("db").settings
    assert (settings.poll_interval, settings.log_file, settings.name) == (9.0, "/var/log/db.log", "main")
    assert (settings.domain, settings.second_opinion) == ("", ("/bin/ask",))


def test_a_machine_of_commands_is_asked_by_its_own() -> None:
    """Before a guest is given up that libvirt does not know, its state command is asked."""
    settings = good(changed((7, MACHINE), (8, ""))).service("db").settings
    assert (settings.domain, settings.second_opinion) == ("", ("/bin/state",))


@pytest.mark.parametrize(("said", "meant"), [('"none"', 0), ("0", 0), ("7", 7), ('"7"', 7), ('"unlimited"', None)])
def test_restarts(said: str, meant: int | None) -> None:
    """A number, none, which is 0, or unlimited, which is None."""
    assert good(changed((14, f"service_restart = {said}"))).service("db").restart == meant


def test_the_default_of_the_halt_timeout_is_enough() -> None:
    """It is what a halt may take: the stop and its margin, or the bound of a guest that does not answer."""
    web = good().service("web")
    assert web.halt_timeout >= web.settings.patience.bound
    long = good(changed((17, 'command = "/bin/web"\nstop_timeout = "5m"'))).service("web")
    assert long.halt_timeout == 315


def test_the_keys_are_those_of_the_tables() -> None:
    """No key of a service is one of cmappmgr's too, so which table it is of is never a question."""
    assert not Rules.fields().keys() & options_of(Settings).keys()
    assert all(options_of(kind).keys() == kind.fields().keys() for kind in (Head, Vm, Rules))


WORDS = st.sampled_from(
    ["name", "hosts", "guest", "vm", "service", "settings", "db", "unit", "command", "domain", "env", "limit", "ready"]
)
LEAVES = st.sampled_from(
    ["1", "-1", "1.5", "true", '""', '"x"', '"5s"', "[]", '["/a"]', "{}", "{a = 1}", "1979-05-27", "nan"]
)


@given(st.lists(st.tuples(st.lists(WORDS, min_size=1, max_size=3), LEAVES), max_size=6), st.integers(0, 18))
def test_no_document_is_too_odd(items: list[tuple[list[str], str]], cut: int) -> None:
    """Whatever stands in it, there is a package or a complaint with a line that is there."""
    text = "\n".join([*(f"{'.'.join(keys)} = {value}" for keys, value in items), *GOOD.splitlines()[cut:]])
    package, wrong = examine(PATH, text)
    assert (package is None) == bool(wrong)
    assert all(1 <= each.line <= text.count("\n") + 1 for each in wrong)
