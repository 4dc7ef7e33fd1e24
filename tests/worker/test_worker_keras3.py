"""Keras 3 on a cluster of two, from scripts that know nothing of the repair; beside one worker, or stock Keras."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from worker import boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Ended, Processes

pytestmark = pytest.mark.tensorflow

START = str(Path(boot.__file__).with_name("start.py"))
REPAIRED = "tflaunch: Keras 3."

BEGIN = """
import json, os, sys
import numpy as np
import tensorflow as tf
import keras

TASK = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {"index": 0})["index"]
strategy = tf.distribute.MultiWorkerMirroredStrategy() if "TF_CONFIG" in os.environ else tf.distribute.get_strategy()
layers = keras.layers
x = np.random.RandomState(0).rand(64, 4).astype("float32")
y = x.sum(axis=1, keepdims=True)

def say(name, history, model):
    numbers = {key: np.asarray(values, "float64").ravel().tolist() for key, values in history.items()}
    weights = [np.asarray(weight.value, "float64").ravel().tolist() for weight in model.trainable_variables]
    rest = [float(np.abs(weight.value).sum()) for weight in model.non_trainable_variables if "float" in weight.dtype]
    print(json.dumps([name, numbers, sum(weights, []), rest]), flush=True)

def case(run):
    keras.utils.set_random_seed(1)
    model, history = run()
    say(run.__name__, history if isinstance(history, dict) else history.history, model)

def dense(**compiled):
    return made([layers.Dense(3, activation="tanh"), layers.Dense(1)], **compiled)

def made(stack, optimizer=lambda: keras.optimizers.SGD(0.1), loss="mse", **compiled):
    with strategy.scope():
        model = keras.Sequential([keras.Input((4,)), *stack])
        model.compile(optimizer=optimizer(), loss=loss, metrics=["mae"], **compiled)
    return model

def fitted(model, data=(x, y), **options):
    return model, model.fit(*data, **{"batch_size": 16, "epochs": 2, "shuffle": False, "verbose": 0, **options})

def dataset(count=64):
    return tf.data.Dataset.from_tensor_slices((x[:count], y[:count])).batch(16)
"""

DATA = """
@case
def numpy(): return fitted(dense(), validation_data=(x[:32], y[:32]))

@case
def weights(): return fitted(dense(weighted_metrics=["mse"]), sample_weight=np.linspace(0, 1, 64))

@case
def endless():
    return fitted(dense(), (dataset().repeat(),), batch_size=None, steps_per_epoch=3, validation_data=dataset())

@case
def classes():
    model = made([layers.Dense(2, activation="softmax")], loss="sparse_categorical_crossentropy")
    return fitted(model, (x, (y > 2).astype("int32")), class_weight={0: 1.0, 1: 3.0})

@case
def several_inputs_and_outputs():
    with strategy.scope():
        one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
        both = layers.Concatenate()([one, two])
        outputs = {"sum": layers.Dense(1, name="sum")(both), "first": layers.Dense(2, name="first")(both)}
        model = keras.Model({"one": one, "two": two}, outputs)
        model.compile("sgd", loss={"sum": "mse", "first": "mae"}, loss_weights={"sum": 1.0, "first": 0.5})
    return fitted(model, ({"one": x, "two": -x}, {"sum": y, "first": x[:, :2]}))

@case
def evaluate_and_predict():
    model, _ = fitted(dense(steps_per_execution=2))
    return model, {
        "evaluate": model.evaluate(x, y, batch_size=16, verbose=0),
        "predict": model.predict(x[:33], batch_size=16, verbose=0),
    }
"""

STEPS = """
@case
def several_steps(): return fitted(dense(steps_per_execution=3), validation_data=(x, y))

@case
def accumulation():
    return fitted(dense(optimizer=lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=3)), epochs=3)

@case
def mixed_precision():
    stack = [layers.Dense(3, activation="tanh", dtype="mixed_float16"), layers.Dense(1)]
    # The scale is small enough for the gradients of a whole batch: they overflow earlier than those of its halves.
    inner = lambda: keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    return fitted(made(stack, lambda: keras.optimizers.LossScaleOptimizer(inner(), initial_scale=64.0)))

@case
def overflow_on_one_worker():
    large = x.copy()
    large[8:16] *= 1e4
    stack = [layers.Dense(3, activation="relu", dtype="mixed_float16"), layers.Dense(1)]
    model = made(stack, lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1e-4)))
    model, history = fitted(model, (large, y))
    return model, {**history.history, "scale": [model.optimizer.dynamic_scale.numpy()]}

