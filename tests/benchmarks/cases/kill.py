"""What becomes of the others when one worker is killed: idle ones, so that nothing but the launcher ends them."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import ACCELERATE, HONCHO, MPIRUN, PARALLEL, TFLAUNCH, TORCHRUN
from tests.benchmarks.trial import Watch

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial

# Let the launcher come to rest after the start, which is another case's.
_SETTLE = 0.5


def cases(*, large: bool) -> list[Case]:
    """4 workers; 64 and 512 as well when ``large``. The shell loop takes no part: it would wait for the others for ever."""
    return [case(4, rounds=7), *([case(64, rounds=5), case(512, rounds=3)] if large else [])]


def case(count: int, rounds: int) -> Case:
    """One of so many."""
    return Case(
        name=f"kill-{count}",
        title=f"One of {count} idle processes is killed with SIGKILL",
        metrics=(
            Metric("until the first of the others is gone", "s"),
            Metric("until all others are gone", "s"),
            Metric("until the launcher has ended", "s"),
        ),
        rounds=rounds,
        reference=MPIRUN,
        launchers=(TFLAUNCH, MPIRUN, PARALLEL, HONCHO, TORCHRUN, ACCELERATE),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float, float, float]:
    run, (victim, *others) = trial.start_idle(count)
    with run, Watch([*others, run.pid]) as watch:
        time.sleep(_SETTLE)
        killed = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        ended = watch.wait()
    gone = [ended[pid] - killed for pid in others]
    return min(gone), max(gone), ended[run.pid] - killed
