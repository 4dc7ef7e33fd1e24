"""The figures for reading: as tables, which are Markdown, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tests.benchmarks.case import rows

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.benchmarks.case import Figures, Metric, Row
    from tests.benchmarks.launchers import Launcher
    from tests.benchmarks.machine import Machine

BEGIN = "<!-- benchmarks: begin -->"
END = "<!-- benchmarks: end -->"


def as_json(machine: Machine, figures: Sequence[Figures]) -> dict[str, Any]:
    """Everything, every sample included. Keys: ``machine launchers missing cases``."""
    launchers = _launchers(figures)
    return {
        "machine": asdict(machine),
        "launchers": {launcher.name: launcher.version for launcher in launchers if launcher.path},
        "missing": [launcher.name for launcher in launchers if not launcher.path],
        "cases": [_case_as_json(one) for one in figures],
    }


def _case_as_json(figures: Figures) -> dict[str, Any]:
    case = figures.case
    return {
        "name": case.name,
        "title": case.title,
        "reference": case.reference.name,
        "failures": figures.failures,
        "metrics": [
            {"name": metric.name, "unit": metric.unit, "rows": [asdict(row) for row in rows(figures, number)]}
            for number, metric in enumerate(case.metrics)
        ],
    }


def markdown(machine: Machine, figures: Sequence[Figures]) -> str:
    """The whole report, ending in a newline."""
    parts = [_preamble(machine, _launchers(figures)), *(part for one in figures for part in _case(one))]
    return "\n\n".join(parts) + "\n"


def replace_between_markers(text: str, report: str) -> str:
    """``text`` with the report between its two markers, in place of what was there.

    Raises:
        ValueError: the markers are not there, once each and in their order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in after:
        raise ValueError(f"needs one line {BEGIN} and, below it, one line {END}")
    return f"{before}{BEGIN}\n\n{report}\n{END}{after}"


def write_between_markers(path: Path, report: str) -> None:
    """The same, for a file."""
    path.write_text(replace_between_markers(path.read_text(), report))


def _launchers(figures: Sequence[Figures]) -> list[Launcher]:
    return list(dict.fromkeys(launcher for one in figures for launcher in one.case.launchers))


def _preamble(machine: Machine, launchers: Sequence[Launcher]) -> str:
    here = "; ".join(f"{launcher.name}: {launcher.version}" for launcher in launchers if launcher.path)
    missing = ", ".join(launcher.name for launcher in launchers if not launcher.path)
    lines = [f"- Machine: {described(machine)}.", f"- Launchers: {here}."]
    return "\n".join([*lines, f"- Not installed, so left out: {missing}."] if missing else lines)


def described(machine: Machine) -> str:
    """In a line."""
    hardware = f"{machine.processor}, {machine.cores} cores, {machine.memory_gib:g} GiB"
    return f"{hardware}, {machine.system}, Python {machine.python}; load average before the start: {machine.load:g}"


def _case(figures: Figures) -> Iterator[str]:
    case = figures.case
    yield f"### `{case.name}`: {case.title}"
    for number, metric in enumerate(case.metrics):
        yield _table(metric, case.reference.name, rows(figures, number))
    if figures.failures:
        yield "\n".join(f"- {name} has no figures here: it {why}" for name, why in figures.failures.items())


def _table(metric: Metric, reference: str, lines: Sequence[Row]) -> str:
    title = f"{metric.name} [{metric.unit}]" if metric.unit else metric.name
    head = [title, "median", "lowest", "highest", "rounds", f"over {reference}", "ratio"]
    cells = [head, *(_cells(row) for row in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(_line(line, widths) for line in [cells[0], rule, *cells[1:]])


def _cells(row: Row) -> list[str]:
    figures = [_number(value) for value in (row.median, row.lowest, row.highest)]
    compared = ["" if value is None else _number(value) for value in (row.difference, row.ratio)]
    return [row.launcher, *figures, str(len(row.samples)), *compared]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(padded)} |"


def _number(value: float) -> str:
    """Three digits, or all of a whole number's."""
    size = abs(value)
    digits = 0 if size >= 100 or size == int(size) else 2 if size >= 1 else 3
    return f"{value:,.{digits}f}"
