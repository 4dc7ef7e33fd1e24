"""That the benchmarks of TensorFlow run and report what they say, in small. How long anything takes is not asserted."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import psutil
import pytest

from tests.benchmarks import cases
from tests.benchmarks.by_hand import BY_HAND
from tests.benchmarks.case import Case, InTurn, run
from tests.benchmarks.cases import checkpoint
from tests.benchmarks.cases.checkpoint import OFFICIAL
from tests.benchmarks.cases.training import TRAINER
from tests.benchmarks.cases.warm import RAY
from tests.benchmarks.launchers import TFLAUNCH, Job

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.launchers import Launcher

PLACE = "import os, pathlib; pathlib.Path(f'place-{os.getpid()}').write_text(os.environ['TF_CONFIG'])"


def by_hand(folder: Path, program: str) -> int:
    (folder / "program.py").write_text(program)
    job = Job(3, "program.py", (), folder, programs=folder)
    return subprocess.run(BY_HAND.argv(job), cwd=folder, check=False).returncode


def named(name: str) -> Case:
    (one,) = (one for one in cases.every(large=False) if one.name == name)
    return one


def measured(one: Case, launcher: Launcher) -> list[float]:
    """The figures of one trial, or of a round with a single block."""
    measure = replace(one.measure, blocks=1) if isinstance(one.measure, InTurn) else one.measure
    figures = run(replace(one, launchers=(launcher,), measure=measure), 1)
    assert figures.failures == {}
    (sample,) = figures.samples[launcher.name]
    return list(sample)


def test_by_hand_each_copy_has_a_place_of_its_own_in_one_cluster(tmp_path: Path) -> None:
    assert by_hand(tmp_path, PLACE) == 0

    places = [json.loads(path.read_text()) for path in tmp_path.glob("place-*")]
    assert sorted(place["task"]["index"] for place in places) == [0, 1, 2]
    ((cluster,),) = {tuple(map(tuple, place["cluster"].values())) for place in places}
    assert len(set(cluster)) == 3


def test_by_hand_a_copy_that_fails_shows(tmp_path: Path) -> None:
    assert by_hand(tmp_path, "import os; raise SystemExit('\"index\": 1' in os.environ['TF_CONFIG'] and 3)") == 3


@pytest.mark.tensorflow
@pytest.mark.parametrize(
    ("case", "launcher"),
    [("train-dense", TRAINER), ("train-dense-fit", BY_HAND)],
    ids=lambda value: getattr(value, "name", value),
)
def test_each_way_to_train_has_its_rate(case: str, launcher: Launcher) -> None:
    (rate,) = measured(named(case), launcher)
    assert rate > 0


@pytest.mark.tensorflow
def test_of_two_workers_the_chief_alone_writes_unless_all_of_them_save() -> None:
    def written(launcher: Launcher) -> float:
        relative, without, _, megabytes, left_out = measured(checkpoint.case(2, 512, 1), launcher)
        assert relative > 0
        assert without > 0
        assert left_out in {0, 1}
        return megabytes

    # 1024 x 512, 512 x 512 and 512 x 320 numbers of 4 bytes, and Adam's two moments of each.
    least = 3 * 4 * 512 * (1024 + 512 + 320) / 1e6
    assert least < written(TFLAUNCH) < 1.1 * least
    assert 2 * least < written(OFFICIAL) < 2.2 * least


@pytest.mark.tensorflow
@pytest.mark.skipif(RAY.path is None, reason="Ray Train is not installed: python -m tests.benchmarks.peers")
def test_ray_train_forms_the_same_cluster_and_nothing_of_it_is_left() -> None:
    before = set(psutil.Process().children(recursive=True))
    seconds, megabytes = measured(named("warm-2"), RAY)
    assert seconds > 0
    assert megabytes > 0
    assert set(psutil.Process().children(recursive=True)) == before
