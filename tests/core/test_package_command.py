"""The command lines of a guest package: our own programs read off them what the package says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cmapp.cluster.command import manager_words, vm_words
from cmapp.core.options import options_of
from cmapp.host.settings import Settings
from cmapp.vm import settings as vmsettings
from tests.core.package_texts import GOOD, changed, heard, read

if TYPE_CHECKING:
    from cmapp.cluster.package import Package, Service

SAID = {  # every setting that a package can say, as its file says it, but for the flags that are off
    "type": '"notify"',
    "ready": "\"command:/bin/probe --say 'a b'\"",
    "ready_timeout": "0",
    "health_command": '["/bin/check", "--who", "it\'s \\"me\\"", ""]',
    "health_interval": '"1.5s"',
    "health_timeout": '"250ms"',
    "health_retries": '"7"',
    "watchdog_timeout": '"1m"',
    "user": '"post gres"',
    "group": '"-"',
    "cwd": '"/a b"',
    "env": '{A = "1 = 2", B = "", C = "x\\ny"}',
    "limit": '{nofile = "1024:4096", core = "infinity", memory = "1G"}',
    "umask": '"027"',
    "stop_timeout": '"1d"',
    "stop_signal": '"RTMIN+3"',
    "stop_command": "\"/bin/stop 'a b'\"",
    "keys": '"/etc/keys"',
    "address": '"vsock:3:99"',
    "name": '"main"',
    "on_existing": '"attach"',
    "takeover": "true",
    "poll_interval": "2",
    "poll_timeout": "3.25",
    "connect_timeout": '"1h"',
    "link_timeout": '"0"',
    "second_opinion": "\"/bin/ask --about 'this one'\"",
    "pause_timeout": '"0.000001s"',
    "orphan_timeout": '"10d"',
    "orphan_action": '"keep"',
    "detach_on_signal": '"HUP"',
    "output": '"log"',
    "log_file": '"/var/log/ä"',
    "syslog": "false",
    "result": '"/run/result"',
    "on_end": '["/bin/say", "$CMAPP_NAME"]',
    "allow_tls12": "true",
    "verbose": "true",
}
BY_ITSELF = {"unit": '"a@b.service"', "domain": '"-x"', "pid_file": '"/run/x"\ntype = "forking"'}


def check_heard(package: Package, service: Service, words: tuple[str, ...]) -> None:
    """Check that cmappmgr understands of its command line what the package says."""
    settings, guest, command = heard(words, Settings, "guest")
    assert settings == service.settings
    assert (guest, tuple(command)) == (package.guest, service.command)


@pytest.mark.parametrize(("key", "said"), [*SAID.items(), *BY_ITSELF.items()], ids=[*SAID, *BY_ITSELF])
def test_a_manager_hears_what_the_package_says(key: str, said: str) -> None:
    """A setting arrives as it was meant, whatever has to be quoted in it."""
    command = "" if key == "unit" else 'command = ["/bin/x", "--", "-y", ""]'
    package = read(changed((12, command), (13, f"{key} = {said}")))
    (service, _) = package.services
    assert key in service.given
    words = manager_words(package, service, "/usr/bin")
    assert words[0] == "/usr/bin/cmappmgr"
    check_heard(package, service, words[1:])


def test_every_setting_is_tried() -> None:
    """No setting that a file may have is left out above."""
    in_file = {key for key, option in options_of(Settings).items() if option.in_file}
    assert SAID.keys() | BY_ITSELF.keys() == in_file


def test_all_settings_at_once() -> None:
    """They do not disturb each other, and the one that the rendering adds does not overrule what is said."""
    package = read(changed((13, "\n".join(f"{key} = {said}" for key, said in SAID.items()))))
    (service, _) = package.services
    check_heard(package, service, manager_words(package, service, connect_timeout=5.0)[1:])


def test_what_is_added_counts_where_nothing_is_said() -> None:
    """A cluster manager's own needs come in as settings."""
    package = read(GOOD)
    settings, _, _ = heard(manager_words(package, package.services[0], connect_timeout=180.0)[1:], Settings, "guest")
    assert settings == package.services[0].settings.replace(connect_timeout=180.0)


def test_the_machine_of_libvirt() -> None:
    """The guest service hears which domain, which guest, and how long what may take."""
    text = changed((8, 'uri = "test:///x"\nconfig = "/etc/x.xml"\nstart_timeout = "4m"'), (10, 'address = "10.0.0.51"'))
    words = vm_words(read(text), "run", "/opt", alone=True)
    assert words[:3] == ("/opt/cmapp", "vm", "run")
    settings, domain, _ = heard(words[3:], vmsettings.Settings, "domain")
    assert domain == "erp"
    assert dict(settings.said()) == {
        "uri": "test:///x",
        "config": "/etc/x.xml",
        "guest": "10.0.0.50",
        "address": "10.0.0.51",
        "start_timeout": 240.0,
        "log_file": "/var/log/cmapp/erp.log",
        "alone": True,
    }


def test_the_machine_of_commands() -> None:
    """The guest service hears the commands, and calls the machine as the package is called."""
    machine = 'start = ["/bin/up", "a b"]\nstop = "/bin/down"\nstate = "/bin/state -v"'
    settings, domain, _ = heard(
        vm_words(read(changed((7, machine), (8, ""))), "run")[3:], vmsettings.Settings, "domain"
    )
    assert domain == "erp"
    assert (settings.start_command, settings.stop_command) == (("/bin/up", "a b"), ("/bin/down",))
    assert (settings.state_command, settings.alone) == (("/bin/state", "-v"), False)
