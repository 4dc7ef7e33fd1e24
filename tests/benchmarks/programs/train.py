"""train.py FIGURES: steps of a model of 10 million parameters, without checkpoints and with one every 10 steps, in turn.

The chief writes to FIGURES: the median seconds a step of both, and how many checkpoints were left out. Both are blocks of
one process, so whatever else the machine does meets both.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from statistics import median

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import tensorflow as tf

from worker.checkpoint.checkpoints import Checkpoints
from worker.checkpoint.position import Position
from worker.checkpoint.saving import Saving
from worker.checkpoint.state import State
from worker.context import Context
from worker.strategy import build, choose

STEPS, PAIRS, EXAMPLES, WIDTH = 20, 5, 128, 2560

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


def block(checkpoints: Checkpoints | None, first: int = 0) -> float:
    """Seconds a step. A checkpoint is begun before the first of ten, so that all of its cost falls within the block."""
    start = time.perf_counter()
    for number in range(first, first + STEPS):
        if checkpoints and number % 10 == 0:
            checkpoints.save(Position(step=number))
        float(step(examples))
    return (time.perf_counter() - start) / STEPS


examples = strategy.experimental_distribute_values_from_function(lambda _: tf.random.normal((EXAMPLES, 1024)))
state = State(strategy, model=model, optimizer=optimizer)
with Checkpoints(Saving("checkpoints", "benchmark"), state, is_chief=context.is_chief) as checkpoints:
    checkpoints.resume()
    block(None)
    without, with_checkpoints = [], []
    for first in range(STEPS, STEPS + PAIRS * STEPS, STEPS):
        without.append(block(None))
        with_checkpoints.append(block(checkpoints, first))
        # Let it come to rest: what is left of the last checkpoint is not to fall upon the other kind.
        checkpoints.save(Position(step=first + STEPS - 1), wait=True)
    outcome = checkpoints.finish(Position(step=STEPS + PAIRS * STEPS - 1))
if context.is_chief:
    Path(sys.argv[1]).write_text(f"{median(without)} {median(with_checkpoints)} {outcome.skipped}\n")
