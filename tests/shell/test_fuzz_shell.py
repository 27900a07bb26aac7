"""The targets of `./run fuzz` that touch the world, and its TLS records at the port of a real server.

`./run fuzz` searches further, guided by coverage. Here the same functions are called, within a fixed budget.
"""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmapp.core import messages as m
from cmapp.core.outcome import Exited
from cmapp.net.tls import client_context
from fuzz import corpus
from fuzz.draw import Draw
from fuzz.mutate import mutated
from fuzz.plants import PLANTS, found
from fuzz.records import Other, interfere
from fuzz.targets import TARGETS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.shell.caller import Caller
    from tests.shell.served import Served

EXAMPLES = {"inquiry": 25, "manager": 25, "folder": 30, "port": 50}  # of the slow ones
MOST = 100  # of the others
TRIES = 300  # changed inputs within which a planted defect is found
HOSTILE = 40  # connections to the real port
WORLDLY = [name for name, target in TARGETS.items() if not target.pure]
THEIRS = [name for name, (target, *_) in PLANTS.items() if target in WORLDLY]
targets = pytest.mark.parametrize("name", WORLDLY)


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

    @settings(max_examples=EXAMPLES.get(name, MOST), deadline=None)
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


def test_records_at_a_real_port(served: Served, call: Callable[..., Caller], key_folders: Path) -> None:
    """Whatever is done to a host's records on their way to a server, who is in is served, and so is who comes."""
    inside = call()
    inside.launch("sleep", "300")
    context, kept = client_context(str(key_folders / "host")), corpus.inputs("records")
    chance = random.Random(1)  # noqa: S311 - nothing is to be kept secret
    for _ in range(HOSTILE):
        with socket.create_connection(("127.0.0.1", served.port)) as stranger:
            other, draw = Other(stranger, context), Draw(mutated(TARGETS["records"], kept, chance.randbytes(40))[1:])
            while not draw.done:
                interfere(other, draw)
                other.go_on()
    assert inside.report().state is m.Phase.RUNNING
    assert call().run("sh", "-c", "exit 7").outcome == Exited(7)
