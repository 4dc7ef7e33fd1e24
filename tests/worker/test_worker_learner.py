from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("tensorflow")

import keras
import numpy as np
import tensorflow as tf

from worker.data import Arrays, Schedule
from worker.feed import feed
from worker.learner import Learner
from worker.named import make_optimizer, per_example
from worker.task import Task, TaskError, cross_entropy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow

# 131 examples in batches of 33: neither a batch nor what the last one of each epoch is left with divides by 2 or 4.
TRAIN = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
import tensorflow as tf
from worker.context import Context
from worker.data import Arrays, Schedule
from worker.feed import feed
from worker.learner import Learner
from worker.strategy import build, choose, make_virtual_devices
from worker.task import Task, cross_entropy

out, virtual = sys.argv[1], int(sys.argv[2])
if virtual:
    make_virtual_devices(virtual)
size = Context.from_environment(os.environ).size
strategy = build(choose(size, virtual), virtual=bool(virtual))
random = np.random.default_rng(0)
x = random.normal(size=(131, 8)).astype(np.float32)
words = random.integers(0, 50, (131, 5))
y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(np.int64) + (x[:, 2] > 1)
layers = keras.layers

def dense():
    hidden = layers.Dense(16, activation="relu", kernel_regularizer="l2")
    return keras.Sequential([keras.Input((8,)), hidden, layers.Dense(3)])

def embedding():
    numbers, tokens = keras.Input((8,), name="x"), keras.Input((5,), dtype="int32", name="words")
    joined = layers.Concatenate()([numbers, layers.Flatten()(layers.Embedding(50, 4)(tokens))])
    return keras.Model({"x": numbers, "words": tokens}, layers.Dense(3)(joined))

def normalised():
    return keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.BatchNormalization(), layers.Dropout(0.2), layers.Dense(3)])

