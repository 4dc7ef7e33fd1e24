"""Whatever happens to a training, it ends, or goes on, as docs/reliability.md promises.

Any other seed, and any number of cases: ``python -m tests.chaos --seed 7 --cases 50``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos import remains, trial
from tests.chaos.grid import Case, sample

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("tensorflow")
pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(240)]

SEED, CASES = 1, 24


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> remains.Weights:
    """The weights of a training to which nothing happens."""
    folder = tmp_path_factory.mktemp("calm")
    ended = trial.run(folder)
    assert ended.status == 0, ended.err
    remains.assert_whole(trial.checkpoints(folder))
    return remains.weights(trial.checkpoints(folder))


@pytest.mark.parametrize("case", sample(SEED, CASES), ids=str)
def test_a_fault(case: Case, calm: remains.Weights, tmp_path: Path) -> None:
    try:
        trial.keeps(case, tmp_path, calm)
    except trial.Skipped as reason:
        pytest.skip(str(reason))


def test_fault_after_fault(calm: remains.Weights, tmp_path: Path) -> None:
    first = Case("steps", "SIGKILL", "worker", "step", 7)
    second = Case("steps", "SIGKILL", "chief", "step", 13)
    ended = trial.run(tmp_path, [first, second])
    assert ended.status == 0, ended.err
    causes = [one["cause"] for one in ended.outcome["restarts"]]
    assert causes == ["worker 1", "worker 0"]
    remains.assert_equal(remains.weights(trial.checkpoints(tmp_path)), calm)
    remains.assert_whole(trial.checkpoints(tmp_path))
