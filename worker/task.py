"""What a training is: a small typed value, ours or the user's, and how one is found in a file of the user's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import keras
    import tensorflow as tf

    from worker.data import Source

Precision = Literal["float32", "mixed_bfloat16", "mixed_float16"]
PRECISIONS = get_args(Precision)


class TaskError(Exception):
    """A training cannot be done as it is asked for, and every worker finds that out alike; the message is one line."""

    exit_status = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} ({hint})" if hint else message)


class Data(NamedTuple):
    """Where a training's examples come from.

    Attributes:
        train: what is learnt from.
        validation: what is measured on after every epoch.
        test: what is measured on at the end.
    """

    train: Source
    validation: Source | None = None
    test: Source | None = None


@dataclass(frozen=True)
class Result:
    """What a training has come to, on the chief.

    Attributes:
        model: the trained model.
        measures: of the last epoch, and of the test under ``test_loss`` and so on.
        folder: where the training keeps what it writes.
    """

    model: keras.Model
    measures: Mapping[str, float]
    folder: str


@dataclass(frozen=True, kw_only=True)
class Task:
    """A training.

    Attributes:
        name: what it is called; its checkpoints lie under ``checkpoints/<name>``.
        model: builds the Keras model. It is called under the strategy, after the random seed is set.
        loss: of one example: a name or loss of Keras, or a function of labels and outputs that gives one loss a row.
        data: gives the examples, on every worker the same.
        optimizer: a name of Keras, or a function that makes an optimizer.
        metrics: names of Keras, or functions that make a metric.
        global_batch: examples of a step, over all workers together.
        epochs: how often every example is seen.
        learning_rate: the optimizer's; None leaves it as it is made.
        clip_norm: the largest global norm of a step's gradient; None for no limit.
        micro_batches: pieces in which a replica works through its part of a step, to need less memory at a time.
        precision: what is computed in; variables stay float32.
        seed: of the initial weights and of the order of the examples.
        noun: what the examples are, in the plural.
        data_from: gives them from where ``--data`` says; None where a task has its own alone.
        prepare: makes or downloads what ``data`` reads. On each host the workers call it one after the other, so it
            returns at once where everything is there, as ``keras.utils.get_file`` does.
        finish: is called on the chief at the end, for a picture, say.
    """

    name: str
    model: Callable[[], keras.Model]
    loss: str | Callable[[Any, Any], Any]
    data: Callable[[], Data]
    optimizer: str | Callable[[], keras.optimizers.Optimizer] = "adam"
    metrics: Sequence[str | Callable[[], keras.metrics.Metric]] = ()
    global_batch: int = 32
    epochs: int = 1
    learning_rate: float | None = None
    clip_norm: float | None = None
    micro_batches: int = 1
    precision: Precision = "float32"
    seed: int = 0
    noun: str = "examples"
    data_from: Callable[[str], Data] | None = None
    prepare: Callable[[], object] | None = None
    finish: Callable[[Result], object] | None = None


def cross_entropy(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """A loss: the cross-entropy of each row, from the number of its class and one logit for each class."""
    import tensorflow as tf

    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, outputs)


def find(name: str, ready_made: Sequence[str]) -> Task:
    """The task that the user named: one of ours, or ``FILE.py:NAME``.

    Raises:
        TaskError: there is none, or what is there is no task.
    """
    file, colon, attribute = name.rpartition(":")
    if colon and file:
        return _from_file(Path(file), attribute)
    if name.endswith(".py"):
        raise TaskError(f"{name} names no task in it", f"write {name}:task, where task is the variable that holds it")
    if name not in ready_made:
        hint = nearest(name, ready_made) or f"there is {', '.join(ready_made)}, or a file of your own as FILE.py:NAME"
        raise TaskError(f"no task is called {name!r}", hint)
    from importlib import import_module

    task: Task = import_module(f"worker.tasks.{name}").TASK
    return task


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean x?``, or nothing. Whether letters are large or small makes no difference."""
    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), names, n=1)
    return f"did you mean {names[close[0]]}?" if close else ""


def _from_file(file: Path, attribute: str) -> Task:
    if not file.is_file():
        raise TaskError(f"no such file: {file}")
    names = vars(_imported(file))
    if attribute not in names:
        there = [name for name, value in names.items() if isinstance(value, Task)]
        hint = nearest(attribute, there) or (f"it has {', '.join(there)}" if there else "it has no task at all")
        raise TaskError(f"{file} has nothing called {attribute}", hint)
    task = names[attribute]
    if not isinstance(task, Task):
        raise TaskError(f"{file}:{attribute} is no worker.Task, but {type(task).__name__}")
    return task


def _imported(file: Path) -> Any:  # noqa: ANN401 - a module of the user's
    from importlib.util import module_from_spec, spec_from_file_location

    # As for a script: its neighbours can be imported.
    sys.path.insert(0, str(file.resolve().parent))
    spec = spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise TaskError(f"{file} is no Python file")
    module = module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise TaskError(f"{file} does not import: {type(error).__name__}: {error} ({_place(error, file)})") from error
    return module


def _place(error: BaseException, file: Path) -> str:
    """Where in the file it went wrong."""
    if isinstance(error, SyntaxError) and error.lineno:
        return f"{Path(error.filename or file).name}:{error.lineno}"
    line, trace = 0, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename).resolve() == file.resolve():
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{file.name}:{line}"
