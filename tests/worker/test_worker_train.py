from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.worker.conftest import Processes

pytestmark = pytest.mark.tensorflow
pytest.importorskip("tensorflow")

DIGITS = ("-m", "worker", "digits")


def test_two_workers_learn_what_one_learns(tmp_path: Path, processes: Processes, written: Callable[[str], str]) -> None:
    import numpy as np

    # 131 examples in batches of 33: neither the batch nor what the last one of each epoch is left with divides by 2.
    script = written("""
import os, sys
from dataclasses import replace
from functools import partial
import numpy as np
from worker.context import Context
from worker.data import Examples, Schedule
from worker.strategy import build, choose
from worker.tasks import named
from worker.train import Learner

context = Context.from_environment(os.environ)
task = named("digits")
learner = Learner(build(choose(context.size, 0)), task.model, task.defaults)
digits, _ = task.load()
examples = Examples(digits.features[:131], digits.labels[:131])
schedule = Schedule(131, 33, seed=4)
losses = [float(learner.learn(learner.distribute(partial(schedule.shard, examples, step)))) for step in range(40)]
np.savez(sys.argv[1], *learner.model.get_weights(), losses=losses)
""")
    ended = [*processes.cluster([(script, "first"), (script, "second")]), *processes.cluster([(script, "alone")])]
    assert [process.status for process in ended] == [0, 0, 0], [process.err for process in ended]
    first, second, alone = (np.load(tmp_path / f"{name}.npz") for name in ("first", "second", "alone"))
    assert len(alone.files) == 7
    assert alone["losses"][-1] < alone["losses"][0] / 2
    for name in alone.files:
        assert np.array_equal(first[name], second[name])
        # Sums in another order; Adam's division by the root of a tiny second moment enlarges the difference.
        np.testing.assert_allclose(first[name], alone[name], rtol=1e-4, atol=1e-5)


def test_a_cluster_trains_the_digits_and_then_goes_on(tmp_path: Path, processes: Processes) -> None:
    chief, other = processes.cluster([DIGITS, DIGITS])
    assert (chief.status, chief.err) == (0, "")
    assert other == (0, "worker 1 of 2\n", "")
    assert chief.out.splitlines()[:4] == [
        "worker 0 of 2, the chief",
        "data           1,442 images to learn from, 355 to be tested on",
        "strategy       MultiWorkerMirroredStrategy, for a cluster of 2 with no GPU each",
        "checkpoints    checkpoints/digits",
    ]
    losses = [
        float(loss)
        for loss in re.findall(r"^epoch +\d+/20   step +\d+/460   loss (\d\.\d{4})$", chief.out, re.MULTILINE)
    ]
    assert len(losses) == 10
    assert all(before > after for before, after in pairwise(losses))
    accuracy = re.search(r"^test accuracy  (\d+\.\d)% \((\d+) of 355\)\n\Z", chief.out, re.MULTILINE)
    assert accuracy
    assert float(accuracy[1]) >= 97
    assert int(accuracy[2]) / 355 == pytest.approx(float(accuracy[1]) / 100, abs=0.0006)

    # Worker 1 with an empty directory of its own: it has the chief's state, and never makes the directory.
    chief, other = processes.cluster(
        [(*DIGITS, "--epochs", "21"), (*DIGITS, "--epochs", "21", "--checkpoint-dir", "own")]
    )
    assert (chief.status, other) == (0, (0, "worker 1 of 2\n", ""))
    assert "checkpoints    checkpoints/digits, resumed from step 460\nepoch          21/21   step 483/483" in chief.out
    assert float(re.findall(r"loss (\S+)", chief.out)[0]) < losses[-1]
    assert not (tmp_path / "own").exists()

    # The user's own scripts may run Keras on something else.
    alone = processes.run(*DIGITS, environment={"KERAS_BACKEND": "jax"})
    assert (alone.status, alone.err) == (0, "")
    told = "already trained to step 483; more --epochs train on, --fresh starts over"
    assert f"checkpoints    checkpoints/digits, {told}\ntest accuracy" in alone.out


def test_progress_is_reported_four_times_a_second_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    from worker.train import Progress

    told: list[tuple[str, object]] = []
    monkeypatch.setattr("worker.train.report", lambda kind, **fields: told.append((kind, fields)))
    seconds = iter([0.0, *(number / 10 for number in range(10))])
    progress = Progress(10, clock=lambda: next(seconds))
    for step in range(1, 11):
        progress(step, 0.5)
    assert told == [("progress", {"step": step, "of": 10, "loss": 0.5}) for step in (1, 4, 7, 10)]
