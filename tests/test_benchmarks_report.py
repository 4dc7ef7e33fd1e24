"""That results are kept, judged by their aims, and shown as they are."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.benchmarks import __main__, cases, charts, page, report, results
from tests.benchmarks.aims import Ahead, AtLeast, AtMost, Flat, Linear, judgements
from tests.benchmarks.case import Case, Figures, Metric
from tests.benchmarks.launchers import MPIRUN, PARALLEL, SHELL, TFLAUNCH, Launcher
from tests.benchmarks.machine import Machine
from tests.benchmarks.numbers import number, percent, quantity
from tests.benchmarks.pictures import Bars, Growth, pictures
from tests.benchmarks.results import Measured, Result

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.benchmarks.aims import Aim

MACHINE = Machine("a processor", 2, 24.0, "Linux 6.1", "3.11.9")
ABSENT = Launcher("nowhere", "no-such-launcher", lambda _job: [])
ALL = (SHELL, TFLAUNCH, MPIRUN, PARALLEL)


def case(name: str = "thing", *metrics: Metric, launchers: tuple[Launcher, ...] = ALL) -> Case:
    return Case(name, f"What {name} takes", metrics or (Metric("time", "s"),), 2, launchers[0], launchers, lambda _: ())


def measured(of: Case, **samples: Sequence[float]) -> Result:
    """One metric; ``floor`` is the shell loop's, the others are called by their programs."""
    names = {"tflaunch": TFLAUNCH, "floor": SHELL, "mpirun": MPIRUN, "parallel": PARALLEL}
    metric = of.metrics[0]
    column = {names[program].name: tuple(values) for program, values in samples.items()}
    one = Measured(metric.name, metric.unit, metric.more, column)
    return Result(of.name, of.title, of.reference.name, "2026-11-25", 0.5, MACHINE, {}, (), {}, (one,))


def by_name(*each: Result) -> Mapping[str, Result]:
    return {one.name: one for one in each}


def test_a_result_is_what_was_measured_and_on_what() -> None:
    of = case("thing", Metric("time", "s"), Metric("rate", "1/s", more=True), launchers=(SHELL, ABSENT, TFLAUNCH))
    figures = Figures(of, {"shell loop": [(1.23456789, 5), (2.0, 6)]}, {"tflaunch": "is tired"})

    kept = results.result(figures, MACHINE, 0.25)

    assert (kept.name, kept.title, kept.reference) == ("thing", "What thing takes", "shell loop")
    assert (kept.machine, kept.load, kept.rounds) == (MACHINE, 0.25, 2)
    assert "shell loop" in kept.versions
    assert kept.missing == ("nowhere",)
    assert kept.failures == {"tflaunch": "is tired"}
    assert [(one.name, one.more, one.samples) for one in kept.metrics] == [
        ("time", False, {"shell loop": (1.234568, 2.0)}),
        ("rate", True, {"shell loop": (5, 6)}),
    ]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    one = measured(case(), floor=(1.0, 2.0), tflaunch=(3.0, 4.0))
    results.save(tmp_path / "kept.json", [one])
    assert results.load(tmp_path / "kept.json") == [one]
    assert results.load(tmp_path / "nothing.json") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "what?",
        "[]",
        "{}",
        '{"cases": [7]}',
        '{"cases": [{"name": "noop-1"}]}',
        json.dumps({"cases": [{"load": 1, "machine": {"cores": 2}, "missing": [], "metrics": []}]}),
    ],
)
def test_what_is_no_file_of_results_is_refused_in_a_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "benchmarks.json").write_text(text)

    ended = CliRunner().invoke(page.main, ["--into", str(tmp_path)])

    assert ended.exit_code == 2
    assert "does not hold figures of benchmarks" in ended.stderr.splitlines()[-1]
    assert not (tmp_path / "benchmarks.md").exists()


@pytest.mark.parametrize(("name", "text"), [("benchmarks.json", "what?"), ("benchmarks.md", "no markers")])
def test_a_folder_that_cannot_take_results_is_refused_before_anything_is_measured(
    tmp_path: Path, name: str, text: str
) -> None:
    (tmp_path / name).write_text(text)
    ended = CliRunner().invoke(__main__.main, ["--only", "noop-1", "--into", str(tmp_path)])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_samples_that_are_none_are_refused(tmp_path: Path) -> None:
    results.save(tmp_path / "kept.json", [measured(case(), floor=())])
    with pytest.raises(ValueError, match="no sample of 'time'"):
        results.load(tmp_path / "kept.json")


