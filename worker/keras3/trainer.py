"""What keeps Keras 3 from training on several workers, and what stands in for it.

Each replacement is made from the stock function, and leaves everything to it where the stock code is not at fault: with a
strategy that has all its replicas in this process, all is as Keras made it. docs/keras.md has what is repaired, docs/facts.md
how the faults were found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from keras.src.backend.tensorflow import trainer
from keras.src.layers import BatchNormalization
from keras.src.optimizers import base_optimizer, loss_scale_optimizer
from tensorflow.python.data.ops import multi_device_iterator_ops

from ..collective import local, spans_workers
from . import preemption
from .replacement import Replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


_FIT = (
    "self", "x", "y", "batch_size", "epochs", "verbose", "callbacks", "validation_split", "validation_data", "shuffle",
    "class_weight", "sample_weight", "initial_epoch", "steps_per_epoch", "validation_steps", "validation_batch_size",
    "validation_freq",
)  # fmt: skip


def replacements() -> Iterator[Replacement]:
    yield Replacement(trainer.TensorFlowTrainer, "fit", _FIT, _ending)
    yield Replacement(trainer.TensorFlowTrainer, "_maybe_symbolic_build", ("self", "iterator", "data_batch"), _build)
    yield Replacement(trainer.TensorFlowTrainer, "_make_function", ("self", "step_function"), _several_steps)
    yield Replacement(trainer, "reduce_per_replica", ("values", "strategy", "reduction"), _mean_of_logs)
    yield Replacement(
        base_optimizer.BaseOptimizer,
        "_backend_apply_gradients",
        ("self", "grads", "trainable_variables"),
        _accumulation,
    )
    yield Replacement(loss_scale_optimizer.LossScaleOptimizer, "check_finite", ("self", "grads"), _finite_everywhere)
    yield Replacement(BatchNormalization, "_moments", ("self", "inputs", "mask"), _moments)
    device = ("prototype_ds", "incarnation_id", "prefetch_buffer_size", "experimental_slack")
    quick = Replacement(multi_device_iterator_ops, "_create_device_dataset", device, _untuned)
    # Another one is left as it is: it costs time, and no result.
    if quick.fits():
        yield quick


def _ending(stock: Any) -> Any:
    """What a BackupAndRestore has begun with SIGTERM ends with its ``fit``, however that ends."""

    def fit(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return stock(self, *args, **kwargs)
        finally:
            preemption.end()

    return fit


def _build(stock: Any) -> Any:
    """The shapes of a batch are known to each worker; Keras 3.15 reduces it over all of them, and cannot use the result."""

    def build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if iterator is not None and spans_workers(strategy):
            _, _, batches = next(iter(iterator))
            iterator = None
            data_batch = local(strategy, next(batches))
        stock(self, iterator=iterator, data_batch=data_batch)

    return build


def _several_steps(stock: Any) -> Any:
    """The steps of one execution, one call each: Keras 3.15 makes them a loop in the graph, with collectives in a tf.cond.

    TensorFlow 2.21 cannot run that ("You must feed a value for placeholder tensor").
    """

    def make_function(self: Any, step_function: Any) -> Any:
        one = stock(self, step_function)

        def one_step(iterator: Any) -> Any:
            # Read by the stock function when it is traced, which is at its first call.
            steps, self.steps_per_execution = self.steps_per_execution, 1
            try:
                return one(iterator)
            finally:
                self.steps_per_execution = steps

        def several(iterator: Any) -> Any:
            if not isinstance(iterator, tf.distribute.DistributedIterator):
                return one(iterator)
            outputs = one_step(iterator)
            for _ in range(self.steps_per_execution - 1):
                try:
                    outputs = one_step(iterator)
                except (StopIteration, tf.errors.OutOfRangeError):
                    break
            return outputs

        return several if spans_workers(self.distribute_strategy) else one

    return make_function


def _mean_of_logs(stock: Any) -> Any:
    """Keras 3.15 asks for the mean over axis 0 of what has no axes; and each replica has values of its own there.

    One collective for all of them. With the mean, what a callback decides it decides on every worker.
    """

    def reduce_per_replica(values: Any, strategy: Any, reduction: str) -> Any:
        if reduction not in {"auto", "mean"} or not spans_workers(strategy):
            return stock(values, strategy, reduction)
        return preemption.means_with_word(strategy, values)

    return reduce_per_replica


def _accumulation(stock: Any) -> Any:
    """Keras 3.15 decides in a replica whether to update, in a tf.cond; TensorFlow lets no collective into one there.

    So the decision is made across the replicas, as LossScaleOptimizer makes its own.
    """

    def apply(self: Any, grads: Any, trainable_variables: Any) -> None:
        steps = self.gradient_accumulation_steps
        if not steps or self.use_ema or not spans_workers(self._distribution_strategy):
            stock(self, grads, trainable_variables)
            return
        sums = [self._accumulated_gradients[self._get_variable_index(variable)] for variable in trainable_variables]

        def update(grads: Any) -> None:
            means = self._clip_gradients([(grad + sum_) / steps for grad, sum_ in zip(grads, sums, strict=True)])
            self._apply_weight_decay(trainable_variables)
            self._backend_update_step(means, trainable_variables, self.learning_rate)
            self._backend_reset_gradient_accumulators()

        def across(strategy: Any, grads: Any) -> None:
            def on_replicas(change: Callable[[Any], None]) -> Callable[[], None]:
                return lambda: strategy.extended.call_for_each_replica(change, args=(grads,))

            tf.cond(
                (tf.convert_to_tensor(self._iterations.value) + 1) % steps == 0,
                on_replicas(update),
                on_replicas(lambda grads: self._backend_increment_gradient_accumulators(grads, sums)),
            )

        tf.distribute.get_replica_context().merge_call(across, args=(grads,))

    return apply


def _finite_everywhere(stock: Any) -> Any:
    """Keras 3.15 takes the gradients for summed over the replicas, which they are not yet.

    Where those of one worker alone overflow, it would skip the step that the others wait for it to take.
    """

    def check_finite(self: Any, grads: Any) -> Any:
        finite = stock(self, grads)
        replicas = tf.distribute.get_replica_context()
        if replicas is None or not spans_workers(replicas.strategy):
            return finite
        return replicas.all_reduce(tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(finite), tf.float32)) == 0

    return check_finite


def _moments(stock: Any) -> Any:
    """The last batch of finite data can leave a replica without an example, and the mean of nothing is NaN, for good.

    Such a replica learns nothing new: it keeps the statistics that it has.
    """

    def moments(self: Any, inputs: Any, mask: Any) -> Any:
        found = stock(self, inputs, mask)
        if self.synchronized or not spans_workers(tf.distribute.get_strategy()):
            return found
        empty = tf.equal(tf.size(inputs), 0)
        kept = (self.moving_mean, self.moving_variance)
        return tuple(tf.where(empty, tf.cast(old, new.dtype), new) for old, new in zip(kept, found, strict=True))

    return moments


def _untuned(stock: Any) -> Any:
    """The way from a worker's data to one device, of which nothing can be tuned: a queue of a fixed length.

    TensorFlow 2.21 has a thread try to nonetheless, and the end of fit waits for that to wake up: it sleeps for twice as
    long each time, up to a minute, and may miss that it is told to end.
    """

    def create(*args: Any, **kwargs: Any) -> Any:
        options = tf.data.Options()
        options.autotune.enabled = False
        return stock(*args, **kwargs).with_options(options)

    return create
