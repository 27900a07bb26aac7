"""What is rendered for Pacemaker: valid by its own crm_verify, and kept by its own tools to the letter."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cmapp.agent import resource as resource_agent
from cmapp.agent import vmresource
from cmapp.cluster import cib
from cmapp.cluster.pacemaker import render, sections
from cmapp.cluster.parameters import text_of, value_of
from cmapp.cluster.primitives import machine_id, service_id
from cmapp.core.options import settle
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings
from tests.system.scheduler import cluster_of, package_of, read

if TYPE_CHECKING:
    from pathlib import Path

    from cmapp.cluster.package import Package

pytestmark = pytest.mark.skipif(not shutil.which("crm_verify"), reason="there is no Pacemaker here")

EXAMPLES = 25
PRINTED = st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=("Cs", "Cc", "Zl", "Zp", "Cn"))
WORD = st.one_of(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=12),
    st.text(PRINTED, min_size=1, max_size=3),
)
NAME = st.just("a--b") | st.from_regex(r"[A-Za-z]([A-Za-z0-9._-]{0,10}[A-Za-z0-9])?", fullmatch=True)
DURATION = st.sampled_from(["1ms", "250ms", "0.1s", "10s", "90s", "2h", "3d"])
SERVICE = st.fixed_dictionaries(
    {"service_restart": st.sampled_from(["none", "unlimited", "3"]), "service_fail_fast": st.booleans()},
    optional={
        "command": st.lists(WORD, min_size=1, max_size=4).map(lambda words: ["/bin/x", *words]),
        "env": st.dictionaries(st.from_regex(r"[A-Z]{1,5}", fullmatch=True), WORD, max_size=2),
        "limit": st.dictionaries(
            st.sampled_from(["nofile", "core"]), st.sampled_from(["10:20", "infinity"]), max_size=2
        ),
        "stop_signal": st.sampled_from(["INT", "TERM", "USR2"]),
        "umask": st.sampled_from(["022", "777", "0"]),
        "link_timeout": DURATION,
        "orphan_timeout": DURATION,
        "stop_timeout": DURATION,
        "syslog": st.booleans(),
        "health_command": st.lists(WORD, min_size=1, max_size=3).map(lambda words: ["/bin/check", *words]),
        "user": st.just("postgres"),
        "health_retries": st.integers(1, 1000),
        "service_halt_timeout": DURATION,
        "on_unreachable": st.sampled_from(["guest", "wait", "fail"]),
    },
)
FILE = st.fixed_dictionaries(
    {
        "name": NAME,
        "hosts": st.lists(NAME, min_size=1, max_size=4, unique=True),
        "guest": st.sampled_from(["10.0.0.50", "[2001:db8::1]:5316", "vm1.example.org"]),
        "vm": st.fixed_dictionaries({"domain": WORD, "migrate": st.booleans()}),
        "service": st.dictionaries(NAME.filter(lambda name: name != "vm"), SERVICE, min_size=1, max_size=5),
    }
)


def toml(table: dict[str, object], *, inline: bool = False) -> str:
    """Return a table as TOML, whose strings are those of JSON where nothing is escaped that need not be."""
    if not inline:
        return "\n".join(f"{json.dumps(key)} = {_value(value)}" for key, value in table.items())
    return "{" + ", ".join(f"{json.dumps(key)} = {_value(value)}" for key, value in table.items()) + "}"


def _value(value: object) -> str:
    return toml(value, inline=True) if isinstance(value, dict) else json.dumps(value, ensure_ascii=False)


def kept(package: Package, folder: Path) -> dict[str, dict[str, str]]:
    """Return the parameters of each resource as Pacemaker's own tool tells them, once it has them."""
    file = folder / "kept.xml"
    file.touch(mode=0o600)
    file.write_bytes(ET.tostring(cluster_of(package)))
    told = subprocess.run(
        ["cibadmin", "--query", "--scope", "resources"],
        env={**os.environ, "CIB_file": str(file)},
        capture_output=True,
        check=True,
    )
    return {
        resource.attrib["id"]: {pair.attrib["name"]: pair.attrib["value"] for pair in resource[0]}
        for resource in ET.fromstring(told.stdout).findall("primitive")  # noqa: S314 - of cibadmin
        if resource.get("class") == "ocf"
    }


