"""What a launcher costs while the workers are quiet: one that polls takes time, and wakes up, for nothing."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, TFLAUNCH, TORCHRUN
from tests.benchmarks.usage import effort, memory

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Launcher
    from tests.benchmarks.trial import Trial

_SETTLE = 1.0


def cases(*, large: bool) -> list[Case]:
    """8 workers; 1,000 as well when ``large``, where honcho, which has a process for each, takes no part."""
    peers = (TFLAUNCH, MPIRUN, PARALLEL, TORCHRUN)
    few = case(8, 5.0, (*peers, HONCHO), rounds=3)
    return [few, case(1_000, 60.0, peers, rounds=1)] if large else [few]


def case(count: int, seconds: float, launchers: tuple[Launcher, ...], rounds: int) -> Case:
    """So many, for so long."""
    return Case(
        name=f"idle-{count}",
        title=f"The launcher and its helpers, while {count:,} processes sleep",
        metrics=(
            Metric("CPU time, of a core", "%"),
            Metric("wake-ups", "1/s"),
            Metric("memory of the launcher and its helpers", "MB"),
        ),
        rounds=rounds,
        reference=MPIRUN,
        launchers=launchers,
        measure=partial(_measure, count, seconds),
    )


def _measure(count: int, for_seconds: float, trial: Trial) -> tuple[float, float, float]:
    run, workers = trial.start_idle(count)
    with run:
        time.sleep(_SETTLE)
        launcher = {process.pid for process in run.processes()} - set(workers)
        before, start = effort(launcher), time.monotonic()
        time.sleep(for_seconds)
        after, seconds = effort(launcher), time.monotonic() - start
        held = memory(launcher)
    return (after.cpu - before.cpu) / 1e7 / seconds, (after.wakeups - before.wakeups) / seconds, held / 1e6
