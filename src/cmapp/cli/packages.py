"""`cmapp package`: checks the file of a guest package, and gives it to a cluster manager.

Responsible for arguments and for what is printed; what may stand in the file is decided in `cmapp.cluster`. The
invariant: nothing is given to a cluster of a file that is wrong.
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from cmapp.cli.keyoptions import PATH
from cmapp.cluster import serviceguard, systemd
from cmapp.cluster.command import PROGRAMS
from cmapp.cluster.hosts import known_hosts
from cmapp.cluster.lint import lint
from cmapp.cluster.reading import Complaint, examine, read_package, read_text
from cmapp.core.text import printable
from cmapp.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cmapp.cluster.package import Package

MANAGERS = ("pacemaker", "serviceguard", "systemd")

file_argument = click.argument("file", metavar="FILE", type=PATH)


@click.group("package", no_args_is_help=False)
def package_group() -> None:
    """Check a guest package, and give it to a cluster manager."""


@package_group.command("check")
@file_argument
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
@click.pass_context
def _check(context: click.Context, file: Path, *, as_json: bool) -> None:
    """Say what is wrong with the guest package in FILE, and what is unwise; exit with 1 if something is wrong.

    What is said of key folders, of the log's folder and of the cluster's hosts is what this host has of them.
    """
    package, complaints = examine(str(file), read_text(str(file)))
    if package is not None:
        complaints = lint(package, known_hosts())
    if as_json:
        click.echo(json.dumps(_as_json(file, package, complaints), indent=2))
    else:
        _echo(map(str, complaints))
    if package is None:
        context.exit(1)
    if not as_json:
        count = len(package.services)
        services = f"{count} service{'' if count == 1 else 's'}"
        said = "is in order" if not complaints else "is valid"
        click.echo(printable(f"{file} {said}: guest package {package.name}, {services}, on {', '.join(package.hosts)}"))


@package_group.command("render")
@file_argument
@click.option("--for", "manager", metavar="MANAGER", type=click.Choice(MANAGERS), required=True, help="For which.")
@click.option(
    "--output",
    metavar="PATH",
    type=PATH,
    help="Write there; for serviceguard and systemd into this folder (default standard output).",
)
@click.option(
    "--programs",
    metavar="DIR",
    help="Where cmapp and cmappmgr are on each host, for serviceguard and systemd (default where this cmapp is).",
)
def _render(file: Path, manager: str, output: Path | None, programs: str | None) -> None:
    """Write what a cluster manager takes of the guest package in FILE: MANAGER is pacemaker, serviceguard or systemd.

    For serviceguard that is two files, for systemd, on a host without a cluster, several units.
    """
    package = read_package(str(file))
    texts = _rendered(package, manager, programs or _programs())
    if output is None:
        for name, text in texts.items():
            click.echo(f"# ==== {name}\n{text}" if len(texts) > 1 else text, nl=False)
        return
    if len(texts) > 1:
        output.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        target = output / name if len(texts) > 1 else output
        target.write_text(text, encoding="utf-8")
        if text.startswith("#!"):
            target.chmod(0o755)
        click.echo(printable(f"wrote {target}"))


@package_group.command("apply")
@file_argument
@click.option("--dry-run", is_flag=True, help="Only show the difference (default off).")
def _apply(file: Path, *, dry_run: bool) -> None:
    """Load the guest package in FILE into this host's Pacemaker; show first what that changes."""
    from cmapp.cluster import apply  # noqa: PLC0415 - what talks to Pacemaker, for those who have one

    package = read_package(str(file))
    for complaint in lint(package, known_hosts()):
        click.echo(printable(str(complaint)), err=True)
    planned = apply.plan(package)
    if not str(planned):
        click.echo(f"Pacemaker has {package.name} like that already")
        return
    click.echo(str(planned).rstrip("\n"))
    if dry_run:
        click.echo(f"{package.name} is not applied")
        return
    apply.apply(package, planned)
    click.echo(f"Pacemaker has {package.name}")


@package_group.command("hold")
@file_argument
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
def _hold(file: Path, services: tuple[str, ...]) -> None:
    """Let the services of the guest package in FILE be, or those that are named, until `cmapp package resume`.

    Neither Pacemaker nor the guest acts on them meanwhile. Without a name, the machine is held too.
    """
    _turn(file, services, on=True)


@package_group.command("resume")
@file_argument
@click.argument("services", metavar="[SERVICE]...", nargs=-1)
def _resume(file: Path, services: tuple[str, ...]) -> None:
    """Watch the services of the guest package in FILE again, or those that are named, after `cmapp package hold`."""
    _turn(file, services, on=False)


def _turn(file: Path, names: tuple[str, ...], *, on: bool) -> None:
    from cmapp.cluster import apply  # noqa: PLC0415 - as above

    package = read_package(str(file))
    for name in names:
        package.service(name)
    apply.hold(package, names, on=on)
    what = f"{package.name}: {', '.join(names)}" if names else package.name
    again = " ".join(["cmapp package resume", str(file), *names])
    click.echo(f"{what} held: nothing acts on it until '{again}'" if on else f"{what} watched again")


def _rendered(package: Package, manager: str, programs: str) -> dict[str, str]:
    """Return the files that a cluster manager takes, by their names."""
    if not programs.startswith("/"):
        raise SettingsError(f"--programs must be an absolute path, not {programs!r}")
    if manager == "systemd":
        return systemd.render(package, programs.rstrip("/"))
    if manager == "serviceguard":
        return serviceguard.render(package, programs.rstrip("/"))
    from cmapp.cluster import pacemaker  # noqa: PLC0415 - needs XML, which costs milliseconds

    return {f"{package.name}.xml": pacemaker.render(package)}


def _programs() -> str:
    """Return the folder of the program that runs, if it is ours."""
    folder, name = os.path.split(os.path.abspath(sys.argv[0]))
    return folder if name == "cmapp" else PROGRAMS


def _as_json(file: Path, package: Package | None, complaints: Iterable[Complaint]) -> dict[str, object]:
    said = [
        {"line": each.line, "severity": "error" if each.fatal else "warning", "text": each.text} for each in complaints
    ]
    return {"file": str(file), "package": package and package.name, "valid": package is not None, "complaints": said}


def _echo(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(printable(line))
