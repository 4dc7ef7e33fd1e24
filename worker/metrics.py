"""Metrics over all workers, exact to the last example: every replica adds to sums, and the sums are added up.

A Keras metric is its state, which updates add to, and a result that is computed from the state. So the state of a global
batch is the sum of what each replica would add for its part. No variable of a strategy is involved: those of Keras 3 would
be averaged or summed when they are read, depending on the version and on where they are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from worker.task import TaskError, nearest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray


class Metrics:
    """The loss and some Keras metrics, as one vector of sums: ``sum of losses``, ``examples``, then each metric's state.

    Args:
        wanted: names as ``compile`` takes them, or functions that make a Keras metric.

    Raises:
        TaskError: Keras knows no such metric, or one whose sums say nothing.
    """

    def __init__(self, wanted: Sequence[str | Callable[[], keras.metrics.Metric]]) -> None:
        self._metrics = [_made(one) for one in wanted]
        self._shapes = [[tuple(variable.shape) for variable in metric.variables] for metric in self._metrics]

    @property
    def names(self) -> tuple[str, ...]:
        """What ``results`` will hold."""
        return ("loss", *(metric.name for metric in self._metrics))

    @property
    def size(self) -> int:
        """How long the vector is."""
        return 2 + sum(int(np.prod(shape)) for shapes in self._shapes for shape in shapes)

    def sums(self, losses: tf.Tensor, labels: Any, outputs: Any, counted: tf.Tensor) -> tf.Tensor:  # noqa: ANN401
        """What some examples add to the vector; ``counted`` is 1 for each that counts, and 0 for padding."""
        parts = [tf.reduce_sum(losses * counted), tf.reduce_sum(counted)]
        for metric, shapes in zip(self._metrics, self._shapes, strict=True):
            empty = [tf.zeros(shape, tf.float32) for shape in shapes]
            parts += metric.stateless_update_state(empty, labels, outputs, sample_weight=counted)
        return tf.concat([tf.reshape(tf.cast(part, tf.float32), [-1]) for part in parts], 0)

    def results(self, sums: NDArray[np.float64]) -> Mapping[str, float]:
        """Loss and metrics by name, from the vector of all examples."""
        found = {"loss": float(sums[0] / max(1.0, sums[1]))}
        at = 2
        for metric, shapes in zip(self._metrics, self._shapes, strict=True):
            state = []
            for shape in shapes:
                size = int(np.prod(shape))
                state.append(tf.constant(sums[at : at + size].reshape(shape), tf.float32))
                at += size
            found[metric.name] = float(metric.stateless_result(state))
        return found


def _made(wanted: str | Callable[[], keras.metrics.Metric]) -> keras.metrics.Metric:
    if not isinstance(wanted, str):
        return wanted()
    try:
        found = keras.metrics.get(wanted)
    except (ValueError, TypeError):
        known = [name for name in dir(keras.metrics) if name.islower() or name[0].isupper()]
        raise TaskError(f"no metric is called {wanted!r}", nearest(wanted, known)) from None
    if isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(found, name=wanted)
