"""From a source to the replicas: a tf.data pipeline for each worker, which makes nothing that it throws away.

Each element is the part of one replica in one step: features, labels, and the weight of each row. Where a worker has
several replicas, their parts come one after the other, as ``distribute_datasets_from_function`` hands them out.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from worker.data import Arrays, Indexed, Records, Rows, Schedule, Share, Source

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_FOREVER = np.iinfo(np.int64).max


def share_of(strategy: tf.distribute.Strategy, context: tf.distribute.InputContext | None = None) -> Share:
    """Which replicas this worker has."""
    if context is None:
        return Share(replicas=strategy.num_replicas_in_sync, here=strategy.num_replicas_in_sync)
    here = context.num_replicas_in_sync // context.num_input_pipelines
    return Share(context.input_pipeline_id, context.num_input_pipelines, here, context.num_replicas_in_sync)


def feed(
    strategy: tf.distribute.Strategy, source: Source, schedule: Schedule, *, first_step: int = 0, summed: bool = True
) -> Any:  # noqa: ANN401 - a DistributedDataset, or what a strategy for one device makes of it
    """A distributed dataset of ``(features, labels, weights)``, from ``first_step`` on, epoch after epoch without end.

    Args:
        summed: weights are such that the sum over all rows of all replicas is the mean over the global batch. Otherwise
            they are larger by the rows of all parts, padding included: right for whoever divides by that number, as
            Keras's ``fit`` does.
    """
    endless = tf.data.experimental.assert_cardinality(tf.data.INFINITE_CARDINALITY)

    def pipeline(context: tf.distribute.InputContext) -> tf.data.Dataset:
        share = share_of(strategy, context)
        rows = schedule.width(share.replicas) * share.replicas
        weighed = schedule if summed else replace(schedule, total=float(rows))
        dataset = examples(source, weighed, share, first_step, _FOREVER)
        # Of data that may end, TensorFlow 2.21 asks all workers before each step whether they have more.
        return dataset.apply(endless).prefetch(tf.data.AUTOTUNE).with_options(_untuned())

    return strategy.distribute_datasets_from_function(pipeline)


def _untuned() -> tf.data.Options:
    """Without the thread that tunes a pipeline: the end of an iterator waits for it to wake up.

    It sleeps twice as long each time, up to a minute, and misses that it is told to end (TensorFlow 2.21).
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


def examples(source: Source, schedule: Schedule, share: Share, first_step: int, epochs: int) -> tf.data.Dataset:
    """The parts of one worker's replicas, step after step."""
    match source:
        case Arrays():
            return _parts(schedule, share, first_step, epochs).map(partial(_gather, _as_tensors(source)))
        case Indexed():
            return _made(source, schedule, share, first_step, epochs)
        case Records(split="data"):
            return _read_by_all(source, schedule, share, first_step, epochs)
        case Records():
            return _read_by_one(source, schedule, share, first_step, epochs)


