"""What the agent says of itself, the command that tells the cluster of an end, and where Pacemaker finds the agent."""

from __future__ import annotations

import io
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from cmapp.agent.actions import ACTIONS
from cmapp.agent.control import _on_end
from cmapp.agent.failcount import evening
from cmapp.agent.instance import Instance
from cmapp.agent.ocf import Call, Code, conduct
from cmapp.agent.resource import OURS, Resource
from cmapp.cli import agentlinks
from cmapp.core.options import options_of
from cmapp.errors import SettingsError
from cmapp.host.settings import Settings

DTD = Path("/usr/share/resource-agents/ra-api-1.dtd")
HACLUSTER = "hacluster" in [entry.pw_name for entry in pwd.getpwall()]
GIVEN = {"OCF_RESOURCE_INSTANCE": "erp-db", "OCF_RESKEY_CRM_meta_on_node": "n1", "OCF_RESKEY_guest": "vm1"}
GIVEN |= {"OCF_RESKEY_command": "/bin/db -x", "OCF_RESKEY_name": "db"}


def said(action: str, capfd: pytest.CaptureFixture[str], **environ: str) -> str:
    """Carry out an action that must succeed, and return its standard output."""
    assert conduct(action, environ, ACTIONS, "") == 0
    return capfd.readouterr().out


def manager(**environ: str) -> list[str]:
    """Return the command line of a manager for a resource."""
    return Resource(Call("start", GIVEN | {f"OCF_RESKEY_{key}": text for key, text in environ.items()})).manager(
        "RUN", "/run/result"
    )


