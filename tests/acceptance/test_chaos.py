"""Whatever happens to a training, the run after it ends with the weights of a training to which nothing has happened."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from launcher.testing import TaskFailed

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.testing import Clusters

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.timeout(180)

# 18 steps.
EPOCHS = 3


def train(folder: str) -> int:
    """What ``tflaunch train linear`` does; tells the launcher of every step, and not of some, so that faults can hit any."""
    import os

    from worker import progress
    from worker.__main__ import main

    progress._RECORD_EVERY = 0.0
    arguments = ["linear", "--epochs", str(EPOCHS), "--save-every", "3 steps", "--checkpoint-dir", folder]
    return main(arguments, os.environ)


def weights(folder: Path) -> dict[str, Any]:
    """All that the newest checkpoint holds of model and optimizer."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(folder))
    names = [name for name in reader.get_variable_to_shape_map() if name.startswith(("model", "optimizer"))]
    return {name: reader.get_tensor(name) for name in names}


@pytest.mark.parametrize("seed", range(3))
def test_a_training_that_is_killed_again_and_again(tf_cluster: Clusters, tmp_path: Path, seed: int) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert tf_cluster(2).run(train, str(calm)) == [0, 0]
    random = Random(seed)
    cluster = tf_cluster(2)
    for first in (1, 7, 13):
        cluster.at_step(first + random.randrange(5), kill=random.randrange(2))
        with pytest.raises(TaskFailed, match="killed by SIGKILL"):
            cluster.run(train, str(wild))
    assert cluster.run(train, str(wild)) == [0, 0]
    assert_equal(calm, wild)


@pytest.mark.parametrize("fault", ["pause", "full disk"])
def test_a_training_after_another_fault(tf_cluster: Clusters, tmp_path: Path, fault: str) -> None:
    calm, wild = tmp_path / "calm", tmp_path / "wild"
    assert tf_cluster(2).run(train, str(calm)) == [0, 0]
    cluster = tf_cluster(2)
    cluster.at_step(8, kill=1)
    with pytest.raises(TaskFailed, match="killed by SIGKILL"):
        cluster.run(train, str(wild))
    if fault == "pause":
        cluster.at_step(13, pause=0)
    else:
        cluster.full_disk(wild, room=1000)
    with pytest.raises(TaskFailed, match="worker" if fault == "pause" else "No space left"):
        cluster.run(train, str(wild))
    assert cluster.run(train, str(wild)) == [0, 0]
    assert_equal(calm, wild)


def assert_equal(calm: Path, wild: Path) -> None:
    one, other = weights(calm), weights(wild)
    assert one.keys() == other.keys()
    assert one
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-5, err_msg=name)
