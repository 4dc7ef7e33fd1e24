"""The step: what every replica computes, what goes over the wire, and what is done with the sum.

Everything that a step tells travels with its gradients, in one reduction: the loss, the metrics' sums, who saw a number
that is none, and whether a worker was asked to stop. So all workers know the same after each step, at the price of the
gradients alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from worker.metrics import Metrics
from worker.named import per_example, takes_classes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from worker.task import Precision, Task

SUM = tf.distribute.ReduceOp.SUM
# float16 reaches down to 6e-8: losses are multiplied so that small gradients survive, twice as much after so many steps
# without an overflow. (As Keras's LossScaleOptimizer has it, which decides by each worker's own gradients, before they are
# summed: workers that decide differently wait for each other for ever. Keras 3.15.)
_FIRST_SCALE = 2.0**15
_GROW_AFTER = 2000


class Steps(NamedTuple):
    """What some steps have come to; the same on every worker.

    Attributes:
        losses: of each step's global batch before the step, regularisation included.
        sums: of the metrics, over all examples of the steps.
        bad_step: which of these steps, from 0, was the first whose loss or gradient was no number; -1 when none was.
            It and all steps after it have changed nothing.
        bad_replica: the first replica that saw it.
        stop: whether a worker made them knowing that it is to stop.
    """

    losses: NDArray[np.float32]
    sums: NDArray[np.float64]
    bad_step: int
    bad_replica: int
    stop: bool


class Scores(NamedTuple):
    """What some batches have come to; the same on every worker.

    Attributes:
        sums: of the metrics, a row for each batch. Added up in the end, it does not matter to the last bit in how many calls
            they were made.
        stop: as for ``Steps``.
    """

    sums: NDArray[np.float64]
    stop: bool


class Learner:
    """A model and its optimizer on every replica of a strategy, and the steps that use them.

    ``learn`` and ``score`` are collectives: every worker calls them with an iterator over ``feed.feed`` and the same
    number of steps.

    Args:
        optimizer: makes one, as ``named.make_optimizer`` does.
        micro_batches: pieces of a replica's part that are worked through one after the other.

    Raises:
        TaskError: the task names a loss, an optimizer or a metric that Keras does not know.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        task: Task,
        optimizer: Callable[[], keras.optimizers.Optimizer],
        *,
        seed: int,
        clip_norm: float | None,
        micro_batches: int,
        precision: Precision,
    ) -> None:
        keras.mixed_precision.set_dtype_policy(precision)
        keras.utils.set_random_seed(seed)
        self.strategy = strategy
        self.metrics = Metrics(task.metrics)
        self._loss = per_example(task.loss)
        self.takes_classes = takes_classes(task.loss)
        self._clip_norm = clip_norm
        self._micro_batches = micro_batches
        with strategy.scope():
            self.model = task.model()
            # Made here, as it remembers the strategy under which it is made.
            self.optimizer = optimizer()
            # Keras 3 would create the optimizer's variables in the first step, too late for a restore.
            self.optimizer.build(self.model.trainable_variables)
            self.scale = _Scale() if precision == "mixed_float16" else None
        self._sums_itself = _leave_sums_to_us(self.optimizer)
        self._learn = tf.function(self._learn_steps)
        self._score = tf.function(self._score_steps)

    def learn(self, iterator: Any, steps: int, *, asked: bool = False) -> Steps:  # noqa: ANN401 - over a distributed dataset
        """Make ``steps`` optimizer steps, in one call of TensorFlow; tell the others whether this worker was asked to stop."""
        losses, sums, bad_step, blame, stop = self._learn(iterator, tf.constant(steps), tf.constant(float(asked)))
        sums = sums.numpy().astype(np.float64)
        return Steps(losses.numpy(), sums, int(bad_step), int(np.argmax(blame)), bool(stop > 0))

    def score(self, iterator: Any, steps: int, *, asked: bool = False) -> Scores:  # noqa: ANN401 - as above
        """The metrics over ``steps`` batches, in one call of TensorFlow; changes nothing."""
        each = self._score(iterator, tf.constant(steps), tf.constant(float(asked))).numpy().astype(np.float64)
        return Scores(each[:, 1:], bool(each[-1, 0] > 0))

    def _learn_steps(self, iterator: Any, steps: tf.Tensor, asked: tf.Tensor) -> tuple[tf.Tensor, ...]:  # noqa: ANN401
        losses = tf.TensorArray(tf.float32, steps)
        sums = tf.zeros([self.metrics.size])
        blame = tf.zeros([self.strategy.num_replicas_in_sync])
        bad_step, stop = tf.constant(-1), tf.constant(0.0)
        for step in tf.range(steps):
            seen, gradients = self.strategy.run(self._forward, args=(asked, *next(iterator)))
            stop, loss, added, saw_bad = _split(self._local(seen), self.metrics.size)
            losses = losses.write(step, loss)
            if bad_step < 0:
                if tf.reduce_any(saw_bad > 0):
                    bad_step, blame = step, saw_bad
                else:
                    sums += added
                    # Not inside what each replica runs: a collective, which an optimizer may contain, works neither in
                    # a condition there nor in one here (TensorFlow 2.21). Ours are all done by now.
                    self._update(gradients)
        return losses.stack(), sums, bad_step, blame, stop

    def _update(self, gradients: Any) -> None:  # noqa: ANN401 - PerReplica
        if self.scale is None:
            self.strategy.run(self._apply, args=(gradients,))
        elif _finite(self._local(gradients)):
            self.strategy.run(self._apply, args=(gradients,))
            self.scale.grow()
        else:
            self.scale.shrink()

    def _local(self, value: Any) -> Any:  # noqa: ANN401 - PerReplica or not
        """Any replica's value of what is the same on all of them."""
        return tf.nest.map_structure(lambda one: self.strategy.experimental_local_results(one)[0], value)

    def _forward(self, asked: tf.Tensor, *part: Any) -> tuple[tf.Tensor, list[Any]]:  # noqa: ANN401
        """One replica's part of a step. Gives what is known of the whole step: its report, and its gradient."""
        report, gradients = self._pieces(*part)
        context = tf.distribute.get_replica_context()
        fine = tf.math.is_finite(report[0])
        if self.scale is None:
            # Under float16 a gradient that overflows is nothing unusual, and is what the scale of the loss goes by.
            fine &= tf.math.is_finite(_sum(gradients))
        bad = tf.cast(~fine, tf.float32)
        saw_bad = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync) * bad
        present = [gradient for gradient in gradients if gradient is not None]
        *summed, report = context.all_reduce(SUM, [*present, tf.concat([[asked], report, saw_bad], 0)])
        each = iter(summed)
        return report, [None if gradient is None else next(each) for gradient in gradients]

    def _pieces(self, features: Any, labels: Any, weights: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:  # noqa: ANN401
        parts = self._micro_batches
        if parts == 1:
            return self._piece(features, labels, weights)
        batch = (features, labels, weights)
        report, gradients = self._piece(*_nth(batch, 0, parts))
        gradients = [_dense(gradient) for gradient in gradients]
        for number in range(1, parts):
            # One after the other, so that only one piece's activations are held at a time.
            with tf.control_dependencies([report, *(one for one in gradients if one is not None)]):
                more, others = self._piece(*_nth(batch, number, parts))
            report += more
            gradients = [
                one if one is None else one + _dense(other) for one, other in zip(gradients, others, strict=True)
            ]
        return report, gradients

    def _piece(self, features: Any, labels: Any, weights: tf.Tensor) -> tuple[tf.Tensor, list[Any]]:  # noqa: ANN401
        with tf.GradientTape() as tape:
            outputs = _as_float32(self.model(features, training=True))
            losses = self._loss(labels, outputs)
            # The weights sum to 1 over all replicas, and so does the part of a penalty that each piece carries: the sum of
            # all gradients is that of the global mean, and no division by a number of replicas is left to forget.
            pieces = self.strategy.num_replicas_in_sync * self._micro_batches
            penalty = tf.add_n(self.model.losses) / pieces if self.model.losses else 0.0
            loss = tf.reduce_sum(losses * weights) + tf.cast(penalty, tf.float32)
            scaled = loss if self.scale is None else loss * self.scale.value
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        sums = self.metrics.sums(losses, labels, outputs, tf.cast(weights > 0, tf.float32))
        return tf.concat([[loss], sums], 0), gradients

    def _apply(self, gradients: list[Any]) -> None:
        """Change the variables of one replica, by a gradient that is the same on all of them."""
        if self.scale is not None:
            gradients = [None if one is None else one / self.scale.value for one in gradients]
        if self._clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self._clip_norm)
        if not self._sums_itself:
            replicas = self.strategy.num_replicas_in_sync
            gradients = [None if one is None else one / replicas for one in gradients]
        self.optimizer.apply(gradients, self.model.trainable_variables)

    def _score_steps(self, iterator: Any, steps: tf.Tensor, asked: tf.Tensor) -> tf.Tensor:  # noqa: ANN401
        each = tf.TensorArray(tf.float32, steps)
        for step in tf.range(steps):
            seen = self.strategy.run(self._score_part, args=(asked, *next(iterator)))
            each = each.write(step, self._local(seen))
        return each.stack()

    def _score_part(self, asked: tf.Tensor, features: Any, labels: Any, weights: tf.Tensor) -> tf.Tensor:  # noqa: ANN401
        outputs = _as_float32(self.model(features, training=False))
        sums = self.metrics.sums(self._loss(labels, outputs), labels, outputs, tf.cast(weights > 0, tf.float32))
        return tf.distribute.get_replica_context().all_reduce(SUM, tf.concat([[asked], sums], 0))