# ---- meta-data ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (shutil.which("xmllint") and DTD.exists()), reason="needs xmllint and resource-agents")
def test_meta_data_is_what_pacemaker_reads(capfd: pytest.CaptureFixture[str]) -> None:
    """It is valid by the DTD that Debian ships."""
    text = said("meta-data", capfd)
    command = ["xmllint", "--noout", "--valid", "-"]
    done = subprocess.run(command, input=text, cwd=DTD.parent, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_meta_data_has_every_setting(capfd: pytest.CaptureFixture[str]) -> None:
    """A setting of cmappmgr is a parameter, unless it is the agent's own to say, and has its help and default."""
    root = ET.parse(io.StringIO(said("meta-data", capfd))).getroot()  # noqa: S314 - our own
    parameters = {item.get("name", ""): item for item in root.iter("parameter")}
    own = {"guest", "command", "guest_resource", "on_unreachable"}
    assert set(parameters) == (options_of(Settings).keys() - set(OURS)) | own
    assert [name for name, item in parameters.items() if item.get("required") == "1"] == ["guest"]
    stop = parameters["stop_timeout"]
    assert "time from the stop signal to SIGKILL (default 30s)" in (stop.findtext("longdesc") or "")
    content = [parameters[name].find("content") for name in ("stop_timeout", "syslog", "keys", "env")]
    assert [item is not None and dict(item.items()) for item in content] == [
        {"type": "string", "default": "30s"},
        {"type": "boolean", "default": "true"},
        {"type": "string", "default": "/etc/cmapp/keys"},
        {"type": "string"},
    ]


def test_meta_data_has_every_action(capfd: pytest.CaptureFixture[str]) -> None:
    """What can be called is told, and what is told can be called."""
    root = ET.parse(io.StringIO(said("meta-data", capfd))).getroot()  # noqa: S314 - our own
    assert {item.get("name") for item in root.iter("action")} == {*ACTIONS, "monitor"}


# ---- the manager's command line ------------------------------------------------------------------------------


def test_the_command_line() -> None:
    """Each parameter is an option as cmappmgr reads it, words and blanks kept apart."""
    line = manager(env="A='x y' B=2", stop_timeout="5s", syslog="no", takeover="yes", verbose="no", log_file="/a b")
    assert line[0].endswith("/cmappmgr")
    assert "--env=A=x y" in line
    assert {"--env=B=2", "--stop-timeout=5s", "--no-syslog", "--takeover", "--log-file=/a b"} <= set(line)
    assert not {"--verbose", "--no-verbose", "--no-takeover", "--syslog"} & set(line)
    assert line[-4:] == ["vm1", "--", "/bin/db", "-x"]
    assert line[line.index("--run-id") + 1] == "RUN"


def test_a_unit_has_no_command() -> None:
    """What systemd starts in the guest is an option like any other."""
    line = manager(command="", unit="postgresql.service", name="")
    assert "--unit=postgresql.service" in line
    assert line[-1] == "vm1"


# ---- telling the cluster ----------------------------------------------------------------------------------------

FAIL, FAIL_VM = "--fail -r erp-db -N n1\n", "--fail -r erp-vm -N n1\n"


@pytest.mark.parametrize(
    ("given", "cause", "told"),
    [
        ({}, "exited", FAIL),
        ({}, "signaled", FAIL),
        ({}, "refused", FAIL),
        ({}, "unreachable", ""),
        ({}, "guest-down", FAIL),
        ({"guest_resource": "erp-vm"}, "exited", FAIL),
        ({"guest_resource": "erp-vm"}, "unreachable", FAIL_VM),
        ({"guest_resource": "erp-vm"}, "guest-down", FAIL_VM),
        ({"guest_resource": "erp-vm", "on_unreachable": "wait"}, "unreachable", ""),
        ({"guest_resource": "erp-vm", "on_unreachable": "fail"}, "unreachable", FAIL),
    ],
    ids=str,
)
def test_who_is_failed(tmp_path: Path, given: dict[str, str], cause: str, told: str) -> None:
    """The resource that the cause is about is failed; a guest that is waited for is left alone."""
    call = Call("start", GIVEN | {f"OCF_RESKEY_{key}": text for key, text in given.items()})
    instance = Instance(str(tmp_path / "it's"), "erp-db")
    Path(instance.folder).mkdir(parents=True)
    crm = tmp_path / "crm_resource"
    crm.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/told\n')
    crm.chmod(0o755)
    command, log = _on_end(call, Resource(call), instance), tmp_path / "told"
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin", "CMAPP_CAUSE": cause}
    starting = Path(instance.path("starting"))
    starting.touch()
    subprocess.run(command, env=env, check=False)
    assert not log.exists()  # the start itself says so
    starting.unlink()
    subprocess.run(command, env=env, check=False)
    assert (log.read_text() if log.exists() else "") == told


# ---- where Pacemaker looks --------------------------------------------------------------------------------------


def test_what_is_put_where_pacemaker_looks(tmp_path: Path) -> None:
    """The application's agent answers by that path, with blanks in it too, to anybody and without any environment."""
    folder = tmp_path / "resource d"
    agentlinks._put(str(folder / "application"), "application")
    program = (folder / "application").read_text()
    environ = {"HA_RSCTMP": str(tmp_path), "OCF_RESOURCE_INSTANCE": "x"}
    done = subprocess.run([folder / "application", "monitor"], env=environ, check=False)
    assert done.returncode == 7
    assert sys.executable in program


@pytest.mark.skipif(os.geteuid() != 0 or not HACLUSTER, reason="needs root, and Pacemaker's user")
def test_what_pacemaker_cannot_read() -> None:
    """An agent that works for root alone is told of: Pacemaker asks for its meta-data as another user."""
    with tempfile.TemporaryDirectory(prefix="cmapp-ocf-") as name:
        agent = Path(name) / "application"
        agent.write_text("#!/bin/sh\nexit 0\n")
        agent.chmod(0o755)
        with pytest.raises(SettingsError, match="not below /root"):
            agentlinks._try(str(agent))
        Path(name).chmod(0o755)
        agentlinks._try(str(agent))
        agent.write_text("#!/bin/sh\nexit 1\n")
        with pytest.raises(SettingsError, match="does not work: install"):
            agentlinks._try(str(agent))


def test_what_is_not_ours_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another's agent of that name stays; what we have put there before is replaced."""
    theirs = tmp_path / "application"
    theirs.write_text("#!/bin/sh\n")
    assert agentlinks.main([str(tmp_path)]) == 1
    assert "move it away" in capsys.readouterr().err
    assert theirs.read_text() == "#!/bin/sh\n"
    theirs.unlink()
    theirs.symlink_to("/opt/old/bin/cmappagent")
    agentlinks._put(str(theirs), "application")
    agentlinks._put(str(theirs), "application")
    assert not theirs.is_symlink()
    assert list(tmp_path.iterdir()) == [theirs]


@pytest.mark.parametrize(
    ("action", "touched", "code"),
    [("monitor", False, 5), ("stop", False, 0), ("start", False, 5), ("monitor", True, 1), ("stop", True, 1)],
)
def test_half_an_installation_has_no_host_fenced(tmp_path: Path, action: str, touched: bool, code: int) -> None:  # noqa: FBT001
    """Where nothing was started, nothing runs; where something was, nobody may say that it does not."""
    agentlinks._put(str(tmp_path / "application"), "application")
    broken = tmp_path / "broken"
    broken.write_text((tmp_path / "application").read_text().replace("cmapp.cli.cmappagent", "cmapp.cli.nowhere"))
    broken.chmod(0o755)
    folder = tmp_path / "cmapp-db"
    folder.mkdir()
    (folder / "lock").write_text("1 2 3\n" if touched else "")
    environ = {"HA_RSCTMP": str(tmp_path), "OCF_RESOURCE_INSTANCE": "db"}
    done = subprocess.run([broken, action], env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stderr.startswith("ocf-exit-reason:cmapp is not installed as it should be")


def test_a_python_that_is_gone(tmp_path: Path) -> None:
    """The launcher says so by itself."""
    agentlinks._put(str(tmp_path / "application"), "application")
    gone = tmp_path / "gone"
    gone.write_text((tmp_path / "application").read_text().replace(sys.executable, "/nonexistent/python"))
    gone.chmod(0o755)
    done = subprocess.run([gone, "monitor"], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (5, "ocf-exit-reason:it cannot be executed: /nonexistent/python\n")


@pytest.mark.parametrize(("action", "code"), [("monitor", 7), ("stop", 0), ("start", 5)])
def test_a_defect_has_no_host_fenced(tmp_path: Path, action: str, code: int) -> None:
    """An error that nobody has thought of is no reason to think that something runs."""

    def fail(_: Call) -> Code:
        raise ZeroDivisionError("one too many")

    environ = {"HA_RSCTMP": str(tmp_path), "OCF_RESOURCE_INSTANCE": "db"}
    assert conduct(action, environ, {action: fail}, "") == code
    (tmp_path / "cmapp-db").mkdir()
    (tmp_path / "cmapp-db" / "lock").write_text("1 2 3\n")
    assert conduct(action, environ, {action: fail}, "") == 1


# ---- the count of failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "added"), [("0", False), ("1", True), ("2", False), ("7", True), ("INFINITY", False), ("", False)]
)
def test_failures_are_made_even(tmp_path: Path, count: str, added: bool) -> None:  # noqa: FBT001
    """One that a monitor found counts as much as one that was told."""
    for name, text in (("crm_failcount", f"echo {count}"), ("attrd_updater", f'printf "%s\\n" "$*" >>{tmp_path}/told')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    subprocess.run(evening("erp-db", "n1"), env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    told = tmp_path / "told"
    assert (told.read_text() if told.exists() else "") == (
        "-n fail-count-erp-db#asyncmon_0 -N n1 -U value++\n" if added else ""
    )
