from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("tensorflow")

import numpy as np

import worker
from tests.worker.test_worker_learner import apart

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow

# As in test_worker_learner.py: nothing divides by 2 or 4. 50 epochs of 4 steps.
FIT = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras
import numpy as np
from worker import Arrays, fit_data
from worker.context import Context
from worker.strategy import build, choose

strategy = build(choose(Context.from_environment(os.environ).size, 0))
random = np.random.default_rng(0)
x = random.normal(size=(131, 8)).astype(np.float32)
y = (x[:, 0] + x[:, 1] ** 2 > 0.5).astype(np.int64) + (x[:, 2] > 1)
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05),
    "momentum": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}
found = {}
for name, optimizer in OPTIMIZERS.items():
    keras.utils.set_random_seed(1)
    with strategy.scope():
        hidden = keras.layers.Dense(16, activation="relu", kernel_regularizer="l2")
        model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer(), loss, weighted_metrics=["accuracy"])
    data = fit_data(strategy, Arrays(x, y), global_batch=33, seed=4)
    history = model.fit(**data, epochs=50, verbose=0)
    found |= {f"{name} {measure}": np.array(values) for measure, values in history.history.items()}
    found |= {f"{name} weights {number}": value for number, value in enumerate(model.get_weights())}
np.savez(sys.argv[1], **found)
"""


def test_fit_learns_the_same_on_1_2_and_4_workers(
    tmp_path: Path, processes: Processes, written: Callable[[str], str]
) -> None:
    # As a launcher starts a worker: by the boot file, which has Keras repaired.
    script = (str(Path(worker.__file__).with_name("start.py")), written(FIT))
    names = [[f"{workers}-{number}" for number in range(workers)] for workers in (1, 2, 4)]
    ended = [process for group in names for process in processes.cluster([(*script, name) for name in group])]
    assert [process.status for process in ended] == [0] * 7, [process.err[-2000:] for process in ended]
    alone, *others = (np.load(tmp_path / f"{name}.npz") for group in names for name in group)
    assert len(alone["adam loss"]) == 50
    assert alone["adam loss"][-1] < alone["adam loss"][0] / 2
    for name in alone.files:
        assert all(apart(alone[name], other[name]) < 1e-5 for other in others), name
