"""What starting and ending processes costs: N Python processes that do nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead, AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import ACCELERATE, COLD, HONCHO, MPIRUN, PARALLEL, SHELL, TFLAUNCH, TORCHRUN

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial


def cases(*, large: bool) -> list[Case]:
    """1 and 8 processes; up to 1,000 when ``large``."""
    small = [case(count, rounds=15) for count in (1, 8)]
    return [*small, case(64, rounds=7), case(256, rounds=3), case(1_000, rounds=3)] if large else small


def case(count: int, rounds: int) -> Case:
    """So many processes."""
    # Before that, it is the start of the launcher itself that counts.
    many = count >= 64
    aims = (AtMost(1.15, times=SHELL), Ahead()) if many else (Ahead(),)
    # What few do is no other thing.
    ours = (TFLAUNCH, COLD) if many else (TFLAUNCH,)
    return Case(
        name=f"noop-{count}",
        title="A Python process that does nothing" if count == 1 else f"{count:,} Python processes that do nothing",
        metrics=(Metric("until the launcher has ended", "s", aims=aims),),
        rounds=rounds,
        reference=SHELL,
        launchers=(SHELL, *ours, MPIRUN, PARALLEL, HONCHO, TORCHRUN, ACCELERATE),
        measure=partial(_measure, count),
    )


def _measure(count: int, trial: Trial) -> tuple[float]:
    with trial.start(count, "noop.py") as run:
        return (run.finish() - run.started,)
