"""SIGTERM in a ``fit`` of two workers with a BackupAndRestore: both stop after the same batch, and the next run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker import boot

if TYPE_CHECKING:
    from tests.worker.conftest import Ended, Processes

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(300)]
pytest.importorskip("tensorflow")

START = str(Path(boot.__file__).with_name("start.py"))

# 4 batches an epoch.
FIT = """
import json, os, signal, sys
import keras
import numpy as np
import tensorflow as tf

backup, frequency, fault = sys.argv[1:]
task = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
strategy = tf.distribute.MultiWorkerMirroredStrategy()
keras.utils.set_random_seed(1)
x = np.random.RandomState(0).rand(64, 4).astype("float32")
y = x.sum(axis=1, keepdims=True)
with strategy.scope():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])

def asked():
    os.kill(os.getpid(), signal.SIGTERM)
    fit = sys.modules["_tflaunch.keras3.preemption"].current()
    assert fit._preemption._asked.wait(60)

class Fault(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        self.at(f"batch {self.epoch} {batch}")
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_epoch_end(self, epoch, logs=None):
        self.at(f"epoch {epoch}")
    def at(self, place):
        if fault == place and task == 1:
            asked()

try:
    history = model.fit(
        x, y, epochs=4, batch_size=16, shuffle=False, verbose=0,
        callbacks=[Fault(), keras.callbacks.BackupAndRestore(backup, save_freq=int(frequency) or "epoch")],
    )
except SystemExit:
    print(int(model.optimizer.iterations.numpy()))
    raise
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
weights = [weight.numpy().ravel().tolist() for weight in model.weights]
print(json.dumps({"epochs": history.epoch, "weights": weights}))
"""


class Fits:
    """Runs it, in a folder where backups are."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._processes = processes
        self._script = folder / "fit.py"
        self._script.write_text(FIT)

    def __call__(self, backup: str, fault: str = "", frequency: int = 0) -> list[Ended]:
        return self._processes.cluster([[START, str(self._script), backup, str(frequency), fault]] * 2)


def told(workers: list[Ended]) -> dict[str, Any]:
    assert [ended.status for ended in workers] == [0, 0], "".join(ended.err for ended in workers)
    first, second = (json.loads(ended.out) for ended in workers)
    assert first == second
    return dict(first)


def test_all_stop_after_the_same_batch_and_go_on(tmp_path: Path, processes: Processes) -> None:
    fit = Fits(tmp_path, processes)
    calm = told(fit("calm"))
    assert calm["epochs"] == [0, 1, 2, 3]

    # In an epoch: the backup of the one before is left as it is, so nothing is learnt twice.
    stopped = fit("in-epoch", "batch 2 1")
    assert [ended.status for ended in stopped] == [143, 143], stopped
    assert [ended.out for ended in stopped] == ["11\n", "11\n"]
    line = "tflaunch: stopped after step 11, as SIGTERM asked; the next run begins the epoch again\n"
    assert [line in ended.err for ended in stopped] == [True, False]
    again = told(fit("in-epoch"))
    assert again == {**calm, "epochs": [2, 3]}

    # After the last batch: the backup is not removed, and there is nothing left to do.
    stopped = fit("at-end", "epoch 3")
    assert [ended.status for ended in stopped] == [143, 143], stopped
    assert "stopped after step 16, as SIGTERM asked; saved: run again to go on" in stopped[0].err
    assert told(fit("at-end")) == {**calm, "epochs": []}


def test_with_backups_of_batches_the_last_one_is_backed_up(tmp_path: Path, processes: Processes) -> None:
    fit = Fits(tmp_path, processes)
    stopped = fit("batches", "batch 1 0", frequency=100)
    assert [ended.status for ended in stopped] == [143, 143], stopped
    assert [ended.out for ended in stopped] == ["6\n", "6\n"]
    assert "stopped after step 6, as SIGTERM asked; saved: run again to go on" in stopped[0].err
    assert json.loads((tmp_path / "batches" / "training_metadata.json").read_text()) == {"epoch": 1, "batch": 1}
    assert told(fit("batches"))["epochs"] == [1, 2, 3]
