from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from worker.task import Task, TaskError, find, nearest
from worker.tasks import NAMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MINE = """
from neighbour import NAME
from worker import Data, Task

task = Task(name=NAME, model=lambda: None, loss="mse", data=lambda: Data(None))
number = 7
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "neighbour.py").write_text("NAME = 'theirs'\n")
    (tmp_path / "broken.py").write_text("import os\n\nimport nowhere_at_all\n")
    (tmp_path / "garbled.py").write_text("x = 1\ndef f(:\n")
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    for name in ("mine", "neighbour", "broken", "garbled"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", NAMES)
def test_every_ready_made_name_is_a_task(name: str) -> None:
    assert find(name, NAMES).name == name


def test_a_task_of_the_users_own(folder: Path) -> None:
    assert find(f"{folder}/mine.py:task", NAMES).name == "theirs"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("digts", "no task is called 'digts' (did you mean digits?)"),
        ("zebra", "no task is called 'zebra' (there is digits, linear, mnist, or a file of your own as FILE.py:NAME)"),
        ("mine.py", "mine.py names no task in it (write mine.py:task, where task is the variable that holds it)"),
        ("absent.py:task", "no such file: absent.py"),
        ("mine.py:tsak", "mine.py has nothing called tsak (did you mean task?)"),
        ("neighbour.py:task", "neighbour.py has nothing called task (it has no task at all)"),
        ("mine.py:number", "mine.py:number is no worker.Task, but int"),
        ("broken.py:task", "broken.py does not import: ModuleNotFoundError: No module named 'nowhere_at_all' (broken.py:3)"),
        ("garbled.py:task", "garbled.py does not import: SyntaxError: invalid syntax (garbled.py, line 2) (garbled.py:2)"),
    ],
)  # fmt: skip
def test_what_is_no_task_is_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(TaskError) as caught:
        find(name, NAMES)
    assert str(caught.value) == told


def test_a_part_that_is_missing_is_named() -> None:
    with pytest.raises(TypeError, match="'loss'"):
        Task(name="t", model=list, data=list)  # type: ignore[call-arg,arg-type]


def test_the_nearest_name_whatever_its_letters() -> None:
    assert nearest("addam", ["SGD", "Adam"]) == "did you mean Adam?"
    assert nearest("zebra", ["SGD", "Adam"]) == ""
