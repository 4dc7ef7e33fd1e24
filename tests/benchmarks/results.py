"""What was measured, kept in a file of JSON: every sample, with the day, the machine and the launchers it is of."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.benchmarks.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from tests.benchmarks.case import Figures

# A microsecond, and less of anything than a table tells.
_DIGITS = 6


@dataclass(frozen=True)
class Row:
    """One launcher's figures for one metric. Without a figure of the reference, or when that is 0, there is no ratio."""

    launcher: str
    median: float
    lowest: float
    highest: float
    ratio: float | None


@dataclass(frozen=True)
class Measured:
    """One metric of a case: launcher's name -> a sample a round. ``more`` is better, or less is."""

    name: str
    unit: str
    more: bool
    samples: Mapping[str, tuple[float, ...]]

    @property
    def medians(self) -> dict[str, float]:
        """Each launcher's median."""
        return {launcher: median(samples) for launcher, samples in self.samples.items()}

    @property
    def title(self) -> str:
        """The name, with its unit."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    def rows(self, reference: str) -> list[Row]:
        """The figures, best first."""
        base = self.medians.get(reference)
        each = [
            Row(
                launcher,
                middle,
                min(self.samples[launcher]),
                max(self.samples[launcher]),
                middle / base if base else None,
            )
            for launcher, middle in self.medians.items()
        ]
        return sorted(each, key=lambda row: row.median, reverse=self.more)


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        day: of the measurement, in UTC.
        load: the machine's load average before the first case of that command.
        versions: launcher's name -> what it says of itself, for those that took part.
        missing: the launchers that are not installed.
        failures: launcher's name -> why it has no figures.
    """

    name: str
    title: str
    reference: str
    day: str
    load: float
    machine: Machine
    versions: Mapping[str, str]
    missing: tuple[str, ...]
    failures: Mapping[str, str]
    metrics: tuple[Measured, ...]

    @property
    def rounds(self) -> int:
        """How many samples each launcher has; 0 where none has any."""
        return max((len(samples) for one in self.metrics for samples in one.samples.values()), default=0)

    def metric(self, name: str) -> Measured | None:
        """The metric of that name, if it was measured."""
        return next((one for one in self.metrics if one.name == name), None)


def result(figures: Figures, machine: Machine, load: float) -> Result:
    """What is kept of a case that has just been run."""
    case = figures.case
    columns = [
        {name: tuple(round(sample[number], _DIGITS) for sample in samples) for name, samples in figures.samples.items()}
        for number in range(len(case.metrics))
    ]
    return Result(
        name=case.name,
        title=case.title,
        reference=case.reference.name,
        day=datetime.now(UTC).date().isoformat(),
        load=load,
        machine=machine,
        versions={one.name: one.version for one in case.launchers if one.path},
        missing=tuple(one.name for one in case.launchers if not one.path),
        failures=figures.failures,
        metrics=tuple(
            Measured(metric.name, metric.unit, metric.more, column)
            for metric, column in zip(case.metrics, columns, strict=True)
        ),
    )


def merge(kept: Iterable[Result], new: Result, names: Sequence[str]) -> list[Result]:
    """The new result in place of the case's old one, in the order of ``names``; cases that are not named go.

    A case that nobody could run here keeps the figures it has.
    """
    all_of_them = {one.name: one for one in kept}
    if new.rounds or new.name not in all_of_them:
        all_of_them[new.name] = new
    return [all_of_them[name] for name in names if name in all_of_them]


def save(path: Path, results: Iterable[Result]) -> None:
    """Write the file anew."""
    text = json.dumps({"cases": [asdict(one) for one in results]}, indent=1)
    # A launcher's samples on one line: what a run has changed can be read.
    path.write_text(re.sub(r"\[\s+([-+.e\d,\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text) + "\n")


def load(path: Path) -> list[Result]:
    """What the file has; nothing where there is no file.

    Raises:
        ValueError: it holds something else.
    """
    if not path.exists():
        return []
    try:
        return [_result(case) for case in json.loads(path.read_text())["cases"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"does not hold figures of benchmarks: {error!r}") from None


def _result(raw: Mapping[str, Any]) -> Result:
    fixed = {
        "load": float(raw["load"]),
        "machine": Machine(**raw["machine"]),
        "missing": tuple(raw["missing"]),
        "metrics": tuple(_measured(one) for one in raw["metrics"]),
    }
    return Result(**{**raw, **fixed})


def _measured(raw: Mapping[str, Any]) -> Measured:
    samples = {launcher: tuple(map(float, column)) for launcher, column in raw["samples"].items()}
    if not all(samples.values()):
        raise ValueError(f"no sample of {raw['name']!r}")
    return Measured(**{**raw, "samples": samples})
