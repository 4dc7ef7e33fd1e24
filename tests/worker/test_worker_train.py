from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow
pytest.importorskip("tensorflow")

DIGITS = ("-m", "worker", "digits")


def test_a_cluster_trains_the_digits_and_then_goes_on(tmp_path: Path, processes: Processes) -> None:
    chief, other = processes.cluster([DIGITS, DIGITS])
    assert (chief.status, chief.err) == (0, "")
    assert other == (0, "worker 1 of 2\n", "")
    assert chief.out.splitlines()[:4] == [
        "worker 0 of 2, the chief",
        "strategy       MultiWorkerMirroredStrategy, for a cluster of 2 with no GPU each",
        "data           1,442 images to learn from, 355 to be tested on",
        "checkpoints    checkpoints/digits",
    ]
    losses = [
        float(loss)
        for loss in re.findall(
            r"^epoch +\d+/20   step +\d+/460   loss (\d\.\d{4})   accuracy \d\.\d{4}   [\d,]+ examples/s",
            chief.out,
            re.MULTILINE,
        )
    ]
    assert len(losses) == 10
    assert all(before > after for before, after in pairwise(losses))
    accuracy = re.search(r"^test accuracy  (\d+\.\d)% \((\d+) of 355\)\n", chief.out, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) >= 97
    assert int(accuracy[2]) / 355 == pytest.approx(float(accuracy[1]) / 100, abs=0.0006)

    # Worker 1 with an empty directory of its own: it has the chief's state, and never makes the directory.
    chief, other = processes.cluster(
        [(*DIGITS, "--epochs", "21"), (*DIGITS, "--epochs", "21", "--checkpoint-dir", "own")]
    )
    assert (chief.status, other) == (0, (0, "worker 1 of 2\n", ""))
    assert "checkpoints    checkpoints/digits, resumed from step 460\nepoch          21/21   step 483/483" in chief.out
    assert float(re.findall(r"loss (\S+)", chief.out)[0]) < losses[-1]
    assert not (tmp_path / "own").exists()

    # The user's own scripts may run Keras on something else.
    alone = processes.run(*DIGITS, environment={"KERAS_BACKEND": "jax"})
    assert (alone.status, alone.err) == (0, "")
    assert (
        "checkpoints    checkpoints/digits, already trained to step 483; more --epochs train on, --fresh starts over"
        in alone.out
    )
    assert "\ntest accuracy" in alone.out


# Everything at once: validation, records of files, early stopping, clipping, pieces, a picture of the task's own.
MINE = """
import numpy as np
import tensorflow as tf
import keras
from worker import Arrays, Data, Records, Task

COUNT = 60

def write(path, first, count):
    with tf.io.TFRecordWriter(path) as writer:
        for number in range(first, first + count):
            writer.write(tf.io.serialize_tensor(tf.constant([number / COUNT, (number * 7 % 13) / 13], tf.float32)).numpy())

def prepare():
    if not tf.io.gfile.exists("records-1"):
        write("records-0", 0, 40)
        write("records-1", 40, 20)

def decode(record):
    x = tf.ensure_shape(tf.io.parse_tensor(record, tf.float32), [2])
    return x, 2 * x[:1] - x[1:] + 1

def held_out(count):
    x = np.random.default_rng(count).uniform(size=(count, 2)).astype(np.float32)
    return Arrays(x, 2 * x[:, :1] - x[:, 1:] + 1)

def data():
    return Data(Records(["records-0", "records-1"], COUNT, decode, split="data", shuffle=16), held_out(11), held_out(7))

task = Task(
    name="mine",
    model=lambda: keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]),
    loss="mse",
    data=data,
    optimizer=lambda: keras.optimizers.SGD(0.2, momentum=0.5),
    metrics=["mean_absolute_error"],
    global_batch=25,
    epochs=4,
    clip_norm=5.0,
    micro_batches=2,
    prepare=prepare,
    finish=lambda result: print("finished", sorted(result.measures), result.folder),
)
"""


def test_a_task_of_the_users_own(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    mine = ("-m", "worker", "mine.py:task", "--seed", "3")
    chief, other = processes.cluster([mine, mine])
    assert (chief.status, other) == (0, (0, "worker 1 of 2\n", "")), chief.err
    assert "60 examples to learn from, 11 to measure on, 7 to be tested on" in chief.out
    lines = [line for line in chief.out.splitlines() if line.startswith("epoch")]
    assert len(lines) == 4
    assert all(re.search(r"loss \S+   mean absolute error \S+   val loss \S+   val mean", line) for line in lines)
    assert (
        "finished ['loss', 'mean_absolute_error', 'step', 'test_loss', 'test_mean_absolute_error', 'val_loss',"
        in chief.out
    )
    assert "'val_mean_absolute_error'] checkpoints/mine\n" in chief.out
    # The same on one worker, from the beginning and with a patience that is over at once.
    alone = processes.run(*mine, "--checkpoint-dir", "alone")
    losses = [re.findall(r" loss (\S+)", text) for text in (chief.out, alone.out)]
    assert losses[0] == losses[1]
    patient = processes.run(*mine, "--fresh", "--epochs", "50", "--patience", "2:max:val_loss")
    assert "stopped        after epoch 3: val_loss has not become better for 2 epochs" in patient.out


def test_a_file_that_uses_tensorflow_too_early_is_told_so(tmp_path: Path, processes: Processes) -> None:
    (tmp_path / "early.py").write_text(
        "import tensorflow as tf\nfrom worker.tasks.linear import TASK as task\ntf.constant(1)\n"
    )
    early = ("-m", "worker", "early.py:task")
    chief, other = processes.cluster([early, early])
    assert (chief.status, other.status) == (2, 2)
    told = "TensorFlow was used before the cluster was formed: the task's file does so while it is imported"
    assert chief.err == f"{told} (move that into the functions of the task)\n"


def test_a_loss_that_is_no_number_stops_all_and_saves_nothing_of_it(tmp_path: Path, processes: Processes) -> None:
    wild = ("-m", "worker", "linear", "--optimizer", "sgd", "--learning-rate", "1e30", "--save-every", "1 steps")
    chief, other = processes.cluster([wild, wild])
    assert (chief.status, other.status) == (1, 1)
    assert re.search(
        r"^the loss of step \d, or its gradient, is no finite number, and worker \d saw it first",
        chief.err,
        re.MULTILINE,
    )
    import tensorflow as tf

    latest = tf.train.latest_checkpoint(str(tmp_path / "checkpoints" / "linear"))
    reader = tf.train.load_checkpoint(latest)
    for name, kind in reader.get_variable_to_dtype_map().items():
        if kind == tf.float32:
            assert tf.reduce_all(tf.math.is_finite(reader.get_tensor(name))), name


def test_several_replicas_in_one_process(processes: Processes) -> None:
    ended = processes.run("-m", "worker", "linear", "--virtual-devices", "2", "--epochs", "3")
    assert ended.status == 0, ended.err
    assert "MirroredStrategy, for one process with 2 virtual devices" in ended.out
    alone = processes.run("-m", "worker", "linear", "--epochs", "3", "--fresh")
    assert re.findall(r" loss (\S+)", ended.out) == re.findall(r" loss (\S+)", alone.out)
