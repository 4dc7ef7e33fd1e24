from __future__ import annotations

import pytest

pytest.importorskip("numpy")

import numpy as np

from worker.data import Batch, Examples, Schedule, cut

COUNT = 53
EXAMPLES = Examples(np.arange(COUNT, dtype=np.float32)[:, np.newaxis], np.arange(COUNT, dtype=np.int64))


def parts(schedule: Schedule, step: int, replicas: int) -> list[Batch]:
    return [schedule.shard(EXAMPLES, step, replica, replicas) for replica in range(replicas)]


def seen(batches: list[Batch]) -> list[int]:
    return sorted(label for batch in batches for label in batch.labels[batch.weights > 0].tolist())


@pytest.mark.parametrize("global_batch", [1, 16, 53, 64])
def test_an_epoch_sees_every_example_once(global_batch: int) -> None:
    schedule = Schedule(COUNT, global_batch, seed=0)
    for epoch in range(2):
        steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
        assert sorted(np.concatenate([schedule.indices(step) for step in steps])) == list(range(COUNT))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("step", range(8))
def test_any_number_of_replicas_sees_the_same_examples(step: int, replicas: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=7)
    assert seen(parts(schedule, step, replicas)) == sorted(schedule.indices(step))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [0, 3])
def test_a_weighted_sum_over_all_replicas_is_the_mean_over_the_global_batch(step: int, replicas: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=7)
    total = sum(float(np.sum(batch.features[:, 0] * batch.weights)) for batch in parts(schedule, step, replicas))
    assert len(schedule.indices(step)) == (16 if step == 0 else 53 - 3 * 16)
    assert total == pytest.approx(np.mean(schedule.indices(step)))


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_all_parts_of_all_steps_have_one_shape(replicas: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=0)
    shapes = {batch.features.shape for step in range(4) for batch in parts(schedule, step, replicas)}
    assert shapes == {(-(-16 // replicas), 1)}


def test_more_replicas_than_examples_leaves_some_with_padding_alone() -> None:
    batches = [cut(EXAMPLES, np.array([5, 6]), 1, replica, 3) for replica in range(3)]
    assert [batch.weights.tolist() for batch in batches] == [[0.5], [0.5], [0.0]]
    assert [batch.labels.tolist() for batch in batches] == [[5], [6], [0]]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    schedule = Schedule(COUNT, global_batch=COUNT, seed=1)
    first, second = schedule.indices(0).tolist(), schedule.indices(1).tolist()
    assert first != second
    assert Schedule(COUNT, global_batch=COUNT, seed=2).indices(0).tolist() != first
    assert schedule.indices(0).tolist() == first
