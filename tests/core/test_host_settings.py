"""What cmappmgr's settings accept, and the launch that they make."""

from __future__ import annotations

from typing import Any

import pytest

from cmapp.core.messages import StopRules
from cmapp.core.options import options_of, settle
from cmapp.core.pursuit import Patience
from cmapp.core.wire import LINE_LIMIT
from cmapp.errors import SettingsError
from cmapp.host.settings import OutputTo, Settings, task_of
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
    given = settings(poll_interval="1s", poll_timeout="2s", connect_timeout="3s", stop_timeout="4s")
    assert given.patience == Patience(1, 2, 3, 4)


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
