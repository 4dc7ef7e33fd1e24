"""What starting and ending processes costs: N Python processes that do nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead, AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, SHELL, TFLAUNCH

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial


def cases(*, large: bool) -> list[Case]:
    """1 and 8 processes; 64 as well when ``large``."""
    return [_case(count) for count in ((1, 8, 64) if large else (1, 8))]


def _case(count: int) -> Case:
    # Before that, it is the start of the launcher itself that counts.
    aims = (AtMost(1.15, times=SHELL), Ahead()) if count >= 64 else (Ahead(),)
    return Case(
        name=f"noop-{count}",
        title="A Python process that does nothing" if count == 1 else f"{count} Python processes that do nothing",
        metrics=(Metric("until the launcher has ended", "s", aims=aims),),
        rounds=15,
        reference=SHELL,
        launchers=(SHELL, TFLAUNCH, MPIRUN, PARALLEL, HONCHO),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float]:
    with trial.start(count, "noop.py") as run:
        return (run.finish() - run.started,)
