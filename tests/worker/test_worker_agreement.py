from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tensorflow")

import numpy as np

from worker.agreement import check_labels, check_sizes, fingerprint
from worker.data import Arrays, Records, Schedule, Share
from worker.task import TaskError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Processes
    from worker.data import Source

pytestmark = pytest.mark.tensorflow

CHECK = """
import json, os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import tensorflow as tf
from worker.agreement import check, gather
from worker.context import Context
from worker.data import Arrays, Schedule, Share
from worker.task import TaskError

rank = Context.from_environment(os.environ).rank
strategy = tf.distribute.MultiWorkerMirroredStrategy()
share = Share(rank, 3, 1, 3)
print(gather(strategy, [rank, 7 * rank]).tolist())

def tried(count, features):
    try:
        schedule = Schedule(count, 6, seed=None)
        print(json.dumps(check(strategy, share, Arrays(features, np.zeros(count)), schedule, 0)))
    except TaskError as error:
        print(json.dumps(str(error)))

numbers = np.arange(12.0)
tried(12, numbers)
tried(11 if rank == 2 else 12, numbers[:11] if rank == 2 else numbers)
# Worker 2 reads the shard of worker 0: what it has at its own places is what the other has at its.
shifted = np.roll(numbers, 2) if rank == 2 else numbers
tried(12, shifted)
"""


def test_workers_that_differ_are_named_on_each_of_them(processes: Processes, written: Callable[[str], str]) -> None:
    script = written(CHECK)
    ended = processes.cluster([(script,)] * 3)
    assert [process.status for process in ended] == [0] * 3, [process.err[-2000:] for process in ended]
    for process in ended:
        assert process.out.splitlines() == [
            "[[0, 0], [1, 7], [2, 14]]",
            '""',
            '"the workers have different data: examples of worker 0 12, worker 1 12, worker 2 11"',
            '"workers 0, 2 got the very same examples for the first step: is every file read by each of them?"',
        ]


@pytest.mark.parametrize(
    ("source", "batch", "replicas", "told"),
    [
        (Arrays(np.zeros(0), np.zeros(0)), 4, 1, "there are no things to learn from"),
        (Arrays(np.zeros(9), np.zeros(9)), 2, 4, "--global-batch 2 is less than the 4 replicas that share it"),
        (Arrays(np.zeros(9), np.zeros(9)), 10, 4, "--global-batch 10 is more than the 9 things to learn from"),
        (Records(["a"], 9, print, "file"), 4, 4, '1 files cannot be split over 4 workers (split them by "data")'),  # type: ignore[arg-type]
    ],
)
def test_data_and_batches_that_do_not_fit(source: Source, batch: int, replicas: int, told: str) -> None:
    with pytest.raises(TaskError) as caught:
        check_sizes(source, batch, Share(0, replicas, 1, replicas), "things")
    assert str(caught.value) == told


def test_data_and_batches_that_fit() -> None:
    check_sizes(Arrays(np.zeros(9), np.zeros(9)), 9, Share(0, 4, 1, 4), "things")


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.array([0, 2, 3, 1]), "label 3 of example 2 is out of range: the model has outputs 0 to 2"),
        (np.array([0, -1]), "label -1 of example 1 is out of range"),
        (np.array([[0, 1], [2, 9]]), "label 9 of example 1 is out of range"),
    ],
)
def test_labels_without_an_output(labels: np.ndarray, told: str) -> None:
    with pytest.raises(TaskError, match=told):
        check_labels(labels, 3)


@pytest.mark.parametrize("labels", [np.array([0, 2]), np.array([7.5]), np.array([], np.int64), {"a": np.array([9])}])
def test_labels_that_are_right_or_no_classes(labels: object) -> None:
    check_labels(labels, 3)


def test_a_fingerprint_is_of_what_counts() -> None:
    source = Arrays({"x": np.arange(5.0), "name": np.array(["a", "b", "c", "d", "e"])}, np.arange(5))
    schedule = Schedule(5, 5, seed=None)
    first, second = (fingerprint(source, schedule, Share(worker, 2, 1, 2), 0) for worker in range(2))
    assert (first[0], second[0]) == (3, 2)
    assert first[1] != second[1]
    alone = fingerprint(
        Arrays({"x": np.array([0.0, 2, 4]), "name": np.array(["a", "c", "e"])}, np.arange(3)),
        Schedule(3, 3, None),
        Share(),
        0,
    )
    assert alone == first
    assert fingerprint(source, schedule, Share(worker=5, workers=6, here=1, replicas=6), 0)[0] == 0
