"""What Serviceguard and systemd are given of a guest package: read back, it means what the package says."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmapp.cluster import serviceguard, systemd
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from cmapp.vm import settings as vmsettings
from tests.core.package_texts import GOOD, PATH, changed, heard, read

# ---- Serviceguard ------------------------------------------------------------------------------------------------


def parameters(text: str) -> list[tuple[str, str]]:
    """Return the parameters of a package file of Serviceguard, in order."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(key, value) for key, _, value in (line.partition(" ") for line in lines) for value in [value.strip()]]


def services(text: str) -> dict[str, dict[str, str]]:
    """Return the five parameters of each service, in order."""
    found: dict[str, dict[str, str]] = {}
    for key, value in parameters(text):
        if key == "service_name":
            found[value] = {}
        elif key.startswith("service_"):
            found[list(found)[-1]][key] = value
    return found


def test_a_package_of_serviceguard() -> None:
    """The package fails over along its hosts, and does not go back by itself."""
    said = parameters(serviceguard.render(read(GOOD))["erp.conf"])
    assert said[: [key for key, _ in said].index("service_name")] == [
        ("package_name", "erp"),
        ("package_description", '"Guest 10.0.0.50, watched by cmappmgr"'),
        ("package_type", "failover"),
        ("node_name", "n1"),
        ("node_name", "n2"),
        ("auto_run", "yes"),
        ("node_fail_fast_enabled", "no"),
        ("run_script_timeout", "no_timeout"),
        ("halt_script_timeout", "no_timeout"),
        ("script_log_file", "/var/log/cmapp/erp.log"),
        ("failover_policy", "configured_node"),
        ("failback_policy", "manual"),
        ("external_script", "/etc/cmapp/packages/erp-vm.sh"),
    ]


def test_the_services_of_serviceguard() -> None:
    """The machine comes first; each service restarts, fails and halts as the package says, in whole seconds."""
    package = read(changed((15, 'service_halt_timeout = "60.2s"\nservice_fail_fast = true')))
    found = services(serviceguard.render(package, "/opt/cmapp/bin")["erp.conf"])
    assert list(found) == ["erp-vm", "erp-db", "erp-web"]
    rules = {name: [value for key, value in kept.items() if key != "service_cmd"] for name, kept in found.items()}
    assert rules == {
        "erp-vm": ["none", "no", "155"],
        "erp-db": ["3", "yes", "61"],
        "erp-web": ["unlimited", "no", str(int(package.service("web").halt_timeout))],
    }
    for service in package.services:
        (command,) = shlex.split(found[f"erp-{service.name}"]["service_cmd"])
        words = tuple(shlex.split(command))
        assert words[0] == "/opt/cmapp/bin/cmappmgr"
        settings, guest, argv = heard(words[1:], Settings, "guest")
        assert settings == service.settings.replace(connect_timeout=180.0)  # for as long as the machine may start
        assert (guest, tuple(argv)) == (package.guest, service.command)


def test_the_script_of_serviceguard() -> None:
    """It stops the machine that the service runs, and does nothing else."""
    package = read(changed((7, 'start = "/bin/up"\nstop = "/bin/down -v"\nstate = "/bin/state"'), (8, "")))
    (line,) = re.findall(r"^    stop\) (.*) </dev/null", serviceguard.render(package)["erp-vm.sh"], re.MULTILINE)
    words = tuple(shlex.split(line))
    assert words[:3] == ("/usr/bin/cmapp", "vm", "stop")
    settings, domain, _ = heard(words[3:], vmsettings.Settings, "domain")
    assert (domain, settings.stop_command) == ("erp", ("/bin/down", "-v"))


REFUSED = {
    "a quote": (changed((12, """command = ["/bin/x", "it's"]""")), 11, "keeps no quote"),
    "a dollar": (changed((12, """command = ["/bin/x", "$HOME"]""")), 11, "keeps no quote"),
    "an end of line": (changed((13, 'env = {A = "x\\ny"}')), 11, "keeps no quote"),
    "a word of a word": (changed((13, 'health_command = ["/bin/x", "a b"]')), 11, "put the command into a script"),
    "a long name": (changed((16, f"[service.{'x' * 36}]")), 16, "39 characters"),
    "a long halt": (changed((15, 'service_halt_timeout = "72m"')), 11, "waits 4294 s at most"),
    "a machine that takes long": (changed((8, 'stop_timeout = "2h"')), 6, "waits 4294 s at most"),
    "many services": (GOOD + "".join(f"[service.s{number}]\n" for number in range(28)), 11, "30 services"),
}


