"""From a killed worker to the next training step of all: restarted in place, or everything ended and started again."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import AtMost
from tests.benchmarks.by_hand import BY_HAND
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Job
    from tests.benchmarks.trial import Trial

_WORKERS = 4


def _restarting(job: Job) -> list[str]:
    first, *rest = TFLAUNCH.arguments(job)
    return [first, "--max-restarts", "1", *rest]


RESTARTING = replace(TFLAUNCH, arguments=_restarting)


def cases(*, large: bool) -> list[Case]:
    """4 workers."""
    del large
    return [
        Case(
            name="recovery",
            title="One of 4 training workers is killed with SIGKILL",
            metrics=(Metric("until all have made a step again", "s", aims=(AtMost(0.25, times=BY_HAND),)),),
            rounds=3,
            reference=BY_HAND,
            launchers=(BY_HAND, TFLAUNCH),
            measure=_measure,
        )
    ]


def _measure(trial: Trial) -> tuple[float]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    restarts = trial.launcher is TFLAUNCH
    if restarts:
        trial = replace(trial, launcher=RESTARTING)
    fifo = trial.folder / "register"
    os.mkfifo(fifo)
    # For writing too: so the open does not wait for a writer, and reading never finds the end.
    register = os.open(fifo, os.O_RDWR)
    try:
        with trial.start(_WORKERS, "steps.py", str(fifo)) as run:
            victim = run.registered(register, _WORKERS)[-1]
            killed = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            if restarts:
                run.registered(register, _WORKERS)
                return (time.monotonic() - killed,)
        # What a person does: end what is left, at once, and type the same again.
        with trial.start(_WORKERS, "steps.py", str(fifo)) as again:
            again.registered(register, _WORKERS)
            return (time.monotonic() - killed,)
    finally:
        os.close(register)
