"""The custom training loop: a compiled GradientTape step under a strategy, checkpoints, a test at the end.

It takes values, never flags, and asks who is the chief only where something is printed or written.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from worker.checkpoint import Checkpoints
from worker.context import report
from worker.data import Batch, Schedule, cut
from worker.strategy import build, choose

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker.context import Context
    from worker.data import Examples
    from worker.tasks import Settings, Task

SUM = tf.distribute.ReduceOp.SUM


class Learner:
    """A model and its optimizer on every replica of a strategy, and the two steps that use them.

    Both steps are collectives: every member of the cluster calls them with its part of the same batch, made by
    ``distribute``, and every member gets the same number back.

    Attributes:
        learn: one optimizer step; gives the mean loss over the global batch before the step.
        score: changes nothing; gives the share of the global batch, 0 to 1, that the model classifies rightly.
    """

    def __init__(self, strategy: tf.distribute.Strategy, model: Callable[[], keras.Model], settings: Settings) -> None:
        keras.utils.set_random_seed(settings.seed)
        self.strategy = strategy
        with strategy.scope():
            self.model = model()
            self.optimizer = keras.optimizers.Adam(settings.learning_rate)
            # Keras 3 would create the optimizer's variables in the first step, too late for a restore.
            self.optimizer.build(self.model.trainable_variables)
        self.learn = tf.function(self._learn)
        self.score = tf.function(self._score)

    def distribute(self, part: Callable[[int, int], Batch]) -> Batch:
        """Ask ``part(replica, replicas)`` for the batch of each replica in this process."""
        values: Batch = self.strategy.experimental_distribute_values_from_function(
            lambda replica: Batch(
                *map(tf.convert_to_tensor, part(replica.replica_id_in_sync_group, replica.num_replicas_in_sync))
            )
        )
        return values

    def _learn(self, batch: Batch) -> tf.Tensor:
        return self.strategy.reduce(SUM, self.strategy.run(self._learn_part, args=batch), axis=None)

    def _learn_part(self, features: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = self.model(features, training=True)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
            # The weights sum to 1 over all replicas and the optimizer sums the gradients over them: so the gradient is
            # that of the global mean, and no division by a number of replicas is left to forget.
            loss = tf.reduce_sum(losses * weights)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return loss

    def _score(self, batch: Batch) -> tf.Tensor:
        return self.strategy.reduce(SUM, self.strategy.run(self._score_part, args=batch), axis=None)

    def _score_part(self, features: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        right = tf.argmax(self.model(features, training=False), axis=-1) == labels
        return tf.reduce_sum(tf.cast(right, tf.float32) * weights)


def train(task: Task, settings: Settings, context: Context) -> float:
    """Train, or train on from the last checkpoint, to the end of the last epoch; test; give the accuracy, 0 to 1.

    Every process of the cluster calls this with equal settings. The chief prints what happens and writes checkpoints.

    Raises:
        CheckpointError: the chief cannot read or write its checkpoints.
    """
    say = _print if context.is_chief else _keep_quiet
    choice = choose(context.size, len(tf.config.list_physical_devices("GPU")))
    examples, tests = task.load()
    say("data", f"{len(examples):,} {task.noun} to learn from, {len(tests):,} to be tested on")
    say("strategy", str(choice))
    learner = Learner(build(choice), task.model, settings)
    checkpoints = Checkpoints(
        settings.checkpoint_dir,
        f"{task.name} {settings.recipe}",
        learner.strategy,
        learner.model,
        learner.optimizer,
        is_chief=context.is_chief,
    )
    _learn(learner, examples, settings, checkpoints, say)
    accuracy = _test(learner, tests)
    say("test accuracy", f"{accuracy:.1%} ({round(accuracy * len(tests)):,} of {len(tests):,})")
    return accuracy


def _learn(
    learner: Learner,
    examples: Examples,
    settings: Settings,
    checkpoints: Checkpoints,
    say: Callable[[str, str], None],
) -> None:
    schedule = Schedule(len(examples), settings.global_batch, settings.seed)
    steps = settings.epochs * schedule.steps_per_epoch
    start = checkpoints.resume()
    say("checkpoints", f"{settings.checkpoint_dir}{_described(start, steps)}")
    progress = Progress(steps)
    rhythm = min(10, -(-settings.epochs // 10))
    for epoch in range(start // schedule.steps_per_epoch + 1, settings.epochs + 1):
        loss = _learn_epoch(learner, examples, schedule, epoch, progress)
        if epoch % rhythm == 0 or epoch == settings.epochs:
            checkpoints.save()
            step = epoch * schedule.steps_per_epoch
            say("epoch", f"{_of(epoch, settings.epochs)}   step {_of(step, steps)}   loss {loss:.4f}")


def _learn_epoch(learner: Learner, examples: Examples, schedule: Schedule, epoch: int, progress: Progress) -> float:
    """Give the mean of the losses of the epoch's steps."""
    last = epoch * schedule.steps_per_epoch
    losses = []
    for step in range(last - schedule.steps_per_epoch, last):
        losses.append(learner.learn(learner.distribute(partial(schedule.shard, examples, step))))
        progress(step + 1, losses[-1])
    return float(tf.reduce_mean(losses))


def _test(learner: Learner, tests: Examples) -> float:
    """Score all test examples, each replica its share: no slower for being exact, and the last thing the workers do.

    The sum over the replicas needs them all, so every worker leaves it, and then ends, at the same moment.
    """
    everything = np.arange(len(tests))
    width = -(-len(tests) // learner.strategy.num_replicas_in_sync)
    return float(learner.score(learner.distribute(partial(cut, tests, everything, width))))


class Progress:
    """Reports steps to the launcher, four times a second at most, and the last step always.

    Reading a loss waits for the device, so it is read for a report alone.
    """

    def __init__(self, steps: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._steps = steps
        self._clock = clock
        self._next = clock()

    def __call__(self, step: int, loss: tf.Tensor) -> None:
        now = self._clock()
        if now >= self._next or step == self._steps:
            self._next = now + 0.25
            report("progress", step=step, of=self._steps, loss=float(loss))


def _described(start: int, steps: int) -> str:
    if start == 0:
        return ""
    return f", resumed from step {start}" if start < steps else f", already trained to step {start}"


def _of(number: int, total: int) -> str:
    return f"{number:>{len(str(total))}}/{total}"


def _print(label: str, text: str) -> None:
    # Flushed: behind a pipe, lines would otherwise arrive all at once at the end.
    print(f"{label:<15}{text}", flush=True)


def _keep_quiet(label: str, text: str) -> None:
    """What a worker other than the chief prints."""
