from __future__ import annotations

import gc
import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from typing import TYPE_CHECKING

import pytest

from worker import boot
from worker.garbage import leave

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

    from tests.worker.conftest import Processes

    Import = Callable[[Callable[[ModuleType], object]], ModuleType]

START = boot.PACKAGE + "/start.py"


class Loader:
    """Loads a module by calling a function."""

    def __init__(self, run: Callable[[ModuleType], object]) -> None:
        self.exec_module = run

    def create_module(self, spec: ModuleSpec) -> None:
        """Nothing special."""


def spec_of(run: Callable[[ModuleType], object]) -> ModuleSpec:
    spec = ModuleSpec("some_module", Loader(run))  # type: ignore[arg-type]
    leave(spec)
    return spec


@pytest.fixture
def load() -> Iterator[Import]:
    """Imports a module that is made by a function, with the collector on before and after, whatever that does."""

    def imported(run: Callable[[ModuleType], object]) -> ModuleType:
        class Finder:
            @staticmethod
            def find_spec(name: str, *_: object) -> ModuleSpec | None:
                return spec_of(run) if name == "some_module" else None

        sys.meta_path.insert(0, Finder)
        try:
            return __import__("some_module")
        finally:
            sys.meta_path.remove(Finder)
            sys.modules.pop("some_module", None)

    gc.enable()
    yield imported
    gc.unfreeze()
    gc.enable()


class TestLeave:
    @pytest.mark.parametrize("before", [True, False])
    def test_the_collector_is_off_meanwhile_and_then_as_it_was(self, load: Import, before: bool) -> None:
        (gc.enable if before else gc.disable)()
        seen = []
        module = load(lambda _: seen.append(gc.isenabled()))
        assert seen == [False]
        assert gc.isenabled() is before
        assert type(module.__spec__) is ModuleSpec
        assert not module.__spec__._initializing  # type: ignore[attr-defined]

    def test_it_is_on_again_after_a_failure(self, load: Import) -> None:
        def fail(module: ModuleType) -> None:
            raise ImportError(module.__name__)

        with pytest.raises(ImportError, match="some_module"):
            load(fail)
        assert gc.isenabled()

    def test_what_was_made_is_old_and_can_be_collected(self, load: Import) -> None:
        made: list[list[object]] = []
        load(lambda _: made.extend([[] for _ in range(10_000)]))
        assert len(gc.get_objects(generation=0)) < 10_000
        assert gc.get_freeze_count() == 0

    def test_what_was_out_of_its_way_stays_there(self, load: Import) -> None:
        gc.freeze()
        frozen = gc.get_freeze_count()
        load(vars)
        assert gc.get_freeze_count() == frozen

    def test_one_that_is_only_looked_for_changes_nothing(self) -> None:
        module_from_spec(spec_of(vars))
        assert gc.isenabled()

    def test_a_spec_of_somebodys_own_kind_stays_as_it_is(self) -> None:
        class Own(ModuleSpec):
            pass

        spec = Own("some_module", None)
        leave(spec)
        assert type(spec) is Own


# What a package may do while it is imported, and a program that shows what it sees of that.
INITS = {
    "collects": "import gc; during = gc.isenabled()",
    "warns": "import warnings; warnings.warn('old', DeprecationWarning, stacklevel=2)",
    "fails": "raise RuntimeError('no such CPU')",
    "lacks": "import no_such_library",
}
PROGRAM = """
import gc, importlib.util, traceback
print(importlib.util.find_spec("tensorflow").origin, gc.isenabled())
try:
    import tensorflow
    print(type(tensorflow.__spec__), tensorflow.__spec__.loader.exec_module)
except Exception:
    traceback.print_exc()
print(gc.isenabled(), gc.get_freeze_count())
import tensorflow
"""


@pytest.mark.parametrize("init", INITS.values(), ids=INITS)
def test_a_program_does_not_see_it(
    tmp_path: Path, processes: Processes, written: Callable[[str], str], init: str
) -> None:
    folder = tmp_path / "other" / "tensorflow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(init)
    program, environment = written(PROGRAM), {"PYTHONPATH": str(folder.parent)}
    ours = processes.run(START, program, environment=environment)
    plain = processes.run(program, environment=environment)
    assert ours.status == plain.status
    assert without_addresses(ours.out) == without_addresses(plain.out)
    assert ours.err == plain.err


def without_addresses(text: str) -> list[str]:
    return [word for word in text.split() if not word.startswith("0x")]


def test_the_collector_is_off_while_tensorflow_is_imported(
    tmp_path: Path, processes: Processes, written: Callable[[str], str]
) -> None:
    folder = tmp_path / "other" / "tensorflow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(INITS["collects"])
    ended = processes.run(
        START, written("import tensorflow; print(tensorflow.during)"), environment={"PYTHONPATH": str(folder.parent)}
    )
    assert ended.out == "False\n", ended.err


@pytest.mark.parametrize("name", ["tensorflow", "keras"])
def test_a_finder_of_the_environments_finds_it_first(
    tmp_path: Path, processes: Processes, written: Callable[[str], str], name: str
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "sitecustomize.py").write_text(f"""
import sys
from importlib.util import spec_from_loader
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return spec_from_loader(name, Finder) if name == {name!r} else None
    create_module = staticmethod(lambda spec: None)
    exec_module = staticmethod(lambda module: vars(module).update(whose="the environment's"))
sys.meta_path.insert(0, Finder)
""")
    ended = processes.run(
        START, written(f"import {name}; print({name}.whose)"), environment={"PYTHONPATH": str(tmp_path / "other")}
    )
    assert ended.out == "the environment's\n", ended.err
