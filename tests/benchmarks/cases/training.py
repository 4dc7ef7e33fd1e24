"""How fast the trainer trains, beside the plainest script for the same model on the same number of workers."""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from tests.benchmarks.aims import AtLeast
from tests.benchmarks.case import Case, Metric
from tests.benchmarks.launchers import TFLAUNCH
from tests.benchmarks.trial import Failed

if TYPE_CHECKING:
    from tests.benchmarks.trial import Trial

MODELS = {"small": "of 34 thousand parameters (digits)", "large": "of 10 million parameters"}


def cases(*, large: bool) -> list[Case]:
    """Two workers; each way of training is a run of its own, one after the other in every round."""
    del large
    return [_case(model) for model in MODELS]


def _case(model: str) -> Case:
    return Case(
        name=f"train-{model}",
        title=f"Training a model {MODELS[model]} on 2 workers, batches of 64",
        metrics=(
            Metric("plain loop", "examples/s", more=True),
            Metric("trainer", "examples/s", more=True),
            Metric("trainer, relative to the plain loop", "", more=True, aims=(AtLeast(1),)),
            Metric("fit", "examples/s", more=True),
            Metric("fit with fit_data", "examples/s", more=True),
            Metric("fit with fit_data, relative to fit", "", more=True, aims=(AtLeast(1),)),
        ),
        rounds=5,
        reference=TFLAUNCH,
        launchers=(TFLAUNCH,),
        measure=partial(_measure, model),
    )


def _measure(model: str, trial: Trial) -> tuple[float, ...]:
    if not find_spec("tensorflow"):
        raise Failed("needs TensorFlow, which is not installed")
    loop, learner, fit, fit_data = (_rate(trial, kind, model) for kind in ("loop", "learner", "fit", "fit_data"))
    return loop, learner, learner / loop, fit, fit_data, fit_data / fit


def _rate(trial: Trial, kind: str, model: str) -> float:
    figure = trial.folder / kind
    with trial.start(2, "rate.py", kind, model, str(figure)) as run:
        run.finish()
    return float(figure.read_text())
