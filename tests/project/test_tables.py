"""Every state machine's table is whole."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from cmapp.core import checkup, lifecycle, pursuit, session, vm

machines = pytest.mark.parametrize(
    "machine", [checkup, lifecycle, pursuit, session, vm], ids=lambda machine: machine.__name__
)


@machines
def test_every_pair_is_in_the_table(machine: Any) -> None:
    """Every event has an entry in every state, the illegal ones too."""
    assert set(machine.TABLE) == set(product(machine.State, machine.Event))


@machines
def test_every_state_can_be_reached(machine: Any) -> None:
    """Some events lead from the first state to each of the others."""
    reached: set[Any] = set()
    found = {next(iter(machine.State))}
    while found:
        reached |= found
        rows = [entry for (state, _), entry in machine.TABLE.items() if state in found and entry is not None]
        found = {entry[0] if isinstance(entry, tuple) else entry for entry in rows} - reached
    assert reached == set(machine.State)