def test_a_new_result_replaces_its_cases_alone_and_cases_that_are_no_more_go() -> None:
    old = [measured(case(name), floor=(1.0,)) for name in ("b", "gone", "c")]
    new = [measured(case(name), floor=(2.0,)) for name in ("a", "b")]

    kept = results.merge(results.merge(old, new[0], "abc"), new[1], "abc")

    assert kept == [new[0], new[1], old[2]]


def test_a_case_that_nobody_could_run_keeps_the_figures_it_has() -> None:
    good = measured(case("a"), floor=(1.0,))
    failed = replace(measured(case("a")), failures={"shell loop": "is tired"})
    assert results.merge([good], failed, "a") == [good]
    assert results.merge([], failed, "a") == [failed]


def test_rows_hold_median_and_spread_and_the_best_is_first() -> None:
    samples = {"shell loop": (2.0, 4.0), "tflaunch": (9.0, 3.0)}
    reference, ours = Measured("time", "s", False, samples).rows("shell loop")
    assert (reference.launcher, reference.ratio) == ("shell loop", 1)
    assert (ours.median, ours.lowest, ours.highest, ours.ratio) == (6, 3, 9, 2)
    assert [row.launcher for row in Measured("rate", "1/s", True, samples).rows("")] == ["tflaunch", "shell loop"]


@pytest.mark.parametrize("reference", [{}, {"shell loop": (0.0,)}])
def test_without_a_figure_of_the_reference_nothing_is_compared(reference: dict[str, tuple[float, ...]]) -> None:
    rows = Measured("time", "s", False, {**reference, "tflaunch": (9.0,)}).rows("shell loop")
    assert {row.ratio for row in rows} == {None}


FIGURES = {"floor": (1.0,), "tflaunch": (1.2,), "mpirun": (2.0,), "parallel": (1.5,)}


@pytest.mark.parametrize(
    ("aim", "words", "figure", "met", "missed_by"),
    [
        (AtMost(1.2), "at most 1.2 s", "1.20 s", True, ""),
        (AtMost(1), "at most 1 s", "1.20 s", False, "20%"),
        (AtMost(0), "at most 0 s", "1.20 s", False, ""),
        (AtMost(1.25, times=SHELL), "at most 1.25 times shell loop", "1.20 times (1.20 s; shell loop 1 s)", True, ""),
        (AtMost(0.8, times=SHELL), "at most 0.8 times shell loop", "1.20 times (1.20 s; shell loop 1 s)", False, "50%"),
        (AtMost(0.5, over=SHELL), "at most 0.5 s more than shell loop", "1.20 times (1.20 s; shell loop 1 s)", True, ""),
        (AtMost(2, of=MPIRUN), "at most 2 s", "2 s", True, ""),
        (AtLeast(1.5), "at least 1.5 s", "1.20 s", False, "20%"),
        (AtLeast(1.15, times=SHELL), "at least 1.15 times shell loop", "1.20 times (1.20 s; shell loop 1 s)", True, ""),
        (Ahead(), "ahead of every peer", "0.800 times (1.20 s; GNU parallel 1.50 s)", True, ""),
        (Ahead(of=SHELL), "ahead of every peer", "0.667 times (1 s; GNU parallel 1.50 s)", True, ""),
        (Linear("small", 8), "linear: at most 12 times small, at 8 times its size", "9.60 times (1.20 s; small 0.125 s)", True, ""),
        (Linear("small", 6, slack=1), "linear: at most 6 times small, at 6 times its size", "9.60 times (1.20 s; small 0.125 s)", False, "60%"),
    ],
)  # fmt: skip
def test_an_aim_is_met_or_says_by_how_much_it_is_missed(
    aim: Aim, words: str, figure: str, met: bool, missed_by: str
) -> None:
    of = case("thing", Metric("time", "s", aims=(aim,)))
    small = measured(case("small"), tflaunch=(0.125,))

    (judged,) = judgements(of, by_name(measured(of, **FIGURES), small))

    assert judged.aim == f"time: {words}"
    assert (judged.figure, judged.met, judged.missed_by) == (figure, met, missed_by)


