"""A loss and an optimizer of Keras's, from their names or from a task's own functions, as the learner takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from worker.task import TaskError, cross_entropy, nearest

if TYPE_CHECKING:
    from collections.abc import Callable


def takes_classes(loss: str | Callable[[Any, Any], Any]) -> bool:
    """Whether its labels are numbers of classes, each of which has to be the number of an output."""
    name = loss if isinstance(loss, str) else getattr(loss, "name", getattr(loss, "__name__", ""))
    return loss is cross_entropy or "sparse" in str(name).lower()


def per_example(wanted: str | Callable[[Any, Any], Any]) -> Callable[[Any, Any], tf.Tensor]:
    """A function of labels and outputs that gives one float32 loss for each row.

    Raises:
        TaskError: Keras has no loss of that name.
    """
    try:
        found = keras.losses.get(wanted)
    except (ValueError, TypeError):
        raise TaskError(f"no loss is called {wanted!r}", nearest(str(wanted), dir(keras.losses))) from None
    # A Loss of Keras takes the mean over the rows it sees, which are not all there are; `call` is what it takes it of.
    each = found.call if isinstance(found, keras.losses.Loss) else found

    def losses(labels: Any, outputs: Any) -> tf.Tensor:  # noqa: ANN401
        values = tf.cast(each(labels, outputs), tf.float32)
        return tf.reduce_mean(values, axis=list(range(1, len(values.shape)))) if len(values.shape) > 1 else values

    return losses


def make_optimizer(
    wanted: str | Callable[[], keras.optimizers.Optimizer], learning_rate: float | None
) -> keras.optimizers.Optimizer:
    """An optimizer by its name or from the task's own function.

    Raises:
        TaskError: Keras has no optimizer of that name, or it is one that decides on each worker by itself.
    """
    try:
        made = keras.optimizers.get(wanted) if isinstance(wanted, str) else wanted()
    except (ValueError, TypeError) as error:
        if not isinstance(wanted, str):
            raise
        raise TaskError(f"no optimizer is called {wanted!r}", nearest(wanted, dir(keras.optimizers))) from error
    # The scale of the loss is the learner's own.
    made = getattr(made, "inner_optimizer", made)
    if getattr(made, "gradient_accumulation_steps", None):
        raise TaskError("the optimizer accumulates gradients over steps", "set micro_batches of the task instead")
    if learning_rate is not None:
        made.learning_rate = learning_rate
    return made
