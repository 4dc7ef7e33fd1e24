"""What TensorBoard shows of a training: its measures, a point an epoch (``tflaunch[tensorboard]``)."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import tensorflow as tf

from worker.task import TaskError

if TYPE_CHECKING:
    from collections.abc import Mapping

FOLDER = "tensorboard"


def check() -> None:
    """Without the package, TensorFlow 2.21 has writers, and nothing to write with.

    Raises:
        TaskError: TensorBoard is not installed.
    """
    if find_spec("tensorboard") is None:
        raise TaskError("--tensorboard needs TensorBoard", "install tflaunch[tensorboard]")


class Board:
    """Writes below a folder, a path or whatever URL TensorFlow can write to. The chief alone has one."""

    def __init__(self, folder: str) -> None:
        self._writer = tf.summary.create_file_writer(f"{folder}/{FOLDER}")

    def write(self, step: int, measures: Mapping[str, float]) -> None:
        """Add a point to the curve of each measure."""
        with self._writer.as_default(step=step):
            for name, value in measures.items():
                if name != "step":
                    tf.summary.scalar(name, value)
        self._writer.flush()
