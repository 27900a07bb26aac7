"""`cmapp package`, as a user meets it: what it says, where, and which exit code that makes."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from cmapp.cli.cmapp import main
from tests.core.package_texts import GOOD, changed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command and returns its exit code and what it wrote."""

    def run(*arguments: object, program: str = "/opt/bin/cmapp") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [program, "package", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        code = end.value.code or 0
        assert isinstance(code, int)
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return the file of a package that is valid, whose folders are not on this host."""
    path = tmp_path / "erp.toml"
    path.write_text(GOOD)
    return path


def test_what_is_wrong_is_told_and_fails(run: Run, file: Path) -> None:
    """Each mistake is a line as compilers write it, and nothing but mistakes is told then."""
    file.write_text(changed((2, "hosts = []"), (13, "usr = 1")))
    code, out, err = run("check", file)
    assert (code, err) == (1, "")
    assert [line.split(": ")[:2] for line in out.splitlines()] == [[f"{file}:2", "error"], [f"{file}:13", "error"]]


def test_what_is_unwise_is_told_and_does_not_fail(run: Run, file: Path) -> None:
    """Warnings go before the sentence that says that it is valid."""
    code, out, err = run("check", file)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"{file}:4: warning: there is no folder /var/log/cmapp")
    assert lines[-1] == f"{file} is valid: guest package erp, 2 services, on n1, n2"


def test_what_is_in_order_is_told(run: Run, file: Path, tmp_path: Path) -> None:
    """Nothing is left to be said but what it is."""
    (tmp_path / "keys").mkdir()
    keys = tmp_path / "store"
    for words in (["init", keys], ["issue", keys, "host", "n1"]):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["cmapp", "keys", *map(str, words)])
            with pytest.raises(SystemExit):
                main()
    text = GOOD.replace("/var/log/cmapp", str(tmp_path)).replace("/etc/cmapp/keys", str(keys / "host" / "n1"))
    file.write_text(text)
    assert run("check", file)[1].splitlines()[-1] == f"{file} is in order: guest package erp, 2 services, on n1, n2"


@pytest.mark.parametrize(("text", "code"), [(GOOD, 0), (changed((2, "hosts = []")), 1)])
def test_the_same_as_json(run: Run, file: Path, text: str, code: int) -> None:
    """A program reads the lines, and which of them are errors."""
    file.write_text(text)
    ended, out, _ = run("check", "--json", file)
    told = json.loads(out)
    assert ended == code
    assert (told["file"], told["valid"]) == (str(file), not code)
    assert told["package"] == (None if code else "erp")
    assert {each["severity"] for each in told["complaints"]} == {"error" if code else "warning"}
    assert told["complaints"][0]["line"] == (2 if code else 4)


@pytest.mark.parametrize("command", [["check"], ["render", "--for", "systemd"], ["apply"], ["hold"], ["resume"]])
def test_a_file_that_is_not_there(run: Run, tmp_path: Path, command: list[str]) -> None:
    """It is one sentence, not a traceback."""
    code, out, err = run(*command, tmp_path / "none.toml")
    assert (code, out) == (1, "")
    assert err == f"cmapp: {tmp_path / 'none.toml'}: the package cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"name = '\xff'\n", ":1: the package is not in UTF-8"),
        (b"#" * (1 << 20) + b"\n#", "is larger than"),
        (b"a = " + b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_file_that_is_no_package(run: Run, file: Path, content: bytes, part: str) -> None:
    """Whatever it is, it is told in one line."""
    file.write_bytes(content)
    code, out, err = run("check", file)
    assert code == 1
    assert part in out + err
    assert (out + err).count("\n") == 1


@pytest.mark.parametrize("command", [["render", "--for", "pacemaker"], ["apply"], ["hold"]])
def test_nothing_is_done_with_a_wrong_file(run: Run, file: Path, command: list[str]) -> None:
    """The first mistake is told, how many more there are, and where to see them."""
    file.write_text(changed((2, "hosts = []"), (13, "usr = 1")))
    code, out, err = run(*command, file)
    assert (code, out) == (1, "")
    assert err.startswith(f"cmapp: {file}:2: hosts must be a list of at least one host")
    assert err.endswith(f"(and 1 more: see 'cmapp package check {file}')\n")


@pytest.mark.parametrize(
    ("manager", "begin"),
    [("pacemaker", "<cib "), ("serviceguard", "# ==== erp.conf"), ("systemd", "# ==== erp.target")],
)
def test_it_is_rendered_to_standard_output(run: Run, file: Path, manager: str, begin: str) -> None:
    """What the manager takes is written, and nothing else."""
    code, out, err = run("render", file, "--for", manager)
    assert (code, err) == (0, "")
    assert out.startswith(begin)


def test_our_programs_are_where_this_one_is(run: Run, file: Path) -> None:
    """Unless it is said where they are on the hosts; by whatever name this is run."""
    for words, program, folder in (
        ((), "/opt/bin/cmapp", "/opt/bin"),
        ((), "/usr/lib/x/__main__.py", "/usr/bin"),
        (("--programs", "/srv/cmapp/"), "/opt/bin/cmapp", "/srv/cmapp"),
    ):
        out = run("render", file, "--for", "serviceguard", *words, program=program)[1]
        assert f'"{folder}/cmappmgr ' in out
        assert f'"{folder}/cmapp vm run ' in out


def test_programs_have_an_absolute_path(run: Run, file: Path) -> None:
    """A cluster has no folder to begin from."""
    code, _, err = run("render", file, "--for", "serviceguard", "--programs", "bin")
    assert (code, err) == (1, "cmapp: --programs must be an absolute path, not 'bin'\n")


def test_it_is_rendered_to_a_file(run: Run, file: Path, tmp_path: Path) -> None:
    """One file where one is enough."""
    target = tmp_path / "erp.xml"
    assert run("render", file, "--for", "pacemaker", "--output", target)[:2] == (0, f"wrote {target}\n")
    assert target.read_text() == run("render", file, "--for", "pacemaker")[1]


def test_a_script_can_be_executed(run: Run, file: Path, tmp_path: Path) -> None:
    """Serviceguard takes two files, and runs one of them."""
    code, out, _ = run("render", file, "--for", "serviceguard", "--output", tmp_path / "new")
    assert (code, out.count("\n")) == (0, 2)
    modes = {path.name: path.stat().st_mode & 0o100 for path in (tmp_path / "new").iterdir()}
    assert modes == {"erp.conf": 0, "erp-vm.sh": 0o100}


def test_units_are_rendered_to_a_folder(run: Run, file: Path, tmp_path: Path) -> None:
    """Several units are several files, in a folder that is made."""
    folder = tmp_path / "units"
    code, out, _ = run("render", file, "--for", "systemd", "--output", folder)
    names = ["erp.target", "erp-given-up@.service", "erp-vm.service", "erp-db.service", "erp-web.service"]
    assert (code, out.splitlines()) == (0, [f"wrote {folder / name}" for name in names])
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)


def test_a_place_that_cannot_be_written_to(run: Run, file: Path) -> None:
    """It is told in one line."""
    code, _, err = run("render", file, "--for", "pacemaker", "--output", "/proc/none")
    assert (code, err.count("\n")) == (1, 1)


def test_a_manager_that_there_is_not(run: Run, file: Path) -> None:
    """Wrong usage is told as such."""
    code, _, err = run("render", file, "--for", "windows")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.parametrize("command", ["hold", "resume"])
def test_a_service_that_there_is_not(run: Run, file: Path, command: str) -> None:
    """A name that is mistyped holds nothing."""
    code, out, err = run(command, file, "web", "wbe")
    assert (code, out) == (1, "")
    assert err == f"cmapp: {file}: there is no service 'wbe' in erp; there are db, web\n"


def test_hosts_that_the_cluster_does_not_know(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a Pacemaker runs, it is asked which hosts there are; one that fails is as if there were none."""
    asked = tmp_path / "crm_node"
    for answer, told in (
        ("echo '1 n1 member'; echo '3 n3 lost'", 1),
        ("echo '1 n1 member'; exit 1", 0),
        ("echo '?'", 0),
    ):
        asked.write_text(f"#!/bin/sh\n{answer}\n")
        asked.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        out = run("check", file)[1]
        assert out.count("the cluster does not know the host n2: it has n1, n3") == told
        assert out.count("does not know") == told


def test_where_no_pacemaker_runs_nothing_is_applied(run: Run, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told in one line, after what is unwise."""
    monkeypatch.setenv("PATH", "/nonexistent")
    code, out, err = run("apply", file)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("cmapp: ")
    assert [line for line in err.splitlines()[:-1] if ": warning: " not in line] == []
