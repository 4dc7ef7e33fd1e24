"""rate.py KIND MODEL FIGURE: examples a second over all workers, of one way to train a model. The chief writes the figure.

Steps alone are timed: neither the first ones, in which TensorFlow compiles, nor what ``fit`` does before and after.

Kinds: ``loop``, the plainest GradientTape loop, as TensorFlow's tutorial has it; ``learner``, the trainer's step; ``fit``,
Keras's with a dataset of its own; ``fit_data``, Keras's with the examples that are the same on any number of workers.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import keras
import numpy as np
import tensorflow as tf

from worker import Arrays, Task, cross_entropy, fit_data
from worker.context import Context
from worker.data import Schedule
from worker.feed import feed
from worker.learner import Learner
from worker.tasks import digits

if TYPE_CHECKING:
    from collections.abc import Callable

BATCH, CALL = 64, 20
kind, name, figure = sys.argv[1:]
context = Context.from_environment(os.environ)
strategy = tf.distribute.MultiWorkerMirroredStrategy() if context.size > 1 else tf.distribute.get_strategy()


def large() -> keras.Model:
    """10 million parameters."""
    dense = keras.layers.Dense
    hidden = [dense(3072, activation="relu"), dense(2200, activation="relu")]
    return keras.Sequential([keras.Input((1024,)), *hidden, dense(10)])


model, steps = {"small": (digits.model, 600), "large": (large, 60)}[name]
if name == "small":
    source: Any = digits.data().train
else:
    random = np.random.default_rng(0)
    source = Arrays(random.normal(size=(2048, 1024)).astype(np.float32), random.integers(0, 10, 2048))


def optimizer() -> keras.optimizers.Optimizer:
    return keras.optimizers.Adam(0.002)


def plain_dataset() -> tf.data.Dataset:
    arrays = tf.data.Dataset.from_tensor_slices((source.features, source.labels))
    return arrays.shuffle(len(source)).batch(BATCH, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)


def loop() -> Callable[[int], float]:
    with strategy.scope():
        made, adam = model(), optimizer()
    iterator = iter(strategy.experimental_distribute_dataset(plain_dataset()))

    def part(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = cross_entropy(labels, made(features, training=True))
            loss = tf.nn.compute_average_loss(losses, global_batch_size=BATCH)
        variables = made.trainable_variables
        adam.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def whole(iterator: Any) -> tf.Tensor:
        return strategy.reduce("SUM", strategy.run(part, args=next(iterator)), axis=None)

    step = tf.function(whole)

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            loss = step(iterator)
        float(loss)
        return time.perf_counter() - start

    return run


def learner() -> Callable[[int], float]:
    task = Task(name="t", model=model, loss=cross_entropy, data=lambda: None)  # type: ignore[arg-type,return-value]
    made = Learner(strategy, task, optimizer, seed=0, clip_norm=None, micro_batches=1, precision="float32")
    iterator = iter(feed(strategy, source, Schedule(len(source), BATCH, 0)))

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count // CALL):
            made.learn(iterator, CALL)
        return time.perf_counter() - start

    return run


class Clock(keras.callbacks.Callback):  # type: ignore[misc] # mypy knows nothing of Keras
    """Times the steps of an epoch, from the end of the first one on."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        del logs
        if batch == 0:
            self.start = time.perf_counter()
        self.took = time.perf_counter() - self.start


def fit(data: Callable[[], dict[str, Any]]) -> Callable[[int], float]:
    with strategy.scope():
        made = model()
        made.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    given = data()

    def run(count: int) -> float:
        clock = Clock()
        made.fit(**{**given, "steps_per_epoch": count}, callbacks=[clock], verbose=0)
        return float(clock.took * count / (count - 1))

    return run


ways = {
    "loop": loop,
    "learner": learner,
    "fit": lambda: fit(lambda: {"x": plain_dataset(), "shuffle": False}),
    "fit_data": lambda: fit(lambda: fit_data(strategy, source, global_batch=BATCH)),
}
run: Callable[[int], float] = ways[kind]()  # type: ignore[no-untyped-call]
run(CALL)
rate = steps * BATCH / run(steps)
if context.is_chief:
    Path(figure).write_text(f"{rate}\n")
