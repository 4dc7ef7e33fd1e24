"""What a figure is to be, and whether it is.

Aims stand with the metric: ``Metric("until all are gone", "s", aims=(AtMost(1.15, times=SHELL), Ahead()))``. They are
of the first launcher of ours that takes part in the case (``Launcher.role``), unless ``of`` names another one. A figure
is a median over the rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.benchmarks.numbers import number, percent, quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.benchmarks.case import Case, Metric
    from tests.benchmarks.launchers import Launcher
    from tests.benchmarks.results import Result


@dataclass(frozen=True)
class AtMost:
    """No more than ``bound`` in the metric's unit; or so many times another's figure; or so much over it."""

    bound: float
    times: Launcher | None = None
    over: Launcher | None = None
    of: Launcher | None = None


@dataclass(frozen=True)
class AtLeast:
    """No less than ``bound`` in the metric's unit; or so many times another's figure."""

    bound: float
    times: Launcher | None = None
    of: Launcher | None = None


@dataclass(frozen=True)
class Ahead:
    """Better than every peer that took part. The floor, and launchers of ours, are no peers."""

    of: Launcher | None = None


@dataclass(frozen=True)
class Linear:
    """It grows with the size: ``growth`` times as large as the case ``smaller``, it may take so much, and ``slack``."""

    smaller: str
    growth: float
    slack: float = 1.5
    of: Launcher | None = None


@dataclass(frozen=True)
class Flat:
    """It does not grow with time: what ``since`` was, another metric of the case, it may be, and ``slack``."""

    since: str
    slack: float = 1.1
    of: Launcher | None = None


Aim = AtMost | AtLeast | Ahead | Linear | Flat


@dataclass(frozen=True)
class Limit:
    """What a figure is held against: the most, or least, that it may be, and the figure that this comes from."""

    value: float
    base: float | None = None
    whose: str = ""


@dataclass(frozen=True)
class Judgement:
    """An aim and what became of it, in words; ``met`` is None where a figure is missing."""

    case: str
    aim: str
    figure: str
    met: bool | None
    missed_by: str = ""


def judgements(case: Case, results: Mapping[str, Result]) -> list[Judgement]:
    """All aims of a case that was measured, in their order."""
    return [_judge(aim, metric, case, results) for metric in case.metrics for aim in metric.aims]


def _judge(aim: Aim, metric: Metric, case: Case, results: Mapping[str, Result]) -> Judgement:
    said = f"{metric.name}: {_words(aim, metric.unit)}"
    ours = _ours(aim, case)
    own = _median(results[case.name], metric.name, ours)
    if own is None:
        return Judgement(case.name, said, f"{ours.name} has no figure", None)
    limit = _limit(aim, metric, case, results)
    if limit is None:
        return Judgement(case.name, said, f"{quantity(own, metric.unit)}, with nothing to compare", None)
    more = isinstance(aim, AtLeast) or (isinstance(aim, Ahead) and metric.more)
    beyond = own > limit.value if more else own < limit.value
    met = beyond or (own == limit.value and not isinstance(aim, Ahead))
    missed_by = "" if met or not limit.value else percent(abs(own / limit.value - 1))
    return Judgement(case.name, said, _figure(own, limit, metric.unit), met, missed_by)


def _ours(aim: Aim, case: Case) -> Launcher:
    return aim.of or next(launcher for launcher in case.launchers if launcher.role == "ours")


def _words(aim: Aim, unit: str) -> str:
    match aim:
        case AtMost(bound, over=whose) if whose:
            return f"at most {bound:g} {unit} more than {whose.name}"
        case AtMost(bound, times) | AtLeast(bound, times):
            word = "at most" if isinstance(aim, AtMost) else "at least"
            return f"{word} {bound:g} times {times.name}" if times else f"{word} {bound:g} {unit}".rstrip()
        case Ahead():
            return "ahead of every peer"
        case Linear(smaller, growth, slack):
            return f"linear: at most {growth * slack:g} times {smaller}, at {growth:g} times its size"
        case Flat(since, slack):
            return f"flat: at most {slack:g} times {since}"


def _limit(aim: Aim, metric: Metric, case: Case, results: Mapping[str, Result]) -> Limit | None:
    """None where the figure that it would come from is missing."""
    here = results[case.name]
    match aim:
        case AtMost(bound, over=whose) if whose:
            base = _median(here, metric.name, whose)
            return None if base is None else Limit(base + bound, base, whose.name)
        case AtMost(bound, whose) | AtLeast(bound, whose):
            return _multiple(bound, _median(here, metric.name, whose), whose.name) if whose else Limit(bound)
        case Ahead():
            return _nearest(case, metric, here)
        case Linear(smaller, growth, slack):
            return _multiple(growth * slack, _median(results.get(smaller), metric.name, _ours(aim, case)), smaller)
        case Flat(since, slack):
            return _multiple(slack, _median(here, since, _ours(aim, case)), since)


def _multiple(times: float, base: float | None, whose: str) -> Limit | None:
    return None if base is None else Limit(times * base, base, whose)


def _nearest(case: Case, metric: Metric, here: Result) -> Limit | None:
    """The best figure of a peer."""
    figures = {
        launcher.name: median
        for launcher in case.launchers
        if launcher.role == "peer" and (median := _median(here, metric.name, launcher)) is not None
    }
    if not figures:
        return None
    best = max(figures, key=figures.__getitem__) if metric.more else min(figures, key=figures.__getitem__)
    return Limit(figures[best], figures[best], best)


def _median(result: Result | None, metric: str, launcher: Launcher) -> float | None:
    measured = result.metric(metric) if result else None
    return measured.medians.get(launcher.name) if measured else None


def _figure(own: float, limit: Limit, unit: str) -> str:
    if limit.base is None:
        return quantity(own, unit)
    both = f"{quantity(own, unit)}; {limit.whose} {quantity(limit.base, unit)}"
    return f"{number(own / limit.base)} times ({both})" if limit.base else both
