"""What a benchmark is made of, and how it is run: one round after the other, every launcher in each."""

from __future__ import annotations

import random
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from tests.benchmarks.trial import Failed, Trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

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
class InTurn:
    """How to measure what all launchers do at once, one block of each after the other in an order left to chance.

    So whatever else the machine does meets all of them.

    Attributes:
        start: of one launcher, in a folder that is empty: what it enters measures a block of its work, each time it is
            called. Either raises ``Failed`` where there is no figure.
        blocks: how many of each make a round. Their median is what the round has of it.
    """

    start: Callable[[Trial], AbstractContextManager[Callable[[], Sequence[float]]]]
    blocks: int


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
        measure: one trial, in a folder that is empty and goes afterwards, which raises ``Failed`` where there is no
            figure; or how all of a round are measured together.
    """

    name: str
    title: str
    metrics: tuple[Metric, ...]
    rounds: int
    reference: Launcher
    launchers: tuple[Launcher, ...]
    measure: Callable[[Trial], Sequence[float]] | InTurn

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

    @contextmanager
    def of(self, launcher: Launcher) -> Iterator[list[Sequence[float]]]:
        """The launcher's samples, to add to; one that fails meanwhile has none."""
        try:
            yield self.samples.setdefault(launcher.name, [])
        except Failed as failure:
            self.failures[launcher.name] = str(failure)
            del self.samples[launcher.name]


def run(case: Case, rounds: int | None = None) -> Figures:
    """Run a case, interleaved. Launchers that are not installed are left out, and so is one once it fails."""
    figures = Figures(case)
    installed = [launcher for launcher in case.launchers if launcher.path is not None]
    for _ in range(rounds or case.rounds):
        taking_part = [launcher for launcher in installed if launcher.name not in figures.failures]
        if isinstance(case.measure, InTurn):
            _together(case.measure, taking_part, figures)
        else:
            _one_after_the_other(case.measure, taking_part, figures)
    return figures


def _one_after_the_other(
    measure: Callable[[Trial], Sequence[float]], launchers: Sequence[Launcher], figures: Figures
) -> None:
    for launcher in launchers:
        with figures.of(launcher) as samples, _folder() as folder:
            samples.append(measure(Trial(launcher, Path(folder))))


def _together(measure: InTurn, launchers: Sequence[Launcher], figures: Figures) -> None:
    with ExitStack() as stack:
        started = []
        for launcher in launchers:
            with figures.of(launcher):
                folder = Path(stack.enter_context(_folder()))
                started.append((launcher, stack.enter_context(measure.start(Trial(launcher, folder)))))
        blocks: dict[str, list[Sequence[float]]] = {launcher.name: [] for launcher in launchers}
        for _ in range(measure.blocks):
            for launcher, block in random.sample(started, len(started)):
                if launcher.name not in figures.failures:
                    with figures.of(launcher):
                        blocks[launcher.name].append(block())
        for launcher, _ in started:
            if launcher.name not in figures.failures:
                with figures.of(launcher) as samples:
                    samples.append([median(column) for column in zip(*blocks[launcher.name], strict=True)])


def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="tflaunch-benchmark-")
