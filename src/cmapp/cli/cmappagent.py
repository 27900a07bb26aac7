"""The command `cmappagent`: the OCF agents ocf:cmapp:application and ocf:cmapp:vm, as Pacemaker calls them.

Which agent it is, is said by the name by which it is called, as a link's, or by the first argument. The invariant:
whatever is needed for a monitor that finds all well is loaded, and nothing else.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

USAGE = "usage: cmappagent application ACTION, cmappagent vm ACTION, or cmappagent link; see ocf_cmapp_application(7)"
AGENTS = ("application", "vm")
UNIMPLEMENTED = 3  # of OCF


def main() -> NoReturn:
    """Carry out one action of the agent that was called, and leave with its code."""
    called = sys.argv[0].rpartition("/")[2]
    words = sys.argv[1:] if called not in AGENTS else [called, *sys.argv[1:]]
    # Nothing is left to be flushed, and an orderly end of the interpreter would take milliseconds of each monitor.
    os._exit(_run(words))


def _run(words: list[str]) -> int:
    if words[:1] == ["link"]:
        from cmapp.cli import agentlinks  # noqa: PLC0415 - of use once

        return agentlinks.main(words[1:])
    if len(words) != 2 or words[0] not in AGENTS:  # noqa: PLR2004 - an agent and its action
        os.write(2, f"{USAGE}\n".encode())
        return UNIMPLEMENTED
    try:
        main = _agent(words[0])
    except Exception as error:  # noqa: BLE001 - an installation that is not whole must not have a host fenced
        return _broken(words[1], error)
    return main(words[1], os.environ)


def _agent(name: str) -> Callable[[str, Mapping[str, str]], int]:
    if name == "vm":
        from cmapp.agent import vm as vmagent  # noqa: PLC0415 - the other agent has no use for it

        return vmagent.main
    from cmapp.agent import application as agent  # noqa: PLC0415 - the same

    return agent.main


def _broken(action: str, error: Exception) -> int:
    """Say that nothing can be done here, or that nothing need be, where nothing was ever started."""
    from cmapp.agent.ocf import Call  # noqa: PLC0415 - see above

    call = Call(action, os.environ)
    call.error(f"cmapp is not installed as it should be: {type(error).__name__}: {error}")
    return call.broken()


if __name__ == "__main__":
    main()
