"""The arrows between the rooms, read from their imports: what may know what."""

from __future__ import annotations

import ast
import sys
from fnmatch import fnmatch
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from worker import boot

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
TOP_LEVEL = {
    *("launcher", "worker", "tests", "docs"),
    *("cluster.example.json", "pyproject.toml", "README.md", "LICENSE"),
}
TENSORFLOW = {"tensorflow", "keras", "tf_keras", "numpy"}
PURE = (
    "config",
    "placement",
    "plan",
    "tf_config",
    "verdict",
    "network",
    "reach",
    "checkup",
    "supervisor",
    "commands",
    "dump",
    "stacks",
    "roll_call",
    "roster",
    "halts",
    "rules",
    "standing",
    "testing.drill",
    "testing.faults",
    "tracebacks",
)
# Each takes longer to import than the agent takes to say hello: inside the function that needs it, or not at all.
HEAVY = {"rich", "difflib", "tempfile", "subprocess", "urllib", "jsonschema", "asyncio", "multiprocessing"}


class Import(NamedTuple):
    """One imported module: by whom, inside which function if in one, and whether for type checkers only."""

    importer: str
    module: str
    function: str
    typing: bool

    @property
    def package(self) -> str:
        return self.module.partition(".")[0]


class _Reader(ast.NodeVisitor):
    def __init__(self, importer: str, *, is_package: bool) -> None:
        self.found: list[Import] = []
        self._importer = importer
        self._folder = importer.split(".") if is_package else importer.split(".")[:-1]
        self._function = ""
        self._typing = False

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        parent = self._folder[: len(self._folder) - node.level + 1] if node.level else []
        base = ".".join([*parent, *filter(None, [node.module])])
        for alias in node.names:
            whole = f"{base}.{alias.name}"
            self._add(whole if whole in modules() else base)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        outer, self._function = self._function, self._function or node.name
        self.generic_visit(node)
        self._function = outer

    def visit_If(self, node: ast.If) -> None:
        outer, self._typing = self._typing, self._typing or ast.unparse(node.test) == "TYPE_CHECKING"
        for child in node.body:
            self.visit(child)
        self._typing = outer
        for child in node.orelse:
            self.visit(child)

    def _add(self, module: str) -> None:
        self.found.append(Import(self._importer, module, self._function, self._typing))


