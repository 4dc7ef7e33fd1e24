"""The trained model as files that need nothing of the training: a ``.keras`` file, and a SavedModel."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from worker.checkpoint.disk import sync
from worker.checkpoint.state import variable_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.checkpoint.disk import Disk
    from worker.checkpoint.state import State


def exporters(model: Any, state: State, step: int, *, saved_model: bool) -> dict[str, Callable[[Path], object]]:  # noqa: ANN401
    """What to write, by file name: functions that write it to a path on the local disk.

    They write a copy that is made outside of the strategy, with the values of this process: saving the model itself
    would have tf_keras read what is averaged over all workers, of which the chief is the only one that is here.
    """
    copy = _copy(model, state)
    found: dict[str, Callable[[Path], object]] = {"model.keras": copy.save}
    if saved_model:
        # By number, as TensorFlow Serving wants it: it serves the greatest.
        found[f"saved_model/{step}"] = lambda path: _save_model(copy, path)
    return found


def place(disk: Disk, name: str, write: Callable[[Path], object]) -> None:
    """Have ``write(path)`` write a file or folder on the local disk, and put it at ``name``.

    A file replaces the one before it; a folder that is there already stays.

    Raises:
        OSError, tf.errors.OpError: it cannot be written; what was there before still is.
    """
    if tf.io.gfile.isdir(disk.path(name)):
        return
    tf.io.gfile.makedirs(disk.path(name.rpartition("/")[0]))
    with tempfile.TemporaryDirectory(dir=disk.directory if disk.local else None, prefix=".writing-") as folder:
        made = Path(folder) / Path(name).name
        write(made)
        files = [path for path in (made, *made.rglob("*")) if path.is_file()]
        if disk.local:
            _move(made, files, Path(disk.path(name)))
        else:
            _copy_files(made, files, disk.path(name))


def _move(made: Path, files: Sequence[Path], target: Path) -> None:
    for path in files:
        sync(str(path))
    made.replace(target)
    sync(str(target.parent))


def _copy_files(made: Path, files: Sequence[Path], target: str) -> None:
    for path in files:
        copy = "/".join((target, *path.relative_to(made).parts))
        tf.io.gfile.makedirs(copy.rpartition("/")[0])
        tf.io.gfile.copy(str(path), copy, overwrite=True)


def _copy(model: Any, state: State) -> Any:  # noqa: ANN401
    keras = _keras_of(model)
    values: dict[int, tf.Tensor] = {
        id(slot.variable): value for slot, value in zip(state.slots, state.snapshot({}).values(), strict=True)
    }
    copy = keras.models.clone_model(model)
    copy.set_weights([np.asarray(values[id(variable_of(each))]) for each in model.weights])
    return copy


def _keras_of(model: Any) -> Any:  # noqa: ANN401
    """Keras 3 or tf_keras, whichever the model is of."""
    import importlib
    import sys

    legacy = sys.modules.get("tf_keras")
    if legacy is not None and isinstance(model, legacy.Model):
        return legacy
    return importlib.import_module("keras")


def _save_model(model: Any, path: Path) -> None:  # noqa: ANN401
    import contextlib
    import io

    # Both Keras print a description of the model's signatures, the one by print and the other by its own writer to stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        model.export(str(path))
