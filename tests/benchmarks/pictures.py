"""What the charts show: bars of one case, or how a family of cases grows. Drawn by ``charts``.

A picture has a panel for each metric with an aim or, without any, for the first one. Where tflaunch is alone, what it is
compared with are metrics: those of the first one's unit that follow it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import TYPE_CHECKING

from tests.benchmarks.launchers import Role
from tests.benchmarks.results import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from tests.benchmarks.case import Case
    from tests.benchmarks.results import Measured, Result

# Sizes of a family that are closer to each other than this show no growth.
_SPAN = 4


@dataclass(frozen=True)
class Bar:
    """One launcher's figure; its own ``row.launcher`` is what it is called."""

    row: Row
    role: Role


@dataclass(frozen=True)
class Bars:
    """The figures of one metric of one case, best first; ``times`` is whose figure their ratios are to."""

    title: str
    better: str
    times: str
    unit: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True)
class Point:
    """The figure at one size of a family."""

    size: int
    median: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class Line:
    """One launcher's figures, from the smallest size to the largest."""

    label: str
    role: Role
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Growth:
    """The figures of one metric of a family, as multiples of those of ``times`` where that is somebody: the floor."""

    title: str
    better: str
    times: str
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class Picture:
    """What is in one file of that name."""

    name: str
    title: str
    panels: tuple[Bars | Growth, ...]


def pictures(cases: Iterable[Case], results: Mapping[str, Result]) -> dict[str, Picture]:
    """Name of a case -> the picture above its table; of a family that grows, above that of its first case."""
    found: dict[str, Picture] = {}
    for family, members in groupby((one for one in cases if one.name in results), lambda one: one.family):
        group = list(members)
        if _grows(group):
            found[group[0].name] = Picture(family, family, tuple(_growth(group, results)))
        else:
            found |= {one.name: Picture(one.name, one.title, tuple(_bars(one, results[one.name]))) for one in group}
    return {name: picture for name, picture in found.items() if picture.panels}


def _grows(family: Sequence[Case]) -> bool:
    sizes = [one.size for one in family if one.size]
    return len(sizes) == len(family) and max(sizes) >= _SPAN * min(sizes)


def _charted(case: Case, result: Result) -> list[Measured]:
    with_aims = [metric.name for metric in case.metrics if metric.aims]
    return [one for one in result.metrics if one.name in with_aims and one.samples] or [
        one for one in result.metrics[:1] if one.samples
    ]


def _bars(case: Case, result: Result) -> Iterator[Bars]:
    for panel in _panels(case, result):
        if len(panel.bars) > 1:
            yield panel


def _panels(case: Case, result: Result) -> Iterator[Bars]:
    if len(case.launchers) == 1:
        yield _alone(case, result)
        return
    roles = {launcher.name: launcher.role for launcher in case.launchers}
    for one in _charted(case, result):
        bars = tuple(Bar(row, roles.get(row.launcher, "peer")) for row in one.rows(result.reference))
        yield Bars(one.title, _better(one), result.reference, one.unit, bars)


def _alone(case: Case, result: Result) -> Bars:
    first = result.metrics[0]
    alike = [one for one in takewhile(lambda one: one.unit == first.unit, result.metrics) if one.samples]
    # One launcher, one row.
    rows = [replace(row, launcher=one.name, ratio=None) for one in alike for row in one.rows("")]
    with_aims = {metric.name for metric in case.metrics if metric.aims}
    bars = tuple(Bar(row, "ours" if row.launcher in with_aims else "peer") for row in rows)
    return Bars(f"{case.family} [{first.unit}]" if first.unit else case.family, _better(first), "", first.unit, bars)


def _better(metric: Measured) -> str:
    return f"{'more' if metric.more else 'less'} is better"


def _growth(family: Sequence[Case], results: Mapping[str, Result]) -> Iterator[Bars | Growth]:
    """For each figure the bars of the largest case, and a line for each launcher over all sizes."""
    panels: dict[str, list[tuple[int, Bars]]] = {}
    for case in sorted(family, key=lambda one: one.size):
        for panel in _panels(case, results[case.name]):
            panels.setdefault(panel.title, []).append((case.size, panel))
    order = [launcher.name for case in family for launcher in case.launchers]
    reference = family[0].reference
    times = reference.name if reference.role == "floor" else ""
    for title, sizes in panels.items():
        size, last = sizes[-1]
        yield replace(last, title=f"{title}, N = {size:,}")
        if len(sizes) > 1:
            yield Growth(f"{title}, by N", last.better, times, tuple(_lines(sizes, order, multiples=bool(times))))


def _lines(sizes: Sequence[tuple[int, Bars]], order: Sequence[str], *, multiples: bool) -> Iterator[Line]:
    for label in dict.fromkeys([*order, *(bar.row.launcher for _, panel in sizes for bar in panel.bars)]):
        own = [(size, bar) for size, panel in sizes for bar in panel.bars if bar.row.launcher == label]
        points = tuple(point for size, bar in own for point in _point(size, bar.row, multiples=multiples))
        if points:
            yield Line(label, own[-1][1].role, points)


def _point(size: int, row: Row, *, multiples: bool) -> Iterator[Point]:
    """None where there is nothing that it would be a multiple of."""
    if not multiples:
        yield Point(size, row.median, row.lowest, row.highest)
    elif row.ratio is not None:
        # The same as the ratio's, and the median itself where that is nothing.
        base = row.median / row.ratio if row.ratio else 1
        yield Point(size, row.median / base, row.lowest / base, row.highest / base)
