"""When Keras is repaired, what is said of it, and that it is the stock Keras otherwise."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from worker import boot
from worker.keras3.repair import TESTED

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow

START = str(Path(boot.__file__).with_name("start.py"))


def task(job: str, index: int, **cluster: int) -> dict[str, str]:
    """A TF_CONFIG with so many tasks of each job; nobody dials them."""
    addresses = {name: [f"127.0.0.1:{port}" for port in range(1, count + 1)] for name, count in cluster.items()}
    return {"TF_CONFIG": json.dumps({"cluster": addresses, "task": {"type": job, "index": index}})}


# Imports Keras where it has to be left alone, and then has it repaired in one environment after the other.
ASK = """
import json, os, sys
import keras
from keras.src.backend.tensorflow import trainer

repair = sys.modules["_tflaunch.keras3.repair"]

def repaired():
    return hasattr(trainer.reduce_per_replica, "__wrapped__")

def ask(name, environment, version=keras.__version__):
    os.environ.update({"TF_CONFIG": "", "TFLAUNCH_KERAS_REPAIR": ""} | environment)
    keras.__version__ = version
    sys.stderr = open("said", "w+")
    repair.repair(keras)
    sys.stderr.seek(0)
    said = sys.stderr.read()
    sys.stderr = sys.__stderr__
    print(json.dumps([name, repaired(), said]))

print(json.dumps(["at import", repaired(), ""]))
for name, environment, *version in json.loads(sys.argv[1]):
    ask(name, environment, *version)

two, three = (environment for _, environment, *_ in json.loads(sys.argv[2]))
stock = trainer.reduce_per_replica
trainer.reduce_per_replica = lambda values: values
ask("another signature", two)
trainer.reduce_per_replica = stock
ask("three workers", three)
ask("three workers again", three)
sys.stderr = None
repair._say("nobody listens")
print(json.dumps(["names", "worker" in sys.modules, ""]))
"""


def test_only_a_known_keras_in_a_cluster_that_trains_together_is_repaired(
    processes: Processes, written: Callable[[str], str]
) -> None:
    two = task("worker", 0, worker=2)
    left = [
        ("alone", {}),
        ("a cluster of one", task("worker", 0, worker=1)),
        ("an evaluator", task("evaluator", 0, worker=2)),
        ("a parameter server", task("ps", 0, worker=2, ps=1)),
        ("a worker with parameter servers", task("worker", 0, worker=2, ps=1)),
        ("switched off", two | {"TFLAUNCH_KERAS_REPAIR": "0"}),
        ("a follower with a new Keras", task("worker", 1, worker=2), "9.0.0"),
        ("a new Keras", two, "9.0.0"),
        ("an old Keras", two, "3.0.5"),
        ("no version", two, "unknown"),
    ]
    fit = [("two", two), ("three", task("chief", 0, chief=1, worker=2))]
    ended = processes.run(START, written(ASK), json.dumps(left), json.dumps(fit))
    assert ended.status == 0, ended.err
    said = {name: (repaired, text) for name, repaired, text in map(json.loads, ended.out.splitlines())}

    silent = ["at import", *(name for name, *_ in left[:7]), "three workers again", "names"]
    assert {name: text for name, (_, text) in said.items() if name in silent and text} == {}
    assert {name for name, (repaired, _) in said.items() if repaired} == {"three workers", "three workers again"}

    oldest, newest = (f"{major}.{minor}" for major, minor in TESTED)
    assert said["a new Keras"][1] == (
        f"tflaunch: Keras 9.0.0 is left as it is: the repair was tested with {oldest} to {newest}; "
        "fit may fail with 2 workers\n"
    )
    assert said["an old Keras"][1].startswith("tflaunch: Keras 3.0.5 is left as it is: ")
    assert said["no version"][1].startswith("tflaunch: Keras is left as it is: ValueError: ")
    assert re.fullmatch(
        r"tflaunch: Keras 3\S+ is left as it is: it has another trainer.reduce_per_replica than the repair was "
        r"tested with; fit may fail with 2 workers\n",
        said["another signature"][1],
    )
    assert re.fullmatch(r"tflaunch: Keras 3\S+ repaired for 3 workers: fit, .*\n", said["three workers"][1])


FIT = """
import sys
import numpy as np, tensorflow as tf, keras
strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
x = np.ones((8, 4), "float32")
try:
    model.fit(x, x[:, :1], batch_size=4, verbose=0)
except ValueError as error:
    print("PerReplica" in str(error))
else:
    print("fits")
"""


def test_stock_keras_does_not_fit(processes: Processes, written: Callable[[str], str]) -> None:
    """The day on which this fails, there is nothing to repair."""
    command = [START, written(FIT)]
    ended = processes.cluster([command, command], environment={"TFLAUNCH_KERAS_REPAIR": "0"})
    assert [(one.status, one.out, "tflaunch:" in one.err) for one in ended] == [(0, "True\n", False)] * 2