def _parts(schedule: Schedule, share: Share, first_step: int, epochs: int) -> tf.data.Dataset:
    """``(numbers, weights)`` of each part. Python is asked once an epoch; all else is TensorFlow's."""
    width = schedule.width(share.replicas)
    first_epoch, within = divmod(first_step, schedule.steps_per_epoch)

    def table(epoch: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        rows = list(schedule.epoch(int(epoch), share))
        return np.stack([one.numbers for one in rows]), np.stack([one.weights for one in rows])

    def parts(epoch: tf.Tensor) -> tf.data.Dataset:
        numbers, weights = tf.numpy_function(table, [epoch], (tf.int64, tf.float32), stateful=False)
        shaped = Rows(tf.ensure_shape(numbers, [None, width]), tf.ensure_shape(weights, [None, width]))
        return tf.data.Dataset.from_tensor_slices(tuple(shaped))

    return _epochs(first_epoch, epochs).flat_map(parts).skip(within * share.here)


def _epochs(first: int, count: int) -> tf.data.Dataset:
    return tf.data.Dataset.range(first, min(_FOREVER, first + count))


def _as_tensors(source: Arrays) -> Any:  # noqa: ANN401 - tensors in the structure of the source
    # Made once and captured: a constant inside the pipeline's function could not be larger than 2 GiB.
    return tf.nest.map_structure(tf.convert_to_tensor, (source.features, source.labels))


def _gather(held: Any, numbers: tf.Tensor, weights: tf.Tensor) -> tuple[Any, Any, tf.Tensor]:  # noqa: ANN401
    features, labels = tf.nest.map_structure(lambda leaf: tf.gather(leaf, numbers), held)
    return features, labels, weights


def _made(source: Indexed, schedule: Schedule, share: Share, first_step: int, epochs: int) -> tf.data.Dataset:
    return _each(_parts(schedule, share, first_step, epochs).unbatch(), source.make, schedule.width(share.replicas))


def _read_by_all(source: Records, schedule: Schedule, share: Share, first_step: int, epochs: int) -> tf.data.Dataset:
    width = schedule.width(share.replicas)
    first_epoch, within = divmod(first_step, schedule.steps_per_epoch)

    def batches(epoch: tf.Tensor) -> tf.data.Dataset:
        records = _records(source, schedule.seed, epoch, list(source.files))
        return records.take(source.count).batch(schedule.global_batch)

    def mine(records: tf.Tensor) -> tf.data.Dataset:
        count = tf.shape(records)[0]
        cuts = [_cut(records, count, width, replica, share.replicas) for replica in share.mine]
        parts = [(mine, weights * schedule.total) for mine, weights in cuts]
        return tf.data.Dataset.from_tensor_slices(tuple(tf.stack(each) for each in zip(*parts, strict=True)))

    parts = _epochs(first_epoch, epochs).flat_map(batches).skip(within).flat_map(mine)
    return _each(parts.unbatch(), source.decode, width)


def _cut(records: tf.Tensor, count: tf.Tensor, width: int, replica: int, replicas: int) -> tuple[tf.Tensor, tf.Tensor]:
    """``data.cut``, for records."""
    places = tf.range(replica, replica + width * replicas, replicas)
    there = places < count
    first = tf.where(there[0], places[0], 0)
    weights = tf.cast(there, tf.float32) / tf.cast(count, tf.float32)
    return tf.gather(records, tf.where(there, places, first)), tf.ensure_shape(weights, [width])


def _read_by_one(source: Records, schedule: Schedule, share: Share, first_step: int, epochs: int) -> tf.data.Dataset:
    width = schedule.width(share.replicas)
    files = list(source.files)[share.worker :: share.workers]
    # As often as needed: a worker with fewer records than others begins anew before they do.
    records = _epochs(0, _FOREVER).flat_map(lambda epoch: _records(source, schedule.seed, epoch, files))
    first = first_step * width * share.here
    weighed = records.skip(first).map(lambda record: (record, schedule.total / (width * share.replicas)))
    parts = _each(weighed, source.decode, width)
    if epochs == _FOREVER:
        return parts
    return parts.take((epochs * schedule.steps_per_epoch - first_step % schedule.steps_per_epoch) * share.here)


def _records(source: Records, seed: int | None, epoch: tf.Tensor, files: list[str]) -> tf.data.Dataset:
    """The records of an epoch in an order that follows from seed and epoch."""
    names = tf.constant(files)
    if seed is not None:
        names = tf.random.experimental.stateless_shuffle(names, seed=tf.stack([tf.constant(seed, tf.int64), epoch]))
    records = source.read(names) if source.read is not None else tf.data.TFRecordDataset(names)
    if seed is not None and source.shuffle:
        records = records.shuffle(source.shuffle, seed=tf.constant(seed, tf.int64) * 1_000_003 + epoch)
    return records


def _each(weighed: tf.data.Dataset, make: Callable[[Any], tuple[Any, Any]], width: int) -> tf.data.Dataset:
    """Make each example of ``(what it is made from, weight)``, several at a time, and batch them in order."""

    def made(raw: tf.Tensor, weight: tf.Tensor) -> tuple[Any, Any, tf.Tensor]:
        return (*make(raw), weight)

    mapped = weighed.map(made, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return mapped.batch(width, drop_remainder=True, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
