"""What holds for every test: in CI a skip is a failure, for nobody reads there what was not tested.

A test marked `slow` takes minutes, and is left out unless --slow asks for it: it is deselected, not skipped. Where
several processes share the tests (`./run test`), each takes a file at a time, the folders with the long ones first; all
that needs a cluster is taken by one of them, so that there is one cluster at a time.
"""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator

CI = os.environ.get("CI") == "true"
HERE = Path(__file__).parent
CLUSTERS = "tests/cluster/"
LONGEST_FIRST = ("cluster", "system", "shell", "core", "project")  # the folders here


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take --slow."""
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too, which take minutes each")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker of what --slow asks for."""
    config.addinivalue_line("markers", "slow: takes minutes; left out unless --slow asks for it")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the slow tests out, unless they are asked for; where they are shared, put those first that take long."""
    slow = [] if config.getoption("--slow") else [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: LONGEST_FIRST.index(item.path.relative_to(HERE).parts[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Hand out the tests by the file, and those of clusters all at once."""
    scheduler = import_module("xdist.scheduler").LoadFileScheduling(config, log)
    file_of = scheduler._split_scope
    scheduler._split_scope = lambda nodeid: CLUSTERS if nodeid.startswith(CLUSTERS) else file_of(nodeid)
    return scheduler


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail a test that skips."""
    report = yield
    if CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Fail a file that skips as a whole."""
    report = yield
    if CI and report.skipped:
        report.outcome = "failed"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the stories of the cluster have measured, each time under its test, and where their logs are."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind]
    called = [report for report in reports if getattr(report, "when", "") == "call" and report.user_properties]
    if called:
        terminalreporter.section("times")
    for report in called:
        terminalreporter.write_line(report.nodeid)
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{value[1]:9.3f} s  {value[0]}" if name == "time" else f"    {name}: {value}")
