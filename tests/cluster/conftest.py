"""A cluster for all stories, and one story for each test."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from chaos import rootfs
from testbed.cluster import Cluster, what_is_missing
from tests.cluster.stories import Story

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of three nodes, which every story leaves as it was."""
    if missing := what_is_missing():
        pytest.skip(missing)
    rootfs.root_file_system()
    with Cluster() as made:
        made.until_online()
        yield made


@pytest.fixture
def story(cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Story]:
    """A guest that no package knows yet."""
    tmp_path.chmod(0o755)
    told = Story(cluster, f"erp{next(_numbers)}", tmp_path, request.node.user_properties)
    yield told
    told.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to the report of a story that failed what all who took part in it have said."""
    report = yield
    told = getattr(item, "funcargs", {}).get("story")
    if report.failed and isinstance(told, Story) and told.cluster.folder.exists():
        report.sections += told.evidence()
    return report
