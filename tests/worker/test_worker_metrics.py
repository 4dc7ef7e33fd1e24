from __future__ import annotations

import pytest

pytest.importorskip("tensorflow")

import keras
import numpy as np
import tensorflow as tf

from worker.metrics import Metrics
from worker.task import TaskError

pytestmark = pytest.mark.tensorflow

RANDOM = np.random.default_rng(5)
OUTPUTS = RANDOM.normal(size=(40, 3)).astype(np.float32)
LABELS = RANDOM.integers(0, 3, 40)
LOSSES = RANDOM.uniform(size=40).astype(np.float32)


def in_parts(metrics: Metrics, sizes: list[int], outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What becomes of examples that several replicas have in parts, each with a row of padding."""
    total = np.zeros(metrics.size)
    first = 0
    for size in sizes:
        rows = np.r_[np.arange(first, first + size), first]
        counted = np.ones(size + 1, np.float32)
        counted[-1] = 0
        added = metrics.sums(
            tf.gather(LOSSES, rows), tf.gather(labels, rows), tf.gather(outputs, rows), tf.constant(counted)
        )
        total += added.numpy()
        first += size
    return dict(metrics.results(total))


@pytest.mark.parametrize("sizes", [[40], [20, 20], [7, 1, 32]])
def test_sums_of_parts_are_those_of_the_whole(sizes: list[int]) -> None:
    metrics = Metrics(
        ["sparse_categorical_accuracy", lambda: keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
    )
    found = in_parts(metrics, sizes, OUTPUTS, LABELS)
    assert found["loss"] == pytest.approx(LOSSES.mean())
    assert found["sparse_categorical_accuracy"] == pytest.approx(np.mean(OUTPUTS.argmax(1) == LABELS))
    top2 = [label in row.argsort()[-2:] for row, label in zip(OUTPUTS, LABELS, strict=True)]
    assert found["top2"] == pytest.approx(np.mean(top2))


@pytest.mark.parametrize("sizes", [[40], [9, 31]])
def test_a_metric_with_more_than_a_mean(sizes: list[int]) -> None:
    outputs = 1 / (1 + np.exp(-OUTPUTS[:, :1]))
    labels = (LABELS > 0).astype(np.float32)[:, np.newaxis]
    whole = keras.metrics.AUC(name="auc")
    whole.update_state(labels, outputs)
    found = in_parts(Metrics([lambda: keras.metrics.AUC(name="auc"), "mean_absolute_error"]), sizes, outputs, labels)
    assert found["auc"] == pytest.approx(float(whole.result()), rel=1e-5)
    assert found["mean_absolute_error"] == pytest.approx(np.abs(outputs - labels).mean(), rel=1e-5)


def test_nothing_measured_is_no_division_by_zero() -> None:
    metrics = Metrics([])
    assert metrics.results(np.zeros(metrics.size)) == {"loss": 0.0}


def test_a_name_that_keras_does_not_know() -> None:
    with pytest.raises(
        TaskError, match=r"no metric is called 'sparse_categorical_acuracy' \(did you mean sparse_categorical_accuracy"
    ):
        Metrics(["sparse_categorical_acuracy"])
