"""From the command until all workers have built the strategy, and the memory that they hold then."""

from __future__ import annotations

import os
import time
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks import peers
from tests.benchmarks.aims import Ahead, AtMost
from tests.benchmarks.by_hand import BY_HAND
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import COLD, PROGRAMS, TFLAUNCH, Launcher
from tests.benchmarks.trial import Failed
from tests.benchmarks.usage import memory

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Job
    from tests.benchmarks.trial import Trial


def _ray(job: Job) -> list[str]:
    return [str(PROGRAMS / "ray_train.py"), str(job.copies), *job.script_line]


RAY = Launcher("Ray Train", str(peers.RAY.python), _ray, environment=peers.RAY)


def cases(*, large: bool) -> list[Case]:
    """2, 4 and 8 workers."""
    del large
    return [_case(count) for count in (2, 4, 8)]


def _case(count: int) -> Case:
    return Case(
        name=f"warm-{count}",
        title=f"{count} workers that import TensorFlow and build a MultiWorkerMirroredStrategy",
        metrics=(
            Metric("until all have built it", "s", aims=(AtMost(0.35, times=BY_HAND), Ahead())),
            Metric("memory of all, shared pages once (PSS)", "MB", aims=(AtMost(0.6, times=BY_HAND), Ahead())),
        ),
        rounds=3,
        reference=BY_HAND,
        launchers=(BY_HAND, TFLAUNCH, COLD, RAY),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, float]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    fifo = trial.folder / "register"
    os.mkfifo(fifo)
    # For writing too: so the open does not wait for a writer, and reading never finds the end.
    register = os.open(fifo, os.O_RDWR)
    try:
        with trial.start(count, "strategy.py", str(fifo)) as run:
            run.registered(register, count)
            seconds = time.monotonic() - run.started
            return seconds, memory([process.pid for process in run.processes()]) / 1e6
    finally:
        os.close(register)