class _Scale(tf.Module):  # type: ignore[misc] # mypy knows nothing of TensorFlow
    """The factor of the loss under float16: halved when a gradient overflows, doubled when none has for long."""

    def __init__(self) -> None:
        super().__init__(name="loss_scale")
        first = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.value = tf.Variable(_FIRST_SCALE, trainable=False, aggregation=first, name="loss_scale")
        self.good_steps = tf.Variable(0, trainable=False, aggregation=first, name="good_steps")

    def grow(self) -> None:
        due = self.good_steps + 1 >= _GROW_AFTER
        self.value.assign(tf.where(due, self.value * 2, self.value))
        self.good_steps.assign(tf.where(due, 0, self.good_steps + 1))

    def shrink(self) -> None:
        self.value.assign(tf.maximum(self.value / 2, 1.0))
        self.good_steps.assign(0)


def _leave_sums_to_us(optimizer: keras.optimizers.Optimizer) -> bool:
    """Have a Keras optimizer take gradients as sums over all replicas already; whether it does.

    Keras 3 sums in ``apply``, after it has clipped each replica's own gradients, and inside its own conditions.
    """
    name = "_all_reduce_sum_gradients"
    if not hasattr(optimizer, name):
        return False
    setattr(optimizer, name, list)
    return True


def _split(report: tf.Tensor, size: int) -> tuple[tf.Tensor, ...]:
    return report[0], report[1], report[2 : 2 + size], report[2 + size :]


