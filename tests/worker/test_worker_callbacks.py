"""The stock callbacks on a cluster of two: who writes, and what everybody knows. With Keras 3 the workers share no folder."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from worker import boot

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.worker.conftest import Ended, Processes

pytestmark = pytest.mark.tensorflow

START = str(Path(boot.__file__).with_name("start.py"))

TRAIN = """
import json, os, sys
import numpy as np
import tensorflow as tf
if os.environ.get("TF_USE_LEGACY_KERAS"):
    import tf_keras as keras
else:
    import keras

folder, end = sys.argv[1:]
task = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
place = folder if "tf_keras" in sys.modules else f"{folder}/{task}"
os.makedirs(place, exist_ok=True)
os.chdir(place)
strategy = tf.distribute.MultiWorkerMirroredStrategy()
keras.utils.set_random_seed(1)
x = np.random.RandomState(0).rand(64, 4).astype("float32")
y = x.sum(axis=1, keepdims=True)
accumulation = {} if "tf_keras" in sys.modules else {"gradient_accumulation_steps": 3}
with strategy.scope():
    # Statistics that each worker has of its own, and gradients that are not summed up when an epoch ends.
    model = keras.Sequential([keras.Input((4,)), keras.layers.BatchNormalization(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05, **accumulation), "mse", metrics=["mae"])

class Dies(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        # A chief that is gone ends the others.
        if str(epoch) == end and task == 0:
            os._exit(9)

callbacks = [
    keras.callbacks.BackupAndRestore("backup"),
    keras.callbacks.ModelCheckpoint("whole/best.keras", monitor="loss", save_best_only=True),
    keras.callbacks.ModelCheckpoint("{epoch}.weights.h5", save_weights_only=True),
    keras.callbacks.ModelCheckpoint("every/{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=3),
    keras.callbacks.CSVLogger("log.csv", append=True),
    keras.callbacks.TensorBoard("board", histogram_freq=1, update_freq=1),
    keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=0, min_delta=0.4, cooldown=1, factor=0.2),
    keras.callbacks.EarlyStopping(patience=1),
    keras.callbacks.TerminateOnNaN(),
    Dies(),
]
history = model.fit(
    x, y, epochs=4, batch_size=16, shuffle=False, verbose=0, validation_data=(x, y), callbacks=callbacks
)
weights = [np.asarray(weight.numpy(), "float64").ravel().tolist() for weight in model.weights]
print(json.dumps({"epochs": history.epoch, "logs": history.history, "weights": weights}, default=float))
"""

# The weights of a saved model, without a cluster.
READ = """
import json, sys
import numpy as np
if "legacy" in sys.argv:
    import tf_keras as keras
else:
    import keras
model = keras.models.load_model(sys.argv[1])
best = [np.asarray(weight.numpy(), "float64").ravel().tolist() for weight in model.weights]
model.load_weights(sys.argv[2])
last = [np.asarray(weight.numpy(), "float64").ravel().tolist() for weight in model.weights]
print(json.dumps([best, last]))
"""


def train(processes: Processes, folder: Path, end: str, environment: dict[str, str]) -> list[Ended]:
    script = folder.with_name("train.py")
    script.write_text(TRAIN)
    return processes.cluster([[START, str(script), str(folder), end]] * 2, environment=environment)


def told(workers: list[Ended]) -> list[dict[str, list[Any]]]:
    assert [ended.status for ended in workers] == [0, 0], "".join(ended.err for ended in workers)
    return [json.loads(ended.out) for ended in workers]


def files(folder: Path) -> set[str]:
    """What there is, without the names that TensorBoard makes up of time and host."""
    there = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path.parent if path.parts[0] == "board" else path) for path in there}


@pytest.mark.parametrize("environment", [{}, {"TF_USE_LEGACY_KERAS": "1"}], ids=["keras", "tf_keras"])
def test_the_chief_writes_and_all_go_on_from_what_it_has(
    environment: dict[str, str], processes: Processes, written: Callable[[str], str], tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    first, second = told(train(processes, whole, "never", environment))
    assert first == second
    assert first["epochs"] == [0, 1, 2, 3]

    chief = whole if environment else whole / "0"
    expected = {"log.csv", "whole/best.keras", "board/train", "board/validation"}
    expected |= {f"{epoch}.weights.h5" for epoch in (1, 2, 3, 4)}
    expected |= {f"every/{name}.weights.h5" for name in ("1-3", "2-2", "3-1", "3-4", "4-3")}
    assert files(chief) == expected
    if not environment:
        assert files(whole / "1") == set()
    assert len((chief / "log.csv").read_text().splitlines()) == 1 + 4

    reading = [str(chief / "whole/best.keras"), str(chief / "4.weights.h5")]
    read = processes.run(written(READ), *reading, *(["legacy"] if environment else []), environment=environment)
    assert json.loads(read.out) == [first["weights"]] * 2, read.err

    assert train(processes, broken, "2", environment)[0].status == 9
    resumed = told(train(processes, broken, "never", environment))
    assert resumed[0] == resumed[1]
    assert resumed[0]["epochs"] == [2, 3]
    # The batches that it counts to save are counted from its start, and a mean that is taken elsewhere is rounded elsewhere.
    assert list(chain(*resumed[0]["weights"])) == pytest.approx(list(chain(*first["weights"])))
    if not environment:
        assert files(broken / "1") == set()
