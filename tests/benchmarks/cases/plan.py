"""How the plan of a cluster, and the verdict over it, grow with its hosts. No process of it is started."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Linear
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import Launcher

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Job
    from tests.benchmarks.trial import Trial

_WORKERS = 8


def _python(job: Job) -> list[str]:
    return job.script_line


# No other launcher: it is the launcher's own code that is measured.
ALONE = Launcher("tflaunch's plan", sys.executable, _python, role="ours")


def cases(*, large: bool) -> list[Case]:
    """1,250 hosts; 10,000 as well when ``large``."""
    return [_case(count) for count in ((1_250, 10_000) if large else (1_250,))]


def _case(count: int) -> Case:
    aims = (Linear("plan-1250", count / 1_250),) if count > 1_250 else ()
    return Case(
        name=f"plan-{count}",
        title=f"{count:,} hosts with {_WORKERS} workers each, without a process",
        metrics=(
            Metric("the plan", "s", aims=aims),
            Metric("start, a step, the end of all, and the verdict", "s", aims=aims),
            Metric("memory of it all", "MB"),
            Metric("TF_CONFIG of one task", "kB"),
        ),
        rounds=3,
        reference=ALONE,
        launchers=(ALONE,),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, ...]:
    with trial.start(1, "plan.py", str(count), str(_WORKERS), capture=True) as run:
        run.finish()
        return tuple(map(float, os.read(run.output, 4096).split()))
