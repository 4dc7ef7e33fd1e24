"""What output costs: lines through the launcher into a pipe that is read, or into log files, or both."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead, Flat
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import (
    HONCHO,
    MPIRUN,
    MPIRUN_FILES,
    PARALLEL,
    PARALLEL_FILES,
    SHELL,
    SHELL_FILES,
    TFLAUNCH,
    TFLAUNCH_FILES,
    TORCHRUN_FILES,
    TORCHRUN_TEE,
)
from tests.benchmarks.trial import Failed, Gate, Watch
from tests.benchmarks.usage import Meter

if TYPE_CHECKING:
    from tests.benchmarks.launchers import Launcher
    from tests.benchmarks.trial import Trial

_TAGGED = (SHELL, TFLAUNCH, MPIRUN, PARALLEL, TORCHRUN_TEE)
_FILES = (SHELL_FILES, TFLAUNCH_FILES, MPIRUN_FILES, PARALLEL_FILES, TORCHRUN_FILES)


@dataclass(frozen=True)
class Load:
    """What the workers write.

    Attributes:
        lines: of each worker, each of so many bytes; ``rate`` a second, or as fast as it can where that is 0.
        program: which of the ``programs`` writes them.
        unbuffered: whether each line is written by itself; its end comes in a write of its own, as Python has it.
    """

    workers: int
    lines: int
    length: int
    rate: int = 0
    program: str = "prints.py"
    unbuffered: bool = True

    @property
    def arguments(self) -> list[str]:
        """What the program is told, after where to register and what to wait at."""
        return [str(self.lines), str(self.length), str(self.rate)]

    @property
    def env(self) -> dict[str, str]:
        """The same for everyone. Set, even to nothing, it is left alone by tflaunch, which would otherwise set it to 1."""
        return {"PYTHONUNBUFFERED": "1" if self.unbuffered else ""}


FLOOD = Load(4, 500_000, 100)
BUFFERED = Load(4, 500_000, 100, unbuffered=False)
BULK = Load(4, 500_000, 100, program="lines.py")
LONG = Load(4, 50_000, 10_000)
STEADY = Load(1_000, 3_000, 100, rate=100)


def cases(*, large: bool) -> list[Case]:
    """200 MB from 4 workers. honcho, which takes a minute for it, and what is more than that, only when ``large``."""
    tagged = (*_TAGGED, HONCHO) if large else _TAGGED
    small = [
        case("output", "200 MB printed line by line by 4 processes", FLOOD, tagged),
        case("output-buffered", "The same 200 MB, printed through Python's buffer", BUFFERED, tagged),
        case("output-bulk", "The same 200 MB, in pieces of 64 KiB", BULK, tagged),
        case("output-files", "200 MB printed line by line by 4 processes, into log files alone", FLOOD, _FILES),
    ]
    more = [
        case("output-long", "2,000 MB printed in lines of 10 kB by 4 processes", LONG, _TAGGED, rounds=3),
        case("output-steady", "1,000 processes print 100 lines a second for 30 s", STEADY, _TAGGED, rounds=2),
    ]
    return [*small, *more] if large else small


def case(name: str, title: str, load: Load, launchers: tuple[Launcher, ...], rounds: int = 5) -> Case:
    """One, with the first of the launchers as its reference."""
    when = "until the last line came, after it was due" if load.rate else "until the launcher has ended"
    early = "memory of the launcher and its helpers, after a quarter of the time"
    return Case(
        name=name,
        title=title,
        metrics=(
            Metric(when, "s", aims=(Ahead(),)),
            Metric("lines that did not arrive", ""),
            Metric("CPU time of the launcher and its helpers", "s"),
            Metric(early, "MB"),
            Metric("memory of the launcher and its helpers, at most", "MB", aims=(Flat(early),)),
        ),
        rounds=rounds,
        reference=launchers[0],
        launchers=launchers,
        measure=partial(_measure, load),
    )


def _measure(load: Load, trial: Trial) -> tuple[float, ...]:
    to_files = trial.launcher in _FILES
    arrived = 0
    with Gate(trial.folder) as gate:
        arguments = (str(gate.path), *load.arguments)
        run, workers = trial.start_registered(
            load.workers, load.program, *arguments, capture=not to_files, env=load.env
        )
        with run, Watch(workers) as watch:
            meter = Meter({process.pid for process in run.processes()} - set(workers), watch)
            last = opened = gate.open()
            for data in run.follow(0.1):
                # Every line of a worker has one ~, which no launcher adds to what it says itself.
                if lines := data.count(b"~"):
                    arrived, last = arrived + lines, time.monotonic()
                meter.look()
            ended = run.finish()
    expected = load.workers * load.lines
    kept = _lines_in_files(trial.folder)
    if trial.launcher is TFLAUNCH and kept != expected:
        raise Failed(f"its log files have {kept} lines of {expected}")
    seconds = last - opened - load.lines / load.rate if load.rate else ended - opened
    early = meter.memory[len(meter.memory) // 4]
    missing = expected - (kept if to_files else arrived)
    return seconds, missing, meter.cpu, early / 1e6, max(meter.memory) / 1e6


def _lines_in_files(folder: Path) -> int:
    names = (Path(inside, name) for inside, _, names in os.walk(folder) for name in names)
    # The program's own code, as tflaunch has compiled it for all, has its ~ as well.
    return sum(_lines(name) for name in names if name.is_file() and name.suffix != ".pyc")


def _lines(file: Path) -> int:
    with file.open("rb") as opened:
        return sum(data.count(b"~") for data in iter(partial(opened.read, 1 << 20), b""))
