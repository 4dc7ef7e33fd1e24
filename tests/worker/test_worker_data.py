from __future__ import annotations

import pytest

pytest.importorskip("numpy")

import numpy as np

from worker.data import Arrays, Rows, Schedule, Share, cut, leaves

COUNT = 53


def parts(schedule: Schedule, step: int, replicas: int) -> list[Rows]:
    return [schedule.rows(step, replica, replicas) for replica in range(replicas)]


def seen(rows: list[Rows]) -> list[int]:
    return sorted(number for one in rows for number in one.numbers[one.weights > 0].tolist())


@pytest.mark.parametrize("global_batch", [1, 16, 53])
def test_an_epoch_sees_every_example_once(global_batch: int) -> None:
    schedule = Schedule(COUNT, global_batch, seed=0)
    for epoch in range(2):
        steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
        assert sorted(np.concatenate([schedule.numbers(step) for step in steps])) == list(range(COUNT))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("step", range(8))
def test_any_number_of_replicas_sees_the_same_examples(step: int, replicas: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=7)
    assert seen(parts(schedule, step, replicas)) == sorted(schedule.numbers(step))


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("step", [0, 3])
def test_a_weighted_sum_over_all_replicas_is_the_mean_over_the_global_batch(step: int, replicas: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=7)
    total = sum(float(np.sum(rows.numbers * rows.weights)) for rows in parts(schedule, step, replicas))
    assert len(schedule.numbers(step)) == (16 if step == 0 else 53 - 3 * 16)
    assert total == pytest.approx(np.mean(schedule.numbers(step)))


@pytest.mark.parametrize(("replicas", "multiple", "width"), [(1, 1, 16), (3, 1, 6), (8, 1, 2), (3, 4, 8)])
def test_all_parts_of_all_steps_have_one_width(replicas: int, multiple: int, width: int) -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=0, multiple=multiple)
    assert schedule.width(replicas) == width
    assert {len(rows.numbers) for step in range(4) for rows in parts(schedule, step, replicas)} == {width}


def test_padding_repeats_what_is_there_anyway() -> None:
    rows = [cut(np.array([5, 6]), 2, replica, 3) for replica in range(3)]
    assert [one.weights.tolist() for one in rows] == [[0.5, 0.0], [0.5, 0.0], [0.0, 0.0]]
    assert [one.numbers.tolist() for one in rows] == [[5, 5], [6, 6], [5, 5]]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    schedule = Schedule(COUNT, global_batch=COUNT, seed=1)
    first, second = schedule.numbers(0).tolist(), schedule.numbers(1).tolist()
    assert first != second
    assert Schedule(COUNT, global_batch=COUNT, seed=2).numbers(0).tolist() != first
    assert schedule.numbers(0).tolist() == first


def test_without_a_seed_examples_keep_their_order() -> None:
    assert Schedule(COUNT, global_batch=COUNT, seed=None).numbers(1).tolist() == list(range(COUNT))


def test_an_epoch_of_a_worker_has_its_replicas_one_after_the_other() -> None:
    schedule = Schedule(COUNT, global_batch=16, seed=3)
    share = Share(worker=1, workers=2, here=2, replicas=4)
    expected = [schedule.rows(step, replica, 4) for step in range(4, 8) for replica in (2, 3)]
    for found, wanted in zip(schedule.epoch(1, share), expected, strict=True):
        assert np.array_equal(found.numbers, wanted.numbers)
        assert np.array_equal(found.weights, wanted.weights)


def test_arrays_are_of_one_length() -> None:
    features = {"a": np.zeros((4, 2)), "b": (np.zeros(4), np.zeros((4, 1)))}
    assert len(Arrays(features, np.zeros(4))) == 4
    with pytest.raises(ValueError, match=r"different lengths: \[3, 4\]"):
        Arrays(features, np.zeros(3))


def test_leaves_come_in_the_order_in_which_tensorflow_flattens() -> None:
    assert list(leaves({"b": 1, "a": (2, [3, {"y": 5, "x": 4}])})) == [2, 3, 4, 5, 1]
