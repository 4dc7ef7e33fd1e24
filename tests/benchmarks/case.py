"""What a benchmark is made of, and how it is run: one round after the other, every launcher once in each."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.trial import Failed, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.launchers import Launcher


@dataclass(frozen=True)
class Metric:
    """One figure of a case: what it says, and its unit (may be empty)."""

    name: str
    unit: str


@dataclass(frozen=True)
class Case:
    """One thing that is measured.

    Attributes:
        name: what ``--only`` calls it; ``noop`` stands for every ``noop-...``.
        title: what is measured, in a line.
        metrics: the figures that ``measure`` returns, in its order.
        rounds: how often, where nothing else is asked for.
        reference: the launcher that the others are compared with.
        launchers: who takes part, in the order of a round; the reference among them.
        measure: one trial, in a folder that is empty and goes afterwards. It raises ``Failed`` where there is no figure.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    rounds: int
    reference: Launcher
    launchers: tuple[Launcher, ...]
    measure: Callable[[Trial], Sequence[float]]

    def chosen_by(self, names: Sequence[str]) -> bool:
        """Whether one of ``names`` means this case."""
        return self.name in names or self.name.partition("-")[0] in names


@dataclass
class Figures:
    """What came of a case: launcher's name -> a sample a round, each with a value a metric; or why there is none."""

    case: Case
    samples: dict[str, list[Sequence[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One launcher's figures for one metric. Without a figure of the reference, or when that is 0, there is no ratio."""

    launcher: str
    samples: tuple[float, ...]
    median: float
    lowest: float
    highest: float
    difference: float | None
    ratio: float | None


def run(case: Case, rounds: int | None = None) -> Figures:
    """Run a case, interleaved. Launchers that are not installed are left out, and so is one once it fails."""
    figures = Figures(case)
    for _ in range(rounds or case.rounds):
        for launcher in case.launchers:
            if launcher.path is not None and launcher.name not in figures.failures:
                _try(launcher, figures)
    return figures


def _try(launcher: Launcher, figures: Figures) -> None:
    with tempfile.TemporaryDirectory(prefix="tflaunch-benchmark-") as folder:
        try:
            sample = figures.case.measure(Trial(launcher, Path(folder)))
        except Failed as failure:
            figures.failures[launcher.name] = str(failure)
            figures.samples.pop(launcher.name, None)
        else:
            figures.samples.setdefault(launcher.name, []).append(sample)


def rows(figures: Figures, metric: int) -> list[Row]:
    """The figures of one metric, best first."""
    columns = {name: tuple(sample[metric] for sample in samples) for name, samples in figures.samples.items()}
    reference = columns.get(figures.case.reference.name)
    base = median(reference) if reference else None
    return sorted((_row(name, column, base) for name, column in columns.items()), key=lambda row: row.median)


def _row(launcher: str, samples: tuple[float, ...], base: float | None) -> Row:
    middle = median(samples)
    return Row(
        launcher=launcher,
        samples=samples,
        median=middle,
        lowest=min(samples),
        highest=max(samples),
        difference=None if base is None else middle - base,
        ratio=middle / base if base else None,
    )
