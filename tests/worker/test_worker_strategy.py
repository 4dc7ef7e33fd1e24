from __future__ import annotations

import pytest

from worker.strategy import Choice, Wanted, build, choose
from worker.task import TaskError


@pytest.mark.parametrize(
    ("members", "gpus", "wanted", "expected"),
    [
        (1, 0, "auto", "default, for one process with no GPU"),
        (1, 1, "auto", "default, for one process with 1 GPU"),
        (1, 8, "auto", "MirroredStrategy, for one process with 8 GPUs"),
        (2, 0, "auto", "MultiWorkerMirroredStrategy, for a cluster of 2 with no GPU each"),
        (4, 1, "auto", "MultiWorkerMirroredStrategy, for a cluster of 4 with 1 GPU each"),
        (4, 8, "auto", "MultiWorkerMirroredStrategy, for a cluster of 4 with 8 GPUs each"),
        (1, 8, "default", "default, for one process with 8 GPUs"),
        (1, 1, "mirrored", "MirroredStrategy, for one process with 1 GPU"),
        (1, 0, "multiworker", "MultiWorkerMirroredStrategy, for one process with no GPU"),
        (1, 0, "tpu", "TPUStrategy, for it was asked for"),
    ],
)
def test_the_choice_and_its_reason(members: int, gpus: int, wanted: Wanted, expected: str) -> None:
    assert str(choose(members, gpus, wanted)) == expected


@pytest.mark.parametrize("wanted", ["default", "mirrored"])
def test_what_trains_in_one_process_is_refused_to_a_cluster(wanted: Wanted) -> None:
    with pytest.raises(TaskError, match=f"--strategy {wanted} trains in one process, and this is a cluster of 3"):
        choose(3, 0, wanted)


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "built"), [("MirroredStrategy", "MirroredStrategy"), ("default", "_DefaultDistributionStrategy")]
)
def test_a_choice_for_one_process_can_be_built(name: str, built: str) -> None:
    pytest.importorskip("tensorflow")
    strategy = build(Choice(name, "a test"))  # type: ignore[arg-type]
    assert type(strategy).__name__ == built
    assert strategy.num_replicas_in_sync == 1


@pytest.mark.tensorflow
@pytest.mark.parametrize("communication", ["auto", "ring", "nccl"])
def test_every_carrier_is_one_that_tensorflow_knows(communication: str) -> None:
    tf = pytest.importorskip("tensorflow")
    assert tf.distribute.experimental.CommunicationImplementation[communication.upper()]


@pytest.mark.tensorflow
def test_without_a_tpu_there_is_one_clear_error() -> None:
    pytest.importorskip("tensorflow")
    with pytest.raises(TaskError) as caught:
        build(Choice("TPUStrategy", "a test"))
    assert str(caught.value).startswith("there is no TPU to be found: ")
    assert "\n" not in str(caught.value)
