"""What checkpoints cost the training in which they are made: time of its steps, and bytes on the disk."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import Ahead, AtMost
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial

# All by the same launcher: what differs is who saves, and how (programs/train.py).
OFFICIAL = replace(TFLAUNCH, name="chief and scratch", role="peer")
PLAIN = replace(TFLAUNCH, name="a plain write", role="floor")
_WAYS = {TFLAUNCH.name: "ours", OFFICIAL.name: "official", PLAIN.name: "plain"}
# Makes a model of 10 million parameters.
_WIDTH = 2560
_TURNS = 3


def cases(*, large: bool) -> list[Case]:
    """1 and 2 workers."""
    del large
    return [case(1), case(2)]


def case(count: int, width: int = _WIDTH, turns: int = _TURNS) -> Case:
    """A checkpoint every 10 of 20 steps, and 20 steps without, as many times in turn."""
    workers = "1 worker" if count == 1 else f"{count} workers"
    return Case(
        name=f"checkpoint-{count}",
        title=f"Steps of a model of 10 million parameters on {workers}, with a checkpoint every 10 steps",
        metrics=(
            Metric("time with them, relative to that without", "", aims=(AtMost(1.05),)),
            Metric("a step without", "ms"),
            Metric("what one more takes that has a checkpoint before it", "ms"),
            # A chief alone writes what anybody would.
            Metric("written by all workers for one checkpoint", "MB", aims=(Ahead(),) if count > 1 else ()),
            Metric("checkpoints left out", ""),
        ),
        rounds=3,
        reference=OFFICIAL,
        launchers=(TFLAUNCH, OFFICIAL, PLAIN),
        measure=partial(_measure, count, width, turns),
    )


def _measure(count: int, width: int, turns: int, trial: Trial) -> tuple[float, ...]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    figures = trial.folder / "figures"
    way = _WAYS[trial.launcher.name]
    with trial.start(count, "train.py", way, str(width), str(turns), str(figures)) as run:
        run.finish()
    workers = [[*map(float, (trial.folder / f"figures-{rank}").read_text().split())] for rank in range(count)]
    without, with_them, pause, _, left_out = workers[0]
    written = sum(worker[3] for worker in workers)
    return with_them / without, without * 1e3, pause * 1e3, written / 1e6, left_out
