from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("tensorflow")

import numpy as np
import tensorflow as tf

from worker.data import Arrays, Indexed, Records, Schedule, Share
from worker.feed import examples, feed

if TYPE_CHECKING:
    from pathlib import Path

    from worker.data import Source

pytestmark = pytest.mark.tensorflow

COUNT = 53
NUMBERS = np.arange(COUNT)
SCHEDULE = Schedule(COUNT, global_batch=16, seed=7)
STEPS = 12  # of three epochs

Steps = list[list[int]]


def _decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    number = tf.strings.to_number(record, tf.int64)
    return {"x": tf.cast([number], tf.float32)}, number


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder: Path = tmp_path_factory.mktemp("records")
    for number, part in enumerate(np.array_split(NUMBERS, 5)):
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
            for example in part:
                writer.write(str(example).encode())
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(params=["arrays", "indexed", "records"])
def source(request: pytest.FixtureRequest, files: list[str]) -> Source:
    match request.param:
        case "arrays":
            return Arrays({"x": NUMBERS[:, np.newaxis].astype(np.float32)}, NUMBERS)
        case "indexed":
            return Indexed(COUNT, lambda number: ({"x": tf.cast([number], tf.float32)}, number))
        case _:
            return Records(files, COUNT, _decode, split="data", shuffle=8)


def steps(source: Source, workers: int, first_step: int = 0, here: int = 1) -> Steps:
    """The examples of each step of three epochs, over all workers together."""
    shares = [Share(worker, workers, here, workers * here) for worker in range(workers)]
    pipelines = [iter(examples(source, SCHEDULE, share, first_step, epochs=3)) for share in shares]
    found = []
    for _ in range(first_step, STEPS):
        parts = [next(pipeline) for pipeline in pipelines for _ in range(here)]
        for features, labels, _ in parts:
            assert features["x"].shape == (SCHEDULE.width(workers * here), 1)
            assert np.array_equal(features["x"][:, 0], labels)
        assert sum(float(tf.reduce_sum(weights)) for *_, weights in parts) == pytest.approx(1)
        found.append(sorted(int(label) for _, labels, weights in parts for label in labels[weights > 0]))
    if first_step % SCHEDULE.steps_per_epoch == 0:
        assert all(next(pipeline, None) is None for pipeline in pipelines)
    return found


def test_any_number_of_workers_sees_the_same_examples(source: Source) -> None:
    alone = steps(source, 1)
    for first in range(0, STEPS, SCHEDULE.steps_per_epoch):
        epoch = alone[first : first + SCHEDULE.steps_per_epoch]
        assert sorted(number for step in epoch for number in step) == NUMBERS.tolist()
    assert alone[0] != alone[4]
    assert steps(source, 2) == steps(source, 4) == steps(source, 2, here=2) == alone


def test_a_pipeline_can_begin_at_any_step(source: Source) -> None:
    assert steps(source, 2, first_step=5) == steps(source, 1)[5:]


def test_files_split_by_file_are_read_by_one_worker_each(files: list[str]) -> None:
    source = Records(files, COUNT, _decode, split="file")
    shares = [Share(worker, 2, 1, 2) for worker in range(2)]
    seen = []
    for share in shares:
        parts = list(examples(source, SCHEDULE, share, 0, epochs=3))
        assert len(parts) == STEPS
        assert {float(weight) for *_, weights in parts for weight in weights} == {np.float32(1 / 16)}
        seen.append({int(label) for _, labels, _ in parts for label in labels})
    assert seen[0] | seen[1] == set(NUMBERS.tolist())
    assert not seen[0] & seen[1]


def test_by_file_too_it_can_begin_at_any_step(files: list[str]) -> None:
    source = Records(files, COUNT, _decode, split="file")
    share = Share(1, 2, 1, 2)
    whole = [labels.numpy().tolist() for _, labels, _ in examples(source, SCHEDULE, share, 0, epochs=2)]
    rest = [labels.numpy().tolist() for _, labels, _ in examples(source, SCHEDULE, share, 3, epochs=2)]
    assert rest == whole[3:]


def test_only_what_is_used_is_made() -> None:
    made: list[int] = []

    def make(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        tf.numpy_function(lambda value: made.append(int(value)) or np.int64(0), [number], tf.int64)  # type: ignore[func-returns-value]
        return number, number

    parts = list(examples(Indexed(COUNT, make), SCHEDULE, Share(0, 2, 1, 2), 0, epochs=1))
    mine = {int(label) for _, labels, weights in parts for label in labels[weights > 0]}
    assert set(made) == mine
    assert len(mine) == 27


def test_weights_for_whoever_divides_by_the_number_of_rows() -> None:
    source = Arrays(NUMBERS.astype(np.float32), NUMBERS)
    strategy = tf.distribute.get_strategy()
    for summed, last in ((True, 1 / 5), (False, 16 / 5)):
        *_, (_, _, weights) = islice(feed(strategy, source, SCHEDULE, summed=summed), 4)
        assert sorted(set(weights.numpy().tolist())) == [0.0, pytest.approx(last)]


@pytest.mark.parametrize("here", [1, 2])
def test_a_strategy_hands_each_replica_its_part(here: int) -> None:
    class Two:
        """As much of a strategy with several replicas as ``feed`` asks for."""

        num_replicas_in_sync = here

        @staticmethod
        def distribute_datasets_from_function(function: Any) -> tf.data.Dataset:
            return function(tf.distribute.InputContext(1, 0, here))

    dataset = feed(Two(), Arrays(NUMBERS, NUMBERS), SCHEDULE)
    first = [labels.numpy() for _, labels, _ in islice(dataset, here)]
    assert sorted(np.concatenate(first)) == sorted(SCHEDULE.numbers(0))
    assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY
    assert dataset.options().autotune.enabled is False