@case
def synchronized(): return fitted(made([layers.BatchNormalization(synchronized=True), layers.Dense(1)]))

@case
def early_end():
    # The mean error falls in each epoch, but not by 0.2 in each.
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="val_mae", patience=0, min_delta=0.2)
    stopping = keras.callbacks.EarlyStopping(patience=2, min_delta=0.2, restore_best_weights=True)
    return fitted(dense(), epochs=9, validation_data=(x, y), callbacks=[plateau, stopping])

@case
def custom_train_step():
    class Custom(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs)

        def train_step(self, data):
            inputs, targets = data
            with tf.GradientTape() as tape:
                error = tf.reduce_mean((self(inputs) - targets) ** 2)
                loss = error / tf.distribute.get_strategy().num_replicas_in_sync
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            examples = tf.shape(inputs)[0] * tf.distribute.get_strategy().num_replicas_in_sync
            return {"error": error, "examples": examples, "whole": examples % 16 == 0, "nothing": None}
    with strategy.scope():
        model = Custom()
        model.compile("sgd")
    return fitted(model)
"""

# What is one worker's share of a batch makes a difference there, or which examples it has.
LIKE_EACH_OTHER = """
@case
def normalization(): return fitted(made([layers.BatchNormalization(), layers.Dense(1)]), validation_data=(x, y))

@case
def nothing_left_for_one_worker():
    model = made([layers.BatchNormalization(), layers.Dense(1)], steps_per_execution=2)
    return fitted(model, (dataset(33),), batch_size=None, validation_data=dataset(33))

@case
def dropout(): return fitted(made([layers.Dropout(0.5), layers.Dense(1)]), shuffle=True)

class Stops(keras.callbacks.Callback):
    batches = 0

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1

@case
def not_a_number_on_one_worker():
    broken = y.copy()
    broken[8 + 16] = np.nan
    stops = Stops()
    model, _ = fitted(dense(), (x, broken), callbacks=[keras.callbacks.TerminateOnNaN(), stops])
    return model, {"batches": [stops.batches]}
"""


# What TensorFlow's tutorial "Multi-worker training with Keras" has, with numbers of its own for its images.
TUTORIAL = """
import json, os, sys
import numpy as np
import tensorflow as tf

def mnist_dataset(batch_size):
    x = np.random.RandomState(0).rand(256, 8, 8).astype("float32")
    y = np.random.RandomState(1).randint(0, 10, 256).astype("int64")
    return tf.data.Dataset.from_tensor_slices((x, y)).shuffle(256).repeat().batch(batch_size)

