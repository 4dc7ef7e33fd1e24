"""That the benchmarks run and report what they say. How long anything takes is not asserted."""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from tests.benchmarks import cases, results
from tests.benchmarks.case import Case, InTurn, Metric, run
from tests.benchmarks.launchers import (
    ACCELERATE,
    HONCHO,
    MPIRUN,
    PARALLEL,
    SHELL,
    TFLAUNCH,
    TORCHRUN,
    TORCHRUN_TEE,
    Job,
    Launcher,
)
from tests.benchmarks.trial import Failed, Trial, Watch
from tests.benchmarks.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).parents[1]
ABSENT = Launcher("nowhere", "no-such-launcher", lambda _job: [])


def benchmarks(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def case(measure: Any = None, *launchers: Launcher) -> Case:
    return Case("thing-2", "A thing", (Metric("time", "s"), Metric("faults", "")), 2, SHELL, launchers, measure)


def _cmdline(process: psutil.Process) -> list[str]:
    """Empty where it has ended, be it that nobody has asked for its status yet."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def python(code: str) -> Launcher:
    return Launcher("inline", sys.executable, lambda job: ["-c", code, *job.command])


def test_a_run_keeps_every_sample_and_makes_the_page_and_its_chart(tmp_path: Path) -> None:
    ended = benchmarks("--only", "noop-1", "--rounds", "1", "--into", str(tmp_path))

    assert ended.returncode == 0, ended.stderr
    (noop,) = results.load(tmp_path / "benchmarks.json")
    installed = {one.name for one in (SHELL, TFLAUNCH, MPIRUN, PARALLEL, HONCHO, TORCHRUN, ACCELERATE) if one.path}
    assert set(noop.versions) == installed
    assert (noop.name, noop.reference, noop.failures, noop.rounds) == ("noop-1", "shell loop", {}, 1)
    (metric,) = noop.metrics
    assert set(metric.samples) == installed
    assert all(sample > 0 for samples in metric.samples.values() for sample in samples)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "### noop-1\n" in ended.stdout
    assert "### noop-1\n" in page
    assert "](benchmarks/noop-1.svg)" in page
    assert [chart.name for chart in (tmp_path / "benchmarks").iterdir()] == ["noop-1.svg"]


def test_one_that_is_told_to_end_leaves_nothing_running(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "idle-8", "--into", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        benchmark = psutil.Process(process.pid)
        there: list[psutil.Process] = []
        while sum("idle.py" in " ".join(_cmdline(one)) for one in there) < 8:
            assert process.poll() is None
            there = benchmark.children(recursive=True)
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert not [one for one in there if _cmdline(one)]


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
        (["--into", "LICENSE"], "Directory 'LICENSE' is a file"),
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
    for one in cases.every(large=True):
        assert one.reference in one.launchers
        assert any(launcher.role == "ours" for launcher in one.launchers)
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
    assert figures.failures == {"shell loop": "ended with status 3: no luck"}


def test_in_turn_all_are_there_at_once_and_the_median_of_the_blocks_counts() -> None:
    there: set[str] = set()
    values = {"shell loop": iter([1.0, 9.0, 2.0]), "tflaunch": iter([3.0, 4.0, 5.0])}

    @contextmanager
    def start(trial: Trial) -> Iterator[Callable[[], Sequence[float]]]:
        there.add(trial.launcher.name)

        def block() -> Sequence[float]:
            assert there == set(values)
            return next(values[trial.launcher.name]), 0.0

        yield block
        there.remove(trial.launcher.name)

    figures = run(case(InTurn(start, 3), SHELL, ABSENT, TFLAUNCH), 1)

    assert figures.samples == {"shell loop": [[2.0, 0.0]], "tflaunch": [[4.0, 0.0]]}
    assert there == set()


def test_in_turn_one_that_fails_leaves_the_others_their_blocks() -> None:
    @contextmanager
    def start(trial: Trial) -> Iterator[Callable[[], Sequence[float]]]:
        if trial.launcher.name == MPIRUN.name:
            raise Failed("did not start")

        def block() -> Sequence[float]:
            if trial.launcher is SHELL:
                raise Failed("lost a worker")
            return 1.0, 0.0

        yield block

    figures = run(case(InTurn(start, 2), SHELL, replace(MPIRUN, program=sys.executable), TFLAUNCH), 2)

    assert figures.samples == {"tflaunch": [[1.0, 0.0]] * 2}
    assert figures.failures == {"Open MPI": "did not start", "shell loop": "lost a worker"}


def test_a_worker_that_dies_while_it_is_its_turn_fails_its_launcher(tmp_path: Path) -> None:
    code = "import socket, sys\nline = socket.socket(socket.AF_UNIX)\nline.connect(sys.argv[-1])\nline.recv(1)\nsys.exit('lost')"
    with Turns(tmp_path) as turns, Trial(python(code), tmp_path).start(1, "noop.py", str(turns.path)) as started:
        turns.gather(started, 1)
        with pytest.raises(Failed, match="lost"):
            turns.take(started)


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
