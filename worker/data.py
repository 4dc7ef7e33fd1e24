"""Shards that do not change the result: however many workers there are, step s sees the same examples.

The examples of a step follow from the seed and the step's number alone, and every example carries the weight that it has
in the mean over the whole global batch. So a sum over all replicas is that mean, on 1, 2 or 4 workers, to fp32 rounding.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Examples:
    """Labelled examples in memory: ``features[i]``, of any shape, has the class ``labels[i]``."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


class Batch(NamedTuple):
    """One replica's part of a global batch. The weights of all the parts together sum to 1; padding weighs 0."""

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Schedule:
    """Which examples each step sees: every epoch all ``count`` of them once, in an order of its own.

    The last global batch of an epoch is smaller when ``global_batch`` does not divide ``count``.
    """

    count: int
    global_batch: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.count // self.global_batch)

    def indices(self, step: int) -> NDArray[np.int64]:
        """The examples of one step, counted from 0 since the beginning of the training."""
        epoch, step_in_epoch = divmod(step, self.steps_per_epoch)
        first = step_in_epoch * self.global_batch
        return _order(self.count, self.seed, epoch)[first : first + self.global_batch]

    def shard(self, examples: Examples, step: int, replica: int, replicas: int) -> Batch:
        """The part of the step that replica number ``replica`` of ``replicas`` works on; one shape for all steps."""
        width = -(-min(self.global_batch, self.count) // replicas)
        return cut(examples, self.indices(step), width, replica, replicas)


def cut(examples: Examples, indices: NDArray[np.int64], width: int, replica: int, replicas: int) -> Batch:
    """Every ``replicas``-th of ``indices``, beginning with number ``replica``, padded to ``width`` rows of equal shape.

    Equal shapes let one traced tf.function serve all steps and keep the replicas in step. A row of padding repeats
    example 0, whose loss is finite, so that its weight of 0 removes it from every sum.
    """
    mine = indices[replica::replicas]
    rows = np.zeros(width, np.int64)
    rows[: len(mine)] = mine
    weights = np.zeros(width, np.float32)
    weights[: len(mine)] = 1 / len(indices)
    return Batch(examples.features[rows], examples.labels[rows], weights)


@lru_cache(maxsize=1)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    # NumPy keeps a generator's stream within a version, not for ever; the workers of a cluster run one version.
    return np.random.default_rng([seed, epoch]).permutation(count)
