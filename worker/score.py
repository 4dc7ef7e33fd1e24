"""What a model makes of examples that it does not learn from."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from worker.data import Records, Schedule
from worker.feed import feed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from worker.data import Source
    from worker.learner import Learner
    from worker.preemption import Preemption


def score(
    learner: Learner, source: Source, global_batch: int, many: int, preemption: Preemption
) -> Mapping[str, float]:
    """The measures of a source, exact to its last example, ``many`` batches a call; none if the workers agreed to stop."""
    if isinstance(source, Records):
        # Split by file, the workers would see some examples twice and others not at all.
        source = replace(source, split="data", shuffle=0)
    schedule = Schedule(len(source), min(len(source), global_batch * 4), seed=None)
    iterator = iter(feed(learner.strategy, source, schedule))
    sums: list[NDArray[np.float64]] = []
    for first in range(0, schedule.steps_per_epoch, many):
        last = min(first + many, schedule.steps_per_epoch)
        made = learner.score(iterator, last - first, asked=preemption.asked)
        sums.append(made.sums)
        if made.stop and last < schedule.steps_per_epoch:
            preemption.agree()
            return {}
    return learner.metrics.results(np.concatenate(sums).sum(axis=0))
