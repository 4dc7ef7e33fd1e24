"""What is asked of the checkpoints of a training, and what becomes of them. Values alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.checkpoint.rhythm import EPOCHLY

if TYPE_CHECKING:
    from worker.checkpoint.rhythm import Best, Every


class CheckpointError(Exception):
    """A training cannot begin with its checkpoints, or its end is not among them; the message is one line.

    ``exit_status`` is 2 where another ``--checkpoint-dir`` or other settings are the cure, else 1.
    """

    def __init__(self, message: str, exit_status: int = 1) -> None:
        super().__init__(message)
        self.exit_status = exit_status


@dataclass(frozen=True)
class Saving:
    """What a user can say about checkpoints.

    Attributes:
        directory: a path, or whatever URL TensorFlow can write to.
        recipe: the settings that a checkpoint is trained on with; stored in it, and they must be equal to go on.
        every: how often to save, beside the end.
        keep: how many of the newest to keep.
        best: by what measure to keep one more.
        fresh: begin anew, with what is there moved out of the way.
        run: whose attempts go on from what one of them has begun anew; empty for a process that is no attempt of a run.
    """

    directory: str
    recipe: str
    every: Every = EPOCHLY
    keep: int = 3
    best: Best | None = None
    fresh: bool = False
    run: str = ""


@dataclass(frozen=True)
class Outcome:
    """What became of the checkpoints of a run.

    Attributes:
        saved: how many were written.
        skipped: how many were left out because the disk was slower than the training.
        failed: how many could not be written.
        reason: why the last of those could not; empty when none failed.
        step: the step of the newest there is; None when there is none.
        complete: whether that is the last step of the training.
    """

    saved: int = 0
    skipped: int = 0
    failed: int = 0
    reason: str = ""
    step: int | None = None
    complete: bool = True
