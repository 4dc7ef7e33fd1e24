from __future__ import annotations

import pytest

from worker.settings import Patience, Settings
from worker.task import Task


def task() -> Task:
    return Task(name="mine", model=list, loss="mse", data=list, epochs=3, global_batch=16, learning_rate=0.1)  # type: ignore[arg-type]


def test_a_task_brings_its_own() -> None:
    settings = Settings.of(task())
    assert (settings.epochs, settings.global_batch, settings.learning_rate) == (3, 16, 0.1)
    assert settings.checkpoint_dir == "checkpoints/mine"


def test_the_recipe_is_what_the_result_depends_on() -> None:
    settings = Settings.of(task())
    assert settings.recipe == "--global-batch 16 --optimizer adam --learning-rate 0.1 --seed 0"


@pytest.mark.parametrize(
    ("values", "over"),
    [
        ([], False),
        ([3.0], False),
        ([3.0, 2.0, 1.0], False),
        ([1.0, 2.0], False),
        ([1.0, 2.0, 3.0], True),
        ([3.0, 1.0, 1.0, 1.0], True),
        ([3.0, 1.0, 2.0, 0.5], False),
    ],
)
def test_patience_is_over_when_nothing_became_better_for_so_long(values: list[float], *, over: bool) -> None:
    history = [{"step": float(step), "val_loss": value} for step, value in enumerate(values)]
    assert Patience(2, "val_loss", "min").is_over(history) == over
    larger = [{**one, "val_loss": -one["val_loss"]} for one in history]
    assert Patience(2, "val_loss", "max").is_over(larger) == over


def test_epochs_without_the_measure_do_not_count() -> None:
    assert not Patience(1, "val_loss", "min").is_over([{"loss": 1.0}, {"loss": 2.0}, {"loss": 3.0}])
