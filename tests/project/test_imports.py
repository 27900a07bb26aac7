"""The house: imports go down only, the core is pure, one thread, only the commands exit, and the daemons are light."""

from __future__ import annotations

import ast
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import cmapp

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(cmapp.__file__).parent
SOURCES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}
SCRIPTS = Path(sysconfig.get_path("scripts"))
ROOT = Path(__file__).parents[2]

BELOW_NET = {"cmapp", "cmapp.errors", "cmapp.core", "cmapp.net"}
BELOW = {  # what a room may import beside itself
    "cmapp": set(),
    "cmapp.errors": set(),
    "cmapp.core": {"cmapp", "cmapp.errors"},
    "cmapp.net": BELOW_NET,
    "cmapp.guest": BELOW_NET,
    "cmapp.host": BELOW_NET,
    "cmapp.keys": BELOW_NET,
    "cmapp.vm": BELOW_NET | {"cmapp.host"},
    "cmapp.cluster": BELOW_NET | {"cmapp.host", "cmapp.keys", "cmapp.vm"},
    "cmapp.agent": BELOW_NET | {"cmapp.host", "cmapp.keys", "cmapp.vm", "cmapp.cluster"},
    "cmapp.cli": BELOW_NET | {f"cmapp.{room}" for room in ("guest", "host", "keys", "vm", "cluster", "agent")},
}
PURE = {"__future__", "binascii", "enum", "heapq", "json", "math", "struct"}
WORLDLY = {"open", "print", "input", "exec", "eval", "__import__"}
EXITS = {"sys.exit", "os._exit", "os.abort", "SystemExit", "exit", "quit"}
THREADS = {"threading", "_thread", "concurrent", "multiprocessing", "run_in_executor", "to_thread"}
PROGRAMS = {"cmapp.cli", "cmapp.guest.trampoline"}  # the trampoline is a process of its own, never imported
SLOW = {
    "asyncio",
    "dataclasses",
    "logging",
    "subprocess",
    "typing",
}  # milliseconds each, for every application

modules = pytest.mark.parametrize("module", sorted(SOURCES))


class Running(ast.NodeTransformer):
    """Takes away what only a type checker sees."""

    def visit_If(self, node: ast.If) -> ast.AST | list[ast.stmt]:
        """Keep the `else` of an `if TYPE_CHECKING`."""
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node


def tree(module: str) -> ast.AST:
    """Parse a module of ours."""
    return ast.parse(SOURCES[module].read_text())


def of_ours(folder: str) -> set[str]:
    """Return the rooms of the package that the modules of a folder beside it import."""
    parsed = [ast.parse(path.read_text()) for path in (ROOT / folder).rglob("*.py")]
    return {room(name) for each in parsed for name in imported(each) if name.partition(".")[0] == "cmapp"}


def imported(parsed: ast.AST) -> Iterator[str]:
    """Yield the modules that are imported anywhere in it, in functions too."""
    for node in ast.walk(parsed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield whole if whole in SOURCES else source


def room(module: str) -> str:
    """Return `cmapp.core` for `cmapp.core.wire`."""
    return ".".join(module.split(".")[:2])


def outside(start: str) -> set[str]:
    """Return what a module, and all of ours that it leads to, import from elsewhere when they run."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        module = waiting.pop()
        if module in SOURCES and module not in seen:
            seen.add(module)
            waiting += imported(Running().visit(tree(module)))
        elif module not in SOURCES:
            found.add(module.partition(".")[0])
    return found


@modules
def test_imports_go_down(module: str) -> None:
    """A room imports itself and what is below it, so host and guest never meet."""
    ours = {room(name) for name in imported(tree(module)) if name.startswith((".", "cmapp"))}
    assert ours <= BELOW[room(module)] | {room(module)}


@pytest.mark.parametrize("module", [name for name in sorted(SOURCES) if room(name) == "cmapp.core"])
def test_core_is_pure(module: str) -> None:
    """The core imports and calls nothing that can touch the world."""
    running = Running().visit(tree(module))
    theirs = {name.partition(".")[0] for name in imported(running)}
    called = {ast.unparse(node.func) for node in ast.walk(running) if isinstance(node, ast.Call)}
    assert theirs <= PURE | {"cmapp"}
    assert not called & WORLDLY


@pytest.mark.parametrize("module", [name for name in sorted(SOURCES) if not {name, room(name)} & PROGRAMS])
def test_only_the_commands_exit(module: str) -> None:
    """Nothing below cli ends the process."""
    nodes = list(ast.walk(tree(module)))
    used = {ast.unparse(node) for node in nodes if isinstance(node, ast.Attribute | ast.Name)}
    used |= {
        f"{node.module}.{alias.name}" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert not used & EXITS


def test_only_the_disk_has_a_thread() -> None:
    """Nothing has to be locked elsewhere, and a manager has no thread at all."""
    found = {
        module
        for module in SOURCES
        for node in ast.walk(tree(module))
        if (isinstance(node, ast.Attribute) and node.attr in THREADS)
        or (isinstance(node, ast.Name) and node.id in THREADS)
    }
    found |= {module for module in SOURCES if {name.partition(".")[0] for name in imported(tree(module))} & THREADS}
    assert found == {"cmapp.guest.disk"}


def test_chaos_judges_by_its_own_eyes() -> None:
    """What holds the applications' books against what was told shares no code, and so no defect, with the package."""
    assert not of_ours("chaos")


def test_the_simulation_plays_the_core_alone() -> None:
    """The invented world meets the decisions, and nothing that could touch the real one."""
    assert of_ours("simulate") == {"cmapp.core", "cmapp.errors"}


@pytest.mark.parametrize("command", ["cmappmgr", "cmappserver"])
def test_daemons_need_the_standard_library_only(command: str) -> None:
    """A guest or a host without a package index runs the daemons."""
    assert outside(f"cmapp.cli.{command}") <= sys.stdlib_module_names


def test_the_manager_starts_light(tmp_path: Path) -> None:
    """A manager that went as far as trying to connect has loaded none of the slow modules."""
    authority = tmp_path / "authority"
    subprocess.run([SCRIPTS / "cmapp", "keys", "init", authority], check=True)
    subprocess.run([SCRIPTS / "cmapp", "keys", "issue", authority, "host", "here"], check=True)
    keys = authority / "host" / "here"
    manager = [
        SCRIPTS / "cmappmgr",
        "--keys",
        keys,
        "--connect-timeout",
        "100ms",
        "127.0.0.1:1",
        "--",
        "true",
    ]
    traced = [sys.executable, "-X", "importtime", *map(str, manager)]
    done = subprocess.run(traced, env={}, capture_output=True, text=True, check=False)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert done.returncode == 123, done.stderr
    assert "cmapp.cli.cmappmgr" in loaded
    assert not loaded & SLOW