def test_flat_is_held_against_another_metric_of_the_same_case() -> None:
    of = case("thing", Metric("late", "MB", aims=(Flat("early"),)), Metric("early", "MB"))
    late = measured(of, tflaunch=(12.0,))
    early = Measured("early", "MB", False, {"tflaunch": (10.0,)})

    (judged,) = judgements(of, by_name(replace(late, metrics=(*late.metrics, early))))

    assert judged.aim == "late: flat: at most 1.1 times early"
    assert (judged.figure, judged.met, judged.missed_by) == ("1.20 times (12 MB; early 10 MB)", False, "9%")


def test_ahead_is_more_where_more_is_better_and_no_tie() -> None:
    rate = case("rate", Metric("rate", "1/s", more=True, aims=(Ahead(),)))
    (judged,) = judgements(rate, by_name(measured(rate, tflaunch=(4.0,), mpirun=(5.0,), parallel=(3.0,))))
    assert (judged.met, judged.missed_by) == (False, "20%")
    assert "Open MPI" in judged.figure
    (judged,) = judgements(rate, by_name(measured(rate, tflaunch=(5.0,), mpirun=(5.0,))))
    assert judged.met is False


@pytest.mark.parametrize(
    ("aim", "samples", "figure"),
    [
        (AtMost(1), {"floor": (1.0,)}, "tflaunch has no figure"),
        (AtMost(1, times=SHELL), {"tflaunch": (1.0,)}, "1 s, with nothing to compare"),
        (Ahead(), {"tflaunch": (1.0,), "floor": (2.0,)}, "1 s, with nothing to compare"),
        (Linear("small", 8), {"tflaunch": (1.0,)}, "1 s, with nothing to compare"),
        (Flat("early"), {"tflaunch": (1.0,)}, "1 s, with nothing to compare"),
    ],
)
def test_without_a_figure_nothing_is_said_of_an_aim(aim: Aim, samples: dict[str, tuple[float]], figure: str) -> None:
    of = case("thing", Metric("time", "s", aims=(aim,)))
    (judged,) = judgements(of, by_name(measured(of, **samples)))
    assert (judged.figure, judged.met) == (figure, None)


def test_every_aim_can_be_judged() -> None:
    every = cases.every(large=True)
    names = {one.name for one in every}
    for of in every:
        for aim in [aim for metric in of.metrics for aim in metric.aims]:
            others = [getattr(aim, field, None) for field in ("times", "over", "of")]
            assert {one for one in others if one} <= set(of.launchers)
            assert not isinstance(aim, Linear) or aim.smaller in names
            assert not isinstance(aim, Flat) or aim.since in {metric.name for metric in of.metrics}


def test_the_summary_says_which_aims_are_met_and_what_was_not_measured() -> None:
    each = [case(name, Metric("time", "s", aims=(AtMost(1),))) for name in ("good", "bad", "unknown", "later")]
    figures = by_name(
        measured(each[0], tflaunch=(0.5,)), measured(each[1], tflaunch=(1.5,)), measured(each[2], floor=(1.0,))
    )

    text = report.summary(each, figures)

    assert "1 of 3 aims are met." in text
    assert "| [good](#good)       | time: at most 1 s | 0.500 s                | yes            |" in text
    assert "| [bad](#bad)         | time: at most 1 s | 1.50 s                 | **no**, by 50% |" in text
    assert "| [unknown](#unknown) | time: at most 1 s | tflaunch has no figure | unknown        |" in text
    assert "Not measured: `later`." in text


def test_the_tables_say_what_was_measured_on_what() -> None:
    of = case("thing", Metric("time", "s"), Metric("faults", ""))
    one = replace(
        measured(of, floor=(0.5, 1.5), tflaunch=(0.002, 0.004)),
        missing=("nowhere",),
        failures={"Open MPI": "ended with status 3: no luck"},
        versions={"shell loop": "dash"},
    )
    faults = Measured("faults", "", False, {"shell loop": (0, 2_000_000)})

    text = report.figures([of], by_name(replace(one, metrics=(*one.metrics, faults))), {})

    assert "- Machine: a processor, 2 cores, 24 GiB, Linux 6.1, Python 3.11.9.\n- Launchers: shell loop: dash." in text
    caption = "What thing takes. 2 rounds on 2026-11-25; load average before the start: 0.5."
    assert f"### thing\n\n{caption} Not installed, so left out: nowhere.\n" in text
    assert "|          |            |    median |  lowest |   highest | times shell loop |" in text
    assert "| time [s] | tflaunch   |   0.00300 | 0.00200 |   0.00400 |          0.00300 |" in text
    assert "|          | shell loop |         1 |   0.500 |      1.50 |                1 |" in text
    assert "| faults   | shell loop | 1,000,000 |       0 | 2,000,000 |                1 |" in text
    assert "- Open MPI has no figures here: it ended with status 3: no luck" in text


