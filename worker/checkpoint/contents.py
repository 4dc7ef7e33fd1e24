"""What is inside a checkpoint's files: made from values, read back into values, compared with a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from worker.checkpoint.state import Slot

# Where a training stands, as text, among the variables: so it has the same checksum as they have.
ABOUT = "about/.ATTRIBUTES/VARIABLE_VALUE"
_TENSORFLOWS_OWN = {"save_counter/.ATTRIBUTES/VARIABLE_VALUE", "_CHECKPOINTABLE_OBJECT_GRAPH"}


def tree(slots: tuple[Slot, ...], values: Mapping[str, tf.Tensor], about: str) -> tf.train.Checkpoint:
    """Plain variables with these values, hung up as the real ones are.

    So the files are what ``tf.train.Checkpoint(model=model, optimizer=optimizer)`` writes and reads, and no variable of a
    strategy is touched in a thread that the other workers know nothing of.
    """
    # Where there is a GPU, a variable would be put there.
    with tf.device("CPU:0"):
        root = tf.train.Checkpoint(about=tf.Variable(about))
        # Made when it is looked at; a CheckpointManager misses it where it is not.
        root.save_counter.assign(0)
        nodes: dict[tuple[str, ...], tf.train.Checkpoint] = {(): root}
        for slot in slots:
            *folder, name = slot.path
            setattr(_node(nodes, tuple(folder)), name, tf.Variable(values[slot.key], trainable=False))
    return root


def _node(nodes: dict[tuple[str, ...], tf.train.Checkpoint], path: tuple[str, ...]) -> tf.train.Checkpoint:
    if path not in nodes:
        nodes[path] = tf.train.Checkpoint()
        setattr(_node(nodes, path[:-1]), path[-1], nodes[path])
    return nodes[path]


def differences(slots: tuple[Slot, ...], values: Mapping[str, NDArray[Any]]) -> list[str]:
    """What a checkpoint has that the state has not, and the other way round, in words."""
    found = []
    for slot in slots:
        shape, dtype = slot.kind
        value = values.get(slot.key)
        here = f"{_shape(shape)} of {dtype}"
        if value is None:
            found.append(f"{slot.path[0]} variable {slot.name} ({here}) is not in it")
        elif (value.shape, value.dtype.name) != (shape, dtype):
            there = f"{_shape(value.shape)} of {value.dtype.name}"
            found.append(f"{slot.path[0]} variable {slot.name} is {there} in it and {here} here")
    known = {*(slot.key for slot in slots), ABOUT, *_TENSORFLOWS_OWN}
    found += [f"it has {key.partition('/.ATTRIBUTES')[0]}, which is not here" for key in sorted(set(values) - known)]
    return found


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "1"


def read(prefix: str) -> dict[str, Any]:
    """All values of a checkpoint, by their names in it.

    Raises:
        OSError, tf.errors.OpError: it cannot be read.
    """
    # The reader's own get_tensor raises bare OpErrors (2.21), which do not tell damage from a network that is down.
    types = tf.compat.v1.train.NewCheckpointReader(prefix).get_variable_to_dtype_map()
    keys = sorted(types)
    with tf.device("CPU:0"):
        values = tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=keys, shape_and_slices=[""] * len(keys), dtypes=[types[key] for key in keys]
        )
    return {key: value.numpy() for key, value in zip(keys, values, strict=True)}
