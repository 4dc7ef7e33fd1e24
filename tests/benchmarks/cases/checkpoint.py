"""What a checkpoint costs the training beside which it is written: the chief's thread shares its cores and its memory."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial


def cases(*, large: bool) -> list[Case]:
    """1 and 2 workers. No other launcher: it is the trainer that is measured, against itself without checkpoints."""
    del large
    return [_case(1, "1 worker"), _case(2, "2 workers")]


def _case(count: int, workers: str) -> Case:
    return Case(
        name=f"checkpoint-{count}",
        title=f"Steps of a model of 10 million parameters on {workers}, with a checkpoint every 10 steps",
        metrics=(
            Metric("time with them, relative to that without", "", aims=(AtMost(1.05),)),
            Metric("time with a plain write of the same bytes, relative to that without", ""),
            Metric("a step without", "ms"),
            Metric("a step with", "ms"),
            Metric("checkpoints left out", ""),
        ),
        rounds=3,
        reference=TFLAUNCH,
        launchers=(TFLAUNCH,),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, ...]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    figures = trial.folder / "figures"
    with trial.start(count, "train.py", str(figures)) as run:
        run.finish()
    without, with_checkpoints, with_plain, left_out = map(float, figures.read_text().split())
    return with_checkpoints / without, with_plain / without, without * 1e3, with_checkpoints * 1e3, left_out
