"""train.py WAY WIDTH TURNS FIGURES: steps of a model, without checkpoints and with one every 10 steps, in turn.

Without and with are blocks of one process, so whatever else the machine does meets both. WIDTH 2560 makes 10 million
parameters. Ways to save:

``ours``: the trainer's; the chief alone writes, in a thread.
``official``: as TensorFlow's tutorial on training with several workers has it. All workers save, the chief to the directory,
the others to one of their own, which they remove.
``plain``: the chief writes the same bytes to a file, in a thread, and nothing else: what no checkpoint can do without.

Each worker writes to FIGURES-RANK: the median seconds of a step without and with, how many more one takes that has a
checkpoint before it, the bytes that this process wrote for one, and how many were left out.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Protocol

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import tensorflow as tf

from worker.checkpoint.checkpoints import Checkpoints
from worker.checkpoint.position import Position
from worker.checkpoint.saving import Saving
from worker.checkpoint.state import State
from worker.context import Context
from worker.strategy import build, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

STEPS, EVERY, EXAMPLES = 20, 10, 128
way, width, turns, figures = sys.argv[1:]

context = Context.from_environment(os.environ)
strategy = build(choose(context.size, len(tf.config.list_physical_devices("GPU"))))
with strategy.scope():
    hidden = [keras.layers.Dense(int(width), activation="relu") for _ in range(2)]
    model = keras.Sequential([keras.Input((1024,)), *hidden, keras.layers.Dense(320)])
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)


def part(examples: tf.Tensor) -> tf.Tensor:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(examples, training=True) ** 2)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
    return loss


def whole(examples: tf.Tensor) -> tf.Tensor:
    return strategy.reduce("SUM", strategy.run(part, args=(examples,)), axis=None)


step = tf.function(whole)
examples = strategy.experimental_distribute_values_from_function(lambda _: tf.random.normal((EXAMPLES, 1024)))


class Way(Protocol):
    """Saves; ``rest`` waits until nothing is being written."""

    @property
    def left_out(self) -> int: ...

    def save(self, step: int) -> None: ...

    def rest(self) -> None: ...


class Ours:
    def __init__(self) -> None:
        state = State(strategy, model=model, optimizer=optimizer)
        self._checkpoints = Checkpoints(Saving("checkpoints", "benchmark"), state, is_chief=context.is_chief)
        self._checkpoints.resume()

    @property
    def left_out(self) -> int:
        return self._checkpoints.finish(Position(step=1_000_000)).skipped

    def save(self, step: int) -> None:
        self._checkpoints.save(Position(step=step))

    def rest(self) -> None:
        self._checkpoints.wait()


class Official:
    left_out = 0

    def __init__(self) -> None:
        checkpoint = tf.train.Checkpoint(model=model, optimizer=optimizer)
        self._folder = "checkpoints" if context.is_chief else f"checkpoints/temporary-{context.rank}"
        self._manager = tf.train.CheckpointManager(checkpoint, self._folder, max_to_keep=Saving("", "").keep)

    def save(self, step: int) -> None:
        self._manager.save(checkpoint_number=step)
        if not context.is_chief:
            tf.io.gfile.rmtree(self._folder)

    def rest(self) -> None: ...


class Plain:
    left_out = 0

    def __init__(self) -> None:
        self._state = State(strategy, model=model, optimizer=optimizer)
        self._writing = threading.Thread()

    def save(self, _: int) -> None:
        if context.is_chief and not self._writing.is_alive():
            self._writing = threading.Thread(target=self._write, args=(self._state.snapshot({}),))
            self._writing.start()

    def rest(self) -> None:
        if self._writing.ident is not None:
            self._writing.join()

    @staticmethod
    def _write(values: Mapping[str, tf.Tensor]) -> None:
        with Path("plain").open("wb", buffering=0) as file:
            file.writelines(np.ascontiguousarray(value).data for value in values.values())
            os.fsync(file)


def block(first: int, save: Callable[[int], None] | None) -> list[float]:
    """Seconds of each step. A checkpoint is begun before the first of ten, so that all of its cost falls within the block."""
    took = []
    for number in range(first, first + STEPS):
        start = time.perf_counter()
        if save and number % EVERY == 0:
            save(number)
        float(step(examples))
        took.append(time.perf_counter() - start)
    return took


def written() -> int:
    """Bytes that this process has given to write(2) so far; what it sends to its peers takes sendmsg(2)."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["wchar"])


ways: dict[str, Callable[[], Way]] = {"ours": Ours, "official": Official, "plain": Plain}
saving = ways[way]()
block(0, None)
without, with_them, bytes_written = [], [], 0
for first in range(STEPS, STEPS + int(turns) * STEPS, STEPS):
    without.append(block(first, None))
    before = written()
    with_them.append(block(first, saving.save))
    # What is left of the last write is not to fall upon the steps without.
    saving.rest()
    bytes_written += written() - before
step_without = median(sum(each) / STEPS for each in without)
step_with = median(sum(each) / STEPS for each in with_them)
pause = median(second for each in with_them for second in each[::EVERY]) - step_without
begun = int(turns) * STEPS // EVERY
left_out = saving.left_out
line = step_without, step_with, pause, bytes_written / (begun - left_out), left_out
Path(f"{figures}-{context.rank}").write_text(" ".join(map(str, line)))
