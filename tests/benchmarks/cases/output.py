"""What output costs: many lines at once, through the launcher into a pipe that is read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, SHELL, TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.trial import Trial

_WORKERS = 4
_LINES = 500_000
_LINE = 100


def cases(*, large: bool) -> list[Case]:
    """200 MB from 4 workers. honcho, which takes a minute for it, only when ``large``."""
    return [
        Case(
            name="output",
            title="200 MB in lines of 100 bytes from 4 processes",
            metrics=(Metric("until the launcher has ended", "s"), Metric("lines that did not arrive in the pipe", "")),
            rounds=5,
            reference=SHELL,
            launchers=(SHELL, TFLAUNCH, MPIRUN, PARALLEL, *([HONCHO] if large else [])),
            measure=_measure,
        )
    ]


def _measure(trial: Trial) -> tuple[float, float]:
    with trial.start(_WORKERS, "lines.py", str(_LINES), capture=True) as run:
        arrived = _count_lines(run.output)
        seconds = run.finish() - run.started
    if trial.launcher is TFLAUNCH:
        _check_logs(trial.folder)
    return seconds, _WORKERS * _LINES - arrived


def _count_lines(pipe: int) -> int:
    """Read to the end. Every line of a worker has one ~, which no launcher adds to what it says itself."""
    lines = 0
    while data := os.read(pipe, 1 << 20):
        lines += data.count(b"~")
    return lines


def _check_logs(folder: Path) -> None:
    kept = sum(log.stat().st_size for log in folder.glob("runs/latest/attempt-0/*.log"))
    if kept != _WORKERS * _LINES * _LINE:
        raise Failed(f"its log files have {kept} bytes of {_WORKERS * _LINES * _LINE}")
