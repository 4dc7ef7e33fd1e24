"""What the workers of one strategy do together: have the chief's value, or the mean of all their values.

Every worker has to call these functions, and in the same order; one that does not makes the others wait. The first two and
``local`` ask nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Sequence


def spans_workers(strategy: tf.distribute.Strategy | None) -> bool:
    """Whether the replicas of ``strategy`` are in several processes."""
    return isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.extended._in_multi_worker_mode()


def peers(strategy: tf.distribute.Strategy) -> list[str]:
    """The addresses of all workers of a strategy but this one."""
    if not spans_workers(strategy):
        return []
    resolver = strategy.cluster_resolver
    spec = resolver.cluster_spec()
    own = spec.task_address(resolver.task_type, resolver.task_id)
    addresses = [address for job in spec.jobs if job in {"chief", "worker"} for address in spec.job_tasks(job)]
    return [address for address in addresses if address != own]


def from_chief(strategy: tf.distribute.Strategy, value: Any) -> Any:
    """Give the chief's value to all: a sum in which every replica but the chief's first, number 0, adds nothing."""
    tensor = tf.convert_to_tensor(value)
    # TensorFlow 2.21 adds up no other integers, and no booleans.
    summed = tensor.dtype.is_floating or tensor.dtype in {tf.int32, tf.int64}
    number = tensor if summed else tf.cast(tensor, tf.int64)
    values = strategy.experimental_distribute_values_from_function(
        lambda replica: number if replica.replica_id_in_sync_group == 0 else tf.zeros_like(number)
    )
    return tf.cast(strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None), tensor.dtype)


def average(strategy: tf.distribute.Strategy, variables: Sequence[tf.Variable]) -> None:
    """Set variables that have a value of its own on each replica to the mean of those values."""

    def on_replica() -> None:
        replicas = tf.distribute.get_replica_context()
        means = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, [tf.identity(variable) for variable in variables])
        for variable, mean in zip(variables, means, strict=True):
            variable.assign(mean)

    if variables:
        # A function, as eager collectives go one by one; concrete, as TensorFlow warns of one that is made again and again.
        tf.function(lambda: strategy.run(on_replica), autograph=False).get_concrete_function()()


def means(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Give the mean over all replicas of each number in a structure, with one collective for each type of number.

    Of anything else, None or text, each worker has its own.
    """

    def on_replica(values: Any) -> Any:
        leaves = [_as_floating(leaf) for leaf in tf.nest.flatten(values)]
        numbers = {place: leaf for place, leaf in enumerate(leaves) if tf.is_tensor(leaf) and leaf.dtype.is_floating}
        for dtype in dict.fromkeys(leaf.dtype for leaf in numbers.values()):
            places = [place for place, leaf in numbers.items() if leaf.dtype == dtype]
            replicas = tf.distribute.get_replica_context()
            reduced = replicas.all_reduce(tf.distribute.ReduceOp.MEAN, [leaves[place] for place in places])
            for place, mean in zip(places, reduced, strict=True):
                leaves[place] = mean
        return tf.nest.pack_sequence_as(values, leaves)

    return local(strategy, strategy.run(on_replica, args=(values,)))


def local(strategy: tf.distribute.Strategy, values: Any) -> Any:
    """Take what the first replica of this process has of each value in a structure."""
    return tf.nest.map_structure(lambda value: strategy.experimental_local_results(value)[0], values)


def _as_floating(value: Any) -> Any:
    if value is None:
        return None
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype.is_integer or tensor.dtype.is_bool:
        return tf.cast(tensor, tf.float32)
    # What comes from outside of the replicas may be on no device, and a reduction needs to know where its values are.
    return tf.identity(tensor)
