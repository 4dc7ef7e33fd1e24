"""That the benchmarks run and report what they say. How long anything takes is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmarks import cases, report
from tests.benchmarks.case import Case, Figures, Metric, rows, run
from tests.benchmarks.cases.plan import ALONE
from tests.benchmarks.cases.slurm import TFLAUNCH_SLURM
from tests.benchmarks.cases.testing import PYTEST
from tests.benchmarks.launchers import (
    ACCELERATE,
    HONCHO,
    MPIRUN,
    PARALLEL,
    SHELL,
    TFLAUNCH,
    TFLAUNCH_FILES,
    TORCHRUN,
    TORCHRUN_TEE,
    Job,
    Launcher,
)
from tests.benchmarks.machine import Machine
from tests.benchmarks.remote import TFLAUNCH_SSH
from tests.benchmarks.trial import Failed, Trial, Watch

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
MACHINE = Machine("a processor", 2, 24.0, "Linux 6.1", "3.11.9", 0.5)
ABSENT = Launcher("nowhere", "no-such-launcher", lambda _job: [])


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def case(measure: Any = None, *launchers: Launcher) -> Case:
    return Case("thing-2", "A thing", (Metric("time", "s"), Metric("faults", "")), 2, SHELL, launchers, measure)


def python(code: str) -> Launcher:
    return Launcher("inline", sys.executable, lambda job: ["-c", code, *job.command])


def test_a_run_reports_every_sample_as_json_and_as_markdown(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    figures = tmp_path / "figures.json"

    ended = benchmarks("--only", "noop-1", "--rounds", "1", "--json", str(figures), "--markdown", str(page))

    assert ended.returncode == 0, ended.stderr
    whole = json.loads(figures.read_text())
    assert set(whole) == {"machine", "launchers", "missing", "cases"}
    assert set(whole["machine"]) == {"processor", "cores", "memory_gib", "system", "python", "load"}
    assert "tflaunch" in whole["launchers"]
    installed = {one.name for one in (SHELL, TFLAUNCH, MPIRUN, PARALLEL, HONCHO, TORCHRUN, ACCELERATE) if one.path}
    assert set(whole["launchers"]) == installed
    (noop,) = whole["cases"]
    assert (noop["name"], noop["reference"], noop["failures"]) == ("noop-1", "shell loop", {})
    (metric,) = noop["metrics"]
    assert metric["unit"] == "s"
    assert {row["launcher"] for row in metric["rows"]} == installed
    for row in metric["rows"]:
        (sample,) = row["samples"]
        assert 0 < sample == row["median"] == row["lowest"] == row["highest"]
    assert page.read_text() == f"before\n{report.BEGIN}\n\n{ended.stdout}\n{report.END}\nafter\n"
    assert "### `noop-1`" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--only", "nop"],
            (
                "there is no case 'nop'; there are: noop-1, noop-8, output, output-buffered, output-bulk, output-files, kill-4, "
                "idle-8, warm-2, warm-4, warm-8, hosts-2, hosts-4, agents-8, slurm-noop, slurm-join, plan-1250, recovery, tests, "
                "checkpoint-1, checkpoint-2, train-dense, train-dense-fit, train-cnn, train-cnn-fit, train-large, "
                "train-large-fit"
            ),
        ),
        (["--markdown", "README.md.missing"], "README.md.missing: "),
        (["--markdown", "LICENSE"], f"needs one line {report.BEGIN}"),
        (["--rounds", "0"], "--rounds"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_measured(arguments: list[str], message: str) -> None:
    ended = benchmarks(*arguments)

    assert ended.returncode == 2
    assert message in " ".join(ended.stderr.split())
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_only_takes_a_name_or_a_family() -> None:
    every = cases.every(large=True)
    assert [one.name for one in every if one.chosen_by(["kill"])] == ["kill-4", "kill-64", "kill-512"]
    assert [one.name for one in every if one.chosen_by(["noop-8", "kill-4"])] == ["noop-8", "kill-4"]


def test_what_takes_minutes_is_left_to_large() -> None:
    small, large = ({one.name: one for one in cases.every(large=large)} for large in (False, True))
    assert {
        "noop-64",
        "noop-1000",
        "kill-512",
        "idle-1000",
        "output-long",
        "output-steady",
    } <= large.keys() - small.keys()
    assert HONCHO not in small["output"].launchers
    assert HONCHO in large["output"].launchers


def test_every_case_can_be_compared_and_is_documented() -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text()
    report.replace_between_markers(page, "")
    for one in cases.every(large=True):
        assert one.reference in one.launchers
        assert {TFLAUNCH, TFLAUNCH_FILES, TFLAUNCH_SSH, TFLAUNCH_SLURM, PYTEST, ALONE} & set(one.launchers)
        assert f"**`{one.name.partition('-')[0]}`**" in page


def test_rounds_are_interleaved_and_each_trial_has_an_empty_folder_of_its_own() -> None:
    order: list[str] = []

    def measure(trial: Trial) -> Sequence[float]:
        assert not list(trial.folder.iterdir())
        (trial.folder / "left").touch()
        order.append(trial.launcher.name)
        return (1.0, 0.0)

    figures = run(case(measure, SHELL, ABSENT, TFLAUNCH))

    assert order == ["shell loop", "tflaunch"] * 2
    assert set(figures.samples) == {"shell loop", "tflaunch"}


def test_a_launcher_that_fails_once_is_left_out_and_named() -> None:
    rounds = iter([True, False])

    def measure(_trial: Trial) -> Sequence[float]:
        if next(rounds):
            return 1.0, 0.0
        raise Failed("ended with status 3: no luck")

    figures = run(case(measure, SHELL), 3)

    assert figures.samples == {}
    assert "- shell loop has no figures here: it ended with status 3: no luck" in report.markdown(MACHINE, [figures])


def test_rows_hold_median_spread_and_the_distance_from_the_reference() -> None:
    figures = Figures(
        case(None, SHELL, TFLAUNCH), {"shell loop": [(2.0, 0), (4.0, 0)], "tflaunch": [(9.0, 1), (3.0, 2)]}
    )

    reference, ours = rows(figures, 0)
    assert (reference.launcher, reference.difference, reference.ratio) == ("shell loop", 0, 1)
    assert (ours.median, ours.lowest, ours.highest, ours.difference, ours.ratio) == (6, 3, 9, 3, 2)
    assert ours.samples == (9.0, 3.0)
    faults = rows(figures, 1)
    assert [(row.difference, row.ratio) for row in faults] == [(0, None), (1.5, None)]


def test_without_a_figure_of_the_reference_nothing_is_compared() -> None:
    (row,) = rows(Figures(case(None, SHELL, TFLAUNCH), {"tflaunch": [(9.0, 1)]}), 0)
    assert (row.median, row.difference, row.ratio) == (9, None, None)


def test_the_tables_say_what_was_measured_on_what() -> None:
    figures = Figures(case(None, SHELL, ABSENT), {"shell loop": [(0.5, 0), (1.5, 2_000_000)]})

    text = report.markdown(MACHINE, [figures])

    assert (
        "- Machine: a processor, 2 cores, 24 GiB, Linux 6.1, Python 3.11.9; load average before the start: 0.5." in text
    )
    assert "- Not installed, so left out: nowhere." in text
    assert "| time [s]   | median | lowest | highest | rounds | over shell loop | ratio |" in text
    assert "| shell loop |      1 |  0.500 |    1.50 |      2 |               0 |     1 |" in text
    assert "| shell loop | 1,000,000 |      0 | 2,000,000 |" in text


@pytest.mark.parametrize("text", ["", report.BEGIN, f"{report.END}{report.BEGIN}", f"{report.BEGIN}{report.END}" * 2])
def test_a_page_without_its_two_markers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="needs one line"):
        report.replace_between_markers(text, "tables")


def test_every_launcher_runs_the_programs_command(tmp_path: Path) -> None:
    job = Job(3, "lines.py", ("7",), tmp_path)
    for launcher in (SHELL, MPIRUN, PARALLEL, TORCHRUN, TORCHRUN_TEE, ACCELERATE):
        assert " ".join(job.command) in " ".join(launcher.argv(job))
    assert TFLAUNCH.argv(job)[1:] == ["run", "-n", "3", *job.script_line]
    HONCHO.argv(job)
    assert len((tmp_path / "Procfile").read_text().splitlines()) == 3


def test_launchers_may_keep_their_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with Trial(python("import sys; sys.exit(sys.dont_write_bytecode)"), tmp_path).start(1, "noop.py") as started:
        started.finish()


def test_a_run_that_fails_says_how(tmp_path: Path) -> None:
    launcher = python("import sys; print('first', file=sys.stderr); sys.exit('out of luck')")
    with Trial(launcher, tmp_path).start(1, "noop.py") as started, pytest.raises(Failed, match="status 1: out of luck"):
        started.finish()


def test_workers_that_never_register_are_a_failure(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="did not get its 2 workers to run: it does not say why"):
        Trial(python("pass"), tmp_path).start_idle(2)


def test_a_run_ends_everything_below_it_and_nothing_else(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            started, workers = Trial(SHELL, tmp_path).start_idle(3)
            with Watch([started.pid, *workers]) as watch:
                started.end()
                assert set(watch.wait()) == {started.pid, *workers}
            assert stranger.poll() is None
        finally:
            stranger.kill()