@cache
def modules() -> dict[str, Path]:
    """Name -> file of every module of launcher and worker."""
    files = (path for package in ("launcher", "worker") for path in (ROOT / package).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def imports() -> tuple[Import, ...]:
    return tuple(_read())


def _read() -> Iterator[Import]:
    for name, path in modules().items():
        reader = _Reader(name, is_package=path.name == "__init__.py")
        reader.visit(ast.parse(path.read_text()))
        yield from reader.found


def by(*importers: str) -> list[Import]:
    """What these modules import, and all that are below them."""
    return [one for one in imports() if any(f"{one.importer}.".startswith(f"{name}.") for name in importers)]


def at_run_time(found: list[Import]) -> list[Import]:
    return [one for one in found if not one.typing]


def test_the_reader_sees_what_there_is() -> None:
    assert Import("launcher.agent.strays", "launcher.agent.process", "", typing=False) in imports()
    assert Import("launcher.link", "launcher.agent.wire", "", typing=False) in imports()
    assert Import("launcher.supervisor", "launcher.plan", "", typing=True) in imports()
    assert Import("launcher.agent.ports", "portpicker", "_portpicker", typing=False) in imports()


def test_the_launcher_knows_neither_tensorflow_nor_the_worker() -> None:
    assert [one for one in by("launcher") if one.package in {*TENSORFLOW, "worker"}] == []


def test_the_worker_does_not_know_the_launcher() -> None:
    assert [one for one in by("worker") if one.package == "launcher"] == []


def loaded_by_boot() -> set[str]:
    """The modules that boot loads under private names, and all that they import of this package."""
    found = {
        "worker.failure",
        "worker.call",
        "worker.warm",
        *(f"worker.{file}" for file, _ in boot.AFTER_IMPORT.values()),
    }
    while more := {one.module for one in at_run_time(by(*found)) if one.package == "worker"} - found:
        found |= more
    return found


def test_what_boot_loads_never_asks_for_worker() -> None:
    # The program may have a module of that name, and it would be that one.
    trees = {name: ast.parse(modules()[name].read_text()) for name in loaded_by_boot() - {"worker"}}
    absolute = [
        (name, node.module)
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").partition(".")[0] == "worker"
    ]
    assert "worker.context" in trees
    assert absolute == []


def test_keras_is_not_made_slower_for_those_who_need_no_repair() -> None:
    found = at_run_time(by("worker.boot", "worker.keras3.repair", "worker.context"))
    assert found
    assert [one for one in found if not one.function and one.package in TENSORFLOW] == []


def test_the_agent_stands_alone() -> None:
    foreign = [
        one
        for one in by("launcher.agent")
        if one.package not in sys.stdlib_module_names and not one.module.startswith("launcher.agent")
    ]
    # The one thing that it takes from its host, if the host has it.
    assert {(one.importer, one.module, one.function) for one in at_run_time(foreign)} == {
        ("launcher.agent.ports", "portpicker", "_portpicker")
    }


@pytest.mark.parametrize("name", PURE)
def test_the_core_sees_no_clock_file_or_process(name: str) -> None:
    edges = {"os", "time", "socket", "subprocess", "selectors", "threading", "io", "shutil"}
    found = by(f"launcher.{name}")
    assert found
    assert [one for one in found if one.package in edges] == []


def test_errors_are_open_to_all_because_they_know_nobody() -> None:
    assert [one for one in by("launcher.errors") if one.package in {"launcher", "worker"}] == []


def test_only_the_command_line_knows_the_command_line() -> None:
    known = [one for one in imports() if f"{one.module}.".startswith("launcher.cli.")]
    assert known
    assert {one.importer for one in known if not f"{one.importer}.".startswith("launcher.cli.")} == set()


def test_only_tests_know_what_is_for_tests() -> None:
    assert {one.importer for one in imports() if one.package in {"pytest", "_pytest"}} == {"launcher.pytest_plugin"}
    known = {one.importer for one in imports() if f"{one.module}.".startswith("launcher.testing.")}
    assert {name for name in known if not name.startswith("launcher.testing")} == {"launcher.pytest_plugin"}


def test_everybodys_pytest_loads_the_plugin_and_next_to_nothing() -> None:
    found = at_run_time(by("launcher.pytest_plugin"))
    assert {one.module for one in found if not one.function} == {"__future__", "pytest"}


def test_nothing_goes_round() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for one in at_run_time(list(imports())):
        if one.module in graph and one.module != one.importer:
            graph[one.importer].add(one.module)
    # Raises CycleError, which names the modules of the cycle.
    TopologicalSorter(graph).prepare()


def test_starting_is_cheap() -> None:
    found = [one for one in at_run_time(by("launcher")) if not one.function and one.package in HEAVY]
    assert found == []


@pytest.mark.parametrize("name", ["door", "dump", "roll_call", "stacks", "inspection", "checkup", "reach"])
def test_nobody_waits_for_what_a_local_run_does_not_need(name: str) -> None:
    found = [one for one in at_run_time(list(imports())) if one.module == f"launcher.{name}" and not one.function]
    known = {"cli.stacks", "roll_call", "stacks", "visit", "cli.check", "inspection", "checkup", "slurm.site"}
    assert {one.importer.removeprefix("launcher.") for one in found} <= known


def test_a_run_knows_nothing_of_those_who_look_at_it() -> None:
    outside = {f"launcher.{name}" for name in ("detach", "logs", "runs", "visit", "watching")}
    found = [one for one in at_run_time(list(imports())) if one.module in outside and not one.function]
    commands = {f"launcher.cli.{name}" for name in ("attach", "logs", "ps", "stacks", "status", "stop")}
    assert {one.importer for one in found} == outside - {"launcher.logs", "launcher.visit"} | commands


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="an archive of the sources has files of its own")
def test_the_front_door_shows_what_was_agreed() -> None:
    ignored = [line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()]
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {name for name in visible if not any(fnmatch(name, pattern) for pattern in ignored)} == TOP_LEVEL
