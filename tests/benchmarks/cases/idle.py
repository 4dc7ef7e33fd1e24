"""What a launcher costs while the workers are quiet: one that polls takes time, and wakes up, for nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.benchmarks.aims import AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, TFLAUNCH

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from tests.benchmarks.trial import Trial

_WORKERS = 8
_SETTLE = 1.0
_SECONDS = 5.0


class Effort(NamedTuple):
    """What some processes have used so far: nanoseconds of CPU, and how often they were woken up."""

    cpu: int
    wakeups: int


def cases(*, large: bool) -> list[Case]:
    """8 workers."""
    del large
    return [
        Case(
            name="idle",
            title="The launcher and its helpers, while 8 processes sleep",
            metrics=(Metric("CPU time", "ms/s", aims=(AtMost(10),)), Metric("wake-ups", "1/s")),
            rounds=3,
            reference=MPIRUN,
            launchers=(TFLAUNCH, MPIRUN, PARALLEL, HONCHO),
            measure=_measure,
        )
    ]


def _measure(trial: Trial) -> tuple[float, float]:
    run, workers = trial.start_idle(_WORKERS)
    with run:
        time.sleep(_SETTLE)
        launcher = {process.pid for process in run.processes()} - set(workers)
        before, start = effort(launcher), time.monotonic()
        time.sleep(_SECONDS)
        after, seconds = effort(launcher), time.monotonic() - start
    return (after.cpu - before.cpu) / 1e6 / seconds, (after.wakeups - before.wakeups) / seconds


def effort(pids: Collection[int]) -> Effort:
    """What these processes, with all their threads, have used so far, as /proc tells it."""
    each = [_of_thread(thread) for pid in pids for thread in Path(f"/proc/{pid}/task").iterdir()]
    return Effort(sum(one.cpu for one in each), sum(one.wakeups for one in each))


def _of_thread(thread: Path) -> Effort:
    # schedstat counts nanoseconds, where stat counts ticks of 10 ms: more than an idle launcher uses in a second.
    cpu = int((thread / "schedstat").read_text().split()[0])
    return Effort(cpu, sum(_switches((thread / "status").read_text())))


def _switches(status: str) -> Iterator[int]:
    for line in status.splitlines():
        if line.startswith("voluntary_ctxt_switches:"):
            yield int(line.split()[1])
