"""Ready-made training. A task is a value: what it learns from, its model and its defaults; train.py does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from worker.rhythm import EPOCHLY, Best, Every

if TYPE_CHECKING:
    from collections.abc import Callable

    import keras

    from worker.data import Examples

NAMES = ("digits",)


@dataclass(frozen=True)
class Settings:
    """What a user can turn.

    Attributes:
        epochs: how often every training example is seen.
        global_batch: examples of one step, over all workers together.
        learning_rate: Adam's.
        seed: of the initial weights and of the order of the examples.
        checkpoint_dir: where the chief writes, a path or whatever URL TensorFlow can write to.
        save_every: how often it does, beside the end.
        keep: how many of the newest checkpoints are kept.
        keep_best: by what measure one more is kept.
        fresh: begin anew, with older checkpoints moved out of the way.
        export: write a SavedModel in the end, beside the .keras file.
    """

    epochs: int
    global_batch: int
    learning_rate: float
    seed: int
    checkpoint_dir: str
    save_every: Every = EPOCHLY
    keep: int = 3
    keep_best: Best | None = None
    fresh: bool = False
    export: bool = False

    @property
    def recipe(self) -> str:
        """All that must stay the same for a checkpoint to be trained on; more epochs are welcome."""
        return f"--global-batch {self.global_batch} --learning-rate {self.learning_rate} --seed {self.seed}"


@dataclass(frozen=True)
class Task:
    """A classifier to be trained.

    Attributes:
        name: as the user types it.
        noun: what its examples are, in the plural.
        load: gives the training and the test examples.
        model: builds a Keras model of features to one logit a class. Neither BatchNormalization nor Dropout: what a
            replica draws or averages by itself would make the result depend on the number of workers.
        defaults: the settings for whatever the user does not say.
    """

    name: str
    noun: str
    load: Callable[[], tuple[Examples, Examples]]
    model: Callable[[], keras.Model]
    defaults: Settings


def named(name: str) -> Task:
    """The task called ``name``, which must be one of NAMES. Imports neither NumPy nor TensorFlow."""
    task: Task = import_module(f"worker.tasks.{name}").TASK
    return task
