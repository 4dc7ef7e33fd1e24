"""What a user can turn about a training: one value, made from flags, the environment and the task's own defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from worker.checkpoint.rhythm import EPOCHLY, Best, Every

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import keras

    from worker.strategy import Communication, Wanted
    from worker.task import Precision, Task


@dataclass(frozen=True)
class Patience:
    """Stop when ``metric`` has not become better for ``epochs`` epochs."""

    epochs: int
    metric: str
    mode: Literal["min", "max"]

    def is_over(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Whether it is, after these epochs. It follows from what all workers have alike, and so they all stop at once."""
        sign = 1 if self.mode == "min" else -1
        values = [sign * one[self.metric] for one in history if self.metric in one]
        if len(values) <= self.epochs:
            return False
        return min(values[: -self.epochs]) <= min(values[-self.epochs :])


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a task is trained.

    Attributes:
        epochs: how often every training example is seen.
        steps: no more steps than these, over all epochs; None for all of them.
        global_batch: examples of one step, over all workers together.
        data: where the examples are, for a task that can be told; None for its own.
        checkpoint_dir: where the chief writes, a path or whatever URL TensorFlow can write to.
        steps_per_call: steps that TensorFlow makes without asking Python; None finds a number that takes 0.2 s.
        run: the name of the run that this is an attempt of: ``fresh`` starts over once for all of them.
        virtual_devices: CPU devices to make, for trying several replicas without GPUs; 0 for none.
    """

    epochs: int
    global_batch: int
    optimizer: str | Callable[[], keras.optimizers.Optimizer]
    learning_rate: float | None
    clip_norm: float | None
    micro_batches: int
    precision: Precision
    seed: int
    checkpoint_dir: str
    steps: int | None = None
    data: str | None = None
    save_every: Every = EPOCHLY
    keep: int = 3
    keep_best: Best | None = None
    fresh: bool = False
    run: str = ""
    export: bool = False
    patience: Patience | None = None
    strategy: Wanted = "auto"
    communication: Communication = "auto"
    steps_per_call: int | None = None
    virtual_devices: int = 0
    tensorboard: bool = False

    @classmethod
    def of(cls, task: Task) -> Settings:
        """The task's own."""
        return cls(
            epochs=task.epochs,
            global_batch=task.global_batch,
            optimizer=task.optimizer,
            learning_rate=task.learning_rate,
            clip_norm=task.clip_norm,
            micro_batches=task.micro_batches,
            precision=task.precision,
            seed=task.seed,
            checkpoint_dir=f"checkpoints/{task.name}",
        )

    @property
    def recipe(self) -> str:
        """All that must stay the same for a checkpoint to be trained on; more epochs are welcome, or more workers."""
        chosen = {
            "--global-batch": self.global_batch,
            "--optimizer": self.optimizer if isinstance(self.optimizer, str) else None,
            "--learning-rate": self.learning_rate,
            "--clip-norm": self.clip_norm,
            "--precision": None if self.precision == "float32" else self.precision,
            "--seed": self.seed,
        }
        return " ".join(f"{flag} {value}" for flag, value in chosen.items() if value is not None)
