from __future__ import annotations

import pytest

from worker.strategy import Choice, build, choose


@pytest.mark.parametrize(
    ("members", "gpus", "expected"),
    [
        (1, 0, "default, for one process with no GPU"),
        (1, 1, "default, for one process with 1 GPU"),
        (1, 8, "MirroredStrategy, for one process with 8 GPUs"),
        (2, 0, "MultiWorkerMirroredStrategy, for a cluster of 2 with no GPU each"),
        (4, 1, "MultiWorkerMirroredStrategy, for a cluster of 4 with 1 GPU each"),
        (4, 8, "MultiWorkerMirroredStrategy, for a cluster of 4 with 8 GPUs each"),
    ],
)
def test_the_choice_and_its_reason(members: int, gpus: int, expected: str) -> None:
    assert str(choose(members, gpus)) == expected


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("name", "built"), [("MirroredStrategy", "MirroredStrategy"), ("default", "_DefaultDistributionStrategy")]
)
def test_a_choice_for_one_process_can_be_built(name: str, built: str) -> None:
    pytest.importorskip("tensorflow")
    strategy = build(Choice(name, "a test"))  # type: ignore[arg-type]
    assert type(strategy).__name__ == built
    assert strategy.num_replicas_in_sync == 1
