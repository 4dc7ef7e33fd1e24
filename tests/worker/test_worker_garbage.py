from __future__ import annotations

import gc
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from worker import boot
from worker.garbage import uncollected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.worker.conftest import Processes

MODULE = ModuleType("some")


@pytest.fixture
def collecting() -> Iterator[None]:
    """Has the collector on before and after, whatever a test does."""
    gc.enable()
    yield
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("collecting")
class TestUncollected:
    @pytest.mark.parametrize("before", [True, False])
    def test_the_collector_is_off_meanwhile_and_then_as_it_was(self, before: bool) -> None:
        (gc.enable if before else gc.disable)()
        seen = []
        uncollected(lambda module: seen.append((module, gc.isenabled())))(MODULE)
        assert seen == [(MODULE, False)]
        assert gc.isenabled() is before

    def test_it_is_on_again_after_a_failure(self) -> None:
        def fail(module: ModuleType) -> None:
            raise ImportError(module.__name__)

        with pytest.raises(ImportError, match="some"):
            uncollected(fail)(MODULE)
        assert gc.isenabled()

    def test_what_was_made_is_old_and_can_be_collected(self) -> None:
        def make(module: ModuleType) -> None:
            vars(module)["made"] = [[] for _ in range(10_000)]

        uncollected(make)(MODULE)
        assert len(gc.get_objects(generation=0)) < 10_000
        assert gc.get_freeze_count() == 0

    def test_what_was_out_of_its_way_stays_there(self) -> None:
        gc.freeze()
        frozen = gc.get_freeze_count()
        uncollected(list[ModuleType]().append)(MODULE)
        assert gc.get_freeze_count() == frozen


def test_a_program_imports_tensorflow_so_and_does_not_see_it(
    tmp_path: Path, processes: Processes, written: Callable[[str], str]
) -> None:
    folder = tmp_path / "other" / "tensorflow"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import gc; during = gc.isenabled()")
    program = written(
        "import gc, tensorflow; print(tensorflow.during, gc.isenabled(), gc.get_freeze_count(), tensorflow.__spec__.loader)"
    )
    environment = {"PYTHONPATH": str(folder.parent)}
    ours = processes.run(boot.PACKAGE + "/start.py", program, environment=environment)
    plain = processes.run(program, environment=environment)
    assert ours.out.startswith("False True 0 "), ours.err
    assert plain.out.startswith("True True 0 "), plain.err
    assert ours.out.split("object")[0] == plain.out.replace("True", "False", 1).split("object")[0]
