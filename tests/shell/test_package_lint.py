"""What is unwise in a guest package: each remark at its line, and none about a package that is in order."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from cmapp.cluster.lint import lint
from cmapp.cluster.reading import examine
from cmapp.keys import authority as certificates
from cmapp.keys import keystore
from cmapp.net.identity import Identity, Role
from tests.core.package_texts import GOOD, PATH, changed

if TYPE_CHECKING:
    from pathlib import Path

DAYS = 100
NOW = datetime.now(UTC)
MANY = "".join(f"[service.s{number}]\n" for number in range(28))

HALT = 'service_halt_timeout = "60s"'
UNWISE = {  # the change, the line that is told, and a part of the sentence
    "one host": (changed((2, 'hosts = ["n1"]')), 2, "n1 is the only host"),
    "a host that is not known": (
        changed((2, 'hosts = ["n1", "n2", "n9"]')),
        2,
        "does not know the host n9: it has n1, n2",
    ),
    "more than 29 services": (GOOD + MANY, 11, "30 services and the machine are more than the 30"),
    "no folder for the log": (changed((4, 'log = "/nowhere/erp.log"')), 4, "no folder /nowhere for the log"),
    "no key folder": (changed((5, 'keys = "/nowhere/keys"')), 5, "no key folder /nowhere/keys"),
    "no key folder of one service": (changed((13, 'keys = "/nowhere/keys"')), 13, "no key folder /nowhere/keys"),
    "no key folder of all services": (changed((10, 'keys = "/nowhere/keys"')), 10, "no key folder /nowhere/keys"),
    "no XML of the domain": (changed((8, 'config = "/nowhere/x.xml"')), 8, "no /nowhere/x.xml on this host"),
    "a machine that is never shut down": (changed((8, "stop_timeout = 0")), 8, "only cut off"),
    "a machine that starts in no time": (changed((8, "start_timeout = 0")), 8, "no machine starts in no time"),
    "nobody to ask": (changed((8, 'uri = "qemu+tcp://elsewhere/system"')), 8, "give second_opinion"),
    "the stock agent's move": (
        changed((8, 'migrate = true\nagent = "stock"\nconfig = "/dev/null"')),
        9,
        "failover = 'migrate'",
    ),
    "halted at once": (changed((15, "service_halt_timeout = 0")), 15, "killed at once"),
    "halted before it is stopped": (changed((15, 'service_halt_timeout = "30s"')), 15, "at least 45 s"),
    "halted before the bound": (changed((15, f'{HALT}\nlink_timeout = "50s"')), 15, "shorter than the bound"),
    "fail fast after unlimited restarts": (
        changed((18, 'service_restart = "unlimited"\nservice_fail_fast = true')),
        19,
        "never comes to pass",
    ),
    "fail fast after some restarts": (
        changed((15, f"{HALT}\nservice_fail_fast = true")),
        16,
        "on Pacemaker the first failure",
    ),
    "a relative command": (changed((12, 'command = "db -D /data"')), 12, "db is no absolute path"),
    "a relative check": (changed((13, 'health_command = "check"')), 13, "check is no absolute path"),
    "a relative stop": (changed((13, 'stop_command = "halt"')), 13, "halt is no absolute path"),
    "a relative probe": (changed((13, 'ready = "command:probe -q"')), 13, "probe is no absolute path"),
    "less time to connect than to boot": (
        changed((10, 'connect_timeout = "1m"')),
        10,
        "less than the machine's start_timeout",
    ),
    "stopped before its manager is back": (changed((13, 'orphan_timeout = "10s"')), 13, "what a cluster takes"),
    "stopped before the link is given up": (
        changed((15, 'service_halt_timeout = "90s"\norphan_timeout = "49s"\nlink_timeout = "50s"')),
        16,
        "(link_timeout)",
    ),
    "kept for ever": (changed((13, 'orphan_action = "keep"')), 13, "takes for stopped"),
    "a restarted manager is refused": (changed((13, 'on_existing = "refuse"')), 13, "turns a cmappmgr away"),
    "left running by a halt": (changed((13, 'detach_on_signal = "TERM"')), 13, "TERM is how a cluster halts"),
    "no log at all": (changed((4, ""), (13, "syslog = false")), 13, "nothing is logged anywhere"),
}


def key_folder(folder: Path, identity: Identity, *sans: str, now: datetime = NOW) -> Path:
    """Return a key folder of an authority of its own that was made at the time `now`."""
    authority = certificates.make_authority("tests", days=10 * DAYS, now=now)
    keystore.write_authority(folder, authority, force=False, passphrase=None)
    issued = certificates.issue(authority, identity, sans=sans, days=DAYS, now=now)
    return keystore.hand_out(folder, identity, issued.certificate, authority, key=issued.key, force=False)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key folder of a host that is in order."""
    return key_folder(tmp_path_factory.mktemp("lint") / "authority", Identity(Role.HOST, "n1"))


def remarks(text: str, keys: Path) -> list[tuple[int, str]]:
    """Return what is unwise in a package whose folders are there."""
    log = keys.parent / "erp.log"
    package, wrong = examine(
        PATH, text.replace("/etc/cmapp/keys", str(keys)).replace("/var/log/cmapp/erp.log", str(log))
    )
    assert package is not None, wrong
    return [(each.line, each.text) for each in lint(package, {"n1", "n2"}, NOW)]


def test_nothing_is_said_of_what_is_in_order(keys: Path) -> None:
    """A package without a fault has no remark."""
    assert not remarks(GOOD, keys)


@pytest.mark.parametrize(("text", "line", "part"), UNWISE.values(), ids=UNWISE)
def test_what_is_unwise_is_told_with_its_line(text: str, line: int, part: str, keys: Path) -> None:
    """One fault is told at its line, with what to do about it; a setting of all services, of each."""
    found = remarks(text, keys)
    assert {told for told, sentence in found if part in sentence} >= {line}
    assert all(part in sentence for _, sentence in found)


def test_where_there_is_no_cluster_hosts_are_not_asked_for(keys: Path) -> None:
    """No cluster that tells means that nothing is known of its hosts."""
    package, _ = examine(PATH, GOOD)
    assert package is not None
    assert not [each for each in lint(package, (), NOW) if "does not know" in each.text]
    assert keys.is_dir()


@pytest.mark.parametrize(("age", "part"), [(DAYS - 10, "expires in 10 days"), (DAYS + 1, "expired")])
def test_keys_that_end_are_told(age: int, part: str, tmp_path: Path) -> None:
    """What `cmapp keys check` would say of the folder stands at the line that names it."""
    old = key_folder(tmp_path / "authority", Identity(Role.HOST, "n1"), now=NOW - timedelta(days=age))
    found = remarks(GOOD, old)
    assert {line for line, _ in found} == {5}
    assert any(part in sentence for _, sentence in found)


def test_keys_of_a_guest_are_no_keys_of_a_host(tmp_path: Path) -> None:
    """The folder must be one that a manager can use."""
    folder = key_folder(tmp_path / "authority", Identity(Role.GUEST, "vm1"), "10.0.0.50")
    assert {line for line, _ in remarks(GOOD, folder)} == {5}
