"""What all workers must have alike before they train together, checked in one small collective.

Workers that differ would not fail: one that has fewer examples than the others leaves them waiting in a collective, and one
that reads another's shard makes a model that has seen half of the data.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from worker.data import Records, Share, leaves
from worker.feed import examples
from worker.task import TaskError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from worker.data import Schedule, Source


def gather(strategy: tf.distribute.Strategy, numbers: Sequence[int]) -> NDArray[np.int64]:
    """The numbers of every replica, a row each; replicas of one worker have the same. A collective."""
    row = tf.constant([numbers], tf.int64)

    def mine(context: tf.distribute.ValueContext) -> tf.Tensor:
        place = tf.one_hot(context.replica_id_in_sync_group, context.num_replicas_in_sync, dtype=tf.int64)
        return place[:, tf.newaxis] * row

    rows = strategy.experimental_distribute_values_from_function(mine)
    gathered: NDArray[np.int64] = strategy.reduce(tf.distribute.ReduceOp.SUM, rows, axis=None).numpy()
    return gathered


def check(strategy: tf.distribute.Strategy, share: Share, source: Source, schedule: Schedule, step: int) -> str:
    """Hold the workers' data against each other. Returns a warning, or nothing.

    Raises:
        TaskError: on every worker alike, when they cannot train together.
    """
    rows, mark = fingerprint(source, schedule, share, step)
    table = gather(strategy, [schedule.count, schedule.steps_per_epoch, rows, mark])[:: share.here]
    counts, steps, given, marks = table.T.tolist()
    if len(set(counts)) > 1 or len(set(steps)) > 1:
        told = ", ".join(f"worker {number} {count:,}" for number, count in enumerate(counts))
        raise TaskError(f"the workers have different data: examples of {told}")
    if empty := [str(number) for number, rows in enumerate(given) if not rows]:
        raise TaskError(f"no example of the first step is for worker {', '.join(empty)}", "make --global-batch larger")
    alike = [str(number) for number, mark in enumerate(marks) if marks.count(mark) > 1]
    if alike:
        return f"workers {', '.join(alike)} got the very same examples for the first step: is every file read by each of them?"
    return ""


def fingerprint(source: Source, schedule: Schedule, share: Share, step: int) -> tuple[int, int]:
    """How many examples a worker's part of a step has, and a checksum of their features."""
    rows, mark = 0, 0
    for features, _, weights in examples(source, schedule, share, step, epochs=1).take(share.here):
        there = weights.numpy() > 0
        rows += int(there.sum())
        for leaf in leaves(features):
            mark = zlib.crc32(_bytes(leaf.numpy()[there]), mark)
    return rows, mark


def check_labels(labels: Any, outputs: int) -> None:  # noqa: ANN401 - an array, or a structure of them
    """Class numbers that a model has no output for: on a GPU they make a loss that is no number, and no error.

    Raises:
        TaskError: with the first of them.
    """
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu" or not labels.size:
        return
    flat = labels.reshape(len(labels), -1)
    wrong = ((flat < 0) | (flat >= outputs)).any(axis=1)
    if wrong.any():
        place = int(np.argmax(wrong))
        value = flat[place][(flat[place] < 0) | (flat[place] >= outputs)][0]
        raise TaskError(f"label {value} of example {place} is out of range: the model has outputs 0 to {outputs - 1}")


def check_sizes(source: Source, global_batch: int, share: Share, noun: str) -> None:
    """Batches and data that do not fit together.

    Raises:
        TaskError: there is nothing to learn from, or not enough for every replica.
    """
    if not len(source):
        raise TaskError(f"there are no {noun} to learn from")
    if global_batch < share.replicas:
        raise TaskError(f"--global-batch {global_batch} is less than the {share.replicas} replicas that share it")
    if len(source) < global_batch:
        raise TaskError(f"--global-batch {global_batch} is more than the {len(source):,} {noun} to learn from")
    if isinstance(source, Records) and source.split == "file" and len(source.files) < share.workers:
        raise TaskError(
            f"{len(source.files)} files cannot be split over {share.workers} workers", 'split them by "data"'
        )


def _bytes(values: NDArray[Any]) -> bytes:
    # Strings are objects to NumPy, whose memory holds addresses.
    return b"".join(values.ravel().tolist()) if values.dtype.kind == "O" else np.ascontiguousarray(values).tobytes()