def test_cases_of_several_machines_say_of_which_they_are() -> None:
    each = [case("a"), case("b")]
    other = replace(measured(each[1], floor=(1.0,)), machine=replace(MACHINE, cores=64))

    text = report.figures(each, by_name(measured(each[0], floor=(1.0,)), other), {})

    assert "- Machine 1: a processor, 2 cores, " in text
    assert "- Machine 2: a processor, 64 cores, " in text
    assert "What a takes. 1 round on 2026-11-25 on machine 1; " in text
    assert "What b takes. 1 round on 2026-11-25 on machine 2; " in text


@pytest.mark.parametrize("order", [(), (0,), (1, 0), (0, 1, 0, 1), (0, 0, 1), (0, 1, 1)])
def test_a_page_without_its_two_markers_is_refused(order: tuple[int, ...]) -> None:
    text = "\n".join(report.markers("figures")[which] for which in order)
    with pytest.raises(ValueError, match="needs one line"):
        report.between_markers(text, "figures", "tables")


def test_what_is_around_the_markers_stays() -> None:
    of = case("thing", Metric("time", "s", aims=(AtMost(1),)))
    empty = f"before\n{report.empty_page()}after\n"
    once = report.page(empty, [of], [measured(of, tflaunch=(0.5,))])
    assert once.startswith("before\n# Benchmarks\n")
    assert once.endswith("after\n")
    assert report.page(once, [of], [measured(of, tflaunch=(0.5,))]) == once


def test_the_page_and_the_charts_are_those_of_the_results_that_are_kept() -> None:
    """If this fails, ``python -m tests.benchmarks.page`` makes them anew."""
    text = (page.DOCS / "benchmarks.md").read_text()
    assert page.rendered(page.DOCS) == text
    named = {picture.name for picture in pictures(cases.every(large=True), by_name(*page.kept(page.DOCS))).values()}
    assert {chart.stem for chart in (page.DOCS / "benchmarks").iterdir()} == named
    assert all(f"](benchmarks/{name}.svg)" in text for name in named)


def test_a_chart_has_the_figures_with_aims_or_the_first() -> None:
    with_aim = case("thing", Metric("time", "s"), Metric("memory", "MB", aims=(AtMost(1),)))
    memory = Measured("memory", "MB", False, {"shell loop": (2.0,), "tflaunch": (1.0,)})
    one = measured(with_aim, floor=(1.0,), tflaunch=(2.0,))
    one = replace(one, metrics=(*one.metrics, memory))

    (panel,) = pictures([with_aim], by_name(one))["thing"].panels
    assert panel.title == "memory [MB]"
    assert isinstance(panel, Bars)
    assert [(bar.row.launcher, bar.role) for bar in panel.bars] == [("tflaunch", "ours"), ("shell loop", "floor")]
    (panel,) = pictures([case("thing")], by_name(one))["thing"].panels
    assert panel.title == "time [s]"


def test_where_tflaunch_is_alone_its_figures_of_one_unit_are_the_bars() -> None:
    alone = case("thing", Metric("with", "s", aims=(AtMost(1),)), Metric("without", "s"), launchers=(TFLAUNCH,))
    others = (
        Measured("without", "s", False, {"tflaunch": (1.0,)}),
        Measured("size", "MB", False, {"tflaunch": (9.0,)}),
    )
    one = measured(alone, tflaunch=(2.0,))

    (panel,) = pictures([alone], by_name(replace(one, metrics=(*one.metrics, *others))))["thing"].panels

    assert isinstance(panel, Bars)
    assert [(bar.row.launcher, bar.role) for bar in panel.bars] == [("with", "ours"), ("without", "peer")]