def _nth(batch: Any, number: int, parts: int) -> Any:  # noqa: ANN401 - tensors in any structure
    """A piece of a batch; a schedule has made the number of its rows a multiple of ``parts``."""

    def piece(leaf: tf.Tensor) -> tf.Tensor:
        size = tf.shape(leaf)[0] // parts  # a distributed iterator forgets how many rows there are
        return leaf[number * size : (number + 1) * size]

    return tf.nest.map_structure(piece, batch)


def _dense(gradient: Any) -> Any:  # noqa: ANN401 - a tensor, IndexedSlices or None
    return gradient if gradient is None else tf.convert_to_tensor(gradient)


def _finite(gradients: list[Any]) -> tf.Tensor:
    present = [tf.convert_to_tensor(one) for one in gradients if one is not None]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in present])


def _sum(gradients: list[Any]) -> tf.Tensor:
    """A number that is finite if all of them are; cheaper than to look at each."""
    present = [getattr(one, "values", one) for one in gradients if one is not None]
    return tf.add_n([tf.cast(tf.reduce_sum(one), tf.float32) for one in present])


def _as_float32(outputs: Any) -> Any:  # noqa: ANN401
    return tf.nest.map_structure(lambda one: tf.cast(one, tf.float32) if one.dtype.is_floating else one, outputs)
