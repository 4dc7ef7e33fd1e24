"""rate.py KIND MODEL TURNS: trains a model in one way, a block of steps for each line that the socket TURNS has for it.

Each worker answers with the examples a second over all workers. Steps alone are timed: neither the first ones, in which
TensorFlow compiles, nor what ``fit`` does before and after.

Kinds: ``loop``, the plainest GradientTape loop, as TensorFlow's tutorial has it; ``fit``, Keras's with a dataset of its own,
by tf_keras where ``TF_USE_LEGACY_KERAS`` is set; and what needs this project: ``learner``, the trainer's step, and
``fit_data``, Keras's ``fit`` with the examples that are the same on any number of workers.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker import Arrays

CALL = 20
keras: Any = tf.keras
layers = keras.layers


class Training(NamedTuple):
    """A model, the shape of an example, how many there are, how many make a batch, and how many batches make a block."""

    layers: Callable[[], list[Any]]
    shape: tuple[int, ...]
    examples: int
    batch: int
    steps: int


TRAININGS = {
    "dense": Training(lambda: [layers.Dense(64, activation="relu"), layers.Dense(10)], (64,), 1_442, 64, 200),
    "cnn": Training(
        lambda: [
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ],
        (28, 28, 1),
        2_048,
        128,
        40,
    ),
    "large": Training(
        lambda: [layers.Dense(3072, activation="relu"), layers.Dense(2200, activation="relu"), layers.Dense(10)],
        (1024,),
        2_048,
        64,
        20,
    ),
}

kind, name, turns = sys.argv[1:]
training = TRAININGS[name]
strategy = tf.distribute.MultiWorkerMirroredStrategy()
random = np.random.default_rng(0)
features = random.normal(size=(training.examples, *training.shape)).astype(np.float32)
labels = random.integers(0, 10, training.examples)


def model() -> Any:
    return keras.Sequential([keras.Input(training.shape), *training.layers()])


def optimizer() -> Any:
    return keras.optimizers.Adam(0.002)


def dataset() -> tf.data.Dataset:
    arrays = tf.data.Dataset.from_tensor_slices((features, labels)).shuffle(training.examples)
    return arrays.batch(training.batch, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)


def loop() -> Callable[[int], float]:
    with strategy.scope():
        made, adam = model(), optimizer()
    iterator = iter(strategy.experimental_distribute_dataset(dataset()))

    def part(features: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, made(features, training=True))
            loss = tf.nn.compute_average_loss(losses, global_batch_size=training.batch)
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


def source() -> Arrays:
    from worker import Arrays

    return Arrays(features, labels)


def learner() -> Callable[[int], float]:
    from worker import Task, cross_entropy
    from worker.data import Schedule
    from worker.feed import feed
    from worker.learner import Learner

    task = Task(name="t", model=model, loss=cross_entropy, data=lambda: None)  # type: ignore[arg-type,return-value]
    made = Learner(strategy, task, optimizer, seed=0, clip_norm=None, micro_batches=1, precision="float32")
    iterator = iter(feed(strategy, source(), Schedule(training.examples, training.batch, 0)))

    def run(count: int) -> float:
        start = time.perf_counter()
        for _ in range(count // CALL):
            made.learn(iterator, CALL)
        return time.perf_counter() - start

    return run


def fit(data: Callable[[], dict[str, Any]]) -> Callable[[int], float]:
    with strategy.scope():
        made = model()
        made.compile(optimizer(), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    given = data()

    class Clock(keras.callbacks.Callback):  # type: ignore[misc] # mypy knows nothing of Keras
        """Times the steps of an epoch, from the end of the first one on."""

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            del logs
            if batch == 0:
                self.start = time.perf_counter()
            self.took = time.perf_counter() - self.start

    def run(count: int) -> float:
        clock = Clock()
        made.fit(**{**given, "steps_per_epoch": count}, callbacks=[clock], verbose=0)
        return float(clock.took * count / (count - 1))

    return run


def plain_data() -> dict[str, Any]:
    return {"x": dataset(), "shuffle": False}


def our_data() -> dict[str, Any]:
    from worker import fit_data

    return fit_data(strategy, source(), global_batch=training.batch)


ways: dict[str, Callable[[], Callable[[int], float]]] = {
    "loop": loop,
    "learner": learner,
    "fit": lambda: fit(plain_data),
    "fit_data": lambda: fit(our_data),
}
run = ways[kind]()
run(CALL)
with socket.socket(socket.AF_UNIX) as line:
    line.connect(turns)
    with line.makefile("rwb", buffering=0) as orders:
        for _ in orders:
            orders.write(b"%f\n" % (training.steps * training.batch / run(training.steps)))
