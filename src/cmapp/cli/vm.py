"""`cmapp vm`: virtual machines that libvirt, or a set of commands, runs on this host.

The work is vmrun.py's, which needs nothing of this; here it becomes a part of `cmapp`. The invariant: a command's
options and its help are those of vmrun.py, word for word.
"""

from __future__ import annotations

import sys

import click

from cmapp.cli import vmrun

AS_THEY_ARE = {"ignore_unknown_options": True, "help_option_names": []}


@click.group("vm")
def vm_group() -> None:
    """Start, watch and stop the virtual machine of a guest, and tell how it is."""


@vm_group.command("run", context_settings=AS_THEY_ARE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _run(arguments: tuple[str, ...]) -> None:
    """Start a virtual machine, or adopt it, and watch it until it is gone."""
    sys.exit(vmrun.run(arguments))


@vm_group.command("stop", context_settings=AS_THEY_ARE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _stop(arguments: tuple[str, ...]) -> None:
    """Shut a virtual machine down in time, then force it."""
    sys.exit(vmrun.stop(arguments))


@vm_group.command("state", context_settings=AS_THEY_ARE)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def _state(arguments: tuple[str, ...]) -> None:
    """Print how a virtual machine is on this host, in a word and a reason."""
    sys.exit(vmrun.state(arguments))
