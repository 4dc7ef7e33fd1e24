"""The custom training loop: a compiled GradientTape step under a strategy, checkpoints, a test at the end.

It takes values, never flags, and asks who is the chief only where something is printed or written.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import keras
import numpy as np
import tensorflow as tf

from worker.checkpoint import Checkpoints
from worker.context import report
from worker.data import Batch, Schedule, cut
from worker.saving import CheckpointError, Saving
from worker.state import State
from worker.strategy import build, choose

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from worker.context import Context
    from worker.data import Examples
    from worker.position import Position
    from worker.saving import Outcome
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
    """Train, or train on from the last checkpoint, to the end of the last epoch; export; test; give the accuracy, 0 to 1.

    Every process of the cluster calls this with equal settings. The chief prints what happens and writes checkpoints.

    Raises:
        CheckpointError: the training cannot begin with the checkpoints there are, or its end could not be saved.
    """
    say = _print if context.is_chief else _keep_quiet
    choice = choose(context.size, len(tf.config.list_physical_devices("GPU")))
    examples, tests = task.load()
    say("data", f"{len(examples):,} {task.noun} to learn from, {len(tests):,} to be tested on")
    say("strategy", str(choice))
    learner = Learner(build(choice), task.model, settings)
    saving = Saving(
        settings.checkpoint_dir,
        f"{task.name} {settings.recipe}",
        settings.save_every,
        settings.keep,
        settings.keep_best,
        settings.fresh,
    )
    state = State(learner.strategy, model=learner.model, optimizer=learner.optimizer)
    with Checkpoints(saving, state, is_chief=context.is_chief, say=partial(say, "checkpoints")) as checkpoints:
        position = _learn(learner, examples, settings, checkpoints, say)
        outcome = checkpoints.finish(position)
        exported = checkpoints.export(learner.model, position.step, saved_model=settings.export)
        # Last, as the others wait in it for the chief.
        accuracy = _test(learner, tests)
    say("test accuracy", f"{accuracy:.1%} ({round(accuracy * len(tests)):,} of {len(tests):,})")
    _tell(outcome, exported, saving, say)
    return accuracy


def _learn(
    learner: Learner,
    examples: Examples,
    settings: Settings,
    checkpoints: Checkpoints,
    say: Callable[[str, str], None],
) -> Position:
    """Make all steps that are left, and give the position after them."""
    schedule = Schedule(len(examples), settings.global_batch, settings.seed)
    steps = settings.epochs * schedule.steps_per_epoch
    position = checkpoints.resume()
    say("checkpoints", f"{settings.checkpoint_dir}{_described(position.step, steps)}")
    progress = Progress(steps)
    rhythm = min(10, -(-settings.epochs // 10))
    for epoch in range(position.epoch, settings.epochs):
        position = _learn_epoch(learner, examples, schedule, position, checkpoints, progress)
        if (epoch + 1) % rhythm == 0 or epoch + 1 == settings.epochs:
            loss = position.measured["loss"]
            say("epoch", f"{_of(epoch + 1, settings.epochs)}   step {_of(position.step, steps)}   loss {loss:.4f}")
    return position


def _learn_epoch(
    learner: Learner,
    examples: Examples,
    schedule: Schedule,
    start: Position,
    checkpoints: Checkpoints,
    progress: Progress,
) -> Position:
    """Make the steps that are left of an epoch, and give the position after it."""
    losses = [tf.constant(loss) for loss in start.partial]
    last = (start.epoch + 1) * schedule.steps_per_epoch
    for step in range(start.step + 1, last + 1):
        losses.append(learner.learn(learner.distribute(partial(schedule.shard, examples, step - 1))))
        progress(step, losses[-1])
        position = partial(_after, start, step, schedule.steps_per_epoch, losses)
        checkpoints.after_step(step, step // schedule.steps_per_epoch, position)
    return _after(start, last, schedule.steps_per_epoch, losses)


def _after(start: Position, step: int, steps_per_epoch: int, losses: Sequence[tf.Tensor]) -> Position:
    """The position after a step of the epoch that ``start`` lies in, with the losses of all its steps up to there."""
    epoch, batch = divmod(step, steps_per_epoch)
    total = float(tf.add_n(losses))
    if batch:
        return replace(start, step=step, epoch=epoch, batch=batch, partial=(total,))
    measured = {"step": step, "loss": total / steps_per_epoch}
    return replace(start, step=step, epoch=epoch, batch=0, history=(*start.history, measured), partial=())


def _tell(outcome: Outcome, exported: str, saving: Saving, say: Callable[[str, str], None]) -> None:
    """Say what became of the checkpoints, if there is anything to say.

    Raises:
        CheckpointError: the end of the training is not on the disk.
    """
    if outcome.skipped > outcome.saved:
        say("checkpoints", f"{outcome.skipped:,} were left out, as the one before was still being written")
    if outcome.failed:
        say("checkpoints", f"{outcome.failed:,} COULD NOT BE SAVED, {outcome.saved:,} were; {outcome.reason}")
    if not outcome.complete:
        newest = (
            "there is no checkpoint" if outcome.step is None else f"the newest checkpoint is of step {outcome.step}"
        )
        raise CheckpointError(f"the end of the training is not saved to {saving.directory}: {outcome.reason}; {newest}")
    if exported:
        raise CheckpointError(f"cannot export to {saving.directory}: {exported}; the last checkpoint has it all")


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
    if start < steps:
        return f", resumed from step {start}"
    return f", already trained to step {start}; more --epochs train on, --fresh starts over"


def _of(number: int, total: int) -> str:
    return f"{number:>{len(str(total))}}/{total}"


def _print(label: str, text: str) -> None:
    # Flushed: behind a pipe, lines would otherwise arrive all at once at the end.
    print(f"{label:<15}{text}", flush=True)


def _keep_quiet(label: str, text: str) -> None:
    """What a worker other than the chief prints."""
