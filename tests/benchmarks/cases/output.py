"""What output costs: many lines at once, through the launcher into a pipe that is read."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import HONCHO, MPIRUN, PARALLEL, SHELL, TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from pathlib import Path

    from tests.benchmarks.trial import Trial

_WORKERS = 4
_LINES = 500_000
_LINE = 100


# The same for everyone. Set, even to nothing, it is left alone by tflaunch, which would otherwise set it to 1.
_UNBUFFERED = {"PYTHONUNBUFFERED": "1"}
_BUFFERED = {"PYTHONUNBUFFERED": ""}


def cases(*, large: bool) -> list[Case]:
    """200 MB from 4 workers. honcho, which takes a minute for it, only when ``large``."""
    return [
        _case("output", "200 MB printed line by line by 4 processes", "prints.py", _UNBUFFERED, large=large),
        _case(
            "output-buffered", "The same 200 MB, printed through Python's buffer", "prints.py", _BUFFERED, large=large
        ),
        _case("output-bulk", "The same 200 MB, in pieces of 64 KiB", "lines.py", _BUFFERED, large=large),
    ]


def _case(name: str, title: str, program: str, env: dict[str, str], *, large: bool) -> Case:
    return Case(
        name=name,
        title=title,
        metrics=(
            Metric("until the launcher has ended", "s", aims=(Ahead(),)),
            Metric("lines that did not arrive in the pipe", ""),
        ),
        rounds=5,
        reference=SHELL,
        launchers=(SHELL, TFLAUNCH, MPIRUN, PARALLEL, *([HONCHO] if large else [])),
        measure=partial(_measure, program, env),
    )


def _measure(program: str, env: dict[str, str], trial: Trial) -> tuple[float, float]:
    with trial.start(_WORKERS, program, str(_LINES), capture=True, env=env) as run:
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
