"""What starting and ending processes costs: N Python processes that do nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import ACCELERATE, HONCHO, MPIRUN, PARALLEL, SHELL, TFLAUNCH, TORCHRUN

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial


def cases(*, large: bool) -> list[Case]:
    """1 and 8 processes; up to 1,000 when ``large``."""
    small = [case(count, rounds=15) for count in (1, 8)]
    return [*small, case(64, rounds=7), case(256, rounds=3), case(1_000, rounds=3)] if large else small


def case(count: int, rounds: int) -> Case:
    """So many processes."""
    return Case(
        name=f"noop-{count}",
        title="A Python process that does nothing" if count == 1 else f"{count:,} Python processes that do nothing",
        metrics=(Metric("until the launcher has ended", "s"),),
        rounds=rounds,
        reference=SHELL,
        launchers=(SHELL, TFLAUNCH, MPIRUN, PARALLEL, HONCHO, TORCHRUN, ACCELERATE),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float]:
    with trial.start(count, "noop.py") as run:
        return (run.finish() - run.started,)
