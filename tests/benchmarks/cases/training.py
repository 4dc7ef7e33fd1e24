"""How fast two workers train: one script, started by hand and by tflaunch, and what comes with tflaunch for the same model."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import AtLeast
from tests.benchmarks.by_hand import BY_HAND
from tests.benchmarks.case import Case, InTurn, Metric
from tests.benchmarks.launchers import TFLAUNCH
from tests.benchmarks.trial import Failed
from tests.benchmarks.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from tests.benchmarks.launchers import Job, Launcher
    from tests.benchmarks.trial import Trial

MODELS = {
    "dense": "two dense layers (5 thousand parameters)",
    "cnn": "a convolutional network (122 thousand parameters)",
    "large": "dense layers of 10 million parameters",
}
_WORKERS, _BLOCKS = 2, 10
_RATE = Metric("examples", "1/s", more=True, aims=(AtLeast(1.15, times=BY_HAND), AtLeast(1.0, times=BY_HAND)))
# Stock Keras 3 cannot fit across workers; TensorFlow's own way out is the Keras before it.
_LEGACY = {"TF_USE_LEGACY_KERAS": "1"}


def _with(name: str, kind: str) -> Launcher:
    """tflaunch, with another way to train than the script's own; as ``name``."""

    def arguments(job: Job) -> list[str]:
        return TFLAUNCH.arguments(replace(job, arguments=(kind, *job.arguments[1:])))

    return replace(TFLAUNCH, name=name, arguments=arguments)


TRAINER = _with("tflaunch's trainer", "learner")
KERAS_3 = _with("tflaunch, Keras 3", "fit")
FIT_DATA = _with("tflaunch, Keras 3 and fit_data", "fit_data")


def cases(*, large: bool) -> list[Case]:
    """Three models, each by a loop and by ``fit``."""
    del large
    return [case for model in MODELS for case in (_loop(model), _fit(model))]


def _loop(model: str) -> Case:
    return Case(
        name=f"train-{model}",
        title=f"Training {MODELS[model]} on {_WORKERS} workers by a GradientTape loop",
        metrics=(_RATE,),
        rounds=3,
        reference=BY_HAND,
        launchers=(BY_HAND, TFLAUNCH, TRAINER),
        measure=InTurn(partial(_start, "loop", model, {}), _BLOCKS),
    )


def _fit(model: str) -> Case:
    return Case(
        name=f"train-{model}-fit",
        title=f"Training {MODELS[model]} on {_WORKERS} workers by Keras's fit",
        metrics=(_RATE,),
        rounds=3,
        reference=BY_HAND,
        launchers=(BY_HAND, TFLAUNCH, KERAS_3, FIT_DATA),
        measure=InTurn(partial(_start, "fit", model, _LEGACY), _BLOCKS),
    )


@contextmanager
def _start(kind: str, model: str, legacy: Mapping[str, str], trial: Trial) -> Iterator[Callable[[], tuple[float]]]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    env = {} if trial.launcher in (KERAS_3, FIT_DATA) else legacy
    with Turns(trial.folder) as turns, trial.start(_WORKERS, "rate.py", kind, model, str(turns.path), env=env) as run:
        turns.gather(run, _WORKERS)
        yield lambda: (min(turns.take(run)),)
