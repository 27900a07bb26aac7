"""The manual of ocf:cmapp:application tells what the agent takes, does and answers."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest

from cmapp.agent.actions import ACTIONS
from cmapp.agent.codes import Code
from cmapp.agent.resource import OURS, PARAMETERS
from cmapp.cluster.unreached import Unreached
from cmapp.core.options import options_of
from cmapp.host.settings import Settings

PAGE = Path(sysconfig.get_path("data")) / "share" / "man" / "man7" / "ocf_cmapp_application.7"
UNUSED = {Code.ARGS}  # of OCF's codes


def section(title: str) -> str:
    """Return a section of the installed page."""
    return re.split(r"^\.Sh ", PAGE.read_text().partition(f"\n.Sh {title}\n")[2], flags=re.MULTILINE)[0]


@pytest.mark.parametrize("action", [*ACTIONS, "monitor"])
def test_every_action(action: str) -> None:
    """An action that can be called is described."""
    assert f".It Cm {action}\n" in section("ACTIONS")


@pytest.mark.parametrize("parameter", [item.name for item in PARAMETERS if item.name not in options_of(Settings)])
def test_every_parameter_of_its_own(parameter: str) -> None:
    """What is no option of cmappmgr is described; what is one, there."""
    assert f".It Cm {parameter}\n" in section("PARAMETERS")


def test_what_is_the_agents_own_to_say() -> None:
    """The options that are no parameters are named, and no others."""
    told = (
        section("PARAMETERS").partition("underscores for hyphens, but\n")[2].partition("which are the agent's own")[0]
    )
    assert re.findall(r"[a-z_]{4,}", told) == list(OURS)


@pytest.mark.parametrize("code", sorted(set(Code) - UNUSED))
def test_every_code(code: Code) -> None:
    """A code that the agent may exit with is explained."""
    assert re.search(rf"^\.It {int(code)}$", section("EXIT STATUS"), re.MULTILINE)


@pytest.mark.parametrize("unreached", Unreached)
def test_every_way_with_an_unreachable_guest(unreached: Unreached) -> None:
    """Each value of on_unreachable is explained."""
    assert f".It Cm {unreached.value}\n" in section("PARAMETERS")
