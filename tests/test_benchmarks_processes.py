"""The cases of processes, with few of them: that they run, with every launcher that is installed, and what they return."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.benchmarks import launchers, trial
from tests.benchmarks.case import run
from tests.benchmarks.cases import idle, kill, noop, output
from tests.benchmarks.cases.output import Load
from tests.benchmarks.launchers import SHELL, TFLAUNCH, Launcher
from tests.benchmarks.trial import Failed, Gate, Trial, Watch
from tests.benchmarks.usage import Meter, effort, memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.benchmarks.case import Case

PEERS = [
    launchers.MPIRUN,
    launchers.PARALLEL,
    launchers.HONCHO,
    launchers.TORCHRUN,
    launchers.ACCELERATE,
]
TAGGED = [SHELL, TFLAUNCH, launchers.MPIRUN, launchers.PARALLEL, launchers.TORCHRUN_TEE]
FILES = [
    launchers.SHELL_FILES,
    launchers.TFLAUNCH_FILES,
    launchers.MPIRUN_FILES,
    launchers.PARALLEL_FILES,
    launchers.TORCHRUN_FILES,
]


def name(launcher: Launcher) -> str:
    return launcher.name


def only(case: Case, launcher: Launcher) -> Sequence[float]:
    """What one launcher's round gives."""
    if launcher.path is None:
        pytest.skip(f"{launcher.program} is not installed")
    assert launcher in case.launchers
    figures = run(replace(case, launchers=(launcher,)), 1)
    assert figures.failures == {}
    (sample,) = figures.samples[launcher.name]
    assert len(sample) == len(case.metrics)
    return sample


@pytest.mark.parametrize("launcher", [SHELL, TFLAUNCH, *PEERS], ids=name)
def test_processes_that_do_nothing(launcher: Launcher) -> None:
    (seconds,) = only(noop.case(2, rounds=1), launcher)
    assert seconds > 0


@pytest.mark.parametrize("launcher", [TFLAUNCH, *PEERS], ids=name)
def test_one_that_is_killed_takes_the_others_with_it(launcher: Launcher) -> None:
    first, last, ended = only(kill.case(3, rounds=1), launcher)
    assert 0 < first <= last
    assert ended > 0


@pytest.mark.parametrize("launcher", [TFLAUNCH, launchers.MPIRUN, launchers.PARALLEL, launchers.TORCHRUN], ids=name)
def test_what_idle_ones_cost_is_the_launchers_alone(launcher: Launcher) -> None:
    case = idle.case(2, 0.2, (TFLAUNCH, launchers.MPIRUN, launchers.PARALLEL, launchers.TORCHRUN), rounds=1)
    percent, wakeups, held = only(case, launcher)
    assert percent >= 0
    assert wakeups >= 0
    assert held > 0


@pytest.mark.parametrize("load", [Load(2, 500, 100), Load(2, 20, 100, rate=200)], ids=["flood", "steady"])
@pytest.mark.parametrize("launcher", TAGGED, ids=name)
def test_every_line_arrives_in_the_pipe(launcher: Launcher, load: Load) -> None:
    case = output.case("output-few", "Some lines", load, (launcher,))
    seconds, missing, cpu, early, most = only(case, launcher)
    assert seconds > 0
    assert missing == 0
    assert cpu >= 0
    assert 0 < early <= most


@pytest.mark.parametrize("launcher", FILES, ids=name)
def test_every_line_arrives_in_the_files(launcher: Launcher) -> None:
    case = output.case("output-few", "Some lines", Load(2, 500, 100), (launcher,))
    _, missing, *_ = only(case, launcher)
    assert missing == 0


@pytest.mark.parametrize("program", ["prints.py", "lines.py"])
def test_lines_that_do_not_come_are_counted(program: str) -> None:
    launcher = Launcher(
        "one of two", "sh", lambda job: ["-c", f'"$@" >/dev/null & {" ".join(job.command)}', "sh", *job.command]
    )
    case = output.case("output-few", "Some lines", Load(2, 30, 100, program=program), (launcher,))
    _, missing, *_ = only(case, launcher)
    assert missing == 30


def test_programs_wait_at_the_gate(tmp_path: Path) -> None:
    # Both write into one pipe. Unbuffered, a line's end is a write of its own, and anything may come before it.
    whole = {"PYTHONUNBUFFERED": ""}
    with Gate(tmp_path) as gate:
        started, workers = Trial(SHELL, tmp_path).start_registered(
            2, "prints.py", str(gate.path), "1", "10", "0", capture=True, env=whole
        )
        with started:
            output = started.follow(0.05)
            assert next(output) == b""
            assert len(workers) == 2
            gate.open()
            assert b"".join(output) == b"xxxxxxxx~\n" * 2


def test_who_takes_too_long_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_DEADLINE", 0.5)
    sleeper = Launcher("sleeper", sys.executable, lambda _: ["-c", "import signal; signal.pause()"])
    with (
        Trial(sleeper, tmp_path).start(1, "noop.py") as started,
        pytest.raises(Failed, match=r"not ended after 0\.5 s"),
    ):
        list(started.follow(0.1))
    with pytest.raises(Failed, match="did not get its 1 workers to run"):
        Trial(sleeper, tmp_path).start_idle(1)


def test_a_meter_counts_what_is_used_while_it_looks() -> None:
    meter = Meter([os.getpid()])
    assert meter.cpu == 0
    while not meter.cpu:
        meter.look()
    assert len(meter.memory) > 1
    assert memory([os.getpid()]) > 1_000_000
    assert effort([os.getpid()]).cpu > 0


def test_a_meter_goes_on_when_one_of_the_processes_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.usage._INTERVAL", 0.0)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        meter = Meter([process.pid, os.getpid()])
        process.send_signal(signal.SIGKILL)
    while not meter.cpu:
        meter.look()
    assert len(meter.memory) > 1


def test_a_meter_takes_no_sample_when_all_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.benchmarks.usage._INTERVAL", 0.0)
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"]) as process:
        meter = Meter([process.pid])
        process.send_signal(signal.SIGKILL)
    seen = list(meter.memory)
    meter.look()
    assert meter.memory == seen


def test_what_others_had_a_share_in_is_no_more_memory_once_they_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.usage._INTERVAL", 0.0)
    size = 1 << 24
    (tmp_path / "shared").write_bytes(b"x" * size)
    holds = "import mmap, signal; file = open('shared', 'r+b'); held = mmap.mmap(file.fileno(), 0); sum(held[::4096])"
    argv = [sys.executable, "-c", f"{holds}; print(flush=True); signal.pause()"]
    with (
        subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE) as one,
        subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE) as other,
    ):
        for each in (one, other):
            assert each.stdout is not None
            each.stdout.readline()
        with Watch([other.pid]) as watch, Watch([other.pid]) as ending:
            meter, before = Meter([one.pid], watch), memory([one.pid])
            other.kill()
            ending.wait()
            meter.look()
            after = memory([one.pid])
        one.kill()
    assert after - before > size // 4
    assert meter.memory[1] - meter.memory[0] < size // 4
