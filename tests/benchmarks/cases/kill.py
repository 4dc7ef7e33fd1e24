"""What becomes of the others when one worker is killed: idle ones, so that nothing but the launcher ends them."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, TFLAUNCH
from tests.benchmarks.trial import Watch

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial

_WORKERS = 4
# Let the launcher come to rest after the start, which is another case's.
_SETTLE = 0.5


def cases(*, large: bool) -> list[Case]:
    """4 workers. The shell loop takes no part: it would wait for the others for ever."""
    del large
    return [
        Case(
            name="kill",
            title="One of 4 idle processes is killed with SIGKILL",
            metrics=(
                Metric("until the other three are gone", "s", aims=(Ahead(),)),
                Metric("until the launcher has ended", "s", aims=(Ahead(),)),
            ),
            rounds=7,
            reference=MPIRUN,
            launchers=(TFLAUNCH, MPIRUN, PARALLEL, HONCHO),
            measure=_measure,
        )
    ]


def _measure(trial: Trial) -> tuple[float, float]:
    run, (victim, *others) = trial.start_idle(_WORKERS)
    with run, Watch([*others, run.pid]) as watch:
        time.sleep(_SETTLE)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        ended = watch.wait()
    return max(ended[pid] for pid in others) - killed, ended[run.pid] - killed