@given(FILE)
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_package(tmp_path: Path, table: dict[str, object]) -> None:
    """Whatever a file says is either refused with the reason, or valid, and comes back from Pacemaker as it was."""
    package = read(toml(table))
    try:
        sections(package)
    except SettingsError as error:
        assert "Pacemaker does not keep" in str(error) or "would be called" in str(error)  # noqa: PT017 - one of two
        return
    assert cib.complaints(cluster_of(package)) == []
    assert ET.fromstring(render(package)).find(f".//tag[@id='{package.name}']") is not None  # noqa: S314 - our own
    told = kept(package, tmp_path)
    assert list(told) == [machine_id(package), *(service_id(package, service) for service in package.services)]
    for service in package.services:
        said = told[service_id(package, service)]
        assert said["guest_resource"] == machine_id(package)
        texts = {key: value_of(key, said[key]) for key, value in service.given.items() if value is not None}
        assert settle(Settings, ("here", texts)) == settle(Settings, ("here", service.given))


def test_only_what_the_file_says() -> None:
    """The agent's defaults stay the agent's: no setting is written that the file does not give."""
    package = package_of(db='user = "postgres"')
    _, db, web = sections(package)["resources"]
    names = [{pair.get("name") for pair in resource[0]} for resource in (db, web)]
    assert names[0] - names[1] == {"user"}
    assert "stop_timeout" not in names[0] | names[1]


def test_rendered_text_is_a_cib() -> None:
    """It is one document, that has the property for failed starts, and is refused by a cluster that has anything."""
    root = ET.fromstring(render(package_of()))  # noqa: S314 - our own
    assert root.get("admin_epoch") == root.get("epoch") == "0"
    assert root.find(".//nvpair[@name='start-failure-is-fatal'][@value='false']") is not None
    assert [section.tag for section in root[0]] == ["crm_config", "nodes", "resources", "constraints", "tags"]


@pytest.mark.parametrize("command", ["/bin/sh -c 'a\nb'", "/bin/x 'a\tb'", "/bin/x 'ü \"'", "/bin/x é&"])
def test_what_pacemaker_would_change(command: str) -> None:
    """A value that would come back another one is refused, with the setting's name."""
    package = package_of()
    service = package.services[0].replace(command=tuple(command.split(" ", 1)))
    package = package.replace(services=(service,))
    with pytest.raises(
        SettingsError, match=r"^erp.toml: command of erp-db has .*Pacemaker does not keep.* script in the"
    ):
        render(package)


def test_two_of_one_name() -> None:
    """No two things get one id: the second service is told to have another name."""
    with pytest.raises(SettingsError, match="two things in erp would be called erp-db-parameters"):
        render(
            read(
                'name = "erp"\nhosts = ["n1"]\nguest = "g"\n[vm]\ndomain = "d"\n[service.db]\n[service.db-parameters]\n'
            )
        )


def test_stock_agent() -> None:
    """The stock agent gets its own parameters, and is kept from writing utilization into the cluster."""
    package = package_of(vm='agent = "stock"\nconfig = "/etc/libvirt/qemu/erp.xml"\nuri = "qemu:///system"')
    machine = sections(package)["resources"][0]
    said = {pair.attrib["name"]: pair.attrib["value"] for pair in machine[0]}
    assert (machine.get("provider"), machine.get("type")) == ("heartbeat", "VirtualDomain")
    assert said["hypervisor"] == "qemu:///system"
    assert {said[f"autoset_utilization_{what}"] for what in ("cpu", "hv_memory", "host_memory")} == {"false"}