sgd, adam = keras.optimizers.SGD, keras.optimizers.Adam
CASES = {
    "sgd": (dense, lambda: sgd(0.05), {}),
    "momentum": (dense, lambda: sgd(0.02, momentum=0.9, weight_decay=1e-3), {}),
    "adam": (dense, lambda: adam(0.01), {}),
    "clipped in pieces": (dense, lambda: adam(0.01), {"clip_norm": 0.5, "micro_batches": 3}),
    "embedding": (embedding, lambda: adam(keras.optimizers.schedules.ExponentialDecay(0.01, 50, 0.9)), {}),
    "float16": (dense, lambda: sgd(0.05), {"precision": "mixed_float16"}),
    "normalised": (normalised, lambda: adam(0.01), {"micro_batches": 2}),
}
found = {}
for name, (model, optimizer, options) in CASES.items():
    metrics = ["sparse_categorical_accuracy", lambda: keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")]
    task = Task(name=name, model=model, loss=cross_entropy, data=lambda: None, metrics=metrics)
    wanted = {"clip_norm": None, "micro_batches": 1, "precision": "float32", **options}
    learner = Learner(strategy, task, optimizer, seed=1, **wanted)
    source = Arrays({"x": x, "words": words} if model is embedding else x, y)
    schedule = Schedule(131, 33, seed=4, multiple=wanted["micro_batches"])
    steps = iter(feed(strategy, source, schedule))
    made = [learner.learn(steps, count) for count in ((1, 99, 100) if name in {"sgd", "momentum", "adam"} else (1, 39))]
    assert all(one.bad_step == -1 for one in made)
    found[f"{name}/losses"] = np.concatenate([one.losses for one in made])
    for number, weights in enumerate(learner.model.get_weights()):
        found[f"{name}/weights {number}"] = weights
    in_order = Schedule(131, 50, seed=None)
    sums = learner.score(iter(feed(strategy, source, in_order)), in_order.steps_per_epoch).sums.sum(axis=0)
    for measure, value in learner.metrics.results(sums).items():
        found[f"{name}/measured {measure}"] = value
    predicted = learner.model.predict if size == 1 and not virtual else None
    if predicted:
        inputs = {"x": x, "words": words} if model is embedding else x
        found[f"{name}/accuracy by hand"] = np.mean(np.argmax(predicted(inputs, verbose=0), -1) == y)
np.savez(out, **found)
"""


def test_the_same_on_1_2_and_4_workers(tmp_path: Path, processes: Processes, written: Callable[[str], str]) -> None:
    script = written(TRAIN)
    ended = processes.cluster([(script, "alone", "0")])
    ended += processes.cluster([(script, "virtual", "2")])
    for workers in (2, 4):
        ended += processes.cluster([(script, f"{workers}-{number}", "0") for number in range(workers)])
    assert [process.status for process in ended] == [0] * len(ended), [process.err[-2000:] for process in ended]
    alone, *others = (
        np.load(tmp_path / f"{name}.npz") for name in ("alone", "virtual", "2-0", "2-1", "4-0", "4-1", "4-2", "4-3")
    )
    for name in alone.files:
        case = name.partition("/")[0]
        if name.endswith("by hand"):
            assert alone[name] == pytest.approx(alone[f"{case}/measured sparse_categorical_accuracy"])
            continue
        for other in others:
            # Numbers of 16 bits are rounded where they are added, in the order of the replicas. Statistics of a batch
            # that each replica takes by itself, and a mask that it draws by itself, are different by design.
            if case != "normalised":
                assert apart(alone[name], other[name]) < (1e-2 if case == "float16" else 1e-5), name
    assert len(alone["adam/losses"]) == 200
    assert alone["adam/losses"][-1] < alone["adam/losses"][0] / 2
    for two in (others[1:3], others[3:]):
        for name in two[0].files:
            if "normalised/weights" not in name:
                assert all(np.array_equal(two[0][name], other[name]) for other in two), name


def apart(one: Any, other: Any) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.max(np.abs(one - other)) / max(np.max(np.abs(one)), 1e-12))


def learner(**more: Any) -> Learner:
    task = Task(
        name="t",
        model=lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)]),
        loss=more.pop("loss", cross_entropy),
        data=lambda: None,  # type: ignore[arg-type,return-value]
        metrics=more.pop("metrics", ()),
    )
    options: dict[str, Any] = {"seed": 0, "clip_norm": None, "micro_batches": 1, "precision": "float32", **more}
    return Learner(tf.distribute.get_strategy(), task, lambda: keras.optimizers.SGD(0.1), **options)


def source(rows: int = 8) -> Arrays:
    return Arrays(np.arange(rows * 2, dtype=np.float32).reshape(rows, 2) / rows, np.arange(rows) % 3)


@pytest.fixture(autouse=True)
def _restore_precision() -> Any:
    yield
    keras.mixed_precision.set_dtype_policy("float32")


def test_a_step_without_a_finite_loss_changes_nothing_nor_does_any_after_it() -> None:
    examples = source()
    examples.features[4:6] = np.nan
    one = learner()
    before = one.model.get_weights()
    steps = iter(feed(one.strategy, examples, Schedule(8, 2, seed=None)))
    assert one.learn(steps, 2).bad_step == -1
    good = one.model.get_weights()
    assert not np.array_equal(before[0], good[0])
    made = one.learn(steps, 4)
    assert (made.bad_step, made.bad_replica) == (0, 0)
    assert np.array_equal(good[0], one.model.get_weights()[0])


def test_a_gradient_that_is_no_number_counts_though_its_loss_is_one() -> None:
    # The root has no derivative at 0, and the chain rule makes infinity times 0 of it.
    one = learner(loss=lambda _, outputs: tf.sqrt(tf.reduce_sum(outputs * 0, axis=1)))
    before = one.model.get_weights()
    made = one.learn(iter(feed(one.strategy, source(), Schedule(8, 4, seed=None))), 2)
    assert np.isfinite(made.losses).all()
    assert (made.bad_step, made.bad_replica) == (0, 0)
    assert np.array_equal(before[0], one.model.get_weights()[0])


def test_float16_halves_its_scale_until_gradients_fit() -> None:
    one = learner(precision="mixed_float16")
    assert one.scale is not None
    one.scale.value.assign(2.0**60)
    before = one.model.get_weights()
    steps = iter(feed(one.strategy, source(), Schedule(8, 8, seed=None)))
    assert one.learn(steps, 3).bad_step == -1
    assert float(one.scale.value.numpy()) == 2.0**57
    assert np.array_equal(before[0], one.model.get_weights()[0])
    one.learn(steps, 60)
    assert not np.array_equal(before[0], one.model.get_weights()[0])


@pytest.mark.parametrize(
    ("loss", "rows", "expected"),
    [
        ("mean_squared_error", 2, [2.5, 0.0]),
        (keras.losses.MeanSquaredError(), 2, [2.5, 0.0]),
        (lambda labels, outputs: tf.abs(labels - outputs), 2, [1.5, 0.0]),
    ],
)
def test_a_loss_is_one_number_for_each_row(loss: Any, rows: int, expected: list[float]) -> None:
    values = per_example(loss)(tf.constant([[1.0, 2.0], [0.0, 0.0]]), tf.constant([[0.0, 0.0], [0.0, 0.0]]))
    assert values.shape == (rows,)
    assert values.numpy().tolist() == expected


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: learner(loss="mean_squarred_error"), "no loss is called 'mean_squarred_error' (did you mean mean_squared_error?)"),
        (lambda: learner(metrics=["acuracy_"]), "no metric is called 'acuracy_'"),
        (lambda: make_optimizer("addam", None), "no optimizer is called 'addam' (did you mean Adam?)"),
        (lambda: make_optimizer(lambda: keras.optimizers.SGD(gradient_accumulation_steps=2), None), "set micro_batches"),
    ],
)  # fmt: skip
def test_what_keras_does_not_know_is_told_in_one_line(make: Callable[[], object], told: str) -> None:
    with pytest.raises(TaskError) as caught:
        make()
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_learning_rate_of_the_users() -> None:
    assert float(make_optimizer("adam", 0.25).learning_rate) == 0.25
    assert (
        float(
            make_optimizer(lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.5)), None).learning_rate
        )
        == 0.5
    )


def test_labels_that_are_classes_are_known_by_their_loss() -> None:
    assert learner().takes_classes
    assert learner(loss="sparse_categorical_crossentropy").takes_classes
    assert learner(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True)).takes_classes
    assert not learner(loss="mean_squared_error").takes_classes
