"""What a benchmark is made of, and how it is run: one round after the other, every launcher once in each."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.trial import Failed, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.benchmarks.aims import Aim
    from tests.benchmarks.launchers import Launcher


@dataclass(frozen=True)
class Metric:
    """One figure of a case: what it says, its unit (may be empty), whether more is better, and what it is to be."""

    name: str
    unit: str
    more: bool = False
    aims: tuple[Aim, ...] = ()


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

    @property
    def family(self) -> str:
        """What the cases with the same beginning have in common."""
        return self.name.partition("-")[0]

    @property
    def size(self) -> int:
        """The number at the end of the name, by which a family is ordered; 0 where there is none."""
        _, _, end = self.name.rpartition("-")
        return int(end) if end.isdigit() else 0

    def chosen_by(self, names: Sequence[str]) -> bool:
        """Whether one of ``names`` means this case."""
        return self.name in names or self.family in names


@dataclass
class Figures:
    """What came of a case: launcher's name -> a sample a round, each with a value a metric; or why there is none."""

    case: Case
    samples: dict[str, list[Sequence[float]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


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
