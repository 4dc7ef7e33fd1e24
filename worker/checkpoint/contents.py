"""What is inside a checkpoint's files: written from values, read back into values, compared with a state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tensorflow as tf
from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

from worker.checkpoint.state import key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from worker.checkpoint.state import Slot

# Where a training stands, as text, among the variables: so it has the same checksum as they have.
ABOUT = key(("about",))
# A CheckpointManager misses it where it is not.
_COUNTER = key(("save_counter",))
_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


def write(prefix: str, values: Mapping[str, tf.Tensor], graph: bytes, about: str) -> None:
    """Write a checkpoint's files: what ``tf.train.Checkpoint.write`` would, but for the work that it makes of it.

    That makes a variable of each value and walks through all of them in Python (2.21), while the training waits for the
    interpreter; and it renames its files, which on an object store is to copy them.

    Raises:
        OSError, tf.errors.OpError: it cannot be written.
    """
    with tf.device("CPU:0"):
        everything = {
            **values,
            ABOUT: tf.constant(about),
            _COUNTER: tf.constant(0, tf.int64),
            _GRAPH: tf.constant(graph),
        }
        tf.raw_ops.SaveV2(
            prefix=prefix,
            tensor_names=list(everything),
            shape_and_slices=[""] * len(everything),
            tensors=list(everything.values()),
        )


def graph_of(slots: tuple[Slot, ...]) -> bytes:
    """On which objects the variables hang, as TensorFlow writes it, and looks them up again by it."""
    graph = TrackableObjectGraph()
    numbers: dict[tuple[str, ...], int] = {}
    for path in (("about",), ("save_counter",), *(slot.path for slot in slots)):
        node = graph.nodes[_number(graph, numbers, path)]
        node.attributes.add(name="VARIABLE_VALUE", checkpoint_key=key(path))
    return bytes(graph.SerializeToString())


def _number(graph: Any, numbers: dict[tuple[str, ...], int], path: tuple[str, ...]) -> int:  # noqa: ANN401
    """The number of a node of the graph, which is put there when it is asked for first, and all above it."""
    if path not in numbers:
        above = _number(graph, numbers, path[:-1]) if path else None
        numbers[path] = len(graph.nodes)
        graph.nodes.add().has_checkpoint_values.value = True
        if above is not None:
            graph.nodes[above].children.add(node_id=numbers[path], local_name=path[-1])
    return numbers[path]


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
    known = {*(slot.key for slot in slots), ABOUT, _COUNTER, _GRAPH}
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
