"""The variables of a training by name: read together by all workers, written and read back by the chief alone.

Most variables are equal on every replica at every step, and the chief's own copy is what there is to save. Some are not,
and what belongs into a checkpoint is their mean (or sum), for which all workers have to be asked:

* tf_keras's BatchNormalization keeps its statistics in variables that are averaged when they are read: reading them on the
  chief alone would wait for workers who never come.
* Keras 3's (3.15) keeps them in mirrored variables that each replica changes by itself, with nothing about them that tells
  of it. So of a model's variables every one is averaged that is made of floating point numbers and not made trainable.
  A moving average is linear in what it averages, so that going on from the mean leads to the mean of going on.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from worker.collective import from_chief

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# Large enough to be fast, small against what a model takes.
_SHARE_BYTES = 64 << 20


def key(path: Iterable[str]) -> str:
    """What TensorFlow calls a variable in a checkpoint's files, by its path (2.21)."""
    return "/".join(part.replace(".", "..").replace("/", ".S") for part in path) + "/.ATTRIBUTES/VARIABLE_VALUE"


@dataclass(frozen=True)
class Slot:
    """One variable: its path in the checkpoint, and the name that its owner gave it."""

    path: tuple[str, ...]
    variable: tf.Variable
    name: str
    averaged: bool

    @property
    def key(self) -> str:
        """Its name in the checkpoint's files."""
        return key(self.path)

    @property
    def kind(self) -> tuple[tuple[int, ...], str]:
        return tuple(self.variable.shape.as_list()), self.variable.dtype.base_dtype.name

    @property
    def count(self) -> int:
        return int(np.prod(self.kind[0]))

    @property
    def bytes(self) -> int:
        return self.count * int(self.variable.dtype.base_dtype.size)