def test_a_family_that_grows_has_one_picture_with_a_line_for_each_launcher() -> None:
    family = [case(f"thing-{size}") for size in (1, 8)]
    figures = by_name(
        measured(family[0], floor=(1.0,), tflaunch=(2.0,), mpirun=(3.0,)),
        measured(family[1], floor=(8.0,), tflaunch=(8.0,)),
    )

    drawn = pictures(family, figures)

    assert set(drawn) == {"thing-1"}
    bars, growth = drawn["thing-1"].panels
    assert (bars.title, growth.title) == ("time [s], N = 8", "time [s], by N")
    assert isinstance(growth, Growth)
    assert growth.times == "shell loop"
    assert [(line.label, line.role, [(one.size, one.median) for one in line.points]) for line in growth.lines] == [
        ("shell loop", "floor", [(1, 1), (8, 1)]),
        ("tflaunch", "ours", [(1, 2), (8, 1)]),
        ("Open MPI", "peer", [(1, 3)]),
    ]
    assert set(pictures([case("thing-2"), case("thing-4")], figures)) == set()


def test_without_a_floor_figures_are_not_multiples_and_without_its_figure_there_is_no_point() -> None:
    for launchers, points in (((MPIRUN, TFLAUNCH), [1, 8]), ((SHELL, MPIRUN, TFLAUNCH), [1])):
        family = [case(f"thing-{size}", launchers=launchers) for size in (1, 8)]
        figures = by_name(
            measured(family[0], floor=(1.0,), tflaunch=(2.0,), mpirun=(3.0,)),
            measured(family[1], tflaunch=(8.0,), mpirun=(9.0,)),
        )
        _, growth = pictures(family, figures)["thing-1"].panels
        assert isinstance(growth, Growth)
        (ours,) = (line for line in growth.lines if line.role == "ours")
        assert [one.size for one in ours.points] == points


def test_sizes_that_are_close_and_names_without_a_size_have_a_picture_each() -> None:
    for names in (("thing-2", "thing-4"), ("thing", "thing-large")):
        each = [case(name) for name in names]
        figures = by_name(*(measured(one, floor=(1.0,), tflaunch=(2.0,)) for one in each))
        assert set(pictures(each, figures)) == set(names)


def test_charts_are_drawn_the_same_each_time_and_those_of_before_go(tmp_path: Path) -> None:
    family = [case(f"thing-{size}") for size in (1, 8)]
    figures = by_name(
        measured(family[0], floor=(1.0, 1.5), tflaunch=(2.0, 2.5), mpirun=(3.0, 3.0)),
        measured(family[1], floor=(8.0, 9.0), tflaunch=(8.0, 9.0)),
    )
    (tmp_path / "old.svg").touch()

    charts.draw(pictures(family, figures).values(), tmp_path)
    first = (tmp_path / "thing.svg").read_bytes()
    charts.draw(pictures(family, figures).values(), tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thing.svg"]
    assert (tmp_path / "thing.svg").read_bytes() == first
    for words in ("tflaunch", "shell loop", "Open MPI", "8.50 s, 1x", "time [s], N = 8"):
        assert f">{words}<" in first.decode()


@pytest.mark.filterwarnings("error")
def test_figures_that_are_all_nothing_can_be_drawn(tmp_path: Path) -> None:
    each = [case("one"), *(case(f"thing-{size}", launchers=(MPIRUN, TFLAUNCH)) for size in (1, 8))]
    figures = by_name(*(measured(of, mpirun=(0.0, 1.0), tflaunch=(0.0,)) for of in each))
    charts.draw(pictures(each, figures).values(), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"one.svg", "thing.svg"}


def test_names_beside_each_other_are_moved_apart_and_stay_in_the_plot() -> None:
    assert charts._spread([0.2, 0.5]) == [0.2, 0.5]
    apart = charts._spread([0.95, 0.95, 0.96])
    assert apart[-1] == 1.0
    assert all(above - below >= charts._APART - 1e-9 for below, above in pairwise(apart))


def test_numbers_have_three_digits() -> None:
    numbers = [0, 1, 1_234_567, 1234.5, 46.51, 1.454, 0.1264, 0.00213]
    assert [number(one) for one in numbers] == ["0", "1", "1,234,567", "1,234", "46.5", "1.45", "0.126", "0.00213"]
    assert [quantity(one, "s") for one in (0, 0.00213, 0.1, 2)] == ["0 s", "2.13 ms", "0.100 s", "2 s"]
    assert quantity(1.5, "") == "1.50"
    assert [percent(one) for one in (0.004, 0.2, 21.6)] == ["0.40%", "20%", "2,160%"]
