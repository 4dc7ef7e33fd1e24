"""The results for reading, as Markdown: which aims are met, and the figures, with a table and a chart for each case."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.benchmarks.aims import judgements
from tests.benchmarks.numbers import number
from tests.benchmarks.pictures import pictures

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.benchmarks.aims import Judgement
    from tests.benchmarks.case import Case
    from tests.benchmarks.machine import Machine
    from tests.benchmarks.pictures import Picture
    from tests.benchmarks.results import Measured, Result

# The parts of the page that are made from the results, each between its own two markers.
_PARTS = ("summary", "figures")


def page(text: str, cases: Sequence[Case], results: Sequence[Result]) -> str:
    """``text`` with what the results say in place of what was there.

    Raises:
        ValueError: the markers are not there, once each and in their order.
    """
    by_name = {one.name: one for one in results}
    text = between_markers(text, "summary", summary(cases, by_name))
    return between_markers(text, "figures", figures(cases, by_name, pictures(cases, by_name)))


def empty_page() -> str:
    """One to start from, where there is none."""
    return "# Benchmarks\n\n" + "\n".join(f"{begin}\n{end}\n" for begin, end in map(markers, _PARTS))


def markers(part: str) -> tuple[str, str]:
    """The two lines that a part of the page stands between."""
    return f"<!-- {part}: begin -->", f"<!-- {part}: end -->"


def between_markers(text: str, part: str, report: str) -> str:
    """``text`` with the report between the part's two markers, in place of what was there.

    Raises:
        ValueError: the markers are not there, once each and in their order.
    """
    first, last = markers(part)
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not (begin and end) or first in rest or last in after:
        raise ValueError(f"needs one line {first} and, below it, one line {last}")
    return f"{before}{first}\n\n{report}\n{last}{after}"


def summary(cases: Sequence[Case], results: Mapping[str, Result]) -> str:
    """The aims of the cases that were measured, and the names of the others; ends in a newline."""
    judged = [one for case in cases if case.name in results for one in judgements(case, results)]
    missing = [f"`{case.name}`" for case in cases if case.name not in results]
    parts = []
    if judged:
        met = sum(one.met is True for one in judged)
        parts += [f"{met} of {len(judged)} aims are met.", _aims(judged)]
    if missing:
        parts.append(f"Not measured: {', '.join(missing)}.")
    return "\n\n".join(parts) + "\n"


def _aims(judged: Iterable[Judgement]) -> str:
    head = ["case", "aim", "figure", "met"]
    return _table([head, *([f"[{one.case}](#{one.case})", one.aim, one.figure, _met(one)] for one in judged)], left=4)


def _met(one: Judgement) -> str:
    if one.met is None:
        return "unknown"
    return "yes" if one.met else f"**no**, by {one.missed_by}" if one.missed_by else "**no**"


def figures(cases: Iterable[Case], results: Mapping[str, Result], charts: Mapping[str, Picture]) -> str:
    """What was measured, on what, case by case; ends in a newline."""
    measured = [results[case.name] for case in cases if case.name in results]
    machines = list(dict.fromkeys(one.machine for one in measured))
    parts = [_preamble(measured, machines)]
    for one in measured:
        where = f"machine {machines.index(one.machine) + 1}" if len(machines) > 1 else ""
        parts += [f"### {one.name}", _caption(one, where)]
        if picture := charts.get(one.name):
            parts.append(f"![{picture.title}](benchmarks/{picture.name}.svg)")
        parts += _case(one)
    return "\n\n".join(parts) + "\n"


def _preamble(measured: Sequence[Result], machines: Sequence[Machine]) -> str:
    versions: dict[str, dict[str, None]] = {}
    for one in measured:
        for launcher, version in one.versions.items():
            versions.setdefault(launcher, {})[version] = None
    here = "; ".join(f"{launcher}: {' or '.join(said)}" for launcher, said in versions.items())
    many = len(machines) > 1
    lines = [f"- Machine{f' {place}' if many else ''}: {one}." for place, one in enumerate(machines, 1)]
    return "\n".join([*lines, f"- Launchers: {here}."])


def _caption(one: Result, where: str) -> str:
    """What it is, when and where it was measured, and who could not take part."""
    rounds = "1 round" if one.rounds == 1 else f"{one.rounds} rounds"
    place = f" on {where}" if where else ""
    missing = f" Not installed, so left out: {', '.join(one.missing)}." if one.missing else ""
    return f"{one.title}. {rounds} on {one.day}{place}; load average before the start: {one.load:g}.{missing}"


def _case(one: Result) -> Iterator[str]:
    measured = [metric for metric in one.metrics if metric.samples]
    if measured:
        yield _figures(measured, one.reference)
    if one.failures:
        yield "\n".join(f"- {name} has no figures here: it {why}" for name, why in one.failures.items())


def _figures(measured: Iterable[Measured], reference: str) -> str:
    head = ["", "", "median", "lowest", "highest", f"times {reference}"]
    return _table([head, *(cells for metric in measured for cells in _rows(metric, reference))], left=2)


def _rows(metric: Measured, reference: str) -> Iterator[list[str]]:
    title = metric.title
    for row in metric.rows(reference):
        ratio = "" if row.ratio is None else number(row.ratio)
        yield [title, row.launcher, *map(number, (row.median, row.lowest, row.highest)), ratio]
        title = ""


def _table(cells: Sequence[Sequence[str]], *, left: int) -> str:
    """A table whose first line is the head, and whose first columns, ``left`` of them, are words."""
    widths = [max(3, *(len(line[column]) for line in cells)) for column in range(len(cells[0]))]
    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join(_line(line, widths, left) for line in [cells[0], rule, *cells[1:]])


def _line(cells: Sequence[str], widths: Sequence[int], left: int) -> str:
    padded = [
        cell.ljust(width) if column < left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(padded)} |"
