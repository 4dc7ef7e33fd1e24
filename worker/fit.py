"""Examples for Keras's ``fit``, such that it learns the same on any number of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from worker.data import Schedule
from worker.feed import feed

if TYPE_CHECKING:
    import tensorflow as tf

    from worker.data import Source


def fit_data(strategy: tf.distribute.Strategy, source: Source, *, global_batch: int, seed: int = 0) -> dict[str, Any]:
    """What to give to ``fit``: ``model.fit(**fit_data(strategy, source, global_batch=64), epochs=5)``.

    Every worker calls it with the same arguments. Each step sees the same examples, however many workers there are, and
    each example weighs the same, in a last batch that cannot be divided evenly too: Keras divides a loss by the number of
    rows that a replica has, so the rows come with weights that undo what is wrong with that.

    Args:
        strategy: under which the model was made.
        global_batch: examples of a step, over all workers together.
        seed: of the order, which differs from epoch to epoch.

    Returns:
        ``x``, a distributed dataset of features, labels and weights; ``steps_per_epoch``; and ``shuffle=False``, as it
        is shuffled. Metrics that are to leave out padding belong into ``weighted_metrics`` of ``compile``.
    """
    schedule = Schedule(len(source), global_batch, seed)
    dataset = feed(strategy, source, schedule, summed=False)
    return {"x": dataset, "steps_per_epoch": schedule.steps_per_epoch, "shuffle": False}
