"""The pure targets of `./run fuzz`: what was kept of it, and some changes that hypothesis makes to that.

`./run fuzz` searches further, guided by coverage. Here the same functions are called, within a fixed budget.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import corpus
from fuzz.mutate import mutated
from fuzz.plants import PLANTS, found
from fuzz.targets import TARGETS

EXAMPLES = 200  # of each target
TRIES = 4000  # changed inputs within which a planted defect is found
PURE = [name for name, target in TARGETS.items() if target.pure]
THEIRS = [name for name, (target, *_) in PLANTS.items() if target in PURE]
targets = pytest.mark.parametrize("name", PURE)


@targets
def test_kept_inputs_find_nothing(name: str) -> None:
    """What a fuzzer has once found, and what reached something new, finds nothing any more."""
    target = TARGETS[name].load()
    for data in corpus.inputs(name):
        target(data)


@targets
def test_changed_inputs_find_nothing(name: str) -> None:
    """Neither do they when they are changed, in ways that hypothesis chooses."""
    target, kept = TARGETS[name].load(), corpus.inputs(name)

    @settings(max_examples=EXAMPLES)
    @given(st.binary(max_size=40))
    def changed(choices: bytes) -> None:
        target(mutated(TARGETS[name], kept, choices))

    changed()


@pytest.mark.parametrize("plant", THEIRS)
def test_planted_defect_is_found(plant: str) -> None:
    """A rule of the package that is broken is found by its target; unbroken, the same input finds nothing."""
    caught = found(plant, TRIES)
    assert caught is not None
    TARGETS[PLANTS[plant][0]].load()(caught)
