"""Fixtures of the system tests: keys for all, a server for all, and a bed for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.system.agents import nodes_of
from tests.system.bed import Bed
from tests.system.books import Book
from tests.system.commands import check_for_defects
from tests.system.keys import Keys
from tests.system.server import Server, end_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.system.agents import Node


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    """The keys of a guest and of a host."""
    return Keys(tmp_path_factory.mktemp("keys") / "keys")


@pytest.fixture(scope="session")
def common_server(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server for all tests that leave it as it was."""
    server = Server(tmp_path_factory.mktemp("common-server"), keys.guest)
    yield server
    end_server(server)
    check_for_defects(server.log)


@pytest.fixture
def bed(tmp_path: Path, keys: Keys, common_server: Server) -> Iterator[Bed]:
    """A bed on the common server."""
    made = Bed(tmp_path, keys, common_server)
    yield made
    made.close()


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """The life book of the test's application."""
    return Book(tmp_path)


@pytest.fixture
def make(bed: Bed, tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """A function that makes hosts of a cluster, each with one resource of the application's agent."""
    with nodes_of(bed, tmp_path) as made:
        yield made
