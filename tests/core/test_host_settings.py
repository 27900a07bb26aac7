"""What cmappmgr's settings accept, and the launch that they make."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from cmapp.core.options import options_of, settle
from cmapp.core.pursuit import Patience
from cmapp.core.rules import HealthRules, Kind, OnExisting, OrphanAction, OrphanRules, Probe, ReadyRules, StopRules
from cmapp.core.wire import LINE_LIMIT
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from cmapp.host.task import lacking, new_run_id, task_of
from cmapp.host.values import OutputTo
from cmapp.net.address import Address

RUN = "01234567-89ab-4def-8123-456789abcdef"


def settings(**given: Any) -> Settings:
    """Return settings as the command line gives them."""
    made: Settings = settle(Settings, ("the command line", given))
    return made


def test_every_setting_is_an_option() -> None:
    """Nothing can be set that the command line and the manual do not know."""
    assert set(options_of(Settings)) == set(Settings.fields()) == set(Settings.__match_args__)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({"poll_interval": "500ms"}, 0.5),
        ({"poll_timeout": 3}, 3.0),
        ({"connect_timeout": "2m"}, 120.0),
        ({"stop_timeout": "0"}, 0.0),
        ({"stop_timeout": "0.01ms"}, 0.00001),
        ({"stop_signal": "INT"}, 2),
        ({"stop_signal": "SIGRTMIN+3"}, 37),
        ({"stop_signal": 9}, 9),
        ({"umask": "027"}, 0o027),
        ({"umask": 0o077}, 0o077),
        ({"env": ["A=b=c", "D=", "A=e"]}, {"A": "e", "D": ""}),
        ({"env": {"A": "b"}}, {"A": "b"}),
        ({"output": "log"}, OutputTo.LOG),
        ({"address": "[2001:db8::1]:99"}, "[2001:db8::1]:99"),
        ({"cwd": "/srv"}, "/srv"),
        ({"syslog": False}, False),
        ({"run_id": RUN.upper()}, RUN),
        ({"on_existing": "attach"}, OnExisting.ATTACH),
        ({"type": "forking"}, Kind.FORKING),
        ({"pid_file": "/run/web.pid"}, "/run/web.pid"),
        ({"ready": "tcp:80"}, "tcp:80"),
        ({"health_command": "/bin/check 'a b'"}, ("/bin/check", "a b")),
        ({"health_command": ["/bin/check", "a b"]}, ("/bin/check", "a b")),
        ({"stop_command": "/bin/stop --now"}, ("/bin/stop", "--now")),
        ({"health_retries": "5"}, 5),
        ({"health_retries": 5}, 5),
        ({"watchdog_timeout": "30s"}, 30.0),
        ({"link_timeout": "0"}, 0.0),
        ({"orphan_timeout": "1d"}, 86400.0),
        ({"orphan_action": "keep"}, OrphanAction.KEEP),
        ({"detach_on_signal": "SIGTERM"}, 15),
        ({"limit": ["nofile=1024"]}, {"nofile": (1024, 1024)}),
        ({"limit": ["NOFILE=1K:2K", "core=infinity"]}, {"nofile": (1024, 2048), "core": (-1, -1)}),
        ({"limit": ["memory=512M:1G", "pids=100:infinity"]}, {"memory": (2**29, 2**30), "pids": (100, -1)}),
        ({"limit": {"as": "1T", "cpu": 60, "nice": "0:-1"}}, {"as": (2**40, 2**40), "cpu": (60, 60), "nice": (0, -1)}),
        ({"limit": {"memory": ["1M", "2M"]}}, {"memory": (2**20, 2**21)}),
    ],
    ids=str,
)
def test_accepted(given: dict[str, Any], kept: Any) -> None:
    """A value is kept in the form that the work needs, from a command line as from a file."""
    assert [getattr(settings(**given), name) for name in given] == [kept]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"poll_interval": "0"}, "poll_interval must be a duration of at least 1ms, not '0'"),
        ({"poll_timeout": "soon"}, "poll_timeout must be a duration such as 5s, 500ms or 2m, not 'soon'"),
        ({"connect_timeout": "-1s"}, "connect_timeout must be a duration"),
        ({"stop_signal": "FOO"}, "stop_signal must be a signal such as TERM, or a number from 1 to 64, not 'FOO'"),
        ({"stop_signal": 65}, "stop_signal must be a signal"),
        ({"umask": "9"}, "umask must be a whole number from 0 to 511, not '9'"),
        ({"umask": "1000"}, "umask must be"),
        ({"env": ["A"]}, "env must be made of NAME=VALUE, not ['A']"),
        ({"env": ["=b"]}, "env must be made of NAME=VALUE"),
        ({"env": "A=b"}, "env must be made of NAME=VALUE"),
        ({"env": {"A=": "b"}}, "env 'A=' is not the name of a variable"),
        ({"output": "tape"}, "output must be one of none, log, stdout"),
        ({"address": "vm 1"}, "address must be an address such as"),
        ({"name": ""}, "name must be a name of 1 to 64 characters"),
        ({"name": "a b"}, "name must be made of letters"),
        ({"cwd": "srv"}, "cwd must be an absolute path, not 'srv'"),
        ({"keys": ""}, "keys must be a path"),
        ({"log_file": "a\0b"}, "log_file has a NUL"),
        ({"syslog": "no"}, "syslog must be true or false"),
        ({"run_id": "mine"}, "run_id must be a UUID in lower case, not 'mine'"),
        ({"on_existing": "kill"}, "on_existing must be one of replace, attach, refuse"),
        ({"type": "oneshot"}, "type must be one of simple, forking, notify"),
        ({"pid_file": "web.pid"}, "pid_file must be an absolute path"),
        ({"ready": "soon"}, "ready is wrong: 'soon' does not say when it is ready: write notify, "),
        ({"ready": 80}, "ready must be a string"),
        ({"health_command": "'a"}, 'health_command is wrong: the command "\'a" has a quote'),
        ({"health_command": ""}, "health_command is wrong: '' is not a command"),
        ({"health_command": []}, "health_command must be a list of 1 to"),
        ({"health_interval": "0"}, "health_interval must be a duration of at least 1ms"),
        ({"health_retries": "0"}, "health_retries must be a whole number from 1 to 1000"),
        ({"health_retries": "many"}, "health_retries must be a whole number"),
        ({"orphan_action": "kill"}, "orphan_action must be one of stop, keep"),
        ({"detach_on_signal": "USR2"}, "detach_on_signal must be one of TERM, INT and HUP"),
        ({"limit": ["nofile"]}, "limit must be made of NAME=SOFT[:HARD]"),
        ({"limit": ["nofiles=1"]}, "limit must be an object with limits of as, core"),
        ({"limit": ["nofile=2:1"]}, "limit must be limits whose soft one is not above"),
        ({"limit": ["nofile=-2"]}, "limit must be limits such as nofile=1024"),
        ({"limit": ["memory=1.5G"]}, "limit must be limits such as nofile=1024"),
        ({"limit": ["memory=1GB"]}, "limit must be limits such as"),
        ({"limit": ["memory="]}, "limit must be limits such as"),
        ({"limit": {"memory": True}}, "limit must be limits such as"),
        ({"limit": {"memory": [1]}}, "limit must be limits of [SOFT, HARD]"),
        ({"colour": "red"}, "there is no setting 'colour'; there are address, "),
    ],
    ids=str,
)
def test_refused(given: dict[str, Any], sentence: str) -> None:
    """A value that is none is told with its source and its name."""
    with pytest.raises(SettingsError) as error:
        settings(**given)
    assert str(error.value).startswith(f"the command line: {sentence}")


def test_patience() -> None:
    """The waits are what was set."""
    given = settings(poll_interval="1s", poll_timeout="2s", connect_timeout="3s", stop_timeout="4s", link_timeout="5s")
    assert given.patience == Patience(1, 2, 3, 4, 5)


def test_task() -> None:
    """The launch says all that was set, the guest is who must answer, and the address is where."""
    given = settings(
        address="192.0.2.7", user="www", group="web", cwd="/srv", env=["A=b"], umask="077", output="log",
        stop_timeout="5s", stop_signal="INT",
    )  # fmt: skip
    task = task_of(given, "vm1:99", ["/opt/web.sh", "-x"], RUN)
    assert (task.guest, task.address) == (Address("vm1", 99), Address("192.0.2.7", 99))
    launch = task.launch
    assert (launch.name, launch.run_id, launch.argv) == ("web.sh", RUN, ("/opt/web.sh", "-x"))
    assert (launch.user, launch.group, launch.cwd, launch.env, launch.umask) == (
        "www",
        "web",
        "/srv",
        {"A": "b"},
        0o077,
    )
    assert (launch.stop, launch.output) == (StopRules(2, 5.0), True)


def test_task_that_asks_for_all() -> None:
    """What keeps an application well, and what becomes of it without a manager, travels with its launch."""
    given = settings(
        on_existing="attach", takeover=True, type="forking", pid_file="/run/web.pid", ready="tcp:80",
        ready_timeout="1s", health_command="/bin/check -q", health_interval="2s", health_timeout="3s",
        health_retries=4, watchdog_timeout="5s", stop_command="/bin/stop it", stop_timeout="6s", orphan_timeout="7s",
        orphan_action="keep", limit=["nofile=8:9"],
    )  # fmt: skip
    launch = task_of(given, "vm1", ["/bin/web"], RUN).launch
    assert (launch.on_existing, launch.takeover) == (OnExisting.ATTACH, True)
    assert (launch.kind, launch.pid_file) == (Kind.FORKING, "/run/web.pid")
    assert launch.ready == ReadyRules(Probe.TCP, "80", timeout=1.0)
    assert launch.health == HealthRules(("/bin/check", "-q"), 2.0, 3.0, 4)
    assert launch.watchdog == 5.0
    assert launch.stop == StopRules(15, 6.0, ("/bin/stop", "it"))
    assert launch.orphan == OrphanRules(7.0, OrphanAction.KEEP)
    assert launch.limits == {"nofile": (8, 9)}
    assert lacking(launch, ()) == ["attach", "health", "kinds", "limits", "orphans", "readiness"]
    assert lacking(launch, ("attach", "kinds", "limits", "orphans", "readiness")) == ["health"]


def test_application_that_notifies_says_when_it_is_ready() -> None:
    """As with systemd, type notify means that READY=1 is waited for, unless something else is asked."""
    ready = task_of(settings(type="notify", ready_timeout="9s"), "vm1", ["web"], RUN).launch.ready
    assert ready == ReadyRules(Probe.NOTIFY, timeout=9.0)
    ready = task_of(settings(type="notify", ready="http:80/"), "vm1", ["web"], RUN).launch.ready
    assert ready is not None
    assert ready.probe is Probe.HTTP
    assert task_of(settings(), "vm1", ["web"], RUN).launch.ready is None


@pytest.mark.parametrize("kind", ["simple", "notify"])
def test_pid_file_of_the_wrong_type(kind: str) -> None:
    """A pid file that nobody would read is told before anything is launched."""
    with pytest.raises(SettingsError, match="--pid-file is of use with --type forking only"):
        task_of(settings(pid_file="/run/web.pid", type=kind), "vm1", ["web"], RUN)


def test_new_run_ids() -> None:
    """Each is a UUID of version 4, and another one."""
    made = {new_run_id() for _ in range(100)}
    assert len(made) == 100
    assert all(str(uuid.UUID(run)) == run and uuid.UUID(run).version == 4 for run in made)


def test_task_by_default() -> None:
    """Without settings the guest's name is where it is called, and nothing is asked that was not said."""
    task = task_of(settings(), "vm1", ["web"], RUN)
    assert (task.guest, task.address) == (Address("vm1", 5315), Address("vm1", 5315))
    assert task.launch.said() == [("id", 2), ("name", "web"), ("run_id", RUN), ("argv", ("web",))]


@pytest.mark.parametrize(
    ("guest", "command", "sentence"),
    [
        ("vm1", [], "there is no command"),
        ("vm1", [""], "'', from the command, cannot name an application: it must be a name"),
        ("vm1", ["/opt/.hidden"], "'.hidden', from the command, cannot name an application: it must be made of"),
        ("vm1", ["/opt/a b"], "'a b', from the command, cannot name an application"),
        ("vm1", ["web", "\udcff"], "the command cannot be launched: argv: has a NUL or a lone surrogate in it"),
        ("vm1", ["web", "x" * 40_000], "the command cannot be launched: argv: is longer than"),
        ("vm1", ["web", *["x" * 30_000] * 3], "the command and its environment are too long: a launch of 90"),
        ("vm1:x", ["web"], "'vm1:x' has no usable port"),
        ("", ["web"], "'' is not an address"),
    ],
)  # fmt: skip
def test_no_task(guest: str, command: list[str], sentence: str) -> None:
    """What cannot be launched is told before anything is connected."""
    assert LINE_LIMIT < 90_000
    with pytest.raises(SettingsError) as error:
        task_of(settings(), guest, command, RUN)
    assert str(error.value).startswith(sentence)
