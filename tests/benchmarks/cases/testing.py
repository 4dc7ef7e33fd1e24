"""What a cluster costs a test: formed, an all-reduce in it, and ended, by the same agent again and again."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import Launcher
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Job
    from tests.benchmarks.trial import Trial

_WORKERS = 4
_ROUNDS = 10


def _python(job: Job) -> list[str]:
    return job.script_line


PYTEST = Launcher("tf_cluster", sys.executable, _python, role="ours")


def cases(*, large: bool) -> list[Case]:
    """4 workers."""
    del large
    return [
        Case(
            name="tests",
            title=f"A test's cluster of {_WORKERS} workers, with an all-reduce",
            metrics=(
                Metric("warm", "s", aims=(AtMost(0.6),)),
                Metric("warm, the first", "s"),
                Metric("cold", "s"),
                Metric("warm to cold", ""),
            ),
            rounds=3,
            reference=PYTEST,
            launchers=(PYTEST,),
            measure=_measure,
        )
    ]


def _measure(trial: Trial) -> tuple[float, float, float, float]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    with trial.start(1, "clusters.py", str(_WORKERS), str(_ROUNDS), capture=True) as run:
        run.finish()
        first, warm, cold = map(float, os.read(run.output, 4096).split())
    return warm, first, cold, warm / cold