@pytest.mark.parametrize(("text", "line", "part"), REFUSED.values(), ids=REFUSED)
def test_what_serviceguard_does_not_take(text: str, line: int, part: str) -> None:
    """It is refused with its line, not left for cmcheckconf."""
    with pytest.raises(SettingsError, match=rf"^{PATH}:{line}: .*{part}"):
        serviceguard.render(read(text))


def test_as_many_services_as_serviceguard_takes() -> None:
    """Twenty-nine and the machine."""
    text = GOOD + "".join(f"[service.s{number}]\n" for number in range(27))
    assert len(services(serviceguard.render(read(text))["erp.conf"])) == 30


# ---- systemd -----------------------------------------------------------------------------------------------------


def unit(text: str) -> dict[str, list[str]]:
    """Return what a unit sets, by key."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def test_the_units_of_a_package() -> None:
    """One for the machine and for each service, the target that holds them, and the one that means that it gave up."""
    units = {name: unit(text) for name, text in systemd.render(read(GOOD)).items()}
    assert list(units) == ["erp.target", "erp-given-up@.service", "erp-vm.service", "erp-db.service", "erp-web.service"]
    assert units["erp.target"]["Wants"] == ["erp-vm.service erp-db.service erp-web.service"]
    assert units["erp-given-up@.service"]["ExecStart"] == ["systemctl stop --no-block erp.target"]
    for name in ("erp-vm.service", "erp-db.service", "erp-web.service"):
        assert units[name]["PartOf"] == ["erp.target"]
        assert units[name]["OnFailure"] == ["erp-given-up@%N.service"]
        assert units[name]["Restart"] == ["always"]
        assert [*map(int, units[name]["SuccessExitStatus"][0].split())] == [*range(1, 256)]
    for name in ("erp-db.service", "erp-web.service"):
        assert units[name]["BindsTo"] == units[name]["After"] == ["erp-vm.service"]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("service_restart = 3", {"StartLimitIntervalSec": ["infinity"], "StartLimitBurst": ["4"]}),
        ('service_restart = "none"', {"StartLimitIntervalSec": ["infinity"], "StartLimitBurst": ["1"]}),
        ('service_restart = "unlimited"', {"StartLimitIntervalSec": ["0"]}),
        ('service_restart = "unlimited"\nservice_fail_fast = true', {"StartLimitIntervalSec": ["0"]}),
        (
            "service_restart = 1\nservice_fail_fast = true",
            {
                "StartLimitAction": ["reboot-force"],
                "StartLimitIntervalSec": ["infinity"],
                "StartLimitBurst": ["2"],
            },
        ),
    ],
)
def test_how_often_systemd_restarts(said: str, expected: dict[str, list[str]]) -> None:
    """N restarts are N + 1 starts, and the count never decays."""
    found = unit(systemd.render(read(changed((14, said))))["erp-db.service"])
    assert {key: value for key, value in found.items() if key.startswith("StartLimit")} == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [("60s", {"TimeoutStopSec": ["60"]}), ("500ms", {"TimeoutStopSec": ["1"]}), ("0", {"KillSignal": ["SIGKILL"]})],
)
def test_how_systemd_halts(said: str, expected: dict[str, list[str]]) -> None:
    """The halt timeout, and at once where there is none, which systemd would take for no limit."""
    found = unit(systemd.render(read(changed((15, f'service_halt_timeout = "{said}"'))))["erp-db.service"])
    assert {key: value for key, value in found.items() if key in {"TimeoutStopSec", "KillSignal"}} == expected


@pytest.mark.parametrize(("hosts", "alone"), [('["n1"]', True), ('["n1", "n2"]', False)])
def test_only_a_package_of_one_host_is_sure_to_be_alone(hosts: str, alone: bool) -> None:  # noqa: FBT001 - a case
    """Without a cluster nobody else vouches that the machine runs nowhere else."""
    found = unit(systemd.render(read(changed((2, f"hosts = {hosts}"))))["erp-vm.service"])
    assert ("--alone" in found["ExecStart"][0]) is alone


ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", '\\"': '"', "\\\\": "\\", "%%": "%", "$$": "$"}


def unquoted(line: str) -> list[str]:
    """Read a command line as systemd.service(5) and systemd.syntax(7) say, for words that are plain or in quotes."""
    words = re.findall(r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', line)
    return [re.sub(r"\\.|%%|\$\$", lambda found: ESCAPES[found[0]], quoted) or plain for quoted, plain in words]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8), max_size=5))
def test_systemd_reads_the_words_as_they_are(words: list[str]) -> None:
    """Nothing in a word is a variable, a specifier, an escape, or the end of a command."""
    line = systemd.command_line(words)
    assert unquoted(line) == words
    assert "\n" not in line
    assert not re.search(r"(?<!%)(%%)*%(?!%)|(?<!\$)(\$\$)*\$(?!\$)", line)