def build_and_compile_cnn_model():
    model = tf.keras.Sequential([
        tf.keras.layers.InputLayer(shape=(8, 8)),
        tf.keras.layers.Reshape(target_shape=(8, 8, 1)),
        tf.keras.layers.Conv2D(4, 3, activation="relu"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(10),
    ])
    model.compile(
        loss=tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=tf.keras.optimizers.SGD(learning_rate=0.001),
        metrics=["accuracy"],
    )
    return model

tf_config = json.loads(os.environ["TF_CONFIG"])
num_workers = len(tf_config["cluster"]["worker"])
strategy = tf.distribute.MultiWorkerMirroredStrategy()
options = tf.data.Options()
options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
multi_worker_dataset = mnist_dataset(32 * num_workers).with_options(options)
with strategy.scope():
    multi_worker_model = build_and_compile_cnn_model()
callbacks = [tf.keras.callbacks.BackupAndRestore(backup_dir="backup")]
multi_worker_model.fit(multi_worker_dataset, epochs=3, steps_per_epoch=4, callbacks=callbacks)

def is_chief(task_type, task_id, cluster_spec):
    return task_type is None or task_type == "chief" or (
        task_type == "worker" and task_id == 0 and "chief" not in cluster_spec.as_dict())

def write_filepath(filepath, task_type, task_id, cluster_spec):
    dirpath, base = os.path.dirname(filepath), os.path.basename(filepath)
    if not is_chief(task_type, task_id, cluster_spec):
        dirpath = os.path.join(dirpath, "workertemp_" + str(task_id))
        tf.io.gfile.makedirs(dirpath)
    return os.path.join(dirpath, base)

resolver = strategy.cluster_resolver
task = resolver.task_type, resolver.task_id, resolver.cluster_spec()
model_path = os.path.join(os.getcwd(), "keras-model.keras")
write_model_path = write_filepath(model_path, *task)
multi_worker_model.save(write_model_path)
if not is_chief(*task):
    tf.io.gfile.rmtree(os.path.dirname(write_model_path))

checkpoint = tf.train.Checkpoint(model=multi_worker_model)
write_checkpoint_dir = write_filepath(os.path.join(os.getcwd(), "ckpt"), *task)
tf.train.CheckpointManager(checkpoint, directory=write_checkpoint_dir, max_to_keep=1).save()
if not is_chief(*task):
    tf.io.gfile.rmtree(write_checkpoint_dir)
"""

UNTUNED = """
from tensorflow.python.data.ops import multi_device_iterator_ops

queues, repaired = [], multi_device_iterator_ops._create_device_dataset
def create(*args):
    queues.append(repaired(*args))
    return queues[-1]
multi_device_iterator_ops._create_device_dataset = create
fitted(dense())
assert {dataset.options().autotune.enabled for dataset in queues} == {False}, queues
"""


class Said(NamedTuple):
    """What a script said of one case: history and weights, or whatever else is to be equal."""

    numbers: dict[str, list[float]]
    trained: list[float]
    rest: list[float]


def said(ended: Ended, *others: Ended) -> dict[str, Said]:
    assert [one.status for one in (ended, *others)] == [0] * (1 + len(others)), "".join(
        one.err for one in (ended, *others)
    )
    return {name: Said(*values) for name, *values in map(json.loads, re.findall(r"^\[.+", ended.out, re.MULTILINE))}


def on_two_workers(processes: Processes, script: str, *arguments: str) -> list[Ended]:
    return processes.cluster([[START, script, *arguments]] * 2)


def close(one: Said, two: Said, tolerance: float) -> bool:
    if one.numbers.keys() != two.numbers.keys():
        return False
    pairs = [(one.numbers[name], two.numbers[name]) for name in one.numbers]
    pairs += [(one.trained, two.trained), (one.rest, two.rest)]
    return all(len(a) == len(b) and all(map(partial(equal, tolerance), a, b)) for a, b in pairs)


def equal(tolerance: float, one: float, two: float) -> bool:
    return math.isclose(one, two, rel_tol=tolerance, abs_tol=tolerance / 10) or (math.isnan(one) and math.isnan(two))


@pytest.mark.parametrize("cases", [DATA, STEPS], ids=["data", "steps"])
def test_two_workers_train_as_one_does(cases: str, processes: Processes, written: Callable[[str], str]) -> None:
    script = written(BEGIN + cases)
    first, second = on_two_workers(processes, script)
    alone = said(processes.run(script))
    together = [said(first, second), said(second)]
    # Half precision rounds the gradients of half a batch otherwise than those of a whole.
    tolerance = {"mixed_precision": 1e-3, "overflow_on_one_worker": 1e-3}
    other = [
        (name, alone[name], worker[name])
        for worker in together
        for name in alone
        if not close(alone[name], worker[name], tolerance.get(name, 1e-5))
    ]
    assert other == []
    assert len(alone) == cases.count("@case")
    assert [ended.err.count(REPAIRED) for ended in (first, second)] == [1, 0]


def test_all_workers_have_the_same_where_one_would_have_other_numbers(
    processes: Processes, written: Callable[[str], str]
) -> None:
    one, two = on_two_workers(processes, written(BEGIN + LIKE_EACH_OTHER))
    first, second = said(one, two), said(two)
    assert first.keys() == second.keys()
    assert [(name, first[name], second[name]) for name in first if not close(first[name], second[name], 0)] == []
    finite = first["nothing_left_for_one_worker"]
    assert all(map(math.isfinite, [*finite.trained, *finite.rest, *chain(*finite.numbers.values())]))
    assert (
        first["not_a_number_on_one_worker"].numbers == second["not_a_number_on_one_worker"].numbers == {"batches": [2]}
    )


def test_the_end_of_fit_waits_for_no_thread_that_tunes(processes: Processes, written: Callable[[str], str]) -> None:
    # The wait itself is a race, and may not happen for many times.
    ended = on_two_workers(processes, written(BEGIN + UNTUNED))
    assert [one.status for one in ended] == [0, 0], ended[0].err + ended[1].err


def test_the_tutorial_runs_as_it_is(processes: Processes, written: Callable[[str], str], tmp_path: Path) -> None:
    ended = on_two_workers(processes, written(TUTORIAL))
    assert [one.status for one in ended] == [0, 0], ended[0].err + ended[1].err
    assert (tmp_path / "keras-model.keras").is_file()
    assert (tmp_path / "ckpt" / "checkpoint").is_file()
    assert not (tmp_path / "backup").exists()