class State:
    """All variables below some trackable objects, such as ``State(strategy, model=model, optimizer=optimizer)``.

    They are listed once, so all of them must have been made: a model and an optimizer are built before.
    """

    def __init__(self, strategy: tf.distribute.Strategy, **roots: Any) -> None:  # noqa: ANN401 - Keras of both kinds
        self.strategy = strategy
        self.slots = tuple(_slots(roots))
        self._averaged = [slot for slot in self.slots if slot.averaged]
        self._read_averaged = tf.function(self._mean_of_averaged, autograph=False)

    @property
    def alone(self) -> bool:
        """Whether there is only one replica, so that nothing differs from it and nobody waits for its values."""
        return bool(self.strategy.num_replicas_in_sync == 1)

    @property
    def collective(self) -> bool:
        """Whether ``averages`` is a collective."""
        return bool(self._averaged) and not self.alone

    def averages(self) -> dict[str, tf.Tensor]:
        """What differs from replica to replica, averaged. Where ``collective``, every worker has to call it."""
        if not self.collective:
            return {}
        flat, offset, found = self._read_averaged(), 0, {}
        for slot in self._averaged:
            found[slot.key] = self._scaled(slot, tf.reshape(flat[offset : offset + slot.count], slot.kind[0]))
            offset += slot.count
        return found

    def average(self) -> None:
        """Give every replica the averages; where ``collective``, every worker has to call it."""
        averages = self.averages()
        for slot in self._averaged:
            if slot.key in averages:
                slot.variable.assign(averages[slot.key])

    def snapshot(self, averages: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """The values of this moment, in host memory, without waiting for any other worker.

        A value read from a variable on the host costs nothing here: TensorFlow shares its memory, and copies it when the
        next step changes the variable. One on a GPU is copied now, because its memory there is needed.
        """
        local = {slot.key: self._local(slot).read_value() for slot in self.slots if slot.key not in averages}
        values = {**local, **averages}
        with tf.device("CPU:0"):
            return {slot.key: tf.identity(values[slot.key]) for slot in self.slots}

    def receive(self, values: Mapping[str, NDArray[Any]] | None) -> None:
        """Set all variables on all workers to the values that the chief gives; the others give None."""
        for group in _groups(self.slots):
            mine = None if values is None else b"".join(values[slot.key].tobytes() for slot in group)
            data, offset = self.from_chief(mine), 0
            for slot in group:
                value = np.frombuffer(data, slot.variable.dtype.as_numpy_dtype, slot.count, offset)
                slot.variable.assign(value.reshape(slot.kind[0]))
                offset += slot.bytes

    def from_chief(self, data: bytes | None) -> bytes:
        """Give the chief's bytes to all workers; the others pass None. A collective.

        Bytes, and not numbers of each kind: so nothing is rounded, and NaN stays what it is.
        """
        if self.alone:
            return data or b""
        mine = data or b""
        length = int(from_chief(self.strategy, np.int64(len(mine))))
        if length == 0:
            # A sum of nothing ends the process (TensorFlow 2.21).
            return b""
        # A whole number of words, of which the chief has the contents.
        words = np.frombuffer(mine.ljust(-(-length // 8) * 8, b"\0"), np.int64)
        received: NDArray[np.int64] = from_chief(self.strategy, words).numpy()
        return received.tobytes()[:length]

    def _mean_of_averaged(self) -> tf.Tensor:
        return self.strategy.reduce(tf.distribute.ReduceOp.MEAN, self.strategy.run(self._flat), axis=None)

    def _flat(self) -> tf.Tensor:
        # In 64 bits the mean of equal numbers is that number again, whatever their count: nothing drifts by being saved.
        return tf.concat([tf.reshape(tf.cast(slot.variable, tf.float64), [-1]) for slot in self._averaged], axis=0)

    def _scaled(self, slot: Slot, mean: tf.Tensor) -> tf.Tensor:
        summed = slot.variable.aggregation == tf.VariableAggregation.SUM
        return tf.cast(mean * self.strategy.num_replicas_in_sync if summed else mean, slot.variable.dtype)

    def _local(self, slot: Slot) -> tf.Variable:
        return self.strategy.experimental_local_results(slot.variable)[0]


def _slots(roots: Mapping[str, Any]) -> Iterator[Slot]:
    seen: set[int] = set()
    for name, root in roots.items():
        for path, variable, called in (*_below(root), *_listed(root)):
            if id(variable) not in seen:
                seen.add(id(variable))
                averaged = _differs(variable, of_model=name == "model")
                yield Slot((name, *path), variable, called, averaged)


def _below(root: Any) -> Iterator[tuple[tuple[str, ...], tf.Variable, str]]:  # noqa: ANN401
    """What tf.train.Checkpoint would find, breadth first, each object once and by its shortest path."""
    # Kept whole: an object that was only made to be looked at would leave its id to the next.
    queue: list[tuple[tuple[str, ...], Any]] = [((), root)]
    seen = {id(root)}
    for path, each in queue:
        if (variable := variable_of(each)) is not None:
            yield path, variable, getattr(each, "path", variable.name.partition(":")[0])
            continue
        for name, child in _children(each).items():
            if id(child) not in seen:
                seen.add(id(child))
                queue.append(((*path, name), child))


def _children(each: Any) -> dict[str, Any]:  # noqa: ANN401
    children: dict[str, Any] = tf.train.TrackableView(each).children(each)
    # tf_keras (2.21) shows a Dropout's generator, where it has one, to a SavedModel alone.
    if hasattr(hidden := getattr(each, "_random_generator", None), "_trackable_children"):
        children["_random_generator"] = hidden
    return children


def _listed(root: Any) -> Iterator[tuple[tuple[str, ...], tf.Variable, str]]:  # noqa: ANN401
    """What a model or optimizer counts among its variables.

    tf.train.Checkpoint does not find all of it: the state of Keras 3.15's SeedGenerator, which every Dropout has, hangs on
    no trackable object, and so Dropout would draw the same again after each restore. Nor do slots of tf_keras's legacy
    optimizers.
    """
    listed = getattr(root, "variables", ())
    for number, each in enumerate(listed() if callable(listed) else listed):
        if (variable := variable_of(each)) is not None:
            yield ("variables", str(number)), variable, getattr(each, "path", variable.name.partition(":")[0])


def variable_of(each: Any) -> tf.Variable | None:  # noqa: ANN401
    """TensorFlow's variable in what Keras calls one; None where there is none."""
    if isinstance(each, tf.Variable):
        return each
    inner = getattr(each, "value", None)
    return inner if isinstance(inner, tf.Variable) else None


def _differs(variable: tf.Variable, *, of_model: bool) -> bool:
    if variable.synchronization == tf.VariableSynchronization.ON_READ:
        return bool(variable.aggregation in {tf.VariableAggregation.MEAN, tf.VariableAggregation.SUM})
    return of_model and not variable.trainable and bool(variable.dtype.is_floating)


def _groups(slots: Iterable[Slot]) -> Iterator[Sequence[Slot]]:
    group: list[Slot] = []
    room = _SHARE_BYTES
    for slot in slots:
        if group and slot.bytes > room:
            yield group
            group, room = [], _SHARE_BYTES
        group.append(slot)
        room -= slot.bytes
    if group:
        yield group
