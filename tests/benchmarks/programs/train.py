"""train.py FIGURES: steps of a model of 10 million parameters, without checkpoints and with one every 10 steps, in turn.

In the third place a thread writes the same bytes every 10 steps, and nothing else: what is left of the difference then is
what no checkpoint can do without. The chief writes to FIGURES: the median seconds a step of the three, and how many
checkpoints were left out. They are blocks of one process, so whatever else the machine does meets all of them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

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

STEPS, TURNS, EXAMPLES, WIDTH = 20, 5, 128, 2560

context = Context.from_environment(os.environ)
strategy = build(choose(context.size, len(tf.config.list_physical_devices("GPU"))))
with strategy.scope():
    hidden = [keras.layers.Dense(WIDTH, activation="relu") for _ in range(2)]
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


def block(save: Callable[[int], None] | None, first: int = 0) -> float:
    """Seconds a step. A checkpoint is begun before the first of ten, so that all of its cost falls within the block."""
    start = time.perf_counter()
    for number in range(first, first + STEPS):
        if save and number % 10 == 0:
            save(number)
        float(step(examples))
    return (time.perf_counter() - start) / STEPS


def write_plainly(values: Mapping[str, tf.Tensor]) -> None:
    with Path("plain").open("wb", buffering=0) as file:
        file.writelines(np.ascontiguousarray(value).data for value in values.values())
        os.fsync(file)


class Plain:
    """In the place of checkpoints: the same values are noted, and one file is written again and again."""

    def __init__(self) -> None:
        self._writing = threading.Thread()

    def save(self, _: int) -> None:
        if context.is_chief and not self._writing.is_alive():
            self._writing = threading.Thread(target=write_plainly, args=(state.snapshot({}),))
            self._writing.start()

    def wait(self) -> None:
        if self._writing.ident is not None:
            self._writing.join()


examples = strategy.experimental_distribute_values_from_function(lambda _: tf.random.normal((EXAMPLES, 1024)))
state = State(strategy, model=model, optimizer=optimizer)
with Checkpoints(Saving("checkpoints", "benchmark"), state, is_chief=context.is_chief) as checkpoints:
    checkpoints.resume()
    plain = Plain()
    block(None)
    without, with_checkpoints, with_plain = [], [], []
    for first in range(STEPS, STEPS + TURNS * STEPS, STEPS):
        without.append(block(None))
        with_checkpoints.append(block(lambda number: checkpoints.save(Position(step=number)), first))
        # Let it come to rest: what is left of the last write is not to fall upon another kind.
        checkpoints.save(Position(step=first + STEPS - 1), wait=True)
        with_plain.append(block(plain.save, first))
        plain.wait()
    outcome = checkpoints.finish(Position(step=STEPS + TURNS * STEPS - 1))
if context.is_chief:
    figures = median(without), median(with_checkpoints), median(with_plain), outcome.skipped
    Path(sys.argv[1]).write_text(" ".join(map(str, figures)))