@pytest.mark.parametrize("agent", ["cmapp", "stock"])
def test_libvirt_there_is_reached_as_the_file_says(agent: str) -> None:
    """A migration goes by tls, or what the file says, with either agent: its own default is no one else's choice."""
    given = f'agent = "{agent}"\nconfig = "/etc/libvirt/qemu/erp.xml"\nmigration_transport = "tls"'
    machine = sections(package_of(vm=given))["resources"][0]
    said = {pair.get("name"): pair.get("value") for pair in machine[0]}
    assert said["migration_transport"] == "tls"


def test_machine_of_commands() -> None:
    """A machine that commands make has them as its agent calls them, and little else."""
    text = """name = "erp"
hosts = ["n1"]
guest = "g"
[vm]
start = "/x start 'a b'"
stop = ["/x", "stop"]
state = "/x state"
migrate_command = "/x migrate"
migrate = true
failover = "migrate"
[service.db]
"""
    machine = sections(read(text))["resources"][0]
    said = {pair.attrib["name"]: pair.attrib["value"] for pair in machine[0]}
    assert said == {
        "guest": "g",
        "keys": "/etc/cmapp/keys",
        "start_command": "/x start 'a b'",
        "stop_command": "/x stop",
        "state_command": "/x state",
        "migrate_command": "/x migrate",
        "start_timeout": "180s",
        "stop_timeout": "120s",
        "failover": "migrate",
    }


@pytest.mark.parametrize("vm", ["", "migrate = true", 'failover = "migrate"', 'config = "/x.xml"'])
def test_agents_know_what_they_are_given(vm: str) -> None:
    """No parameter is written that the agents do not take: a mistyped one would only be ignored."""
    package = package_of(migrate="false", db='user = "x"\nlimit = {nofile = "10"}')
    text = f'name = "erp"\nhosts = ["n1"]\nguest = "g"\n[vm]\ndomain = "d"\n{vm}\n[service.db]\n'
    for resource in (*sections(package)["resources"], *sections(read(text))["resources"]):
        known = vmresource.PARAMETERS if resource.get("type") == "vm" else resource_agent.PARAMETERS
        assert {pair.get("name") for pair in resource[0]} <= {parameter.name for parameter in known}


def test_timeouts_are_long_enough() -> None:
    """No action is cut short by Pacemaker that its settings allow to go on: a late stop would have the host fenced."""
    package = package_of(
        db='connect_timeout = "100s"\nready_timeout = "200s"\nstop_timeout = "300s"\nservice_halt_timeout = "1s"'
    )
    db = sections(package)["resources"][1]
    timeouts = {action.get("name"): int(action.get("timeout", "").rstrip("s")) for action in db.iter("op")}
    assert timeouts["start"] > 100 + 200 + 300
    assert timeouts["stop"] > 300


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("stop_signal", 2, "INT"),
        ("umask", 0o22, "022"),
        ("env", {"A": "b c", "D": ""}, "'A=b c' D="),
        ("limit", {"core": (-1, -1)}, "core=-1:-1"),
        ("syslog", False, "false"),
        ("health_command", ("/x", "a b"), "/x 'a b'"),
        ("link_timeout", 0.25, "0.25s"),
    ],
)
def test_parameters(key: str, value: object, text: str) -> None:
    """Each kind of setting is written in the one way in which the agent reads it."""
    assert text_of(key, value) == text
    assert getattr(settle(Settings, ("here", {key: value_of(key, text)})), key) == value


@pytest.mark.parametrize(("key", "text"), [("syslog", "maybe"), ("env", "'A=b")])
def test_parameters_that_cannot_be_read(key: str, text: str) -> None:
    """Whoever writes a parameter by hand is told what it must be."""
    with pytest.raises(SettingsError, match=f"^{key} "):
        value_of(key, text)
