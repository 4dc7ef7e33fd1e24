"""What is learnt from, and which examples each step sees: the same ones, however many workers there are.

The examples of a step follow from the seed and the step's number alone, and every example carries the weight that it has
in the mean over the whole global batch. So a sum over all replicas is that mean, on 1, 2 or 4 workers, to fp32 rounding.
How examples reach the replicas is ``feed.py``'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import tensorflow as tf
    from numpy.typing import NDArray

    # An array, or dicts and tuples of arrays: whatever the model takes for its inputs, or the loss for its labels.
    Structure = Any


@dataclass(frozen=True)
class Arrays:
    """Examples in memory: ``features[i]`` has the labels ``labels[i]``. Both may be dicts or tuples of arrays."""

    features: Structure
    labels: Structure

    def __post_init__(self) -> None:
        lengths = {len(leaf) for leaf in (*leaves(self.features), *leaves(self.labels))}
        if len(lengths) != 1:
            raise ValueError(f"features and labels have different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(next(leaves(self.labels)))


@dataclass(frozen=True)
class Indexed:
    """Examples that are made one by one, each from its number: files of a folder, rows of a database.

    A worker makes the examples that it learns from, and no others.

    Attributes:
        count: how many there are.
        make: gives the features and the labels of example ``i``, a scalar int64 tensor. It is traced, as a function for
            ``tf.data.Dataset.map`` is.
    """

    count: int
    make: Callable[[tf.Tensor], tuple[Structure, Structure]]

    def __len__(self) -> int:
        return self.count


@dataclass(frozen=True)
class Records:
    """Examples that are read one after the other from files, such as TFRecord files.

    Attributes:
        files: their names, the same on all workers.
        count: examples in all files together.
        decode: gives the features and the labels of a record. It is traced, as a function for ``Dataset.map`` is.
        split: ``"data"``: every worker reads all files, keeps its share of each global batch, and decodes that alone;
            the result does not depend on the number of workers. ``"file"``: every worker reads files of its own, which
            costs less, but what a step sees then depends on the number of workers.
        read: gives the records of files, a tensor of names.
        shuffle: records that are held to draw the next one from; 0 keeps the order of the files.
    """

    files: Sequence[str]
    count: int
    decode: Callable[[tf.Tensor], tuple[Structure, Structure]]
    split: Literal["data", "file"]
    read: Callable[[tf.Tensor], tf.data.Dataset] | None = None
    shuffle: int = 0

    def __len__(self) -> int:
        return self.count


Source = Arrays | Indexed | Records


class Share(NamedTuple):
    """The replicas that one worker has, ``first`` to ``first + here - 1``, of ``replicas`` in all, on ``workers`` workers."""

    worker: int = 0
    workers: int = 1
    here: int = 1
    replicas: int = 1

    @property
    def mine(self) -> range:
        """The numbers of its replicas."""
        return range(self.worker * self.here, (self.worker + 1) * self.here)


class Rows(NamedTuple):
    """One replica's part of a step: numbers of examples, and their weights; padding weighs 0."""

    numbers: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Schedule:
    """Which examples each step sees: every epoch all ``count`` of them once, in an order of its own.

    Attributes:
        global_batch: examples of a step. The last one of an epoch is smaller where this does not divide ``count``.
        seed: of the order; None keeps the examples in their order, as a test does.
        multiple: a replica's part is padded to a multiple of this, to be cut into micro-batches.
        total: what the weights of a step add up to.
    """

    count: int
    global_batch: int
    seed: int | None
    multiple: int = 1
    total: float = 1.0

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.global_batch)

    def width(self, replicas: int) -> int:
        """Rows in each replica's part: one shape for all steps, so that one traced function serves them all."""
        parts = -(-min(self.global_batch, self.count) // replicas)
        return -(-parts // self.multiple) * self.multiple

    def numbers(self, step: int) -> NDArray[np.int64]:
        """The examples of one step, counted from 0 since the beginning of the training."""
        epoch, within = divmod(step, self.steps_per_epoch)
        first = within * self.global_batch
        return order(self.count, self.seed, epoch)[first : first + self.global_batch]

    def rows(self, step: int, replica: int, replicas: int) -> Rows:
        """The part of the step that one replica works on."""
        numbers, weights = cut(self.numbers(step), self.width(replicas), replica, replicas)
        return Rows(numbers, weights * np.float32(self.total))

    def epoch(self, epoch: int, share: Share) -> Iterator[Rows]:
        """All parts of an epoch for the replicas of one worker, a step after the other."""
        first = epoch * self.steps_per_epoch
        for step in range(first, first + self.steps_per_epoch):
            yield from (self.rows(step, replica, share.replicas) for replica in share.mine)


def cut(numbers: NDArray[np.int64], width: int, replica: int, replicas: int) -> Rows:
    """Every ``replicas``-th of ``numbers``, beginning with number ``replica``, padded to ``width`` rows.

    Padding repeats a row that is there anyway, or the first of the batch: its loss is finite, so that its weight of 0
    removes it from every sum.
    """
    mine = numbers[replica::replicas]
    rows = np.full(width, mine[0] if len(mine) else numbers[0], np.int64)
    rows[: len(mine)] = mine
    weights = np.zeros(width, np.float32)
    weights[: len(mine)] = 1 / len(numbers)
    return Rows(rows, weights)


@lru_cache(maxsize=4)
def order(count: int, seed: int | None, epoch: int) -> NDArray[np.int64]:
    """The order in which an epoch goes through its examples."""
    if seed is None:
        return np.arange(count)
    # NumPy keeps a generator's stream within a version, not for ever; the workers of a cluster run one version.
    return np.random.default_rng([seed, epoch]).permutation(count)


def leaves(structure: Structure) -> Iterator[Any]:
    """The arrays of a structure, in the order in which TensorFlow flattens it."""
    match structure:
        case dict():
            for name in sorted(structure):
                yield from leaves(structure[name])
        case tuple() | list():
            for part in structure:
                yield from leaves(part)
        case _:
            yield structure
